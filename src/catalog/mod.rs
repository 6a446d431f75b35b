//! Which collections there are at the tail's position, by UUID, and what they are on the target.
//!
//! Names change; a UUID is a collection. Every event, batch and structural change finds its way through
//! here, so a replay after a crash lands where the collection is *now*, and what was dropped stays dropped.
//! A view has no UUID: it is kept under a digest of its name.

mod builds;
mod entry;
mod reconcile;

pub use builds::{Build, Builds};
pub use entry::{Entry, State, view_uuid};
pub use reconcile::reconcile;

use crate::{
    model::{CanonicalKey, ClusterTime, CollectionUuid, DocumentKey, Namespace, UnfinishedIndex},
    source::CollectionRef,
    target::TargetCollection,
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tokio::sync::{Mutex, RwLock as Gate};

/// One collection or view.
#[derive(Debug)]
pub struct Collection {
    entry: RwLock<Entry>,
    /// Shared by inserts of the copy and batches of the tail; held alone by a structural change, so that none is under
    /// way meanwhile.
    pub gate: Gate<()>,
    /// Held from looking at the entry until it is saved: copy and tail both save, and the later look must win.
    pub saving: Mutex<()>,
    /// Index builds under way on the target.
    pub builds: Builds,
    collated: bool,
}

impl Collection {
    /// From what is known of it.
    #[must_use]
    pub fn new(entry: Entry) -> Self {
        let collated = crate::model::collated(&entry.options);
        Self { entry: RwLock::new(entry), gate: Gate::new(()), saving: Mutex::new(()), builds: Builds::default(), collated }
    }

    /// What is known of it now.
    pub fn entry(&self) -> RwLockReadGuard<'_, Entry> {
        self.entry.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change what is known. The caller saves it.
    pub fn entry_mut(&self) -> RwLockWriteGuard<'_, Entry> {
        self.entry.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that documents with a repeated field name are about to come, once no diff is under way. The caller saves
    /// it. `false` where it is known.
    pub async fn note_repeats(&self) -> bool {
        let _alone = self.gate.write().await;
        !std::mem::replace(&mut self.entry_mut().repeats, true)
    }

    /// Its identity on the source.
    #[must_use]
    pub fn uuid(&self) -> CollectionUuid {
        self.entry().uuid
    }

    /// For the source's port.
    #[must_use]
    pub fn on_source(&self) -> CollectionRef {
        let entry = self.entry();
        CollectionRef { ns: entry.ns.clone(), uuid: entry.uuid }
    }

    /// For the target's port; `None` for a view, or where it is gone.
    #[must_use]
    pub fn on_target(&self) -> Option<TargetCollection> {
        let entry = self.entry();
        if entry.state == State::Dropped {
            return None;
        }
        Some(TargetCollection { ns: entry.target.clone(), uuid: entry.target_uuid? })
    }

    /// The key that decides which changes must keep their order: that of the document, or one for the whole
    /// collection where a collation makes keys equal that differ, or where the order of insertion counts.
    #[must_use]
    pub fn order_of(&self, key: &DocumentKey) -> CanonicalKey {
        if self.entry().capped { CanonicalKey::ANY } else { self.identity_of(key) }
    }

    /// The key by which changes of one document are known: one for all, where a collation makes keys equal that differ.
    #[must_use]
    pub fn identity_of(&self, key: &DocumentKey) -> CanonicalKey {
        if self.collated { CanonicalKey::ANY } else { key.canonical() }
    }
}

/// All of them. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Catalog(Arc<RwLock<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    by_uuid: HashMap<CollectionUuid, Arc<Collection>>,
    /// Events up to this time may already have been reflected in the listing that the plan was made from.
    listed_until: ClusterTime,
}

impl Catalog {
    /// From what was saved.
    #[must_use]
    pub fn new(entries: Vec<Entry>, listed_until: ClusterTime) -> Self {
        let by_uuid = entries.into_iter().map(|e| (e.uuid, Arc::new(Collection::new(e)))).collect();
        Self(Arc::new(RwLock::new(Inner { by_uuid, listed_until })))
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// See `Inner`.
    #[must_use]
    pub fn listed_until(&self) -> ClusterTime {
        self.read().listed_until
    }

    /// The collection of that identity, dropped or not.
    #[must_use]
    pub fn find(&self, uuid: CollectionUuid) -> Option<Arc<Collection>> {
        self.read().by_uuid.get(&uuid).cloned()
    }

    /// The living collection or view that has this name on the source.
    #[must_use]
    pub fn named(&self, ns: &Namespace) -> Option<Arc<Collection>> {
        self.read()
            .by_uuid
            .values()
            .find(|c| {
                let e = c.entry();
                e.ns == *ns && e.state != State::Dropped
            })
            .cloned()
    }

    /// The living collection that has this name on the target.
    #[must_use]
    pub fn named_on_target(&self, ns: &Namespace) -> Option<Arc<Collection>> {
        self.read()
            .by_uuid
            .values()
            .find(|c| {
                let e = c.entry();
                e.target == *ns && e.state != State::Dropped
            })
            .cloned()
    }

    /// Adds one, or puts it in place of another of its identity.
    pub fn add(&self, entry: Entry) -> Arc<Collection> {
        let collection = Arc::new(Collection::new(entry));
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        inner.by_uuid.insert(collection.uuid(), collection.clone());
        collection
    }

    /// Forgets what was dropped before the saved resume point: no replay will ask for it. Gives whom it forgot.
    pub fn forget_dropped(&self, passed: ClusterTime) -> Vec<CollectionUuid> {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let gone = |c: &Arc<Collection>| {
            let e = c.entry();
            e.state == State::Dropped && e.known_at < passed
        };
        let forgotten: Vec<_> = inner.by_uuid.iter().filter(|(_, c)| gone(c)).map(|(uuid, _)| *uuid).collect();
        for uuid in &forgotten {
            inner.by_uuid.remove(uuid);
        }
        forgotten
    }

    /// Everything that is not dropped, by name.
    #[must_use]
    pub fn living(&self) -> Vec<Arc<Collection>> {
        let mut all: Vec<_> = self.read().by_uuid.values().filter(|c| c.entry().state != State::Dropped).cloned().collect();
        all.sort_by_key(|c| c.entry().ns.clone());
        all
    }

    /// Indexes that are wanted but not yet built.
    #[must_use]
    pub fn unfinished_indexes(&self) -> Vec<UnfinishedIndex> {
        let living = self.living();
        living.iter().flat_map(|c| c.entry().unfinished(&c.builds)).collect()
    }
}
