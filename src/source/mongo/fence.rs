//! Holding the source still: the user write block, and notes in the oplog.

use crate::{
    error::{Error, Result},
    model::ClusterTime,
    mongo::Cluster,
};
use bson::{Bson, doc};
use std::time::Duration;

/// Writes a note; needs `appendOplogNote`. The note produces no change event, but the stream's position
/// passes it (RAN on 6.0.5, also while user writes are blocked).
pub(crate) async fn note(cluster: &Cluster, text: &str) -> Result<ClusterTime> {
    let command = doc! {"appendOplogNote": 1, "data": {"mongoferry": text}, "writeConcern": {"w": "majority"}};
    let reply = cluster.run("admin", "writing a note into the oplog", &command).await?;
    reply.get_timestamp("operationTime").map(ClusterTime::from).map_err(|_| Error::Bug("a reply without `operationTime`".into()))
}

/// `setUserWriteBlockMode`, from 6.0 on. It waits for open transactions that have written (RAN on 6.0.5: it
/// returned when the transaction was committed), so nothing written before it commits after it. The server is
/// given the limit too (RAN: it heeds `maxTimeMS` in that wait and leaves the mode as it was): a block that we
/// no longer wait for must not come into force behind our back.
pub(crate) async fn block_writes(cluster: &Cluster, within: Duration) -> Result<()> {
    let limit = i64::try_from(within.as_millis()).unwrap_or(i64::MAX).max(1);
    let command = doc! {"setUserWriteBlockMode": 1, "global": true, "maxTimeMS": limit};
    cluster.within(within).run("admin", "blocking writes of users", &command).await.map(drop)
}

/// Takes the block back; nothing where there is none.
pub(crate) async fn allow_writes(cluster: &Cluster) -> Result<()> {
    cluster.run("admin", "allowing writes of users", &doc! {"setUserWriteBlockMode": 1, "global": false}).await.map(drop)
}

/// What `serverStatus` says in `repl.userWriteBlockMode`: 1 allowed, 2 blocked (RAN on 6.0.5).
pub(crate) async fn writes_blocked(cluster: &Cluster) -> Result<Option<bool>> {
    let reply = cluster.run("admin", "asking whether writes are blocked", &doc! {"serverStatus": 1}).await?;
    Ok(match reply.get_document("repl").ok().and_then(|r| r.get("userWriteBlockMode")) {
        Some(Bson::Int32(mode)) => Some(*mode == 2),
        Some(Bson::Int64(mode)) => Some(*mode == 2),
        _ => None,
    })
}
