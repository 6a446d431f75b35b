//! The stream of a sharded cluster: what a router needs beside the events.
//!
//! The stream is as fast as the slowest shard's clock, and that of a shard without writes moves every ten seconds by
//! itself; so while nothing comes, notes are written on all of them.
//!
//! A shard that was [removed](super::removed) is let go of.

use super::super::{MongoStream, fence};
use crate::{
    error::{Error, Result},
    model::Change,
    mongo::{Cluster, sharding},
    source::{EventBatch, EventStream},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// How often the shards' clocks are moved while the stream is quiet.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// How often the shards are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A stream over all shards.
pub struct ShardedStream {
    stream: MongoStream,
    cluster: Cluster,
    /// Those that it may ask.
    shards: BTreeSet<String>,
    quiet: bool,
    noted: Option<Instant>,
    looked: Option<Instant>,
    /// Whether it was told that notes are not allowed.
    refused: bool,
}

impl ShardedStream {
    pub(crate) fn over(stream: MongoStream, cluster: Cluster) -> Self {
        Self { stream, cluster, shards: BTreeSet::new(), quiet: true, noted: None, looked: None, refused: false }
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
}

impl EventStream for ShardedStream {
    async fn next(&mut self) -> Result<EventBatch> {
        self.note().await;
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            self.let_go().await?;
        }
        let batch = self.stream.next().await?;
        self.quiet = !batch.events.iter().any(|event| !matches!(event.change, Change::Idle));
        Ok(batch)
    }
}
