//! Removing a shard, by the commands that an operator gives.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use tokio::time::{Instant, sleep};

use super::{PAUSE, ShardedCluster};
use crate::client::end;
use crate::{Error, ReplicaSet, Result};

/// How long the others may take to take over what is on the shard.
const PATIENCE: Duration = Duration::from_secs(120);

impl ShardedCluster {
    /// Begins to remove a shard, and hands its chunks and its databases over to the others, until it holds none.
    ///
    /// # Errors
    /// When the cluster refuses, and when it takes too long.
    pub async fn drain_shard(&self, name: &str) -> Result<()> {
        self.admin(doc! { "removeShard": name }).await?;
        self.hand_over(name).await
    }

    /// Removes a shard, drained before or not. Gives its servers, which run until they are dropped.
    ///
    /// # Errors
    /// When the cluster refuses, and when it takes too long.
    pub async fn remove_shard(&mut self, name: &str) -> Result<ReplicaSet> {
        let at = self.shards.iter().position(|shard| shard.options().name == name);
        let at = at.ok_or_else(|| Error::BadReply(format!("there is no shard {name}")))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.admin(doc! { "removeShard": name }).await?;
            if told.get_str("state").is_ok_and(|state| state == "completed") {
                return Ok(self.shards.remove(at));
            }
            if Instant::now() > deadline {
                return Err(Error::BadReply(format!("{name} is not removed: {told}")));
            }
            self.hand_over(name).await?;
        }
    }

    /// In turn, so that each of the others gets about the same.
    async fn hand_over(&self, name: &str) -> Result<()> {
        let others: Vec<&str> = self.shards.iter().map(|shard| shard.options().name.as_str()).filter(|other| *other != name).collect();
        let (client, deadline) = (self.client().await?, Instant::now() + PATIENCE);
        let mut heirs = others.iter().cycle();
        loop {
            let holdings = holdings(&client, name).await?;
            if holdings.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                return Err(Error::BadReply(format!("{name} is not drained: {holdings:?} are left")));
            }
            // What is refused, as while a chunk is being moved by somebody else, is tried again in the next round.
            for mut command in holdings {
                let Some(heir) = heirs.next() else { break };
                command.insert("to", *heir);
                let _ = client.database("admin").run_command(command).await;
            }
            sleep(PAUSE).await;
        }
        end(client).await;
        Ok(())
    }
}

/// What hands over all that a shard holds, without the receiver.
async fn holdings(client: &Client, shard: &str) -> Result<Vec<Document>> {
    let config = client.database("config");
    let of = async |name: &str, filter: Document| -> Result<Vec<Document>> {
        Ok(config.collection::<Document>(name).find(filter).await?.try_collect().await?)
    };
    let mut commands = Vec::new();
    for collection in of("collections", doc! {}).await? {
        for chunk in of("chunks", doc! { "uuid": collection.get("uuid"), "shard": shard }).await? {
            commands.push(doc! { "moveChunk": collection.get("_id"), "bounds": [chunk.get("min"), chunk.get("max")] });
        }
    }
    for database in of("databases", doc! { "primary": shard }).await? {
        commands.push(doc! { "movePrimary": database.get("_id") });
    }
    Ok(commands)
}
