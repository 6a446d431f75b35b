//! What is different where the target is a sharded cluster: by which key each collection is distributed, writes that name it, and
//! the making of sharded collections.

mod aim;
mod layout;
mod resharded;
mod zones;

pub(crate) use aim::apply;
pub use layout::Shard;
pub(crate) use layout::{place, shard, shards};
pub(crate) use resharded::{identities, successor};
pub use zones::{Members, Place};

use crate::{
    error::Result,
    model::{CollectionUuid, Namespace, ShardKey, Sharded, collated, raw},
    mongo::{Cluster, listing},
};
use bson::{RawDocument, RawDocumentBuf, rawdoc};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// What is wanted and known of a sharded target. Cheap to clone; all clones know the same.
#[derive(Debug, Clone, Default)]
pub struct Sharding {
    /// By the names on the target.
    wanted: Arc<BTreeMap<Namespace, Sharded>>,
    /// Shard keys of collections, by their identity there, as far as they were asked for; `None`: on one shard.
    known: Arc<Mutex<HashMap<CollectionUuid, Option<Arc<ShardKey>>>>>,
}

impl Sharding {
    /// Collections of these names are sharded when they are made.
    #[must_use]
    pub fn new(wanted: BTreeMap<Namespace, Sharded>) -> Self {
        Self { wanted: Arc::new(wanted), known: Arc::default() }
    }

    /// How a collection of that name is to be distributed.
    #[must_use]
    pub fn wanted(&self, ns: &Namespace) -> Option<&Sharded> {
        self.wanted.get(ns)
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

    /// What was known is asked for again: collections were made, renamed or sharded.
    pub(crate) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Those of all sharded collections.
pub(crate) async fn shard_keys(cluster: &Cluster) -> Result<BTreeMap<Namespace, ShardKey>> {
    Ok(keys(cluster, rawdoc! {}).await?.into_iter().collect())
}

/// Whether what is made with these options can be sharded: what had the name before it could.
pub(crate) fn can_be(options: &RawDocument) -> bool {
    let has = |option: &str| raw::get(options, option).is_some_and(|e| e.bool() != Some(false));
    !has("capped") && !has("viewOn") && !has("timeseries") && !collated(options)
}

/// From the cluster's own catalog.
async fn keys(cluster: &Cluster, filter: RawDocumentBuf) -> Result<Vec<(Namespace, ShardKey)>> {
    let command = rawdoc! {"find": "collections", "filter": filter, "readConcern": {"level": "majority"}};
    let found = listing::found(cluster, "config", "asking for shard keys", &command).await?;
    // An unsharded collection may stand there, too, from 8.0 on.
    let sharded = found.iter().filter(|c| raw::get(c, "unsplittable").and_then(|e| e.bool()) != Some(true));
    let key = |c: &RawDocumentBuf| {
        let pattern = raw::get(c, "key")?.document()?;
        Some((Namespace::parse(raw::get(c, "_id")?.str()?)?, ShardKey::of(pattern)?))
    };
    Ok(sharded.filter_map(key).collect())
}
