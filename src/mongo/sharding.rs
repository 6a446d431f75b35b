//! What the catalog of a sharded cluster says: its shards, its sharded collections with their chunks, its zones.

use super::{Cluster, listing};
use crate::{
    error::Result,
    model::{ClusterTime, CollectionUuid, Distributed, Namespace, ShardKey, Zone, raw},
};
use bson::{RawDocument, RawDocumentBuf, rawdoc};
use std::collections::BTreeMap;

/// A row of `config.shards`.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) name: String,
    /// Those that it is in.
    pub(crate) zones: Vec<String>,
    /// Whether it is being emptied, to be removed.
    pub(crate) draining: bool,
    /// When the list of shards was changed: this one was added, or another removed.
    pub(crate) changed: Option<ClusterTime>,
}

/// A row of `config.collections`.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) ns: Namespace,
    pub(crate) uuid: CollectionUuid,
    pub(crate) key: ShardKey,
    /// By what it will be distributed, while it is being resharded.
    pub(crate) later: Option<ShardKey>,
    /// Whether it was sharded as unique. It cannot become so later.
    pub(crate) unique: bool,
}

/// A row of `config.chunks`.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) min: RawDocumentBuf,
    pub(crate) max: RawDocumentBuf,
    pub(crate) shard: String,
}

/// All shards, by name.
///
/// # Errors
/// As classified, as all the rest here.
pub(crate) async fn shards(cluster: &Cluster) -> Result<Vec<Shard>> {
    let listed = rows(cluster, "shards", rawdoc! {"find": "shards", "sort": {"_id": 1}, "readConcern": {"level": "majority"}}).await?;
    let shard = |row: &RawDocumentBuf| {
        let zones = raw::get(row, "tags").and_then(|e| e.document()).into_iter().flat_map(raw::elements);
        Some(Shard {
            name: text(row, "_id")?,
            zones: zones.filter_map(|e| Some(e.str()?.to_owned())).collect(),
            draining: raw::get(row, "draining").and_then(|e| e.bool()) == Some(true),
            changed: row.get_timestamp("topologyTime").ok().map(ClusterTime::from),
        })
    };
    Ok(listed.iter().filter_map(shard).collect())
}

/// The databases.
pub(crate) async fn databases(cluster: &Cluster) -> Result<Vec<String>> {
    let listed = rows(cluster, "databases", rawdoc! {"find": "databases"}).await?;
    Ok(listed.iter().filter_map(|row| text(row, "_id")).collect())
}

/// The sharded collections.
pub(crate) async fn collections(cluster: &Cluster) -> Result<Vec<Row>> {
    collections_where(cluster, rawdoc! {}).await
}

/// That of an identity, where it is sharded.
pub(crate) async fn collection(cluster: &Cluster, uuid: CollectionUuid) -> Result<Option<Row>> {
    let mut filter = raw::Builder::default();
    filter.uuid("uuid", uuid);
    Ok(collections_where(cluster, filter.finish()).await?.pop())
}

/// That of a name, where it is sharded.
pub(crate) async fn named(cluster: &Cluster, ns: &Namespace) -> Result<Option<Row>> {
    Ok(collections_where(cluster, rawdoc! {"_id": ns.as_str()}).await?.pop())
}

async fn collections_where(cluster: &Cluster, filter: RawDocumentBuf) -> Result<Vec<Row>> {
    let command = rawdoc! {"find": "collections", "filter": filter, "readConcern": {"level": "majority"}};
    Ok(rows(cluster, "sharded collections", command).await?.iter().filter_map(row).collect())
}

fn row(listed: &RawDocumentBuf) -> Option<Row> {
    let is = |option: &str| raw::get(listed, option).and_then(|e| e.bool()) == Some(true);
    // An unsharded collection may stand there, too, from 8.0 on.
    if is("unsplittable") {
        return None;
    }
    Some(Row {
        ns: Namespace::parse(&text(listed, "_id")?)?,
        uuid: CollectionUuid(raw::get(listed, "uuid")?.value.get(5..21)?.try_into().ok()?),
        key: ShardKey::of(raw::get(listed, "key")?.document()?)?,
        later: later(listed),
        unique: is("unique"),
    })
}

fn later(row: &RawDocument) -> Option<ShardKey> {
    let donor = raw::get(raw::get(row, "reshardingFields")?.document()?, "donorFields")?.document()?;
    ShardKey::of(raw::get(donor, "reshardingKey")?.document()?)
}

/// The chunks of a collection, in ascending order.
pub(crate) async fn chunks(cluster: &Cluster, uuid: CollectionUuid) -> Result<Vec<Chunk>> {
    let mut find = raw::Builder::default();
    find.str("find", "chunks").begin("filter").uuid("uuid", uuid).end().begin("sort").i32("min", 1).end();
    let chunk = |row: &RawDocumentBuf| Some(Chunk { min: bound(row, "min")?, max: bound(row, "max")?, shard: text(row, "shard")? });
    Ok(rows(cluster, "chunks", find.finish()).await?.iter().filter_map(chunk).collect())
}

/// Ranges of keys that belong to zones, by the names of collections, ascending. Without the shards that are in them.
pub(crate) async fn zones(cluster: &Cluster) -> Result<BTreeMap<Namespace, Vec<Zone>>> {
    let mut found: BTreeMap<Namespace, Vec<Zone>> = BTreeMap::new();
    for row in rows(cluster, "zones", rawdoc! {"find": "tags", "sort": {"ns": 1, "min": 1}}).await? {
        let range = || Some(Zone { name: text(&row, "tag")?, min: bound(&row, "min")?, max: bound(&row, "max")?, shards: Vec::new() });
        if let (Some(ns), Some(zone)) = (text(&row, "ns").and_then(|ns| Namespace::parse(&ns)), range()) {
            found.entry(ns).or_default().push(zone);
        }
    }
    Ok(found)
}

/// How all collections are distributed, as far as clusters with other shards can be compared with this one.
pub(crate) async fn distribution(cluster: &Cluster) -> Result<BTreeMap<Namespace, Distributed>> {
    let mut zones = zones(cluster).await?;
    let mut found: BTreeMap<_, _> = collections(cluster)
        .await?
        .into_iter()
        .map(|Row { ns, key, unique, .. }| {
            let zones = zones.remove(&ns).unwrap_or_default();
            (ns, Distributed { key: Some(key), unique, zones })
        })
        .collect();
    // Zones may be given before a collection is sharded.
    found.extend(zones.into_iter().map(|(ns, zones)| (ns, Distributed { key: None, unique: false, zones })));
    Ok(found)
}

fn text(row: &RawDocument, field: &str) -> Option<String> {
    raw::get(row, field).and_then(|e| e.str()).map(str::to_owned)
}

fn bound(row: &RawDocument, field: &str) -> Option<RawDocumentBuf> {
    raw::get(row, field).and_then(|e| e.document()).map(raw::owned)
}

async fn rows(cluster: &Cluster, what: &str, command: RawDocumentBuf) -> Result<Vec<RawDocumentBuf>> {
    listing::found(cluster, "config", &format!("reading the cluster's {what}"), &command).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_sharded_collections() {
        let uuid = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] };
        let found = row(&rawdoc! {"_id": "shop.orders", "uuid": uuid.clone(), "key": {"a": 1.0}, "unique": true}).unwrap();
        assert_eq!((found.ns.as_str(), found.uuid, found.unique), ("shop.orders", CollectionUuid([7; 16]), true));
        assert_eq!(found.key, ShardKey::parse("a:1").unwrap());
        assert_eq!(found.later, None);
        assert!(row(&rawdoc! {"_id": "a.b", "uuid": uuid.clone(), "key": {"_id": 1}, "unsplittable": true}).is_none());
        let fields = rawdoc! {"donorFields": {"reshardingKey": {"z": "hashed", "n": 1}}};
        let found = row(&rawdoc! {"_id": "a.b", "uuid": uuid, "key": {"n": 1}, "reshardingFields": fields}).unwrap();
        assert_eq!(found.later, Some(ShardKey::parse("z:hashed,n:1").unwrap()));
    }
}
