//! Shards that leave the source.
//!
//! What was written on a shard, it alone tells: chunks that are handed over make no events. A stream that is open goes on asking a
//! shard that was removed, for as long as its servers run, and misses nothing. One that is opened again behind a position from before
//! the removal is told nothing by it. So each time that a stream was opened, it is asked whether a shard has left since its position;
//! and if so, whether anything was still to come from it.
//!
//! - When: each row of `config.shards` has the cluster time of a change of the list, its own addition, or the removal of another
//!   shard, which is noted in some row (RAN on 6.0.5). A position that is as late as all of them has missed nothing.
//! - Which: the cluster's log (`config.changelog`) names shards that were added and removed, with the clock's time.
//! - What it held: the config server shows its collections as of a cluster time for five minutes (RAN on 6.0.5). A shard that was
//!   being drained, and held no chunk and no database at the position, has had nothing to tell since: it is given none by `moveChunk` and
//!   `movePrimary` (code 70, RAN on 6.0.5), and a database that is made there by name comes to us as new when it is moved away.

use crate::{
    error::{Error, Result, Trouble},
    model::{ClusterTime, raw},
    mongo::{
        Cluster, listing,
        sharding::{self, Shard},
    },
};
use bson::{DateTime, RawBson, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use std::{collections::BTreeSet, time::Duration};

/// Seconds by which the cluster's time may be ahead of the clock of its config server.
const SKEW: i64 = 60;
/// Seconds for which the config server surely shows the past: somewhat less than by default (`minSnapshotHistoryWindowInSeconds`).
const PAST: u32 = 240;

/// For how long an entry of the cluster's log is waited for.
const LATE: Duration = Duration::from_secs(10);

/// An entry of the cluster's log.
#[derive(Debug)]
struct Noted {
    shard: String,
    removed: bool,
    /// Whether surely later than the position.
    later: bool,
}

/// What a shard was at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Not in the cluster.
    Absent,
    /// Being drained, with nothing left.
    Empty,
    /// Anything else.
    Member,
}

/// Makes sure that no shard has left since a position with something to tell.
///
/// # Errors
/// [`Error::ShardsRemoved`] where what is left of the cluster does not tell all that happened behind that time.
pub(in crate::source::mongo) async fn none_since(cluster: &Cluster, position: ClusterTime) -> Result<()> {
    let shards = sharding::shards(cluster).await?;
    // Rows of clusters that were made before 5.0 may have no time.
    let changed: Vec<&Shard> = shards.iter().filter(|shard| shard.changed.is_none_or(|at| at > position)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let log = explaining(cluster, position, &changed).await?;
    let added = |name: &str| log.iter().rfind(|noted| !noted.removed && noted.shard == name);
    let mut lost = BTreeSet::new();
    for Noted { shard, later, .. } in log.iter().filter(|noted| noted.removed) {
        let is_lost = match then(cluster, position, shard).await? {
            Some(Then::Member) => true,
            // Nor before, unless it came and went since.
            Some(Then::Absent) => added(shard).is_some_and(|noted| noted.later),
            Some(Then::Empty) => false,
            None => *later,
        };
        if is_lost {
            lost.insert(shard.clone());
        }
    }
    if !explains(&log, &changed) {
        lost.insert("of a name that the cluster's log does not tell".into());
    }
    if lost.is_empty() { Ok(()) } else { Err(Error::ShardsRemoved { shards: lost.into_iter().collect(), wanted: position }) }
}

/// The log, which is written behind the change itself, and may be written late.
async fn explaining(cluster: &Cluster, position: ClusterTime, changed: &[&Shard]) -> Result<Vec<Noted>> {
    let mut patience = cluster.within(LATE).retry().patience();
    loop {
        let log = log(cluster, position).await?;
        if explains(&log, changed) {
            return Ok(log);
        }
        match patience.after(unlogged(cluster)).await {
            Ok(()) => {}
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(_) => return Ok(log),
        }
    }
}

/// Whether the changes of the list of shards are additions, or a removal is known.
fn explains(log: &[Noted], changed: &[&Shard]) -> bool {
    let added = |name: &str| log.iter().any(|noted| !noted.removed && noted.shard == name);
    log.iter().any(|noted| noted.removed) || changed.iter().all(|shard| shard.changed.is_none() || added(&shard.name))
}

fn unlogged(cluster: &Cluster) -> Error {
    Error::Unreachable {
        side: cluster.side(),
        doing: "looking which shards were removed".into(),
        why: Trouble::Other,
        source: "the cluster's log of changes does not tell yet".into(),
    }
}

/// Shards that were added and removed since about that time.
async fn log(cluster: &Cluster, position: ClusterTime) -> Result<Vec<Noted>> {
    let millis = |seconds: i64| DateTime::from_millis(seconds * 1_000);
    let at = millis(i64::from(position.t));
    let kinds = ["addShard", "removeShard"].map(RawBson::from);
    let command = rawdoc! {
        "find": "changelog",
        "filter": {"what": {"$in": kinds.into_iter().collect::<bson::RawArrayBuf>()}, "time": {"$gte": millis(i64::from(position.t) - SKEW)}},
        "readConcern": {"level": "majority"},
    };
    let found = listing::found(cluster, "config", "reading the cluster's log of changes", &command).await?;
    Ok(found.iter().filter_map(|row| noted(row, at)).collect())
}

fn noted(row: &RawDocument, position: DateTime) -> Option<Noted> {
    let details = raw::get(row, "details")?.document()?;
    let removed = raw::get(row, "what")?.str()? == "removeShard";
    let shard = raw::get(details, if removed { "shard" } else { "name" })?.str()?.to_owned();
    Some(Noted { shard, removed, later: row.get_datetime("time").ok()? >= position })
}

/// What a shard was at a position; `None` where nobody can tell any more.
async fn then(cluster: &Cluster, position: ClusterTime, shard: &str) -> Result<Option<Then>> {
    if cluster.operation_time().await?.seconds_since(position) > PAST {
        return Ok(None);
    }
    let read = async |collection: &str, filter: RawDocumentBuf| -> Result<Option<Vec<RawDocumentBuf>>> {
        let at = rawdoc! {"level": "snapshot", "atClusterTime": Timestamp::from(position)};
        let command = rawdoc! {"find": collection, "filter": filter, "limit": 1, "readConcern": at};
        match listing::found(cluster, "config", "reading how the cluster was", &command).await {
            Ok(rows) => Ok(Some(rows)),
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let Some(row) = read("shards", rawdoc! {"_id": shard}).await? else { return Ok(None) };
    let Some(row) = row.first() else { return Ok(Some(Then::Absent)) };
    let holds = [read("chunks", rawdoc! {"shard": shard}).await?, read("databases", rawdoc! {"primary": shard}).await?];
    let drained = raw::get(row, "draining").and_then(|e| e.bool()) == Some(true);
    let empty = drained && holds.iter().all(|rows| rows.as_ref().is_some_and(Vec::is_empty));
    Ok(Some(if empty { Then::Empty } else { Then::Member }))
}
