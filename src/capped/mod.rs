//! Capped collections, whose documents keep the order in which they were inserted.
//!
//! Copy and tail at the same time would mix old documents among new ones. So a capped collection is copied whole
//! while nothing else is applied to it: before the tail starts, or inside the barrier of the structural change
//! that brought it. What its events up to then have to say is read again rather than inserted
//! ([`Transfer::run`] tells up to when): a document that has rolled over on the source must not come back at the end.
//!
//! The server tells each document that rolls over as a delete (RAN on 6.0.5), and it tells nothing of the
//! documents that `convertToCapped` and `cloneCollectionAsCapped` write: only a `create`. Both hold their locks
//! until they are done, so a reader that waits for the collection's lock sees all of them.

use crate::{
    catalog::Collection,
    error::{Error, Result},
    model::ClusterTime,
    observe::Metrics,
    race::Race,
    retry::Retry,
    source::{Found, Scan, ScanRange, Source},
    target::Target,
};
use tokio_util::sync::CancellationToken;

/// Documents of one batch at most: with documents of usual size a few MiB.
const BATCH_DOCUMENTS: u32 = 2_000;

/// What copying one takes.
#[derive(Debug)]
pub struct Transfer<'a, S, T> {
    /// Read from.
    pub source: &'a S,
    /// Written to.
    pub target: &'a T,
    /// Told of the newest time that was read.
    pub race: &'a Race,
    /// Counters.
    pub metrics: &'a Metrics,
    /// With scans that fail.
    pub retry: &'a Retry,
    /// Ends it between two batches.
    pub stop: &'a CancellationToken,
}

impl<S: Source, T: Target> Transfer<'_, S, T> {
    /// Copies a collection. What is there already stays: after a failure, and after a crash, the scan begins
    /// anew and goes on behind it. Nothing else may be applied to the collection meanwhile.
    ///
    /// Gives a source time as late as anything that was read. A collection that is gone is left as it is: the
    /// tail will drop it.
    ///
    /// # Errors
    /// As classified; [`Error::Interrupted`] when told to stop.
    pub async fn run(&self, collection: &Collection) -> Result<ClusterTime> {
        let mut patience = self.retry.patience();
        loop {
            match self.scan(collection, &mut patience).await {
                Ok(()) => return self.source.operation_time().await,
                Err(error) if self.stop.is_cancelled() => return Err(error),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    async fn scan(&self, collection: &Collection, patience: &mut crate::retry::Patience) -> Result<()> {
        let (of, Some(to)) = (collection.on_source(), collection.on_target()) else { return Ok(()) };
        // Waits for the collection's lock; the time asked for behind it is that of a complete collection.
        if let Found::Gone = self.source.indexes(&of).await? {
            return Ok(());
        }
        let after = self.source.operation_time().await?;
        let range = ScanRange { from: None, max: None, after, batch_documents: BATCH_DOCUMENTS, natural: true };
        let Found::Here(mut scan) = self.source.scan(&of, range).await? else { return Ok(()) };
        while let Some(batch) = scan.next().await? {
            if self.stop.is_cancelled() {
                return Err(Error::Interrupted);
            }
            patience.restore();
            self.race.read(batch.read_at);
            let inserted = self.target.insert(&to, &batch.documents).await?;
            self.metrics.copied(inserted.inserted, batch.documents.as_bytes().len() as u64, inserted.already_there);
        }
        Ok(())
    }
}
