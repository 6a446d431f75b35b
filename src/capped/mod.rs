//! Capped collections, whose documents keep the order in which they were inserted.
//!
//! Copy and tail at the same time would mix old documents among new ones. So a capped collection is copied whole
//! while nothing else is applied to it: before the tail starts, inside the barrier of the structural change that
//! brought it, or where its order is in doubt. [`Doubts`] says what its events up to then still mean.
//!
//! The server tells each document that rolls over as a delete (RAN on 6.0.5), and it tells nothing of the
//! documents that `convertToCapped` and `cloneCollectionAsCapped` write: only a `create`. Both hold their locks
//! until they are done, so a reader that waits for the collection's lock sees all of them.

mod doubt;

pub use doubt::{Doubts, Span, Verdict};

use crate::{
    catalog::Collection,
    error::{Error, Result},
    model::{Batch, ClusterTime},
    observe::Metrics,
    race::Race,
    retry::{Patience, Retry},
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
    /// Copies a collection. What is there already goes, as its order may be another one by now. Nothing else may be
    /// applied to the collection meanwhile.
    ///
    /// Tells when it was read. A collection that is gone on the source is left as it is: the tail will drop it.
    ///
    /// # Errors
    /// As classified; [`Error::Interrupted`] when told to stop.
    pub async fn run(&self, collection: &Collection) -> Result<Span> {
        let mut patience = self.retry.patience();
        loop {
            match self.scan(collection, &mut patience).await {
                Ok(from) => return Ok(Span { from, until: self.source.operation_time().await? }),
                Err(error) if self.stop.is_cancelled() => return Err(error),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    async fn scan(&self, collection: &Collection, patience: &mut Patience) -> Result<ClusterTime> {
        let nothing = ClusterTime::default();
        let (of, Some(to)) = (collection.on_source(), collection.on_target()) else { return Ok(nothing) };
        // Waits for the collection's lock; the time asked for behind it is that of a complete collection.
        if let Found::Gone = self.source.indexes(&of).await? {
            return Ok(nothing);
        }
        let after = self.source.operation_time().await?;
        let range = ScanRange { from: None, max: None, after, batch_documents: BATCH_DOCUMENTS, natural: true };
        let Found::Here(mut scan) = self.source.scan(&of, range).await? else { return Ok(nothing) };
        self.target.clear(&to).await?;
        while let Some(batch) = scan.next().await? {
            if self.stop.is_cancelled() {
                return Err(Error::Interrupted);
            }
            patience.restore();
            self.race.read(batch.read_at);
            let batch = Batch::new(batch.documents);
            if batch.has_repeated_names() {
                // Saved by the caller with the collection's completion: no diff comes before that.
                collection.note_repeats().await;
            }
            let inserted = self.target.insert(&to, &batch).await?;
            self.metrics.copied(inserted.inserted, batch.bytes(), inserted.already_there);
        }
        Ok(after)
    }
}
