//! Two sharded clusters to play scenarios on: whatever the server shards is sharded, and lies on all shards.

use super::{
    scenario::{Scenario, failure},
    stage::Sides,
};
use crate::support::{run, whole_machine};
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Client;
use testbed::{ShardedCluster, end, sharded};
use tokio::sync::SemaphorePermit;

/// A source of two shards and a target of three.
pub struct Clusters {
    source: ShardedCluster,
    target: ShardedCluster,
    from: Client,
    to: Client,
    _machine: SemaphorePermit<'static>,
}

impl Clusters {
    pub async fn start() -> Self {
        let machine = whole_machine().await;
        let patient = ["--setParameter", "transactionLifetimeLimitSeconds=900"].map(String::from).to_vec();
        let from = sharded::Options { shards: 2, oplog_mb: 1024, cache_gb: 0.5, extra_args: patient, ..sharded::Options::default() };
        let to = sharded::Options { shards: 3, ..sharded::Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(from), ShardedCluster::start(to)).unwrap();
        let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
        Self { source, target, from, to, _machine: machine }
    }

    pub fn sides(&self) -> Sides<'_> {
        Sides { from: &self.from, to: &self.to, source: self.source.uri(), target: self.target.uri() }
    }

    /// Puts the databases of each scenario on one shard: a collection is renamed to no other, nor to a database that is not there.
    pub async fn place(&self, scenarios: &[Scenario]) {
        for (n, scenario) in scenarios.iter().enumerate() {
            for more in ["", "-other", "-third", "-new"] {
                let database = format!("{}{more}", scenario.name);
                run(&self.from, "admin", doc! {"enableSharding": database, "primaryShard": format!("shard{}", n % 2)}).await;
            }
        }
    }

    /// Shards what there is by its hashed `_id`, one half on each shard.
    pub async fn shard(&self, scenarios: &[Scenario]) {
        let mut sharded = Vec::new();
        for name in self.from.list_database_names().await.unwrap() {
            if !scenarios.iter().any(|s| s.sharded && s.owns(&name)) {
                continue;
            }
            let database = self.from.database(&name);
            let found: Vec<_> = database.list_collections().await.unwrap().try_collect().await.unwrap();
            let found = found.into_iter().map(|info| bson::serialize_to_document(&info).unwrap());
            for info in found.filter(|info| info.get_str("type").is_ok_and(|kind| kind == "collection")) {
                let (coll, options) = (info.get_str("name").unwrap(), info.get_document("options").unwrap());
                let known = options.keys().all(|key| !matches!(key.as_str(), "capped" | "collation" | "clusteredIndex"));
                if known && !coll.starts_with("system.") && self.shard_one(&format!("{name}.{coll}")).await {
                    sharded.push(format!("{name}.{coll}"));
                }
            }
        }
        eprintln!("{} collections are sharded: {}", sharded.len(), sharded.join(" "));
        assert!(!sharded.is_empty() || scenarios.len() < 5, "nothing is sharded");
    }

    /// Whether the server shards it: what has a unique index by something else, say, is not.
    async fn shard_one(&self, ns: &str) -> bool {
        let (database, coll) = ns.split_once('.').unwrap();
        let hashed = vec![doc! {"key": {"_id": "hashed"}, "name": "_id_hashed"}];
        let _ = self.from.database(database).run_command(doc! {"createIndexes": coll, "indexes": hashed}).await; // it may have one
        if let Err(why) = self.from.database("admin").run_command(doc! {"shardCollection": ns, "key": {"_id": "hashed"}}).await {
            eprintln!("{ns} is not sharded: {}", failure(Err(why)).unwrap_or_default().1);
            return false;
        }
        // One that is empty is spread by the server.
        if self.from.database(database).collection::<Document>(coll).estimated_document_count().await.unwrap() > 0 {
            run(&self.from, "admin", doc! {"split": ns, "middle": {"_id": 0_i64}}).await;
            let other = if self.primary(database).await == "shard0" { "shard1" } else { "shard0" };
            let upper = vec![doc! {"_id": 0_i64}, doc! {"_id": Bson::MaxKey}];
            run(&self.from, "admin", doc! {"moveChunk": ns, "bounds": upper, "to": other}).await;
        }
        true
    }

    async fn primary(&self, name: &str) -> String {
        let databases = self.from.database("config").collection::<Document>("databases");
        databases.find_one(doc! {"_id": name}).await.unwrap().unwrap().get_str("primary").unwrap().to_owned()
    }

    pub async fn end(self) {
        end(self.from).await;
        end(self.to).await;
    }
}
