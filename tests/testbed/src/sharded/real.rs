//! On real servers, through the router that is at hand.

mod access;
mod commands;
mod faults;
mod streams;
mod transactions;

use mongodb::Collection;
use tokio::time::Instant;

use super::*;
use crate::client::end;
use crate::testing::server_slot;

/// Two shards, and a client of their router.
async fn cluster() -> (ShardedCluster, Client) {
    let cluster = ShardedCluster::start(Options::default()).await.unwrap();
    let client = cluster.client().await.unwrap();
    (cluster, client)
}

/// `shop.<name>`, with four chunks on two shards.
async fn sharded(cluster: &ShardedCluster, client: &Client, name: &str) -> Collection<Document> {
    let shard = doc! { "shardCollection": format!("shop.{name}"), "key": { "_id": "hashed" }, "numInitialChunks": 4 };
    cluster.admin(shard).await.unwrap();
    client.database("shop").collection(name)
}

fn numbered(range: std::ops::Range<i32>) -> Vec<Document> {
    range.map(|n| doc! { "_id": n, "n": n }).collect()
}

/// How many documents each shard answers for itself, without its neighbours'.
async fn on_each_shard(cluster: &ShardedCluster, name: &str) -> Vec<u64> {
    let mut counts = Vec::new();
    for shard in cluster.shards() {
        let client = shard.client().await.unwrap();
        counts.push(client.database("shop").collection::<Document>(name).count_documents(doc! {}).await.unwrap());
        end(client).await;
    }
    counts
}
