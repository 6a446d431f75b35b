//! When the next batch may be taken.

use crate::model::Rate;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// No cursor is kept open for a longer wait: an open cursor of the copy holds the resume point back.
const PATIENCE: Duration = Duration::from_secs(5);
/// The rest after one batch at most, however long it took.
const LONGEST_REST: Duration = Duration::from_secs(4);
/// What may be taken at once after a quiet time, in seconds of the rate.
const BURST: f64 = 0.25;
/// How long a limit counts as in force after somebody last waited for it.
const FELT: Duration = Duration::from_secs(3);

/// What to do about the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Take it.
    Go,
    /// Let go of everything that others wait for, then [`Pace::wait`].
    Yield,
    /// We were told to stop.
    Stopped,
}

/// A pace. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether there is anything to wait for at all.
    limited: AtomicBool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    rate: Rate,
    share: f64,
    still: bool,
    bytes: Debt,
    operations: Debt,
    waiting: u32,
    waited_at: Option<Instant>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rate: Rate::default(),
            share: 1.0,
            still: false,
            bytes: Debt::default(),
            operations: Debt::default(),
            waiting: 0,
            waited_at: None,
        }
    }
}

/// What was taken and not yet allowed.
#[derive(Debug, Default)]
struct Debt {
    owed: f64,
    at: Option<Instant>,
}

#[expect(clippy::cast_precision_loss, reason = "amounts of a second or so")]
impl Debt {
    fn pay(&mut self, rate: Option<u64>, now: Instant) {
        let passed = self.at.map_or(0.0, |at| (now - at).as_secs_f64());
        self.at = Some(now);
        self.owed = rate.map_or(0.0, |rate| (self.owed - passed * rate as f64).max(-BURST * rate as f64));
    }

    fn wait(&self, rate: Option<u64>) -> Duration {
        rate.filter(|_| self.owed > 0.0).map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.owed / rate as f64))
    }
}

/// What a look at the state tells.
enum Look {
    Go,
    Still,
    Until { at: Instant, by_rate: bool },
}

impl State {
    /// For one who asks since `since`, and had `worked` before that.
    fn look(&mut self, now: Instant, since: Instant, worked: Duration) -> Look {
        let debt = self.debt(now);
        let rest = worked.mul_f64(1.0 / self.share - 1.0).min(LONGEST_REST);
        match (since + rest).max(now + debt) {
            _ if self.still => Look::Still,
            at if at <= now => Look::Go,
            at => Look::Until { at, by_rate: !debt.is_zero() },
        }
    }

    fn owe(&mut self, now: Instant, bytes: usize, operations: usize) {
        self.debt(now);
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        {
            self.bytes.owed += bytes as f64;
            self.operations.owed += operations as f64;
        }
    }

    fn debt(&mut self, now: Instant) -> Duration {
        self.bytes.pay(self.rate.bytes, now);
        self.operations.pay(self.rate.operations, now);
        self.bytes.wait(self.rate.bytes).max(self.operations.wait(self.rate.operations))
    }
}

/// One who waits for a rate.
struct Waiting<'a>(&'a Pace);

impl<'a> Waiting<'a> {
    fn on(pace: &'a Pace) -> Self {
        pace.state().waiting += 1;
        Self(pace)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        state.waited_at = Some(Instant::now());
    }
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        {
            let mut state = self.state();
            change(&mut state);
            self.0.limited.store(state.rate.is_limited() || state.share < 1.0 || state.still, Ordering::Relaxed);
        }
        self.0.changed.notify_waiters();
    }

    /// Limits it from now on.
    pub fn set_rate(&self, rate: Rate) {
        self.change(|state| {
            state.debt(Instant::now());
            state.rate = rate;
        });
    }

    /// Allows a share of the speed it has by itself: after each batch there is a rest, so much longer than the batch.
    pub fn set_share(&self, share: f64) {
        self.change(|state| state.share = share.clamp(0.01, 1.0));
    }

    /// Stands still, or goes on.
    pub fn stand_still(&self, still: bool) {
        self.change(|state| state.still = still);
    }

    /// Whether somebody waits, or has just waited, for the rate.
    #[must_use]
    pub fn is_at_its_rate(&self) -> bool {
        let state = self.state();
        state.rate.is_limited() && (state.waiting > 0 || state.waited_at.is_some_and(|at| at.elapsed() < FELT))
    }

    /// How large a batch should be, in bytes and in documents: under a low rate, smaller ones come more evenly.
    #[must_use]
    pub fn batch(&self, bytes: u64, documents: u64) -> (u64, u64) {
        let rate = self.state().rate;
        let at_most = |usual: u64, rate: Option<u64>, least: u64| usual.min(rate.map_or(usual, |rate| (rate / 4).max(least)));
        (at_most(bytes, rate.bytes, 64 << 10), at_most(documents, rate.operations, 1))
    }

    /// A batch of so many bytes and operations was taken; they are counted only where there is a limit.
    pub fn took(&self, batch: impl FnOnce() -> (usize, usize)) {
        if self.0.limited.load(Ordering::Relaxed) {
            let (bytes, operations) = batch();
            self.state().owe(Instant::now(), bytes, operations);
        }
    }

    /// Waits for the next turn of one who has `worked` since the last one; does not wait long.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn turn(&self, worked: Duration, stop: &CancellationToken) -> Turn {
        self.next(worked, Some(PATIENCE), stop).await
    }

    /// As [`Pace::turn`], for one who has nothing to let go of; `false` when `stop` fires.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn pass(&self, worked: Duration, stop: &CancellationToken) -> bool {
        self.next(worked, None, stop).await == Turn::Go
    }

    /// Waits for as long as it takes; `false` when `stop` fires.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn wait(&self, stop: &CancellationToken) -> bool {
        self.next(Duration::ZERO, None, stop).await == Turn::Go
    }

    async fn next(&self, worked: Duration, patience: Option<Duration>, stop: &CancellationToken) -> Turn {
        if !self.0.limited.load(Ordering::Relaxed) {
            return if stop.is_cancelled() { Turn::Stopped } else { Turn::Go };
        }
        let since = Instant::now();
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that no change is missed.
            changed.as_mut().enable();
            let now = Instant::now();
            let look = self.state().look(now, since, worked);
            let until = match look {
                Look::Go => return Turn::Go,
                Look::Still => None,
                Look::Until { at, .. } => Some(at),
            };
            let _felt = matches!(look, Look::Until { by_rate: true, .. }).then(|| Waiting::on(self));
            if patience.is_some_and(|patience| until.is_none_or(|at| at - now > patience)) {
                return Turn::Yield;
            }
            let slept = async {
                match until {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Turn::Stopped,
                () = changed => {}
                () = slept => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    /// What workers take within a time, by a clock of the test's own.
    fn taken(state: &mut State, batch: usize, workers: usize, time: Duration) -> usize {
        let start = Instant::now();
        let (mut next, mut batches) = (vec![start; workers], 0);
        loop {
            let worker = (0..workers).min_by_key(|n| next[*n]).unwrap();
            let now = next[worker];
            if now > start + time {
                return batches * batch;
            }
            match state.look(now, now, Duration::ZERO) {
                Look::Go => {
                    state.owe(now, batch, 1);
                    batches += 1;
                    // Nobody is infinitely fast.
                    next[worker] += Duration::from_micros(100);
                }
                Look::Until { at, by_rate } => {
                    assert!(by_rate && at > now);
                    next[worker] = at;
                }
                Look::Still => panic!("it does not stand still"),
            }
        }
    }

    #[test]
    fn a_rate_is_kept_whatever_the_batches_and_workers_are() {
        for (batch, workers) in [(10_000, 1), (1_000_000, 4), (40_000_000, 1)] {
            let mut state = State { rate: rate("10MB/s"), ..State::default() };
            let bytes = taken(&mut state, batch, workers, 100 * SECOND);
            let allowed = 100 * 10_000_000 + 2 * workers * batch + 2_500_000;
            assert!((900_000_000..=allowed).contains(&bytes), "{batch} {workers}: {bytes}");
        }
        let mut state = State { rate: rate("1000MB/s,10ops/s"), ..State::default() };
        let batches = taken(&mut state, 1, 2, 60 * SECOND);
        assert!((590..=610).contains(&batches), "{batches}");
    }

    #[test]
    fn a_share_is_a_rest_in_proportion_and_bounded() {
        let now = Instant::now();
        for (share, worked, rest) in [(0.5, 1, 1.0), (0.25, 1, 3.0), (0.1, 60, 4.0)] {
            let mut state = State { share, ..State::default() };
            let Look::Until { at, by_rate: false } = state.look(now, now, worked * SECOND) else { panic!("{share} is no rest") };
            assert!(((at - now).as_secs_f64() - rest).abs() < 0.01, "{share}");
            assert!(matches!(state.look(at, now, worked * SECOND), Look::Go));
        }
        assert!(matches!(State::default().look(now, now, 9 * SECOND), Look::Go));
    }

    #[tokio::test]
    async fn raising_the_rate_wakes_who_waits() {
        let (pace, stop) = (Pace::default(), CancellationToken::new());
        pace.set_rate(rate("10kB/s"));
        pace.took(|| (36_000_000, 1));
        let raise = async {
            while !pace.is_at_its_rate() {
                tokio::task::yield_now().await;
            }
            pace.set_rate(Rate::default());
        };
        let (passed, ()) = tokio::join!(pace.pass(Duration::ZERO, &stop), raise);
        assert!(passed && !pace.is_at_its_rate());
    }

    #[tokio::test]
    async fn nobody_keeps_a_cursor_open_for_a_long_wait() {
        let (pace, stop) = (Pace::default(), CancellationToken::new());
        pace.set_rate(rate("10kB/s"));
        pace.took(|| (36_000_000, 1));
        assert_eq!(pace.turn(Duration::ZERO, &stop).await, Turn::Yield);
        pace.stand_still(true);
        pace.set_rate(Rate::default());
        assert_eq!(pace.turn(Duration::ZERO, &stop).await, Turn::Yield);
        let go_on = async {
            tokio::task::yield_now().await;
            pace.stand_still(false);
        };
        assert!(tokio::join!(pace.wait(&stop), go_on).0);
        assert_eq!(pace.turn(Duration::ZERO, &stop).await, Turn::Go);
    }

    #[test]
    fn low_rates_have_small_batches() {
        let pace = Pace::default();
        assert_eq!(pace.batch(4 << 20, 5_000), (4 << 20, 5_000));
        pace.set_rate(rate("1MB/s,100ops/s"));
        assert_eq!(pace.batch(4 << 20, 5_000), (250_000, 25));
        pace.set_rate(rate("10kB/s,1ops/s"));
        assert_eq!(pace.batch(4 << 20, 5_000), (64 << 10, 1));
    }

    #[tokio::test]
    async fn a_stop_ends_any_wait() {
        let (pace, stop) = (Pace::default(), CancellationToken::new());
        pace.stand_still(true);
        let stopping = async { stop.cancel() };
        assert!(!tokio::join!(pace.wait(&stop), stopping).0);
        assert!(!pace.pass(SECOND, &stop).await);
    }
}
