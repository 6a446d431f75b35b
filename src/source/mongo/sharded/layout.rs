//! How a sharded source distributes its collections, for a target that is to do the same.

use crate::{
    error::Result,
    model::{CollectionUuid, Sharded, raw},
    mongo::{Cluster, sharding},
};
use bson::{RawDocument, RawDocumentBuf};
use std::collections::BTreeMap;

/// The shard keys of all sharded collections by their identity, each with its zones and the shards in them, and with the bounds between
/// its chunks where they are ranges of values.
pub(in crate::source::mongo) async fn layout(cluster: &Cluster) -> Result<BTreeMap<CollectionUuid, Sharded>> {
    let mut found = BTreeMap::new();
    let mut zones = sharding::zones(cluster).await?;
    let shards = sharding::shards(cluster).await?;
    for collection in sharding::collections(cluster).await? {
        let key = collection.key;
        let bounds = if key.is_hashed_first() { Vec::new() } else { bounds(cluster, collection.uuid).await? };
        let mut zones = zones.remove(&collection.ns).unwrap_or_default();
        for zone in &mut zones {
            zone.shards = shards.iter().filter(|shard| shard.zones.contains(&zone.name)).map(|shard| shard.name.clone()).collect();
        }
        found.insert(collection.uuid, Sharded { bounds, zones, ..Sharded::by(key) });
    }
    Ok(found)
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
