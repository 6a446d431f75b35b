//! A token bucket: so many operations a second, and no rush to make up for a long wait.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Time that may be made up for after a stall.
const BURST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Pace {
    /// When the next operation is due.
    due: Instant,
    each: Duration,
}

impl Pace {
    /// No limit at a rate of zero.
    pub fn new(per_second: f64) -> Pace {
        let each = if per_second > 0.0 { Duration::from_secs_f64(1.0 / per_second) } else { Duration::ZERO };
        Pace { due: Instant::now(), each }
    }

    /// Waits until this many operations may be done; false when it is time to stop.
    pub async fn take(&mut self, operations: u32, stopping: &CancellationToken) -> bool {
        let earliest = Instant::now() - BURST;
        self.due = self.due.max(earliest);
        tokio::select! {
            biased; // a stop wins over a wait that is over
            () = stopping.cancelled() => false,
            () = sleep_until(self.due) => {
                self.due += self.each * operations;
                true
            }
        }
    }
}
