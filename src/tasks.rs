//! Every task has an owner: whoever starts tasks waits here until the last has ended.

use crate::error::{Error, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Waits for all tasks. The first error cancels `stop`, and the rest run dry.
///
/// # Errors
/// The first that is not the mere echo of being cancelled.
pub async fn first_error(mut tasks: JoinSet<Result<()>>, stop: &CancellationToken) -> Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.unwrap_or_else(|panic| Err(panicked(&panic))) {
            stop.cancel();
            if outcome.is_ok() || matches!(outcome, Err(Error::Interrupted)) {
                outcome = Err(error);
            }
        }
    }
    outcome
}

/// What a panic of a task is to its owner.
#[must_use]
pub fn panicked(panic: &tokio::task::JoinError) -> Error {
    Error::Bug(format!("a task ended by a panic: {panic}"))
}
