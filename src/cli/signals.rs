//! Work that listens to signals: the first asks it to stop at a safe place, the second leaves at once.

use super::output;
use crate::error::{Error, Result};
use std::{pin::pin, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How a piece of work ended.
#[derive(Debug)]
pub(super) struct Ended<T> {
    /// Its result; none where it was left at the second signal.
    pub(super) result: Option<T>,
    /// The exit code of the first signal, if one came: 130 or 143.
    pub(super) signal: Option<u8>,
}

/// Runs `work` on a runtime of its own until it is done.
///
/// # Errors
/// Where the system gives no threads or no signals.
pub(super) fn run_until_done<F: Future>(stop: &CancellationToken, work: impl FnOnce() -> F) -> Result<Ended<F::Output>> {
    let broken = |what: &str, why: std::io::Error| Error::Bug(format!("{what} cannot be started: {why}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|why| broken("the runtime", why))?;
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|why| broken("the wait for signals", why))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|why| broken("the wait for signals", why))?;
        let mut work = pin!(work());
        let mut first = None;
        loop {
            let code = tokio::select! {
                biased;
                result = &mut work => return Ok(Ended { result: Some(result), signal: first }),
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if first.is_some() {
                output::interject("leaving at once: nothing is lost but the time since the resume point was last saved");
                return Ok(Ended { result: None, signal: first });
            }
            first = Some(code);
            stop.cancel();
            output::interject("stopping at a safe place; once more to leave at once");
        }
    });
    // Everything worth waiting for has been waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}
