//! Runs a list of jobs, so many at a time.

use crate::error::{Error, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs all jobs, `at_once` at a time; the first error stops the rest, which are awaited. Each job gets a token
/// that fires then, or with `stop`.
///
/// # Errors
/// The first one; [`Error::Interrupted`] where `stop` fired.
///
/// # Cancel safety
/// Not safe to drop half way: the jobs would be dropped too.
pub(super) async fn all<J, T: Send + 'static, F>(
    jobs: Vec<J>,
    at_once: usize,
    stop: &CancellationToken,
    run: impl Fn(J, CancellationToken) -> F,
) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
{
    let stop = stop.child_token();
    let (mut jobs, mut running, mut done) = (jobs.into_iter(), JoinSet::new(), Vec::new());
    let mut failed = None;
    loop {
        while failed.is_none() && !stop.is_cancelled() && running.len() < at_once.max(1) {
            let Some(job) = jobs.next() else { break };
            running.spawn(run(job, stop.clone()));
        }
        match running.join_next().await {
            None => break,
            Some(Ok(Ok(value))) => done.push(value),
            Some(Ok(Err(error))) => {
                stop.cancel();
                failed.get_or_insert(error);
            }
            Some(Err(died)) => {
                stop.cancel();
                failed.get_or_insert(Error::Bug(format!("a comparing task died: {died}")));
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None if stop.is_cancelled() => Err(Error::Interrupted),
        None => Ok(done),
    }
}
