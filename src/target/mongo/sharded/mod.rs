//! What is different where the target is a sharded cluster: by which key each collection is distributed, writes that name it, and
//! the making of sharded collections.

mod aim;
mod layout;
mod moved;
mod resharded;
mod zones;

pub(crate) use aim::apply;
pub use layout::Shard;
pub(crate) use layout::{place, shard, shards};
pub(crate) use resharded::successor as resharded;
pub use zones::{Members, Place};

use crate::{
    error::Result,
    model::{CollectionUuid, Namespace, ShardKey, Sharded, collated, raw},
    mongo::Cluster,
    target::TargetCollection,
};
use bson::{DateTime, RawDocument};
use moved::Sightings;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// What is wanted and known of a sharded target. Cheap to clone; all clones know the same.
#[derive(Debug, Clone)]
pub struct Sharding {
    /// By the names on the target.
    wanted: Arc<Mutex<BTreeMap<Namespace, Sharded>>>,
    /// Names to which somebody gave a shard key: whatever is called so gets it.
    given: Arc<BTreeSet<Namespace>>,
    /// Shard keys of collections, by their identity there, as far as they were asked for; `None`: on one shard.
    known: Arc<Mutex<HashMap<CollectionUuid, Option<Arc<ShardKey>>>>>,
    sightings: Arc<Sightings>,
}

impl Sharding {
    /// Collections of these names are sharded when they are made; those `given` also when they are renamed so. `begun`: before the
    /// migration made its first collection there.
    #[must_use]
    pub fn new(wanted: BTreeMap<Namespace, Sharded>, given: BTreeSet<Namespace>, begun: DateTime) -> Self {
        let sightings = Arc::new(Sightings::since(begun));
        Self { wanted: Arc::new(Mutex::new(wanted)), given: Arc::new(given), known: Arc::default(), sightings }
    }

    /// How a collection of that name is to be distributed.
    #[must_use]
    pub fn wanted(&self, ns: &Namespace) -> Option<Sharded> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).get(ns).cloned()
    }

    /// Whether somebody gave a shard key to the name.
    #[must_use]
    pub fn is_given(&self, ns: &Namespace) -> bool {
        self.given.contains(ns)
    }

    /// As the source has it now, unless somebody gave a key.
    pub fn lay_out(&self, ns: &Namespace, how: Option<Sharded>) {
        if self.is_given(ns) {
            return;
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        match how {
            Some(how) => wanted.insert(ns.clone(), how),
            None => wanted.remove(ns),
        };
    }

    /// By which key a collection is distributed; `None` where it lies on one shard.
    pub(crate) async fn key_of(&self, cluster: &Cluster, uuid: CollectionUuid) -> Result<Option<Arc<ShardKey>>> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&uuid) {
            return Ok(known.clone());
        }
        let key = resharded::key_of(cluster, uuid).await?.map(Arc::new);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid, key.clone());
        Ok(key)
    }

    /// Whether a key that a batch was applied by was in force until now. Nothing tells when somebody else refines it, or shards
    /// what was not: a write that names too little of it goes to several shards without their versions, and may miss its document
    /// while a chunk moves. To apply a batch again leaves the same.
    pub(crate) async fn is_still(&self, cluster: &Cluster, uuid: CollectionUuid, by: Option<&ShardKey>) -> Result<bool> {
        let now = resharded::key_of(cluster, uuid).await?;
        let same = now.as_ref() == by;
        if !same {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid, now.map(Arc::new));
        }
        Ok(same)
    }

    /// These collections are there now.
    pub(crate) fn seen(&self, there: impl Iterator<Item = CollectionUuid>) {
        self.sightings.note(there);
    }

    /// We have just made it.
    pub(crate) fn made(&self, uuid: CollectionUuid) {
        self.sightings.note_ours(uuid);
    }

    /// The collection that the cluster itself has put in the place of one: by resharding it, or by moving its database.
    pub(crate) async fn successor(&self, cluster: &Cluster, of: &TargetCollection) -> Result<Option<CollectionUuid>> {
        match resharded::successor(cluster, of).await? {
            Some(uuid) => Ok(Some(uuid)),
            None => self.sightings.successor(cluster, of).await,
        }
    }

    /// Which collection each name stands for that may stand for another one by now.
    pub(crate) async fn identities(&self, cluster: &Cluster) -> Result<BTreeMap<Namespace, CollectionUuid>> {
        let mut found = self.sightings.identities(cluster).await?;
        found.extend(resharded::identities(cluster).await?);
        Ok(found)
    }

    /// What was known is asked for again: collections were made, renamed or sharded.
    pub(crate) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Whether what is made with these options can be sharded: what had the name before it could.
pub(crate) fn can_be(options: &RawDocument) -> bool {
    let has = |option: &str| raw::get(options, option).is_some_and(|e| e.bool() != Some(false));
    !has("capped") && !has("viewOn") && !has("timeseries") && !collated(options)
}
