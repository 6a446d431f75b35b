//! Reads the source cluster: a port with one real body ([`mongo`]) and one in memory.
//!
//! Promises to its users: documents and options come raw; a cursor belongs to a collection's UUID, whatever
//! its name is by now; every read is of majority-committed data, at or after the time asked for.

pub mod decode;
pub mod memory;
pub mod mongo;

use crate::{
    error::Result,
    model::{
        Bound, ChangeEvent, ClusterTime, CollectionInfo, CollectionUuid, Distributed, DocumentKey, IndexSpec, Namespace, Position, Sharded,
    },
};
use bson::RawDocumentBuf;
use std::{collections::BTreeMap, time::Duration};

/// Where a change stream begins.
#[derive(Debug, Clone)]
pub enum StartAt {
    /// With the first event at or after this time.
    Time(ClusterTime),
    /// With the first event behind this position.
    After(Position),
}

impl StartAt {
    /// As cluster time.
    #[must_use]
    pub fn time(&self) -> ClusterTime {
        match self {
            Self::Time(time) | Self::After(Position { time, .. }) => *time,
        }
    }
}

/// What one `getMore` of the change stream brought.
#[derive(Debug)]
pub struct EventBatch {
    /// In stream order. A batch ends with an [`crate::model::Change::Idle`] that carries the post-batch resume token, so that
    /// an idle stream moves on.
    pub events: Vec<ChangeEvent>,
}

/// An open change stream over the whole cluster.
pub trait EventStream: Send {
    /// The next batch; waits about a second for news. Survives elections and cut networks by itself, within
    /// the retry deadline.
    ///
    /// # Errors
    /// [`crate::error::Error::PositionLost`] when the oplog has rolled over; [`crate::error::Error::Unsupported`] for an event that we
    /// cannot replicate.
    ///
    /// # Cancel safety
    /// Not safe to drop half way.
    fn next(&mut self) -> impl Future<Output = Result<EventBatch>> + Send;
}

/// A collection as the copy and the re-reads name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionRef {
    /// Its name as far as we know; it may have another by now.
    pub ns: Namespace,
    /// Its identity.
    pub uuid: CollectionUuid,
}

/// What to scan.
#[derive(Debug, Clone)]
pub struct ScanRange {
    /// First key; `None`: from the beginning.
    pub from: Option<Bound>,
    /// First key that does not belong; `None`: to the end.
    pub max: Option<Bound>,
    /// The node must have reached this time.
    pub after: ClusterTime,
    /// Documents of one batch at most.
    pub batch_documents: u32,
    /// In insertion order rather than by `_id`; the range is then ignored. For capped collections.
    pub natural: bool,
}

/// Documents of one reply.
#[derive(Debug)]
pub struct ScanBatch {
    /// A BSON array of documents, as it came.
    pub documents: RawDocumentBuf,
    /// What the node had *before* it answered: every event after this time may be missing from the batch.
    pub before: ClusterTime,
    /// What the node had when it answered: the newest time the batch may show.
    pub read_at: ClusterTime,
}

/// A running scan of one range.
pub trait Scan: Send {
    /// The next batch; `None` at the end of the range. After an error the scan is spent.
    ///
    /// # Errors
    /// As classified; repeated by the caller, who knows what is durable.
    fn next(&mut self) -> impl Future<Output = Result<Option<ScanBatch>>> + Send;
}

/// What became of a collection while we looked for it.
#[derive(Debug)]
pub enum Found<T> {
    /// Here it is.
    Here(T),
    /// It was dropped; the tail will tell.
    Gone,
}

/// Documents read by key.
#[derive(Debug)]
pub struct Fetched {
    /// Those that exist, in no order.
    pub documents: Vec<RawDocumentBuf>,
    /// What the node had when it answered.
    pub read_at: ClusterTime,
}

/// Size of a collection as the server estimates it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Documents.
    pub documents: u64,
    /// Bytes, uncompressed.
    pub bytes: u64,
}

/// How far the oplog reaches back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OplogWindow {
    /// Oldest entry.
    pub oldest: ClusterTime,
    /// Newest entry.
    pub newest: ClusterTime,
    /// How much of its room is used, above 0 and at most 1: a young oplog is short because little has happened.
    pub filled: f64,
}

impl OplogWindow {
    /// Seconds that it holds when it is full, at the rate so far. One that began within this second is taken for a second old.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        f64::from(self.newest.seconds_since(self.oldest).max(1)) / self.filled
    }

    /// Seconds until what is behind `resume` is overwritten, at the rate so far.
    #[must_use]
    pub fn headroom(&self, resume: ClusterTime) -> f64 {
        (self.seconds() - f64::from(self.newest.seconds_since(resume))).max(0.0)
    }
}

/// A cluster that is read.
pub trait Source: Clone + Send + Sync + 'static {
    /// An open change stream.
    type Stream: EventStream;
    /// A running scan.
    type Scan: Scan;

    /// Whether it is a sharded cluster. Then a document that changes its shard is told as an insertion and a deletion
    /// in either order, and a collection may get another identity by being moved.
    fn is_sharded(&self) -> impl Future<Output = Result<bool>> + Send;
    /// How its collections are distributed, by their names; `None` where it is no sharded cluster.
    fn distribution(&self) -> impl Future<Output = Result<Option<BTreeMap<Namespace, Distributed>>>> + Send;
    /// How one collection is distributed now, for a target that is to do the same; `None` where it lies on one shard, or is gone.
    fn layout_of(&self, _uuid: CollectionUuid) -> impl Future<Output = Result<Option<Sharded>>> + Send {
        std::future::ready(Ok(None))
    }
    /// The newest time of the cluster.
    fn operation_time(&self) -> impl Future<Output = Result<ClusterTime>> + Send;
    /// The ends of the oplog; `None` where it cannot be asked for.
    fn oplog_window(&self) -> impl Future<Output = Result<Option<OplogWindow>>> + Send;
    /// Opens the change stream.
    fn stream(&self, from: StartAt) -> impl Future<Output = Result<Self::Stream>> + Send;
    /// All collections and views of all databases but the server's own; `system.*` left out save what can be replicated.
    fn collections(&self) -> impl Future<Output = Result<Vec<CollectionInfo>>> + Send;
    /// The indexes of a collection, `_id_` included.
    fn indexes(&self, of: &CollectionRef) -> impl Future<Output = Result<Found<Vec<IndexSpec>>>> + Send;
    /// Size of a collection.
    fn estimate(&self, of: &CollectionRef) -> impl Future<Output = Result<Estimate>> + Send;
    /// Keys that split a collection in about `parts` equal ranges: `parts - 1` or fewer, ascending, distinct.
    fn split(&self, of: &CollectionRef, parts: u32) -> impl Future<Output = Result<Vec<Bound>>> + Send;
    /// Starts to read a range. Fails rather than retries while it runs.
    fn scan(&self, of: &CollectionRef, range: ScanRange) -> impl Future<Output = Result<Found<Self::Scan>>> + Send;
    /// Reads documents by key, at or after a time.
    fn fetch(&self, of: &CollectionRef, keys: &[DocumentKey], after: ClusterTime) -> impl Future<Output = Result<Found<Fetched>>> + Send;
    /// How many documents there are, exactly.
    fn count(&self, of: &CollectionRef) -> impl Future<Output = Result<Found<u64>>> + Send;
    /// Writes a note into the oplog, which produces no event, and gives a time at or after it.
    fn note(&self, text: &str) -> impl Future<Output = Result<ClusterTime>> + Send;
    /// Blocks writes of users. Waits for transactions under way, but no longer than `within`: behind an error
    /// of time they are not blocked, and will not be later; on a sharded cluster not before they were allowed again.
    fn block_writes(&self, within: Duration) -> impl Future<Output = Result<()>> + Send;
    /// Allows writes of users again.
    fn allow_writes(&self) -> impl Future<Output = Result<()>> + Send;
    /// Whether writes of users are blocked; `None` where the server has no such thing.
    fn writes_blocked(&self) -> impl Future<Output = Result<Option<bool>>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oplog_that_has_just_begun_has_headroom() {
        let at = |t| ClusterTime { t, i: 1 };
        let window = |newest, filled| OplogWindow { oldest: at(100), newest: at(newest), filled };
        assert!(window(100, 0.000_1).headroom(at(100)) >= 10_000.0);
        assert!((window(160, 0.5).headroom(at(150)) - 110.0).abs() < 1e-9);
        assert!(window(160, 1.0).headroom(at(90)).abs() < 1e-9, "it has rolled over");
    }
}
