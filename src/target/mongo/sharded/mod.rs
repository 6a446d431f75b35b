//! What is different where the target is a sharded cluster: by which key each collection is distributed, writes that name it, and
//! the making of sharded collections.

mod aim;
mod layout;
mod zones;

pub(crate) use aim::apply;
pub use layout::Shard;
pub(crate) use layout::{place, shard, shards};
pub use zones::{Members, Place};

use crate::{
    error::Result,
    model::{CollectionUuid, Namespace, ShardKey, Sharded, collated, raw},
    mongo::{Cluster, sharding},
};
use bson::RawDocument;
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
        let key = sharding::collection(cluster, uuid).await?.map(|row| Arc::new(row.key));
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid, key.clone());
        Ok(key)
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
