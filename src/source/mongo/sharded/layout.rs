//! How a sharded source distributes its collections, for a target that is to do the same.

use crate::{
    error::Result,
    model::{CollectionUuid, Namespace, Sharded, Zone, raw},
    mongo::{Cluster, sharding},
};
use bson::{RawDocument, RawDocumentBuf};
use std::collections::BTreeMap;

/// The shard keys of all sharded collections by their identity, each with its zones and the shards in them, and with the bounds between
/// its chunks where they are ranges of values.
pub(in crate::source::mongo) async fn layout(cluster: &Cluster) -> Result<BTreeMap<CollectionUuid, Sharded>> {
    let mut found = BTreeMap::new();
    let all = Zoned::of(cluster).await?;
    for collection in sharding::collections(cluster).await? {
        found.insert(collection.uuid, all.like(cluster, collection).await?);
    }
    Ok(found)
}

/// As [`layout`], of one; `None` where it is not sharded, or gone.
pub(in crate::source::mongo) async fn layout_of(cluster: &Cluster, uuid: CollectionUuid) -> Result<Option<Sharded>> {
    match sharding::collection(cluster, uuid).await? {
        Some(collection) => Ok(Some(Zoned::of(cluster).await?.like(cluster, collection).await?)),
        None => Ok(None),
    }
}

/// Zones by collections, and the shards that may be in them.
struct Zoned {
    zones: BTreeMap<Namespace, Vec<Zone>>,
    shards: Vec<sharding::Shard>,
}

impl Zoned {
    async fn of(cluster: &Cluster) -> Result<Self> {
        Ok(Self { zones: sharding::zones(cluster).await?, shards: sharding::shards(cluster).await? })
    }

    async fn like(&self, cluster: &Cluster, collection: sharding::Row) -> Result<Sharded> {
        let key = collection.key;
        let bounds = if key.is_hashed_first() { Vec::new() } else { bounds(cluster, collection.uuid).await? };
        let mut zones = self.zones.get(&collection.ns).cloned().unwrap_or_default();
        for zone in &mut zones {
            zone.shards = self.shards.iter().filter(|shard| shard.zones.contains(&zone.name)).map(|shard| shard.name.clone()).collect();
        }
        Ok(Sharded { bounds, zones, ..Sharded::by(key) })
    }
}

/// Where a chunk begins, but for the first.
async fn bounds(cluster: &Cluster, uuid: CollectionUuid) -> Result<Vec<RawDocumentBuf>> {
    let chunks = sharding::chunks(cluster, uuid).await?;
    Ok(chunks.into_iter().skip(1).map(|chunk| chunk.min).filter(|min| is_bound(min)).collect())
}

/// Whether a chunk's lower end is one that a collection can be split at anew: `MinKey` alone is none.
fn is_bound(min: &RawDocument) -> bool {
    raw::elements(min).any(|e| e.tag != raw::tag::MIN_KEY)
}
