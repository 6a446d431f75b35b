//! Writes the target cluster: a port with one real body ([`mongo`]) and one in memory.
//!
//! Promises: every write is absolute and bypasses validation; a call returns once a majority has the
//! result; every call may be repeated. Documents and structure are written by the collection's identity, not by its name
//! alone: what a process asked for that is dead by now may still be carried out, late, and must not meet another
//! collection of that name. Where the identity does not fit, the error's code is [`ANOTHER_COLLECTION`].

pub mod memory;
pub mod mongo;
mod series;

pub use series::{bucket_span, make, mixed_schema, names};

use crate::{
    error::Result,
    model::{Batch, CollectionInfo, CollectionUuid, DocumentKey, IndexSpec, Namespace, Sharded},
};
use bson::{RawDocument, RawDocumentBuf};
use std::time::Duration;

/// CollectionUUIDMismatch: the name is another collection's, or nothing's (RAN on 6.0.5 and 6.0.27).
pub const ANOTHER_COLLECTION: i32 = 361;

/// A collection of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetCollection {
    /// Its name.
    pub ns: Namespace,
    /// Its identity there: a write to another collection of that name is refused.
    pub uuid: CollectionUuid,
}

/// What an insert of the copy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inserted {
    /// New on the target.
    pub inserted: u64,
    /// Their `_id` was there already, and at least as new.
    pub already_there: u64,
}

/// One statement of a lane's batch.
#[derive(Debug, Clone, Copy)]
pub enum Statement<'a> {
    /// A document that is most likely new; put in place of another if it is not.
    Insert(&'a DocumentKey, &'a RawDocument),
    /// A document, in place of another if there is one.
    Put(&'a DocumentKey, &'a RawDocument),
    /// An update by its raw diff; nothing where the document is missing.
    Diff(&'a DocumentKey, &'a RawDocument),
    /// Removal; nothing where the document is missing.
    Delete(&'a DocumentKey),
}

/// What a batch of statements did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Whether a diff matched no document. The server counts, it does not say which.
    pub diff_missed: bool,
    /// Statements refused for reasons of shape, by their number: to be read again.
    pub refused: Vec<usize>,
    /// Inserts that met a document of their `_id` and took its place, by their number.
    pub met: Vec<usize>,
    /// What they were refused for, where that is known.
    pub why: Option<&'static str>,
}

/// How a collection's index differs in the life of a migration; see `indexes::park`.
#[derive(Debug, Clone, PartialEq)]
pub enum IndexChange {
    /// Refuse new duplicates.
    PrepareUnique(bool),
    /// From prepared to unique.
    Unique,
    /// From unique to plain again.
    NotUnique,
    /// Seconds after which documents expire.
    ExpireAfterSeconds(i64),
    /// Whether the planner sees it.
    Hidden(bool),
}

/// A cluster that is written.
pub trait Target: Clone + Send + Sync + 'static {
    /// The same, whose calls are not repeated for longer than `deadline`.
    #[must_use]
    fn within(&self, deadline: Duration) -> Self;

    /// Inserts what is not there yet, in the order given.
    fn insert(&self, to: &TargetCollection, batch: &Batch) -> impl Future<Output = Result<Inserted>> + Send;
    /// Deletes all documents.
    fn clear(&self, to: &TargetCollection) -> impl Future<Output = Result<()>> + Send;
    /// Applies statements: deletes first, then inserts in their order, then the rest in theirs. A key stands in
    /// it once, save for diffs behind its insert or put.
    fn apply(&self, to: &TargetCollection, statements: &[Statement<'_>]) -> impl Future<Output = Result<Applied>> + Send;

    /// All collections and views, as [`crate::source::Source::collections`].
    fn collections(&self) -> impl Future<Output = Result<Vec<CollectionInfo>>> + Send;
    /// The collection of that identity, whatever its name is now.
    fn locate(&self, db: &str, uuid: CollectionUuid) -> impl Future<Output = Result<Option<Namespace>>> + Send;
    /// The collection that the cluster itself has put in the place of one, with the same documents; `None` where it has not.
    fn successor(&self, of: &TargetCollection) -> impl Future<Output = Result<Option<CollectionUuid>>> + Send {
        let _ = of;
        std::future::ready(Ok(None))
    }
    /// What a name stands for.
    fn lookup(&self, ns: &Namespace) -> impl Future<Output = Result<Option<CollectionInfo>>> + Send;
    /// Whether a name stands for something that holds a document; a view holds none.
    fn holds_documents(&self, ns: &Namespace) -> impl Future<Output = Result<bool>> + Send;
    /// How the collection is to be distributed that is made next under this name; one shard, where nothing is told of it.
    fn lay_out(&self, _ns: &Namespace, _how: Option<Sharded>) {}
    /// Makes a collection or view with these options; gives its identity, which a view has not.
    fn create(&self, ns: &Namespace, options: &RawDocument) -> impl Future<Output = Result<Option<CollectionUuid>>> + Send;
    /// Drops a collection or view; nothing where it is gone, or where the name is another collection's than the one
    /// that `uuid` names.
    fn drop_collection(&self, ns: &Namespace, uuid: Option<CollectionUuid>) -> impl Future<Output = Result<()>> + Send;
    /// Whether [`Target::rename`] may lead to another database.
    fn renames_across_databases(&self) -> bool {
        true
    }
    /// Gives a collection another name, which must be free.
    fn rename(&self, from: &TargetCollection, to: &Namespace) -> impl Future<Output = Result<()>> + Send;
    /// `collMod` with these options; of a view, and of a time series by its own name, without `uuid`.
    fn modify(&self, ns: &Namespace, uuid: Option<CollectionUuid>, options: &RawDocument) -> impl Future<Output = Result<()>> + Send;

    /// The indexes of a collection; empty where it is gone.
    fn indexes(&self, ns: &Namespace) -> impl Future<Output = Result<Vec<IndexSpec>>> + Send;
    /// Whether an index of a collection can be made unique there; over shards not every one can.
    fn may_be_unique(&self, _to: &TargetCollection, _spec: &IndexSpec) -> impl Future<Output = Result<bool>> + Send {
        std::future::ready(Ok(true))
    }
    /// Builds indexes and waits for them.
    fn create_indexes(&self, of: &TargetCollection, specs: &[IndexSpec]) -> impl Future<Output = Result<()>> + Send;
    /// Drops an index; nothing where it, or its collection, is gone, or where a shard key needs it.
    fn drop_index(&self, of: &TargetCollection, name: &str) -> impl Future<Output = Result<()>> + Send;
    /// How much of a collection the index builds under way have read, from 0 to 1; `None` where none is, or we may not ask.
    fn build_progress(&self, ns: &Namespace) -> impl Future<Output = Result<Option<f64>>> + Send;
    /// Ends the build that was asked for by one call with exactly these indexes, or drops them where it is done;
    /// nothing where it has not begun.
    fn abort_build(&self, of: &TargetCollection, names: &[String]) -> impl Future<Output = Result<()>> + Send;
    /// Changes an index in place.
    fn change_index(&self, of: &TargetCollection, name: &str, change: &IndexChange) -> impl Future<Output = Result<()>> + Send;
}

/// Options of a collection that the target must not act on before the seal, split off: (at once, parked).
/// A TTL would delete on its own account; `temp` marks a collection that the server may drop on a restart.
#[must_use]
pub fn park_options(options: &RawDocument) -> (RawDocumentBuf, Option<RawDocumentBuf>) {
    use crate::model::raw;
    let (mut at_once, mut parked) = (raw::Builder::default(), raw::Builder::default());
    for e in raw::elements(options) {
        match e.name {
            b"expireAfterSeconds" => drop(parked.element(e)),
            b"temp" => {}
            _ => drop(at_once.element(e)),
        }
    }
    (at_once.finish(), (!parked.is_empty()).then(|| parked.finish()))
}
