//! Looks at the source's clock and oplog, and publishes a snapshot, as long as the process lives.

use super::board::Board;
use crate::{error::Result, source::Source};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a snapshot is made.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Every how many of them the ends of the oplog are asked for.
const WINDOW_EVERY: u32 = 10;

/// Publishes while a second task asks: a source that does not answer must not stop the clock of the dashboards.
pub(super) async fn publish(board: Board, stop: CancellationToken) -> Result<()> {
    let mut tick = tokio::time::interval(EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        board.publish();
    }
    board.publish();
    Ok(())
}

/// Asks the source. Its silence is no failure here: the tail will tell.
pub(super) async fn ask<S: Source>(source: S, board: Board, stop: CancellationToken) -> Result<()> {
    let mut tick = tokio::time::interval(EVERY);
    let mut rounds = 0_u32;
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if let Ok(time) = source.operation_time().await {
            board.known().source_time = Some((time, Instant::now()));
            if let Some(lag) = board.facts().lag_seconds {
                board.known().trend.see(Instant::now(), lag);
            }
        }
        if rounds.is_multiple_of(WINDOW_EVERY)
            && let Ok(window) = source.oplog_window().await
        {
            board.known().window = window;
        }
        rounds += 1;
    }
    Ok(())
}
