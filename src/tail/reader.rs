//! The stream's cursor in a task of its own: the next batch is fetched while the last one is routed.

use crate::{
    error::Result,
    source::{EventBatch, EventStream, Source, StartAt},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Reads until `stop` fires or nobody listens. The token is looked at between reads only: a read takes half
/// a second at most, and the driver does not want its futures dropped.
pub(super) async fn read<S: Source>(source: S, from: StartAt, batches: mpsc::Sender<EventBatch>, stop: CancellationToken) -> Result<()> {
    let mut stream = source.stream(from).await?;
    while !stop.is_cancelled() {
        let batch = stream.next().await?;
        if batches.send(batch).await.is_err() {
            break;
        }
    }
    Ok(())
}
