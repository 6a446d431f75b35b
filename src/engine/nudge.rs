//! Moves the source's clock where the tail waits for it.
//!
//! On an idle source the change stream's position comes forward only by what the server itself writes into its oplog, about every
//! ten seconds. Until it has passed the newest time that was read from the source, the target is not known to be consistent.

use crate::{
    error::{Error, Result},
    race::Race,
    source::Source,
    tail::Progress,
};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the position may stand still before it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes an oplog note whenever the tail stands still before a time that was read. Where that is not permitted the server's own
/// writes must do.
///
/// # Errors
/// As the source's, but not [`Error::Forbidden`].
pub(super) async fn keep_moving<S: Source>(
    source: S,
    race: Race,
    progress: watch::Receiver<Progress>,
    stop: CancellationToken,
) -> Result<()> {
    let applied = || progress.borrow().applied;
    let mut before = applied();
    while stop.run_until_cancelled(tokio::time::sleep(PATIENCE)).await.is_some() {
        let now = applied();
        if now == before && now < race.newest_read() {
            match source.note("the tail waits for the clock").await {
                Err(Error::Forbidden { .. }) => break,
                noted => drop(noted?),
            }
        }
        before = now;
    }
    Ok(())
}
