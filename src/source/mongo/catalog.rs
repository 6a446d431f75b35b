//! How large collections are, and how far back the oplog reaches.

use super::super::{CollectionRef, Estimate, Found, OplogWindow};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, IndexSpec},
    mongo::{Cluster, listing, listing::count},
};
use bson::{Bson, doc};

/// NamespaceNotFound.
const NAMESPACE_NOT_FOUND: i32 = 26;

/// The indexes of a collection; `Gone` where the name stands for nothing.
pub(crate) async fn indexes(cluster: &Cluster, of: &CollectionRef) -> Result<Found<Vec<IndexSpec>>> {
    Ok(listing::indexes(cluster, &of.ns).await?.map_or(Found::Gone, Found::Here))
}

/// Documents and bytes by `collStats`; zero where it is gone.
pub(crate) async fn estimate(cluster: &Cluster, of: &CollectionRef) -> Result<Estimate> {
    let pipeline = vec![doc! {"$collStats": {"storageStats": {}}}];
    let command = doc! {"aggregate": of.ns.coll(), "pipeline": pipeline, "cursor": {}};
    let doing = format!("asking for the size of `{}`", of.ns);
    let reply = match cluster.run(of.ns.db(), &doing, &command).await {
        Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => return Ok(Estimate::default()),
        other => other?,
    };
    let shards = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
    let sum = |field: &str| {
        let of_shard = |shard: &Bson| shard.as_document()?.get_document("storageStats").ok()?.get(field).and_then(count);
        shards.iter().filter_map(of_shard).sum::<u64>()
    };
    Ok(Estimate { documents: sum("count"), bytes: sum("size") })
}

/// The ends of the oplog, from `serverStatus`, which needs no right to read `local`.
pub(crate) async fn oplog_window(cluster: &Cluster) -> Result<Option<OplogWindow>> {
    let command = doc! {"serverStatus": 1, "oplog": 1};
    let reply = match cluster.run("admin", "asking for the ends of the oplog", &command).await {
        Err(Error::Forbidden { .. }) => return Ok(None),
        other => other?,
    };
    let end = |name: &str| reply.get_document("oplog").and_then(|o| o.get_timestamp(name)).map(ClusterTime::from).ok();
    Ok(end("earliestOptime").zip(end("latestOptime")).map(|(oldest, newest)| OplogWindow { oldest, newest }))
}
