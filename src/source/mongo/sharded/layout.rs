//! How a sharded source distributes its collections, for a target that is to do the same.

use crate::{
    error::Result,
    model::{CollectionUuid, ShardKey, Sharded, Zone, raw},
    mongo::{Cluster, listing},
};
use bson::{RawDocument, RawDocumentBuf, rawdoc};
use std::collections::BTreeMap;

/// The shard keys of all sharded collections by their identity, each with the bounds between its chunks where they are ranges of
/// values.
pub(in crate::source::mongo) async fn layout(cluster: &Cluster) -> Result<BTreeMap<CollectionUuid, Sharded>> {
    let mut found = BTreeMap::new();
    let mut zones = zones(cluster).await?;
    for collection in rows(cluster, rawdoc! {"find": "collections", "readConcern": {"level": "majority"}}).await? {
        // An unsharded collection may stand there, too, from 8.0 on.
        if raw::get(&collection, "unsplittable").and_then(|e| e.bool()) == Some(true) {
            continue;
        }
        let key = raw::get(&collection, "key").and_then(|e| e.document()).and_then(ShardKey::of);
        let uuid = raw::get(&collection, "uuid").and_then(|e| e.value.get(5..21)?.try_into().ok()).map(CollectionUuid);
        let (Some(key), Some(uuid)) = (key, uuid) else { continue };
        let bounds = if key.is_hashed_first() { Vec::new() } else { bounds(cluster, uuid).await? };
        let zones = raw::get(&collection, "_id").and_then(|e| zones.remove(e.str()?)).unwrap_or_default();
        found.insert(uuid, Sharded { bounds, zones, ..Sharded::by(key) });
    }
    Ok(found)
}

/// By the names of collections, in the order of their ranges.
async fn zones(cluster: &Cluster) -> Result<BTreeMap<String, Vec<Zone>>> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for shard in rows(cluster, rawdoc! {"find": "shards"}).await? {
        let tags = raw::get(&shard, "tags").and_then(|e| e.document());
        let name = raw::get(&shard, "_id").and_then(|e| e.str()).unwrap_or_default();
        for zone in tags.into_iter().flat_map(raw::elements).filter_map(|e| e.str()) {
            members.entry(zone.to_owned()).or_default().push(name.to_owned());
        }
    }
    let mut found: BTreeMap<String, Vec<Zone>> = BTreeMap::new();
    for range in rows(cluster, rawdoc! {"find": "tags", "sort": {"ns": 1, "min": 1}}).await? {
        let text = |field| raw::get(&range, field).and_then(|e| e.str()).map(str::to_owned);
        let bound = |field| raw::get(&range, field).and_then(|e| e.document()).map(raw::owned);
        if let (Some(ns), Some(name), Some(min), Some(max)) = (text("ns"), text("tag"), bound("min"), bound("max")) {
            let shards = members.get(&name).cloned().unwrap_or_default();
            found.entry(ns).or_default().push(Zone { name, min, max, shards });
        }
    }
    Ok(found)
}

/// Where a chunk begins, but for the first.
async fn bounds(cluster: &Cluster, uuid: CollectionUuid) -> Result<Vec<RawDocumentBuf>> {
    let mut find = raw::Builder::default();
    find.str("find", "chunks").begin("filter").uuid("uuid", uuid).end().begin("sort").i32("min", 1).end();
    let chunks = rows(cluster, find.finish()).await?;
    let min = |chunk: &RawDocumentBuf| raw::get(chunk, "min").and_then(|e| e.document()).map(raw::owned);
    Ok(chunks.iter().skip(1).filter_map(min).filter(|min| is_bound(min)).collect())
}

/// Whether a chunk's lower end is one that a collection can be split at anew: `MinKey` alone is none.
fn is_bound(min: &RawDocument) -> bool {
    raw::elements(min).any(|e| e.tag != raw::tag::MIN_KEY)
}

async fn rows(cluster: &Cluster, command: RawDocumentBuf) -> Result<Vec<RawDocumentBuf>> {
    listing::found(cluster, "config", "asking how collections are distributed", &command).await
}
