//! What is known of one collection: saved as it is.

use super::Builds;
use crate::model::{ClusterTime, CollectionInfo, CollectionKind, CollectionUuid, IndexSpec, Namespace, UnfinishedIndex};
use bson::RawDocumentBuf;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_128;

/// How far a collection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its documents are to be copied, but it is not yet split into partitions. Set by the tail for what came into
    /// the selection while it ran.
    Wanted,
    /// Its documents are being copied. Set by the plan.
    Copying,
    /// All of it is on the target; set by the copy, or by the tail for what was created while it ran.
    Complete,
    /// Gone on the source and on the target. Kept until the resume point has passed the drop.
    Dropped,
}

impl State {
    /// As saved.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            State::Wanted => "wanted",
            State::Copying => "copying",
            State::Complete => "complete",
            State::Dropped => "dropped",
        }
    }

    /// Whether documents of it are still to be read.
    #[must_use]
    pub fn is_incomplete(self) -> bool {
        matches!(self, State::Wanted | State::Copying)
    }

    /// From its label.
    #[must_use]
    pub fn parse(label: &str) -> Option<Self> {
        [State::Wanted, State::Copying, State::Complete, State::Dropped].into_iter().find(|s| s.label() == label)
    }
}

/// One collection or view.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Identity on the source.
    pub uuid: CollectionUuid,
    /// Name on the source at the tail's position.
    pub ns: Namespace,
    /// Name on the target.
    pub target: Namespace,
    /// Identity on the target; a view has none.
    pub target_uuid: Option<CollectionUuid>,
    /// Collection or view.
    pub kind: CollectionKind,
    /// Whether it keeps insertion order.
    pub capped: bool,
    /// Whether a document may have a field name twice, at any depth: then no diff is applied. Set by copy and tail
    /// before the first such document goes to the target, never taken back.
    pub repeats: bool,
    /// How far it has come.
    pub state: State,
    /// Creation, renames and drops up to this time are reflected.
    pub known_at: ClusterTime,
    /// The copy reads what the source had at this time or later: before it, the stream did not tell all.
    pub read_from: ClusterTime,
    /// As it was created, and modified since.
    pub options: RawDocumentBuf,
    /// Indexes as the source has them, `_id_` left out, by name.
    pub indexes: BTreeMap<String, IndexSpec>,
    /// Names of those that are on the target, in parked form. Not saved: found again by looking.
    pub built: BTreeSet<String>,
    /// Why an index could not be built, by name. Not saved.
    pub failed: BTreeMap<String, String>,
}

impl Entry {
    /// From a listing.
    #[must_use]
    pub fn new(info: &CollectionInfo, target: Namespace, state: State, known_at: ClusterTime) -> Self {
        Self {
            uuid: info.uuid.unwrap_or_else(|| view_uuid(&info.ns)),
            ns: info.ns.clone(),
            target,
            target_uuid: None,
            kind: info.kind,
            capped: info.is_capped(),
            repeats: false,
            state,
            known_at,
            read_from: known_at,
            options: info.options.clone(),
            indexes: BTreeMap::new(),
            built: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Whether it is a view.
    #[must_use]
    pub fn is_view(&self) -> bool {
        self.kind == CollectionKind::View
    }

    /// Wants an index, or wants it otherwise.
    pub fn want_index(&mut self, spec: IndexSpec) {
        if !spec.is_id() {
            self.failed.remove(spec.name());
            self.indexes.insert(spec.name().to_owned(), spec);
        }
    }

    /// No longer wants an index.
    pub fn forget_index(&mut self, name: &str) {
        self.indexes.remove(name);
        self.built.remove(name);
        self.failed.remove(name);
    }

    /// Wanted, but not on the target.
    #[must_use]
    pub fn missing_indexes(&self) -> Vec<IndexSpec> {
        self.indexes.iter().filter(|(name, _)| !self.built.contains(*name)).map(|(_, spec)| spec.clone()).collect()
    }

    /// For `status`, with the builds that are under way.
    #[must_use]
    pub fn unfinished(&self, builds: &Builds) -> Vec<UnfinishedIndex> {
        self.missing_indexes()
            .into_iter()
            .map(|spec| {
                let error = self.failed.get(spec.name()).cloned();
                let building = builds.progress_of(spec.name());
                let state = if error.is_some() {
                    "failed"
                } else if building.is_some() {
                    "building"
                } else {
                    "waiting"
                };
                let (name, progress) = (spec.name().to_owned(), building.flatten());
                UnfinishedIndex { ns: self.ns.to_string(), name, state: state.into(), error, progress }
            })
            .collect()
    }
}

/// The identity we give to a view.
#[must_use]
pub fn view_uuid(ns: &Namespace) -> CollectionUuid {
    CollectionUuid(xxh3_128(ns.as_str().as_bytes()).to_le_bytes())
}
