//! `movePrimary` by somebody else, as by whoever drains a shard.
//!
//! It makes every collection of a database that is not sharded anew on another shard, with the same documents and indexes and under
//! another identity. Writes are refused meanwhile (code 319), and are never lost (RAN on 6.0.5).
//!
//! The cluster's own log (`config.changelog`) tells which databases were moved and when, but nothing of their collections. So one that
//! has another identity was moved if its database was since the collection was last seen under the former. Somebody who drops it and
//! makes it anew as well, between two of our looks, is not told apart from that: for the comparison to find.

use super::super::super::TargetCollection;
use crate::{
    error::{Error, Result, Trouble},
    model::{CollectionUuid, Namespace, raw},
    mongo::{Cluster, listing, sharding},
};
use bson::{DateTime, RawBson, RawDocumentBuf, rawdoc};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

/// Milliseconds by which the clocks of the cluster's servers and of this machine may differ.
const SKEW: i64 = 60_000;
/// What a movement is noted as in the end.
const DONE: &str = "movePrimary.commit";

/// Since when a movement must have been noted to explain that a collection is not under its identity, by the cluster's clock.
#[derive(Debug)]
pub(super) struct Sightings {
    /// For those that this process has not seen yet.
    begun: DateTime,
    seen: Mutex<HashMap<CollectionUuid, DateTime>>,
    /// Collections of our own making, which are none of a movement.
    ours: Mutex<HashSet<CollectionUuid>>,
}

impl Sightings {
    /// Of a migration that has made its first collection at that time or later.
    pub(super) fn since(begun: DateTime) -> Self {
        Self { begun: later(begun, -SKEW), seen: Mutex::default(), ours: Mutex::default() }
    }

    /// These are there now.
    pub(super) fn note(&self, there: impl Iterator<Item = CollectionUuid>) {
        let now = later(DateTime::now(), -SKEW);
        there.for_each(|uuid| self.note_at(uuid, now));
    }

    fn note_at(&self, uuid: CollectionUuid, since: DateTime) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(uuid).and_modify(|known| *known = since.max(*known)).or_insert(since);
    }

    /// We have just made it.
    pub(super) fn note_ours(&self, uuid: CollectionUuid) {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid);
        self.note(std::iter::once(uuid));
    }

    fn is_ours(&self, uuid: CollectionUuid) -> bool {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner).contains(&uuid)
    }

    fn last(&self, uuid: CollectionUuid) -> DateTime {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&uuid).copied().unwrap_or(self.begun)
    }

    /// The collection that a movement has put in the place of one, waiting for the end of one under way; `None` where its database
    /// was not moved.
    pub(super) async fn successor(&self, cluster: &Cluster, of: &TargetCollection) -> Result<Option<CollectionUuid>> {
        let mut patience = cluster.retry().patience();
        let noted = loop {
            let noted = noted(cluster, Some(of.ns.db()), self.last(of.uuid)).await?;
            match noted.first().and_then(|last| raw::get(last, "what")).and_then(|e| e.str()) {
                Some("movePrimary.start" | "movePrimary.validating") => patience.after(under_way(cluster, &of.ns)).await?,
                Some(_) | None => break noted,
            }
        };
        let Some(moved) = noted.iter().find(|row| is_done(row)).and_then(|row| row.get_datetime("time").ok()) else { return Ok(None) };
        if sharding::named(cluster, &of.ns).await?.is_some() {
            return Ok(None);
        }
        let there = listing::collections_of(cluster, of.ns.db()).await?.into_iter().find(|c| c.ns == of.ns).and_then(|c| c.uuid);
        let there = there.filter(|uuid| !self.is_ours(*uuid));
        if let Some(uuid) = there {
            tracing::debug!(ns = %of.ns, "its database was moved to another shard");
            // That movement explains nothing any more.
            self.note_at(uuid, later(moved, 1));
        }
        Ok(there)
    }

    /// Which collection each name stands for in the databases that were moved.
    pub(super) async fn identities(&self, cluster: &Cluster) -> Result<BTreeMap<Namespace, CollectionUuid>> {
        let noted = noted(cluster, None, self.begun).await?;
        let moved: BTreeSet<&str> =
            noted.iter().filter(|row| is_done(row)).filter_map(|row| raw::get(row, "ns").and_then(|e| e.str())).collect();
        let mut found = BTreeMap::new();
        for db in moved {
            let listed = listing::collections_of(cluster, db).await?;
            self.note(listed.iter().filter_map(|c| c.uuid));
            found.extend(listed.into_iter().filter_map(|c| Some((c.ns, c.uuid?))));
        }
        Ok(found)
    }
}

/// What was noted of movements since then, the newest first.
async fn noted(cluster: &Cluster, db: Option<&str>, since: DateTime) -> Result<Vec<RawDocumentBuf>> {
    let kinds = ["movePrimary.start", "movePrimary.validating", "movePrimary.error", DONE];
    let mut filter =
        rawdoc! {"what": {"$in": kinds.map(RawBson::from).into_iter().collect::<bson::RawArrayBuf>()}, "time": {"$gte": since}};
    if let Some(db) = db {
        filter.append(bson::cstr!("ns"), db);
    }
    let command = rawdoc! {"find": "changelog", "filter": filter, "sort": {"time": -1}};
    listing::found(cluster, "config", "reading the cluster's log of changes", &command).await
}

fn later(time: DateTime, millis: i64) -> DateTime {
    DateTime::from_millis(time.timestamp_millis().saturating_add(millis))
}

fn is_done(row: &RawDocumentBuf) -> bool {
    raw::get(row, "what").and_then(|e| e.str()) == Some(DONE)
}

fn under_way(cluster: &Cluster, ns: &Namespace) -> Error {
    Error::Unreachable {
        side: cluster.side(),
        doing: format!("waiting for the end of `movePrimary` of `{}`", ns.db()),
        why: Trouble::Other,
        source: "it is under way".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_movement_explains_one_change_of_identity() {
        let at = |seconds: i64| DateTime::from_millis(1_700_000_000_000 + seconds * 1_000);
        let (never, moved) = (CollectionUuid([1; 16]), CollectionUuid([2; 16]));
        let sightings = Sightings::since(at(100));
        assert_eq!(sightings.last(never), at(40), "the clocks may differ");
        sightings.note_at(moved, later(at(200), 1));
        assert!(sightings.last(moved) > at(200));
        sightings.note_at(moved, at(150));
        assert!(sightings.last(moved) > at(200), "an earlier sighting tells nothing new");
        sightings.note(std::iter::once(moved));
        assert!(sightings.last(moved) > at(10_000) && !sightings.is_ours(moved));
        sightings.note_ours(moved);
        assert!(sightings.is_ours(moved));
    }
}
