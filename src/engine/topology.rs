//! What a sharded source is: its identity, its shards, its balancer, and where its shards do not agree.

use super::{
    connect::Clusters,
    preflight::{Finding, Level},
};
use crate::{
    config::Config,
    error::{Error, Result},
    model::{IndexSpec, ShardKey},
    mongo::Cluster,
    source::Source,
};
use bson::{Bson, Document, RawDocumentBuf, doc};
use std::collections::{BTreeMap, BTreeSet};

/// What to do where shards cannot be asked directly.
pub(super) const DIRECT: &str =
    "let the shards be reached from here, and give each of them the same user with `clusterMonitor`; or watch their oplogs yourself";

/// The id that a cluster got when its first shard was added.
pub(super) async fn identity(cluster: &Cluster) -> Result<String> {
    let version = batch(cluster, "config", "asking for the cluster's id", &doc! {"find": "version", "limit": 1}).await?;
    let id = version.first().and_then(|v| v.get_object_id("clusterId").ok());
    id.map(bson::oid::ObjectId::to_hex).ok_or_else(|| Error::UnfitCluster {
        side: cluster.side(),
        problem: "does not tell the id of the sharded cluster (`config.version`)".into(),
        hint: "look whether the connection string leads to a `mongos` of a cluster with shards".into(),
    })
}

/// Findings about a sharded source; none for a replica set.
pub(super) async fn look(config: &Config, clusters: &Clusters) -> Result<Vec<Finding>> {
    if !clusters.source.is_sharded().await? {
        return Ok(Vec::new());
    }
    let cluster = clusters.source.cluster();
    let finding = |level, what: String, hint: Option<&str>| Finding { level, what, hint: hint.map(str::to_owned), exit_code: 0 };
    let shards = batch(cluster, "config", "listing the shards", &doc! {"find": "shards", "batchSize": 10_000}).await?;
    let names: Vec<&str> = shards.iter().filter_map(|s| s.get_str("_id").ok()).collect();
    let mut found = vec![finding(Level::Ok, format!("the source has {} shards: {}", names.len(), names.join(", ")), None)];
    let settings = doc! {"find": "settings", "filter": {"_id": "balancer"}, "limit": 1};
    let settings = batch(cluster, "config", "asking for the balancer", &settings).await?;
    let stopped = settings.first().is_some_and(|s| s.get_bool("stopped").unwrap_or(false) || s.get_str("mode").is_ok_and(|m| m == "off"));
    found.push(finding(
        Level::Ok,
        format!("the balancer of the source is {}: chunks may move meanwhile", if stopped { "off" } else { "on" }),
        None,
    ));
    for collection in batch(cluster, "config", "listing sharded collections", &doc! {"find": "collections", "batchSize": 10_000}).await? {
        let Some(ns) = collection.get_str("_id").ok().and_then(crate::model::Namespace::parse) else { continue };
        if !config.selection.takes(&ns) {
            continue;
        }
        let owners = doc! {"distinct": "chunks", "key": "shard", "query": {"uuid": collection.get("uuid").cloned().unwrap_or(Bson::Null)}};
        let owners = cluster.run("config", &format!("asking for the shards of `{ns}`"), &owners).await?;
        let owners: BTreeSet<&str> = owners.get_array("values").into_iter().flatten().filter_map(Bson::as_str).collect();
        // Of a time series by its own name: the roles do not reach to its buckets.
        let named = ns.series().unwrap_or_else(|| ns.clone());
        let stats = doc! {"aggregate": named.coll(), "pipeline": [{"$indexStats": {}}], "cursor": {"batchSize": 10_000}};
        let stats = batch(cluster, ns.db(), &format!("comparing the indexes of `{ns}`"), &stats).await?;
        found.extend(disagreements(&owners, &stats).into_iter().map(|what| {
            finding(
                Level::Warning,
                format!("`{ns}`: {what}"),
                Some("build it on the shards that lack it (`createIndexes` through the router), or drop it"),
            )
        }));
        // A series tells of its indexes in its own words, and its shard key in those of its buckets.
        let key = collection.get_document("key").ok().filter(|_| !ns.is_buckets());
        let key = key.and_then(|key| ShardKey::of(&RawDocumentBuf::try_from(key).ok()?));
        found.extend(key.into_iter().flat_map(|key| keyless(&owners, &stats, &key)).map(|what| {
            finding(
                Level::Warning,
                format!("`{ns}`: {what}"),
                Some("build it (`createIndexes` through the router): no chunk can move without it"),
            )
        }));
    }
    Ok(found)
}

/// Indexes that some of the shards which own chunks lack, or have otherwise.
fn disagreements(owners: &BTreeSet<&str>, stats: &[Document]) -> Vec<String> {
    let mut indexes: BTreeMap<&str, BTreeMap<String, BTreeSet<&str>>> = BTreeMap::new();
    for index in stats {
        let (Ok(name), Ok(shard)) = (index.get_str("name"), index.get_str("shard")) else { continue };
        if owners.contains(shard) {
            let spec = index.get_document("spec").map(ToString::to_string).unwrap_or_default();
            indexes.entry(name).or_default().entry(spec).or_default().insert(shard);
        }
    }
    let mut told = Vec::new();
    for (name, specs) in indexes {
        let having: BTreeSet<&str> = specs.values().flatten().copied().collect();
        if specs.len() > 1 {
            told.push(format!("the index `{name}` is not the same on all shards"));
        } else if let Some(without) = owners.iter().find(|owner| !having.contains(*owner)) {
            told.push(format!("the index `{name}` is missing on the shard {without}"));
        }
    }
    told
}

/// Shards that own chunks and have no index for the shard key.
fn keyless(owners: &BTreeSet<&str>, stats: &[Document], key: &ShardKey) -> Vec<String> {
    let supports = |index: &&Document| {
        let spec = index.get_document("spec").ok().and_then(|spec| RawDocumentBuf::try_from(spec).ok());
        spec.is_some_and(|spec| key.is_supported_by(&IndexSpec(spec)))
    };
    let having: BTreeSet<&str> = stats.iter().filter(supports).filter_map(|index| index.get_str("shard").ok()).collect();
    owners.difference(&having).map(|shard| format!("the index that its shard key {key} needs is missing on the shard {shard}")).collect()
}

async fn batch(cluster: &Cluster, db: &str, doing: &str, command: &Document) -> Result<Vec<Document>> {
    let reply = cluster.run(db, doing, command).await?;
    let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
    Ok(batch.iter().filter_map(Bson::as_document).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_must_be_on_every_shard_that_owns_chunks() {
        let index = |name: &str, shard: &str, unique: bool| doc! {"name": name, "shard": shard, "spec": {"name": name, "unique": unique}};
        let owners = BTreeSet::from(["a", "b"]);
        let even = [index("x", "a", false), index("x", "b", false), index("y", "c", false)];
        assert!(disagreements(&owners, &even).is_empty(), "a shard without chunks does not count");
        let odd = [index("x", "a", false), index("x", "b", true), index("y", "b", false)];
        let told = disagreements(&owners, &odd);
        assert!(told.len() == 2 && told[0].contains("not the same") && told[1].contains("missing on the shard a"), "{told:?}");
    }
}
