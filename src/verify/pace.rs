//! How fast both sides are read: a rate that the operator sets, and a share of the time that leaves the rest to copy and tail.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The longest rest between two batches.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Shared by everything that reads. Cheap to clone; all clones are one. The default knows no limits.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Limits>);

#[derive(Debug, Default)]
struct Limits {
    /// Bytes of the source's documents in a second; 0: no limit.
    rate: AtomicU64,
    /// Per cent of the time that are not for us.
    idle: AtomicU32,
    /// When the bytes so far are paid for.
    paid: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most so many bytes of the source's documents in a second; 0: no limit.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        let pace = Self::default();
        pace.0.rate.store(bytes_per_second, Ordering::Relaxed);
        pace
    }

    /// How much of the time is for reading, in per cent from 1 to 100; the rest is for others.
    pub fn take_share(&self, percent: u32) {
        self.0.idle.store(100 - percent.clamp(1, 100), Ordering::Relaxed);
    }

    /// Rests after a batch of so many bytes that `took` so long.
    pub(super) async fn rest(&self, bytes: u64, took: Duration, stop: &CancellationToken) {
        let rest = self.owed(bytes, took, Instant::now());
        if !rest.is_zero() {
            let _ = stop.run_until_cancelled(tokio::time::sleep(rest)).await;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate, about")]
    fn owed(&self, bytes: u64, took: Duration, now: Instant) -> Duration {
        let idle = self.0.idle.load(Ordering::Relaxed);
        let for_others = took * idle / (100 - idle);
        let rate = self.0.rate.load(Ordering::Relaxed);
        if rate == 0 || bytes == 0 {
            return for_others.min(LONGEST_REST);
        }
        let mut paid = self.0.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let due = paid.unwrap_or(now).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *paid = Some(due);
        for_others.max(due - now).min(LONGEST_REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_shared_by_all() {
        let (pace, now) = (Pace::new(1_000), Instant::now());
        assert_eq!(pace.owed(500, SECOND, now), SECOND / 2);
        assert_eq!(pace.clone().owed(500, SECOND, now), SECOND, "of another reader at the same time");
        assert_eq!(pace.owed(500, SECOND, now + SECOND * 9), SECOND / 2, "time that passed is not saved up");
        assert_eq!(Pace::default().owed(1 << 40, SECOND, now), Duration::ZERO);
    }

    #[test]
    fn a_share_leaves_the_rest_to_others() {
        let (pace, now) = (Pace::default(), Instant::now());
        pace.take_share(25);
        assert_eq!(pace.owed(1, SECOND, now), SECOND * 3);
        pace.take_share(100);
        assert_eq!(pace.owed(1, SECOND, now), Duration::ZERO);
    }
}
