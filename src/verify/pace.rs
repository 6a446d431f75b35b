//! How fast both sides are read: a rate that the operator sets, and a share of the time that leaves the rest to copy and tail.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
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
    idle: watch::Sender<u32>,
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

    /// How much of the time is for reading, in per cent from 1 to 100; the rest is for others. Holds for whoever rests already.
    pub fn take_share(&self, percent: u32) {
        let idle = 100 - percent.clamp(1, 100);
        self.0.idle.send_if_modified(|now| std::mem::replace(now, idle) != idle);
    }

    /// Rests after a batch of so many bytes that `took` so long.
    pub(super) async fn rest(&self, bytes: u64, took: Duration, stop: &CancellationToken) {
        let began = Instant::now();
        let paid = self.paid(bytes, began);
        let mut idle = self.0.idle.subscribe();
        loop {
            let rest = for_others(took, *idle.borrow_and_update());
            tokio::select! {
                () = sleep_until(paid.max(began + rest).min(began + LONGEST_REST)) => return,
                () = stop.cancelled() => return,
                Ok(()) = idle.changed() => {}
            }
        }
    }

    /// When bytes that were read by now are paid for.
    #[expect(clippy::cast_precision_loss, reason = "a rate, about")]
    fn paid(&self, bytes: u64, now: Instant) -> Instant {
        let rate = self.0.rate.load(Ordering::Relaxed);
        if rate == 0 || bytes == 0 {
            return now;
        }
        let mut paid = self.0.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let due = paid.unwrap_or(now).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *paid = Some(due);
        due
    }
}

fn for_others(took: Duration, idle: u32) -> Duration {
    took * idle / (100 - idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_shared_by_all() {
        let (pace, now) = (Pace::new(1_000), Instant::now());
        assert_eq!(pace.paid(500, now), now + SECOND / 2);
        assert_eq!(pace.clone().paid(500, now), now + SECOND, "of another reader at the same time");
        assert_eq!(pace.paid(500, now + SECOND * 9), now + SECOND * 19 / 2, "time that passed is not saved up");
        assert_eq!(Pace::default().paid(1 << 40, now), now);
    }

    #[tokio::test]
    async fn a_share_leaves_the_rest_to_others_also_where_it_changes_meanwhile() {
        assert_eq!((for_others(SECOND, 75), for_others(SECOND, 0)), (SECOND * 3, Duration::ZERO));
        let (pace, stop) = (Pace::default(), CancellationToken::new());
        pace.take_share(1);
        let changes = async {
            tokio::task::yield_now().await;
            pace.take_share(100);
        };
        tokio::select! {
            _ = async { tokio::join!(pace.rest(1, SECOND, &stop), changes) } => {}
            () = tokio::time::sleep(LONGEST_REST / 2) => panic!("rests for the share that it had"),
        }
    }
}
