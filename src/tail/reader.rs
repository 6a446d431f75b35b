//! The stream's cursor in a task of its own: the next batch is fetched while the last one is routed.

use crate::{
    error::Result,
    source::{EventBatch, EventStream, Source, StartAt},
    throttle::Pace,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Reads until `stop` fires or nobody listens. The token is looked at between reads only: a read takes half
/// a second at most, and the driver does not want its futures dropped.
pub(super) async fn read<S: Source>(
    source: S,
    from: StartAt,
    batches: mpsc::Sender<EventBatch>,
    pace: Pace,
    stop: CancellationToken,
) -> Result<()> {
    let mut stream = source.stream(from).await?;
    let mut turn_at = Instant::now();
    while pace.pass(turn_at.elapsed(), &stop).await {
        turn_at = Instant::now();
        let batch = stream.next().await?;
        if batch.events.len() <= 1 {
            // Its end alone: to have waited for news was no work.
            turn_at = Instant::now();
        }
        pace.took(|| (batch.events.iter().map(|event| event.bytes).sum(), batch.events.len().saturating_sub(1)));
        if batches.send(batch).await.is_err() {
            break;
        }
    }
    Ok(())
}
