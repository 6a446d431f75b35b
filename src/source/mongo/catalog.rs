//! How large collections are, and how far back the oplog reaches.

use super::super::{CollectionRef, Estimate, Found, OplogWindow};
use super::fetch::locate;
use crate::{
    error::{Error, Result},
    model::{ClusterTime, IndexSpec},
    mongo::{Cluster, listing, listing::count},
};
use bson::doc;

/// NamespaceNotFound.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// The same, as `$collStats` says it on 4.4.2 (RAN).
const NO_STORAGE_STATS: i32 = 40280;

/// The indexes of a collection, whatever its name is by now: `listIndexes` knows names only.
pub(crate) async fn indexes(cluster: &Cluster, of: &CollectionRef) -> Result<Found<Vec<IndexSpec>>> {
    let Some(there) = locate(cluster, of).await? else { return Ok(Found::Gone) };
    Ok(listing::indexes(cluster, &there.ns).await?.map_or(Found::Gone, Found::Here))
}

/// Documents and bytes by `collStats`; zero where it is gone.
pub(crate) async fn estimate(cluster: &Cluster, of: &CollectionRef) -> Result<Estimate> {
    let pipeline = vec![doc! {"$collStats": {"storageStats": {}}}];
    let command = doc! {"aggregate": of.ns.coll(), "pipeline": pipeline, "cursor": {}};
    let doing = format!("asking for the size of `{}`", of.ns);
    let reply = match cluster.run(of.ns.db(), &doing, &command).await {
        Err(error) if matches!(error.code(), Some(NAMESPACE_NOT_FOUND | NO_STORAGE_STATS | listing::IS_A_VIEW)) => {
            return Ok(Estimate::default());
        }
        other => other?,
    };
    let shards = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
    let stats = || shards.iter().filter_map(|shard| shard.as_document()?.get_document("storageStats").ok());
    let sum = |field: &str| stats().filter_map(|s| s.get(field).and_then(count)).sum::<u64>();
    // Of the buckets of a time series there is no `count` (RAN on 6.0.5 and 6.0.27).
    let buckets = || stats().filter_map(|s| s.get_document("timeseries").ok()?.get("bucketCount").and_then(count)).sum::<u64>();
    let documents = if of.ns.is_buckets() { buckets() } else { sum("count") };
    Ok(Estimate { documents, bytes: sum("size") })
}

/// The ends of the oplog, from `serverStatus`, which needs no right to read `local`.
pub(crate) async fn oplog_window(cluster: &Cluster) -> Result<Option<OplogWindow>> {
    let command = doc! {"serverStatus": 1, "oplog": 1};
    let reply = match cluster.run("admin", "asking for the ends of the oplog", &command).await {
        Err(Error::Forbidden { .. }) => return Ok(None),
        other => other?,
    };
    let end = |name: &str| reply.get_document("oplog").and_then(|o| o.get_timestamp(name)).map(ClusterTime::from).ok();
    let Some((oldest, newest)) = end("earliestOptime").zip(end("latestOptime")) else { return Ok(None) };
    Ok(Some(OplogWindow { oldest, newest, filled: filled(cluster).await?.unwrap_or(1.0) }))
}

/// How much of the oplog's room is used; `None` where it may not be asked for: then it is taken for full.
async fn filled(cluster: &Cluster) -> Result<Option<f64>> {
    let command = doc! {"collStats": "oplog.rs"};
    let reply = match cluster.run("local", "asking for the size of the oplog", &command).await {
        Err(Error::Forbidden { .. } | Error::Refused { .. }) => return Ok(None),
        other => other?,
    };
    let bytes = |name: &str| reply.get(name).and_then(count);
    #[expect(clippy::cast_precision_loss, reason = "a share, about")]
    let share = |(size, max): (u64, u64)| (max > 0).then(|| (size as f64 / max as f64).clamp(0.000_1, 1.0));
    Ok(bytes("size").zip(bytes("maxSize")).and_then(share))
}
