//! A sharded cluster as the source, read through its router.
//!
//! # Reading a collection while chunks move
//!
//! A chunk's migration makes no change events, so what a scan misses because of one, nothing repairs. What there is to
//! choose from (RAN on 6.0.5 with two shards, a ranged collection of 2,000 documents, chunks moved under open cursors):
//!
//! - A plain scan with read concern "majority" through a router sees every document once: each shard keeps the ownership
//!   that it had when the cursor was opened, and what it gave away since is not deleted before the cursor is closed. But
//!   that holds for cursors on the same primary only; on a secondary, and behind an election, what was given away
//!   disappears after `orphanCleanupDelaySecs`. And what such a cursor shows of a document that was given away is as old
//!   as the migration.
//! - A scan at a cluster time (`readConcern: {level: "snapshot", atClusterTime}`) shows exactly that time, whatever is
//!   moved, deleted or elected since. It must be opened again when the servers keep that time no longer (300 s by
//!   default; codes 239, 246 and 250).
//!
//! We read [at a cluster time](SnapshotScan): what is needed of it is exact, for the rules of the race have nothing to
//! add: `before` = `read_at` = that time. One gap is left: outside of transactions a router picks the shards by where the
//! chunks are *now*, and each shard then shows what it owned at that time; so a shard that has given away its last chunk
//! in between is not asked. Therefore the [placement](placement) is read before the time is taken and again when the
//! cursor is open; where it has changed, the cursor is thrown away. A scan is opened again every minute: a cursor that
//! stays open keeps shards from deleting what they gave away, and so from taking it back (RAN: `moveChunk` fails with
//! code 96 "Failed to delete orphaned range" in the end).
//!
//! With `sort: {_id: 1}` the router merges the shards' results, so that progress is a key as with a replica set, and two
//! documents with the same `_id`, which a sharded collection may have, lie side by side and are noticed.
//!
//! A capped collection is never sharded, and servers refuse to read one at a cluster time. It is read as that of a replica set.
//!
//! # The clock
//!
//! A router's `operationTime` is no node's: it is the newest time that it has heard of, which may be older than what another
//! router's clients have done. [`operation_time`] asks a question that goes to every shard.
//!
//! # Deletions
//!
//! An update of the shard key that takes a document to another shard is an insertion there and a deletion here, in one
//! transaction, but each with its own shard's time of commit: in at least 2 of 30 the insertion came first in the stream (RAN on 6.0.5). The
//! deletion's document key does not always tell them apart (fields that the document lacks are left out). So the tail
//! treats a deletion as the news that the document is to be read again, and the same `_id` decides.

mod fence;
mod layout;
mod members;
mod removed;
mod resharded;
mod scan;
mod stream;

pub(super) use fence::{allow_writes, block_writes, writes_blocked};
pub(super) use layout::{layout, layout_of};
pub(super) use members::Members;
pub(super) use removed::none_since;
pub(super) use resharded::Identities;
pub use scan::SnapshotScan;
pub use stream::ShardedStream;

use super::{fetch::ReadAt, identity::Identity};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, CollectionUuid, DocumentKey, Side},
    mongo::{Cluster, listing},
    source::{CollectionRef, Fetched, Found},
};
use bson::{Binary, Bson, Document, doc, rawdoc, spec::BinarySubtype};
use std::collections::HashSet;

fn binary(uuid: CollectionUuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: uuid.0.to_vec() }
}

fn time_of(reply: &Document) -> Result<ClusterTime> {
    reply.get_timestamp("operationTime").map(ClusterTime::from).map_err(|_| Error::Bug("a reply without `operationTime`".into()))
}

/// As late as anything that any shard has done: the router asks all of them for their databases.
pub(super) async fn operation_time(cluster: &Cluster) -> Result<ClusterTime> {
    let command = doc! {"listDatabases": 1, "nameOnly": true, "filter": {"name": "config"}};
    time_of(&cluster.run("admin", "asking the shards for the operation time", &command).await?)
}

/// Writes notes on every shard, twice. The time it gives is as late as the first of each shard, and before the second: so
/// when the stream has passed it, every shard has told what came before its first note.
pub(super) async fn note(cluster: &Cluster, text: &str) -> Result<ClusterTime> {
    let fence = super::fence::note(cluster, text).await?;
    super::fence::note(cluster, text).await?;
    Ok(fence)
}

/// Reads documents by `_id`. The shards answer one after the other, so a document that changes its shard meanwhile may be
/// seen twice, or not at all: the latter mends itself, since the events of that change are yet to come. Two that are there
/// at one cluster time are two.
///
/// # Errors
/// [`Error::Unsupported`] for these.
pub(super) async fn fetch(
    cluster: &Cluster,
    by: Identity,
    of: &CollectionRef,
    keys: &[DocumentKey],
    after: ClusterTime,
) -> Result<Found<Fetched>> {
    loop {
        let found = super::fetch::fetch(cluster, by, of, keys, after, ReadAt::Majority).await?;
        if !doubled(&found) {
            return Ok(found);
        }
        let found = super::fetch::fetch(cluster, by, of, keys, after, ReadAt::OneTime).await?;
        match (doubled(&found), cluster.side()) {
            (true, Side::Source) => return Err(scan::twins(of)),
            // To be compared.
            (true, Side::Target) => return Ok(found),
            (false, _) => {}
        }
    }
}

fn doubled(found: &Found<Fetched>) -> bool {
    let Found::Here(fetched) = found else { return false };
    let mut seen = HashSet::new();
    let mut keys = fetched.documents.iter().filter_map(|doc| DocumentKey::of(doc));
    !keys.all(|key| seen.insert(key.canonical()))
}

/// Whether a collection is capped: then it lies on one shard, and is not to be read at a cluster time (code 246, RAN on 6.0.5).
pub(super) async fn is_capped(cluster: &Cluster, of: &CollectionRef) -> Result<bool> {
    let filter = rawdoc! {"info.uuid": binary(of.uuid), "options.capped": true};
    Ok(!listing::matching(cluster, of.ns.db(), filter).await?.is_empty())
}

/// Where the chunks of a collection are, as one value that changes when any of them moves: the newest version of a chunk.
/// `None` for a collection that is not sharded: it is on one shard as a whole, and has another UUID when it was moved. And
/// the time of the answer.
pub(super) async fn placement(cluster: &Cluster, uuid: CollectionUuid) -> Result<(Option<Bson>, ClusterTime)> {
    let newest = doc! {"find": "chunks", "filter": {"uuid": binary(uuid)}, "sort": {"lastmod": -1}, "projection": {"lastmod": 1}, "limit": 1, "readConcern": {"level": "majority"}};
    let reply = cluster.run("config", "asking where chunks are", &newest).await?;
    let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
    let version = batch.first().and_then(Bson::as_document).and_then(|chunk| chunk.get("lastmod")).cloned();
    Ok((version, time_of(&reply)?))
}
