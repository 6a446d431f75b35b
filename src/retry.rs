//! Back-off with jitter and a deadline: the only sleep-and-try-again in the program.
//!
//! `backoff` is no longer maintained; it is named here and nowhere else, so that replacing it is a change
//! of this file (`deny.toml` carries the exception).

use crate::error::{Error, Remedy, Result};
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};
use std::{fmt, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long and how often, and whom to tell.
#[derive(Clone)]
pub struct Retry {
    deadline: Duration,
    stop: CancellationToken,
    told: Arc<dyn Fn(&Error) + Send + Sync>,
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Retry {
    /// Gives up after `deadline`, or at once when `stop` fires; `told` hears of every repetition.
    #[must_use]
    pub fn new(deadline: Duration, stop: CancellationToken, told: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        Self { deadline, stop, told: Arc::new(told) }
    }

    /// For how long a call is repeated.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The same with another deadline.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same, stopped by another token.
    #[must_use]
    pub fn until(&self, stop: CancellationToken) -> Self {
        Self { stop, ..self.clone() }
    }

    /// Calls `attempt` until it succeeds, fails for a reason that repeating cannot mend, or time is up.
    /// What it does must be safe to repeat. A call under way is never dropped: `stop` is looked at between.
    ///
    /// # Errors
    /// The last one; [`Error::Interrupted`] where `stop` fired while waiting.
    pub async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut patience = self.patience();
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// For work that makes progress between failures: see [`Patience`].
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience { retry: self.clone(), delays: self.delays() }
    }

    fn delays(&self) -> ExponentialBackoff {
        ExponentialBackoffBuilder::new()
            .with_initial_interval(Duration::from_millis(50))
            .with_multiplier(2.0)
            .with_max_interval(Duration::from_secs(5))
            .with_randomization_factor(0.5)
            .with_max_elapsed_time(Some(self.deadline))
            .build()
    }
}

/// What is left of the deadline, and how long the next wait is.
#[derive(Debug)]
pub struct Patience {
    retry: Retry,
    delays: ExponentialBackoff,
}

impl Patience {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error given, where repeating cannot mend it or time is up; [`Error::Interrupted`] where `stop` fired.
    pub async fn after(&mut self, error: Error) -> Result<()> {
        if error.remedy() != Remedy::Retry {
            return Err(error);
        }
        let Some(delay) = self.delays.next_backoff() else { return Err(error) };
        (self.retry.told)(&error);
        tracing::debug!(error = error.story(), delay_ms = delay.as_millis(), "repeating");
        self.retry.stop.run_until_cancelled(tokio::time::sleep(delay)).await.ok_or(Error::Interrupted)
    }

    /// Something succeeded: the deadline begins anew.
    pub fn restore(&mut self) {
        self.delays.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Side;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn transient() -> Error {
        Error::Unreachable { side: Side::Source, doing: "testing".into(), why: crate::error::Trouble::Network, source: "cut".into() }
    }
    fn retry(deadline: Duration) -> (Retry, Arc<AtomicU32>) {
        let told = Arc::new(AtomicU32::new(0));
        let counter = told.clone();
        (
            Retry::new(deadline, CancellationToken::new(), move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            }),
            told,
        )
    }

    #[tokio::test]
    async fn transient_errors_are_repeated_and_counted() {
        let (retry, told) = retry(Duration::from_secs(5));
        let mut left = 2;
        let answer = retry
            .run(|| {
                left -= 1;
                let now = left;
                async move { if now >= 0 { Err(transient()) } else { Ok(7) } }
            })
            .await;
        assert_eq!((answer.unwrap(), told.load(Ordering::Relaxed)), (7, 2));
    }

    #[tokio::test]
    async fn what_cannot_succeed_is_not_repeated() {
        let (retry, told) = retry(Duration::from_secs(5));
        let answer: Result<()> = retry.run(|| async { Err(Error::Bug("x".into())) }).await;
        assert!(matches!(answer, Err(Error::Bug(_))) && told.load(Ordering::Relaxed) == 0);
    }

    #[tokio::test]
    async fn gives_up_at_the_deadline_and_when_stopped() {
        let (short, _) = retry(Duration::from_millis(1));
        assert!(matches!(
            short
                .run(|| async {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Err::<(), _>(transient())
                })
                .await,
            Err(Error::Unreachable { .. })
        ));
        let (long, _) = retry(Duration::from_secs(60));
        long.stop.cancel();
        assert!(matches!(long.run(|| async { Err::<(), _>(transient()) }).await, Err(Error::Interrupted)));
    }
}
