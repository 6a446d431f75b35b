//! What a change stream tells, in our words: decoded headers, raw documents.

use super::{ClusterTime, DocumentKey, Namespace, raw};
use bson::{RawDocument, RawDocumentBuf};
use std::fmt;

/// An opaque place inside the change stream. Never parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct ResumeToken(pub RawDocumentBuf);

/// A resume token and the cluster time that goes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Where a stream can go on.
    pub token: ResumeToken,
    /// For lag and fences; several positions may share one.
    pub time: ClusterTime,
}

/// The identity of a collection, kept through renames and lost by a drop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollectionUuid(pub [u8; 16]);

impl fmt::Display for CollectionUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for CollectionUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One event of the stream.
#[derive(Debug, Clone)]
pub struct ChangeEvent {
    /// Where the stream goes on behind it.
    pub position: Position,
    /// What happened.
    pub change: Change,
    /// Bytes it came in, for the memory bound.
    pub bytes: usize,
}

/// What an event is to us.
#[derive(Debug, Clone)]
pub enum Change {
    /// To one document.
    Write(Write),
    /// To a collection or database.
    Ddl(Ddl),
    /// Nothing happened up to this position (post-batch resume token).
    Idle,
}

/// A change to one document.
#[derive(Debug, Clone)]
pub struct Write {
    /// Namespace on the source when it happened.
    pub ns: Namespace,
    /// The collection's identity; servers before 6.0 do not tell it.
    pub uuid: Option<CollectionUuid>,
    /// Which document.
    pub key: DocumentKey,
    /// Whether the source's shard key has more than `_id`: another document of that `_id`, a twin, may lie on another shard.
    pub twins: bool,
    /// What became of it.
    pub op: WriteOp,
}

/// What became of a document.
#[derive(Debug, Clone)]
pub enum WriteOp {
    /// New; the whole document.
    Insert(RawDocumentBuf),
    /// Another one in its place; the whole document.
    Replace(RawDocumentBuf),
    /// The oplog's own description of an update, `{$v: 2, diff: …}`.
    Diff(RawDocumentBuf),
    /// Changed in a way the stream could not tell exactly: to be read again from the source.
    Reread,
    /// Gone.
    Delete,
}

impl WriteOp {
    /// Whether it brings a whole document.
    #[must_use]
    pub fn holds_document(&self) -> bool {
        matches!(self, WriteOp::Insert(_) | WriteOp::Replace(_))
    }

    /// For metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            WriteOp::Insert(_) => "insert",
            WriteOp::Replace(_) => "replace",
            WriteOp::Diff(_) => "update",
            WriteOp::Reread => "reread",
            WriteOp::Delete => "delete",
        }
    }
}

/// A change to structure. Options, index specifications and view definitions stay raw.
#[derive(Debug, Clone)]
pub enum Ddl {
    /// A collection, view or time series was made.
    Create {
        /// Its name.
        ns: Namespace,
        /// Its identity; a view has none.
        uuid: Option<CollectionUuid>,
        /// As `operationDescription` has them; `idIndex` included.
        options: RawDocumentBuf,
    },
    /// A collection or view is gone.
    Drop {
        /// Its name.
        ns: Namespace,
        /// Its identity; a view has none.
        uuid: Option<CollectionUuid>,
    },
    /// A database is gone; the drops of its collections came before.
    DropDatabase {
        /// Its name.
        db: String,
    },
    /// A collection has another name.
    Rename {
        /// Before.
        from: Namespace,
        /// After.
        to: Namespace,
        /// Its identity.
        uuid: Option<CollectionUuid>,
        /// The collection that had the name and was dropped.
        dropped: Option<CollectionUuid>,
    },
    /// Indexes were built.
    CreateIndexes {
        /// Of which collection.
        ns: Namespace,
        /// Its identity.
        uuid: Option<CollectionUuid>,
        /// As the server lists them.
        indexes: Vec<IndexSpec>,
    },
    /// Indexes were dropped.
    DropIndexes {
        /// Of which collection.
        ns: Namespace,
        /// Its identity.
        uuid: Option<CollectionUuid>,
        /// Their names.
        names: Vec<String>,
    },
    /// `collMod`: a validator, a TTL, a view's definition, …
    Modify {
        /// Of which collection or view.
        ns: Namespace,
        /// Its identity; a view has none.
        uuid: Option<CollectionUuid>,
        /// As `operationDescription` has them.
        options: RawDocumentBuf,
    },
}

impl Ddl {
    /// For logs and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Ddl::Create { .. } => "create",
            Ddl::Drop { .. } => "drop",
            Ddl::DropDatabase { .. } => "dropDatabase",
            Ddl::Rename { .. } => "rename",
            Ddl::CreateIndexes { .. } => "createIndexes",
            Ddl::DropIndexes { .. } => "dropIndexes",
            Ddl::Modify { .. } => "modify",
        }
    }

    /// The identity of what it is about, where that has one.
    #[must_use]
    pub fn uuid(&self) -> Option<CollectionUuid> {
        match self {
            Ddl::Create { uuid, .. }
            | Ddl::Drop { uuid, .. }
            | Ddl::Rename { uuid, .. }
            | Ddl::CreateIndexes { uuid, .. }
            | Ddl::DropIndexes { uuid, .. }
            | Ddl::Modify { uuid, .. } => *uuid,
            Ddl::DropDatabase { .. } => None,
        }
    }
}

/// One index as `listIndexes` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexSpec(pub RawDocumentBuf);

impl IndexSpec {
    /// Its name; empty where the server gave none.
    #[must_use]
    pub fn name(&self) -> &str {
        raw::get(&self.0, "name").and_then(|e| e.str()).unwrap_or_default()
    }

    /// Whether it is the one every collection has.
    #[must_use]
    pub fn is_id(&self) -> bool {
        self.name() == "_id_"
    }

    /// Whether an option is there and true.
    #[must_use]
    pub fn is(&self, option: &str) -> bool {
        raw::get(&self.0, option).is_some_and(|e| e.bool().or(e.integer().map(|n| n != 0)).unwrap_or(false))
    }

    /// Whether an option is there at all.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        raw::get(&self.0, option).is_some()
    }

    /// The same without some options.
    #[must_use]
    pub fn without(&self, options: &[&str]) -> IndexSpec {
        let mut b = raw::Builder::with_capacity(self.0.as_bytes().len());
        for e in raw::elements(&self.0).filter(|e| !options.iter().any(|o| o.as_bytes() == e.name)) {
            b.element(e);
        }
        IndexSpec(b.finish())
    }
}

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectionKind {
    /// Holds documents.
    Collection,
    /// A stored aggregation.
    View,
    /// A view over buckets.
    TimeSeries,
}

/// A collection or view as `listCollections` shows it.
#[derive(Debug, Clone)]
pub struct CollectionInfo {
    /// Its name.
    pub ns: Namespace,
    /// Its identity; views have none.
    pub uuid: Option<CollectionUuid>,
    /// What it is.
    pub kind: CollectionKind,
    /// `options`, raw.
    pub options: RawDocumentBuf,
}

impl CollectionInfo {
    /// Whether keys are compared by a collation of its own.
    #[must_use]
    pub fn has_collation(&self) -> bool {
        collated(&self.options)
    }

    /// Whether it keeps insertion order and drops its oldest.
    #[must_use]
    pub fn is_capped(&self) -> bool {
        raw::get(&self.options, "capped").and_then(|e| e.bool()).unwrap_or(false)
    }
}

/// Whether options name a collation other than the simple one.
#[must_use]
pub(crate) fn collated(options: &RawDocument) -> bool {
    raw::get(options, "collation")
        .and_then(|e| e.document())
        .and_then(|c| raw::get(c, "locale"))
        .and_then(|e| e.str())
        .is_some_and(|locale| locale != "simple")
}
