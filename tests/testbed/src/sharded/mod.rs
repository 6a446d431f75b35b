//! A sharded cluster of real servers on this machine: a config server, shards, and a router before them.
//!
//! The router is the user's `mongos` where there is one (`$MONGOS`, or `mongos` on the search path), else a front of our
//! own: see [`front`]. Promises: when `start` returns, the router answers and knows every shard. When the value is
//! dropped, or its process dies however violently, everything it started ends, as with a [`ReplicaSet`].

mod balancer;
pub mod front;
mod mongos;
#[cfg(test)]
mod real;
mod removal;

use std::time::Duration;

use futures_util::future::try_join_all;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use tokio::sync::Mutex;
use tokio::time::sleep;

pub use balancer::Balancer;
use front::Front;
use mongos::Mongos;

use crate::client::{connect, run_within};
use crate::{Error, ReplicaSet, Result, Version, replica_set};

/// How long a command of ours may wait for a server. Handing over a chunk to a busy shard is the slow case.
const PATIENCE: Duration = Duration::from_secs(30);
/// A shard that has a migration on its hands refuses another one (`ConflictingOperationInProgress`), and one that
/// still deletes what it gave away waits.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Waits that a test cannot afford: before a shard deletes what it gave away (900 s by default), and before a resharding
/// ends (300 s).
const IMPATIENCE: [&str; 2] = ["orphanCleanupDelaySecs=1", "reshardingMinimumOperationDurationMillis=0"];

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub shards: usize,
    /// Data-bearing members of each shard, 1 or 3.
    pub nodes_per_shard: usize,
    /// The front needs 6.0.
    pub version: Version,
    /// MiB, of each node.
    pub oplog_mb: u32,
    /// GiB of WiredTiger cache per node.
    pub cache_gb: f64,
    /// Let the server's own balancer move chunks, too.
    pub server_balancer: bool,
    /// Access control, with [`ROOT`](replica_set::ROOT) as administrator of the cluster and, under the same name, of each shard.
    pub auth: bool,
    /// Further arguments for every `mongod`.
    pub extra_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            shards: 2,
            nodes_per_shard: 1,
            version: Version::default(),
            oplog_mb: 256,
            cache_gb: 0.25,
            server_balancer: false,
            auth: false,
            extra_args: Vec::new(),
        }
    }
}

impl Options {
    fn set(&self, name: String, role: &str, nodes: usize, key: Option<&String>) -> replica_set::Options {
        let mut extra_args = vec![role.to_owned()];
        extra_args.extend(IMPATIENCE.into_iter().flat_map(|parameter| ["--setParameter".into(), parameter.into()]));
        extra_args.extend(self.extra_args.iter().cloned());
        let (version, oplog_mb, cache_gb) = (self.version, self.oplog_mb, self.cache_gb);
        let key = key.cloned();
        replica_set::Options { name, nodes, version, auth: self.auth, key, oplog_mb, cache_gb, extra_args, ..Default::default() }
    }

    fn shard(&self, i: usize, key: Option<&String>) -> replica_set::Options {
        self.set(format!("shard{i}"), "--shardsvr", self.nodes_per_shard, key)
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct ShardedCluster {
    options: Options,
    /// What the servers know each other by, with access control.
    key: Option<String>,
    // Declared before the servers, so that it goes first.
    router: Mutex<Option<Router>>,
    port: u16,
    shards: Vec<ReplicaSet>,
    config: ReplicaSet,
}

#[derive(Debug)]
enum Router {
    Front(Front),
    Mongos(Mongos),
}

impl Router {
    async fn start(config_server: &str, port: Option<u16>, key: Option<&str>) -> Result<Router> {
        match mongos::installed() {
            Some(binary) => Mongos::start(&binary, config_server, port, key).await.map(Router::Mongos),
            None => Front::start(config_server, port, key).await.map(Router::Front),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Router::Front(front) => front.port(),
            Router::Mongos(mongos) => mongos.port(),
        }
    }

    async fn stop(self) {
        match self {
            Router::Front(front) => front.stop().await,
            Router::Mongos(mongos) => drop(mongos),
        }
    }
}

impl ShardedCluster {
    /// Starts the servers and the router, and waits until they can be used.
    pub async fn start(options: Options) -> Result<ShardedCluster> {
        let key = options.auth.then(replica_set::made_up_key);
        let config = ReplicaSet::start(options.set("config".into(), "--configsvr", 1, key.as_ref()));
        let shards = try_join_all((0..options.shards).map(|i| ReplicaSet::start(options.shard(i, key.as_ref()))));
        let (config, shards) = futures_util::future::try_join(config, shards).await?;

        let router = Router::start(&connection_string(&config), None, key.as_deref()).await?;
        let port = router.port();
        let cluster = ShardedCluster { options, key, router: Mutex::new(Some(router)), port, shards, config };
        for shard in &cluster.shards {
            cluster.add(shard).await?;
        }
        if !cluster.options.server_balancer {
            cluster.admin(doc! { "balancerStop": 1 }).await?;
        }
        Ok(cluster)
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A connection string for the router, as administrator when there is access control.
    pub fn uri(&self) -> String {
        if self.options.auth { self.uri_for(replica_set::ROOT.0, replica_set::ROOT.1) } else { format!("mongodb://{}/", self.address()) }
    }

    /// The same as the given user (of the database `admin`).
    pub fn uri_for(&self, user: &str, password: &str) -> String {
        format!("mongodb://{user}:{password}@{}/?authSource=admin", self.address())
    }

    /// `host:port` of the router.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether the router is a real `mongos`, not the front.
    pub async fn has_mongos(&self) -> bool {
        matches!(&*self.router.lock().await, Some(Router::Mongos(_)))
    }

    /// A client of the router. See [`connect`].
    pub async fn client(&self) -> Result<Client> {
        connect(&self.uri()).await
    }

    /// Runs a command on the database `admin` of the router.
    pub async fn admin(&self, command: Document) -> Result<Document> {
        run_within(PATIENCE, &self.uri(), command).await
    }

    /// Makes a user of the cluster, in the database `admin`; `roles` as `createUser` takes them. The shards, asked directly, do not
    /// know it.
    pub async fn create_user(&self, user: &str, password: &str, roles: Vec<Bson>) -> Result<()> {
        self.admin(doc! { "createUser": user, "pwd": password, "roles": roles }).await.map(drop)
    }

    /// The shards, to step them down, kill and freeze their nodes, and set failpoints on them. Their names are
    /// `shard0`, `shard1`, ….
    pub fn shards(&self) -> &[ReplicaSet] {
        &self.shards
    }

    /// Starts one more shard and adds it to the cluster; it has no chunks yet.
    pub async fn add_shard(&mut self) -> Result<()> {
        let shard = ReplicaSet::start(self.options.shard(self.shards.len(), self.key.as_ref())).await?;
        self.add(&shard).await?;
        self.shards.push(shard);
        Ok(())
    }

    async fn add(&self, shard: &ReplicaSet) -> Result<()> {
        self.admin(doc! { "addShard": connection_string(shard), "name": &shard.options().name }).await.map(drop)
    }

    /// The config server.
    pub fn config(&self) -> &ReplicaSet {
        &self.config
    }

    /// Ends the router alone: its connections are cut, its cursors are lost, and nobody listens on its port.
    pub async fn stop_router(&self) {
        if let Some(router) = self.router.lock().await.take() {
            router.stop().await;
        }
    }

    /// Starts the router again, on the same port.
    pub async fn start_router(&self) -> Result<()> {
        let mut router = self.router.lock().await;
        if router.is_none() {
            *router = Some(Router::start(&connection_string(&self.config), Some(self.port), self.key.as_deref()).await?);
        }
        Ok(())
    }

    /// Moves the chunk that a document with this shard key belongs to. Returns when the chunk has moved; what it leaves
    /// behind is deleted later.
    pub async fn move_chunk(&self, namespace: &str, find: Document, to_shard: &str) -> Result<()> {
        let command = doc! { "moveChunk": namespace, "find": find, "to": to_shard };
        let mut attempt = 1;
        loop {
            match self.admin(command.clone()).await {
                Ok(_) => return Ok(()),
                Err(error @ Error::Mongo(_)) if attempt == ATTEMPTS => return Err(error),
                Err(Error::Mongo(_)) => attempt += 1,
                Err(error) => return Err(error),
            }
            sleep(PAUSE).await;
        }
    }

    /// Moves every shard's clock, without an event. A change stream tells nothing that is newer than the slowest shard's
    /// clock, and that of a shard without writes moves only every 10 s by itself.
    pub async fn move_clocks(&self) -> Result<()> {
        self.admin(doc! { "appendOplogNote": 1, "data": { "note": "moves the clock" } }).await.map(drop)
    }

    /// Keeps moving random chunks of these collections between random shards until it is stopped or dropped.
    pub async fn balance(&self, namespaces: &[String]) -> Result<Balancer> {
        let names = self.shards.iter().map(|shard| shard.options().name.clone()).collect();
        Ok(Balancer::start(self.client().await?, namespaces.to_vec(), names))
    }

    /// Ends everything and removes the folders, as the drop does.
    pub fn stop(self) {}
}

/// `name/host:port,…`
fn connection_string(set: &ReplicaSet) -> String {
    format!("{}/{}", set.options().name, set.addresses().join(","))
}
