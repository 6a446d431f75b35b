//! A balancer without sense: it keeps moving chunks, for tests of what must hold meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use rand::seq::IndexedRandom;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::end;
use crate::{Error, Result};

/// Between two moves.
const PAUSE: Duration = Duration::from_millis(50);

/// A running balancer. Dropping it stops it without waiting; a move under way goes on in the servers.
#[derive(Debug)]
pub struct Balancer {
    moved: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    task: JoinSet<()>,
    stopping: DropGuard,
}

impl Balancer {
    pub(super) fn start(client: Client, namespaces: Vec<String>, shards: Vec<String>) -> Balancer {
        let (moved, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stopping = CancellationToken::new();
        let mut task = JoinSet::new();
        let (moves, refusals, stop) = (moved.clone(), refused.clone(), stopping.clone());
        task.spawn(async move {
            while !stop.is_cancelled() {
                match move_one(&client, &namespaces, &shards).await {
                    Ok(()) => moves.fetch_add(1, Relaxed),
                    Err(_) => refusals.fetch_add(1, Relaxed),
                };
                tokio::select! {
                    biased; // a stop wins over the next move
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            end(client).await;
        });
        Balancer { moved, refused, task, stopping: stopping.drop_guard() }
    }

    /// Chunks moved so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// Moves that the servers refused, as they do when a shard is busy with another one or has no primary.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Lets the move under way finish; answers how many chunks were moved.
    ///
    /// # Panics
    /// If the task panicked.
    pub async fn stop(self) -> u64 {
        let Balancer { moved, mut task, stopping, .. } = self;
        drop(stopping);
        while let Some(ended) = task.join_next().await {
            ended.expect("the balancer panicked");
        }
        moved.load(Relaxed)
    }
}

async fn move_one(client: &Client, namespaces: &[String], shards: &[String]) -> Result<()> {
    let nothing = || Error::BadReply("nothing to move".into());
    let namespace = namespaces.choose(&mut rand::rng()).ok_or_else(nothing)?;
    let config = client.database("config");
    let collection = config.collection::<Document>("collections").find_one(doc! { "_id": namespace }).await?.ok_or_else(nothing)?;
    let uuid = collection.get("uuid").ok_or_else(nothing)?;
    let chunks: Vec<Document> = config.collection("chunks").find(doc! { "uuid": uuid }).await?.try_collect().await?;
    let chunk = chunks.choose(&mut rand::rng()).ok_or_else(nothing)?;
    let (min, max, from) = (chunk.get_document("min"), chunk.get_document("max"), chunk.get_str("shard"));
    let (Ok(min), Ok(max), Ok(from)) = (min, max, from) else { return Err(nothing()) };
    let others: Vec<&String> = shards.iter().filter(|shard| *shard != from).collect();
    let to = others.choose(&mut rand::rng()).ok_or_else(nothing)?;
    client.database("admin").run_command(doc! { "moveChunk": namespace, "bounds": [min, max], "to": to.as_str() }).await?;
    Ok(())
}
