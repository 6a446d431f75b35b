//! The frontier: the newest position such that it, and everything before it, is on the target.

use std::collections::BTreeMap;

/// Turns acknowledgements in any order into progress without holes.
#[derive(Debug)]
pub struct Frontier<P> {
    /// The oldest number not yet applied.
    next: u64,
    /// Applied, but waiting for an older one.
    early: BTreeMap<u64, P>,
}

impl<P> Default for Frontier<P> {
    fn default() -> Self {
        Self { next: 0, early: BTreeMap::new() }
    }
}

impl<P> Frontier<P> {
    /// Takes note that the target holds `seq`. Any order; each number once, counted from 0 without gaps.
    /// `passed` hears of every position that the frontier moves over, in order.
    pub fn applied(&mut self, seq: u64, position: P, mut passed: impl FnMut(P)) {
        self.early.insert(seq, position);
        while let Some(position) = self.early.remove(&self.next) {
            self.next += 1;
            passed(position);
        }
    }

    /// How many are applied but wait for an older one.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.early.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In whatever order the lanes answer, the frontier never passes a hole, and passes everything.
        #[test]
        fn never_passes_a_hole(order in Just((0..200_u64).collect::<Vec<_>>()).prop_shuffle()) {
            let (mut frontier, mut applied, mut passed) = (Frontier::default(), [false; 200], Vec::new());
            for seq in order {
                applied[usize::try_from(seq).unwrap()] = true;
                frontier.applied(seq, seq, |p| passed.push(p));
                prop_assert!(applied[..passed.len()].iter().all(|a| *a));
            }
            prop_assert_eq!(passed, (0..200).collect::<Vec<_>>());
            prop_assert_eq!(frontier.waiting(), 0);
        }
    }
}
