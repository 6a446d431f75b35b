//! From reasons to shares: back off fast, come back slowly, never stop. Pure: time is counted in samples.

use crate::model::SlowReason;

/// What copy and tail may do, from 0 to 1 of their own speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Of the copy.
    pub copy: f64,
    /// Of the tail.
    pub tail: f64,
}

impl Shares {
    /// Unhindered.
    pub const FULL: Shares = Shares { copy: 1.0, tail: 1.0 };
}

/// The least that is left of each: neither ever stops, or it would never end.
const LEAST_COPY: f64 = 1.0 / 16.0;
const LEAST_TAIL: f64 = 0.25;
/// Samples in a row that make a reason: one alone may be an accident.
const SURE: u32 = 3;
/// Samples between two steps down: each must show its effect first.
const SETTLE: u32 = 5;
/// Samples without a reason before each step up.
const CALM: u32 = 10;
/// Samples for which the copy alone has to bear it.
const COPY_FIRST: u32 = 30;

/// Keeps the shares. One [`Governor::sample`] a second is meant.
#[derive(Debug, Clone)]
pub struct Governor {
    shares: Shares,
    reason: Option<(SlowReason, String)>,
    /// Samples with a reason, without one, since the last step, and with a copy that has no more to give.
    strained: u32,
    calm: u32,
    since_step: u32,
    exhausted: u32,
}

impl Default for Governor {
    fn default() -> Self {
        Self { shares: Shares::FULL, reason: None, strained: 0, calm: 0, since_step: SETTLE, exhausted: 0 }
    }
}

impl Governor {
    /// What is allowed now.
    #[must_use]
    pub fn shares(&self) -> Shares {
        self.shares
    }

    /// Why it is less than all; the last reason stands until all is allowed again.
    #[must_use]
    pub fn reason(&self) -> Option<&(SlowReason, String)> {
        self.reason.as_ref()
    }

    /// Takes note of what was decided. `copying` tells whether there is a copy that can yield; `tail_may_wait` whether
    /// the oplog leaves the tail time to do so.
    pub fn sample(&mut self, found: Option<(SlowReason, String)>, copying: bool, tail_may_wait: bool) {
        self.since_step = self.since_step.saturating_add(1);
        match found {
            Some(found) => {
                (self.calm, self.strained) = (0, self.strained.saturating_add(1));
                if self.strained >= SURE {
                    self.reason = Some(found);
                    self.down(copying);
                }
            }
            None => {
                (self.strained, self.calm) = (0, self.calm.saturating_add(1));
                self.exhausted = 0;
                if self.calm >= CALM {
                    self.up();
                }
            }
        }
        if !tail_may_wait {
            self.shares.tail = 1.0;
        }
        if self.shares == Shares::FULL && self.strained == 0 {
            self.reason = None;
        }
    }

    fn down(&mut self, copying: bool) {
        let bare = !copying || self.shares.copy <= LEAST_COPY;
        self.exhausted = if bare { self.exhausted.saturating_add(1) } else { 0 };
        if self.since_step < SETTLE {
            return;
        }
        if self.exhausted > COPY_FIRST {
            self.shares.tail = (self.shares.tail / 2.0).max(LEAST_TAIL);
        }
        self.shares.copy = (self.shares.copy / 2.0).max(LEAST_COPY);
        self.since_step = 0;
    }

    /// The tail first: it is what the cutover waits for.
    fn up(&mut self) {
        if self.shares.tail < 1.0 {
            self.shares.tail = (self.shares.tail * 2.0).min(1.0);
        } else {
            self.shares.copy = (self.shares.copy * 2.0).min(1.0);
        }
        self.calm = CALM / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strain() -> Option<(SlowReason, String)> {
        Some((SlowReason::TargetLag, "behind".into()))
    }

    fn after(governor: &mut Governor, samples: u32, found: Option<(SlowReason, String)>) -> Shares {
        (0..samples).for_each(|_| governor.sample(found.clone(), true, true));
        governor.shares()
    }

    #[test]
    fn a_single_sample_is_an_accident() {
        let mut governor = Governor::default();
        for _ in 0..20 {
            after(&mut governor, 2, strain());
            after(&mut governor, 1, None);
        }
        assert_eq!((governor.shares(), governor.reason()), (Shares::FULL, None));
    }

    #[test]
    fn the_copy_yields_first_and_neither_ever_stops() {
        let mut governor = Governor::default();
        assert_eq!(after(&mut governor, 3, strain()), Shares { copy: 0.5, tail: 1.0 });
        assert_eq!(after(&mut governor, 4, strain()), Shares { copy: 0.5, tail: 1.0 }, "the step shows its effect first");
        assert_eq!(after(&mut governor, 20, strain()), Shares { copy: LEAST_COPY, tail: 1.0 });
        let shares = after(&mut governor, 1_000, strain());
        assert_eq!(shares, Shares { copy: LEAST_COPY, tail: LEAST_TAIL });
    }

    #[test]
    fn it_comes_back_slowly_the_tail_first_and_then_forgets_why() {
        let mut governor = Governor::default();
        after(&mut governor, 1_000, strain());
        assert_eq!(after(&mut governor, 9, None).tail, LEAST_TAIL);
        assert_eq!(after(&mut governor, 1, None), Shares { copy: LEAST_COPY, tail: 0.5 });
        assert_eq!(after(&mut governor, 5, None), Shares { copy: LEAST_COPY, tail: 1.0 });
        assert_eq!(after(&mut governor, 5, None), Shares { copy: 2.0 * LEAST_COPY, tail: 1.0 });
        assert_eq!(governor.reason().map(|(reason, _)| *reason), Some(SlowReason::TargetLag), "it stands until all is allowed");
        assert_eq!(after(&mut governor, 20, None), Shares::FULL);
        assert_eq!(governor.reason(), None);
    }

    #[test]
    fn a_short_oplog_spares_the_tail() {
        let mut governor = Governor::default();
        (0..1_000).for_each(|_| governor.sample(strain(), true, false));
        assert_eq!(governor.shares(), Shares { copy: LEAST_COPY, tail: 1.0 });
    }

    #[test]
    fn without_a_copy_the_tail_bears_it_after_a_while() {
        let mut governor = Governor::default();
        (0..COPY_FIRST).for_each(|_| governor.sample(strain(), false, true));
        assert!((governor.shares().tail - 1.0).abs() < f64::EPSILON);
        (0..100).for_each(|_| governor.sample(strain(), false, true));
        assert!((governor.shares().tail - LEAST_TAIL).abs() < f64::EPSILON);
    }
}
