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
    model::{Batch, ClusterTime, raw},
    observe::Metrics,
    race::Race,
    retry::{Patience, Retry},
    source::{Found, Scan, ScanRange, Source},
    target::Target,
    throttle::Pace,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes of one batch, about.
const BATCH_BYTES: u64 = 4 << 20;
/// Documents of one batch at most.
const BATCH_DOCUMENTS: u64 = 2_000;

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
    /// When the next batch may be read. The cursor stays open for as long as it says, since there is no place to go on from.
    pub pace: &'a Pace,
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
        let size = self.source.estimate(&of).await?;
        let (bytes, documents) = self.pace.batch(BATCH_BYTES, BATCH_DOCUMENTS);
        let fitting = (bytes / (size.bytes / size.documents.max(1)).max(1)).clamp(1, documents);
        let range = ScanRange { from: None, max: None, after, batch_documents: u32::try_from(fitting).unwrap_or(1), natural: true };
        let Found::Here(mut scan) = self.source.scan(&of, range).await? else { return Ok(nothing) };
        self.target.clear(&to).await?;
        let mut turn_at = Instant::now();
        loop {
            if !self.pace.pass(turn_at.elapsed(), self.stop).await {
                return Err(Error::Interrupted);
            }
            turn_at = Instant::now();
            let Some(batch) = scan.next().await? else { return Ok(after) };
            self.pace.took(|| (batch.documents.as_bytes().len(), raw::elements(&batch.documents).count()));
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
    }
}
