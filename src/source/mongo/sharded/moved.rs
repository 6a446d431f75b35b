//! The stream of a sharded cluster: what a router needs beside the events.
//!
//! The stream is as fast as the slowest shard's clock, and that of a shard without writes moves every ten seconds by
//! itself; so while nothing comes, notes are written on all of them.
//!
//! A shard that was [removed](super::removed) is let go of.
//!
//! Resharding gives a collection another UUID, and 6.0.5 tells nothing of it (RAN): the old one is neither dropped nor
//! renamed, the new one not created. So the UUIDs of sharded collections are looked at now and then, and where one was
//! changed a drop of the old one is put into the stream, behind which the tail finds its successor. To look early or late is
//! the same: what the stream tells of the old UUID from there on means nothing, and the successor is copied as it is.

use super::super::{MongoStream, fence, fetch::locate, watch::Known};
use crate::{
    error::{Error, Result},
    model::{Change, ChangeEvent, CollectionUuid, Ddl, Namespace, raw},
    mongo::{Cluster, listing, sharding},
    source::{CollectionRef, EventBatch, EventStream},
};
use bson::rawdoc;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// How often the shards' clocks are moved while the stream is quiet.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// How often the identities of sharded collections are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A stream over all shards.
pub struct ShardedStream {
    stream: MongoStream,
    cluster: Cluster,
    /// By name, as they were last seen.
    identities: BTreeMap<Namespace, CollectionUuid>,
    /// Those that it may ask.
    shards: BTreeSet<String>,
    quiet: bool,
    noted: Option<Instant>,
    looked: Option<Instant>,
    /// Whether it was told that notes are not allowed.
    refused: bool,
}

impl ShardedStream {
    pub(crate) fn over(stream: MongoStream, cluster: Cluster, known: &Known) -> Self {
        let identities = known.living.iter().filter_map(|c| Some((c.info.ns.clone(), c.info.uuid?))).collect();
        Self { stream, cluster, identities, shards: BTreeSet::new(), quiet: true, noted: None, looked: None, refused: false }
    }

    /// Moves the clocks. A shard that cannot be reached will be heard of by the stream itself.
    async fn note(&mut self) {
        if self.refused || !self.quiet || self.noted.is_some_and(|at| at.elapsed() < NOTE_EVERY) {
            return;
        }
        let noted = fence::note(&self.cluster.within(NOTE_EVERY), "moves the clock of a quiet shard").await;
        self.noted = Some(Instant::now());
        if let Err(Error::Forbidden { .. }) = noted {
            self.refused = true;
            tracing::warn!("`appendOplogNote` is not allowed: shards without writes hold the stream back for up to 10 s");
        }
    }

    /// Opens the stream again without shards that were removed, once it has told all of their time in the cluster: their clocks move
    /// slowly from then on, and their servers are to be stopped.
    async fn let_go(&mut self) -> Result<()> {
        let listed = sharding::shards(&self.cluster).await?;
        let names = listed.iter().map(|shard| shard.name.clone());
        let gone: Vec<_> = self.shards.iter().filter(|name| !listed.iter().any(|shard| shard.name == **name)).cloned().collect();
        if gone.is_empty() {
            self.shards = names.collect();
        } else if listed.iter().all(|shard| shard.changed.is_some_and(|at| at <= self.stream.time())) {
            self.shards = names.collect();
            self.stream.reopen();
            tracing::info!(shards = gone.join(", "), "left the source, and have told everything: their servers may be stopped");
        }
        Ok(())
    }

    /// Collections that have another UUID than before, and whose old one is nowhere.
    async fn successions(&mut self) -> Result<Vec<Ddl>> {
        let command = rawdoc! {"find": "collections", "projection": {"uuid": 1}, "readConcern": {"level": "majority"}};
        let doing = "looking at the identities of sharded collections";
        let listed = listing::found(&self.cluster, "config", doing, &command).await?;
        let mut found = Vec::new();
        for doc in &listed {
            let ns = raw::get(doc, "_id").and_then(|e| e.str()).and_then(Namespace::parse);
            let uuid = raw::get(doc, "uuid").and_then(|e| e.value.get(5..21)).and_then(|bytes| bytes.try_into().ok()).map(CollectionUuid);
            let Some((ns, uuid)) = ns.zip(uuid).filter(|(ns, _)| !ns.is_internal()) else { continue };
            let Some(old) = self.identities.insert(ns.clone(), uuid).filter(|old| *old != uuid) else { continue };
            // A rename, which the stream tells, leaves it under another name.
            if locate(&self.cluster, &CollectionRef { ns: ns.clone(), uuid: old }).await?.is_none() {
                tracing::info!(%ns, "a sharded collection has another identity: it was resharded, or dropped and made again");
                found.push(Ddl::Drop { ns, uuid: Some(old) });
            }
        }
        Ok(found)
    }
}

impl EventStream for ShardedStream {
    async fn next(&mut self) -> Result<EventBatch> {
        self.note().await;
        let mut successions = Vec::new();
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            self.let_go().await?;
            successions = self.successions().await?;
        }
        let mut batch = self.stream.next().await?;
        // What is told needs no telling, least of all behind a fence.
        for event in &batch.events {
            if let Change::Ddl(Ddl::Drop { uuid: Some(dropped), .. } | Ddl::Rename { dropped: Some(dropped), .. }) = &event.change {
                self.identities.retain(|_, uuid| uuid != dropped);
                successions.retain(|ddl| ddl.uuid() != Some(*dropped));
            }
        }
        self.quiet = !batch.events.iter().any(|event| !matches!(event.change, Change::Idle));
        if let Some(position) = batch.events.last().map(|event| event.position.clone()) {
            let told = |ddl| ChangeEvent { position: position.clone(), change: Change::Ddl(ddl), bytes: 0 };
            batch.events.extend(successions.into_iter().map(told));
        }
        Ok(batch)
    }
}
