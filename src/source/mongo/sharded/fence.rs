//! The user write block of a sharded cluster, and the standstill that it can bring.
//!
//! `setUserWriteBlockMode` is carried out by the config server, which has each shard take its global lock. That waits for
//! transactions under way, and behind it wait those that want any lock: a transaction over two shards needs some more to be
//! committed, so with one under way the shards stand still for ever (RAN on 6.0.5 and 6.0.27). `maxTimeMS` ends our wait alone, and the
//! config server goes on until it has succeeded, whoever is elected meanwhile; before that it takes no other order (code 117).
//!
//! So we look at the shards meanwhile, and end (`killOp`) each wait for the lock that has lasted a moment. Then what waits behind it
//! goes on, and the config server asks the shard once more: at once the first times, later every second. With 60 transactions over two
//! shards a second it was done within 1.7 s, with 100 within 17 s (RAN on 6.0.5, 10 writers, 8 rounds each, a busy machine of two
//! cores). Writers are held up for that moment each time. What began must be seen to its end, by whoever allows writes again.

use super::super::fence;
use crate::{
    error::{Error, Result},
    model::raw,
    mongo::{Cluster, listing},
};
use bson::{RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use std::time::Duration;
use tokio::time::sleep;

/// For how long a shard may wait for its lock, and everybody behind it. Commits that are not in the way take some milliseconds.
const MOMENT: Duration = Duration::from_millis(100);
/// Between two looks at the shards.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Of servers that have `setUserWriteBlockMode`: 6.0.
const WIRE_VERSION: i32 = 17;

/// Blocks writes on every shard.
///
/// # Errors
/// As classified. Behind any of them the block may still come into force, until [`allow_writes`] has ended it.
///
/// # Cancel safety
/// As behind an error.
pub(in super::super) async fn block_writes(cluster: &Cluster, within: Duration) -> Result<()> {
    while_making_way(cluster, fence::block_writes(cluster, within)).await
}

/// Allows them again, and sees a block that is under way to its end first: it is repeated until then.
///
/// # Errors
/// As classified.
pub(in super::super) async fn allow_writes(cluster: &Cluster) -> Result<()> {
    match while_making_way(cluster, fence::allow_writes(cluster)).await {
        // Who may not allow writes has not blocked them.
        Err(Error::Forbidden { .. }) if !is_noted(cluster, rawdoc! {}).await? => Ok(()),
        other => other,
    }
}

/// `None` where the servers have no such thing, or where we may not look.
///
/// # Errors
/// As classified.
pub(in super::super) async fn writes_blocked(cluster: &Cluster) -> Result<Option<bool>> {
    let hello = cluster.run("admin", "asking how new the cluster is", &doc! {"hello": 1}).await?;
    if hello.get_i32("maxWireVersion").unwrap_or_default() < WIRE_VERSION {
        return Ok(None);
    }
    match is_noted(cluster, rawdoc! {"blockUserWrites": true}).await {
        Err(Error::Forbidden { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// What the config server has noted: `blockUserWrites` once all shards block (RAN on 6.0.5).
async fn is_noted(cluster: &Cluster, filter: RawDocumentBuf) -> Result<bool> {
    let noted = rawdoc! {"find": "user_writes_critical_sections", "filter": filter};
    Ok(!listing::found(cluster, "config", "asking whether writes are blocked", &noted).await?.is_empty())
}

async fn while_making_way<T>(cluster: &Cluster, doing: impl Future<Output = Result<T>>) -> Result<T> {
    let cluster = cluster.within(MOMENT);
    let making_way = async {
        let mut told = false;
        loop {
            sleep(LOOK_EVERY).await;
            if let Err(error) = make_way(&cluster).await
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!(error = error.story(), "shards that wait for transactions cannot be looked after: they may stand still");
            }
        }
    };
    tokio::select! {
        done = doing => done,
        never = making_way => never,
    }
}

/// Ends the waits that have lasted.
async fn make_way(cluster: &Cluster) -> Result<()> {
    let waiting = rawdoc! {
        "command._shardsvrSetUserWriteBlockMode": {"$exists": true}, "command.global": true, "waitingForLock": true,
        "killPending": {"$ne": true}, "microsecs_running": {"$gt": i64::try_from(MOMENT.as_micros()).unwrap_or(i64::MAX)},
    };
    let pipeline = [rawdoc! {"$currentOp": {"allUsers": true}}, rawdoc! {"$match": waiting}, rawdoc! {"$project": {"opid": 1}}];
    let pipeline: RawArrayBuf = pipeline.into_iter().collect();
    let command = rawdoc! {"aggregate": 1, "pipeline": pipeline, "cursor": {}};
    let found = listing::found(cluster, "admin", "looking for shards that wait for transactions", &command).await?;
    // To a router's clients an operation is `shard:number`.
    for op in found.iter().filter_map(|op| raw::get(op, "opid")?.str()) {
        tracing::debug!(op, "a shard waited for transactions: they go first, then it is asked again");
        cluster.run("admin", "letting transactions go first", &doc! {"killOp": 1, "op": op}).await?;
    }
    Ok(())
}
