//! What every part of the front works with: the ways to the servers, the clock, and what it remembers for clients.

use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, RwLock};

use mongodb::bson::doc;

use super::clock::Clock;
use super::cursors::Cursors;
use super::failure::{Code, Failure};
use super::retried::Retried;
use super::scram::Key;
use super::transaction::Transactions;
use super::upstream::{Upstream, first_batch};

pub struct Cluster {
    pub config: Arc<Upstream>,
    /// What the servers know each other by, where there is access control.
    pub key: Option<Arc<Key>>,
    pub clock: Arc<Clock>,
    pub cursors: Cursors,
    pub retried: Retried,
    pub transactions: Transactions,
    /// The newest version of the protocol that the servers speak.
    pub wire_version: AtomicI32,
    shards: RwLock<Vec<Arc<Upstream>>>,
    next_cursor: AtomicI64,
}

impl Cluster {
    /// `config_server` as `name/host:port,…`. Nothing is asked yet: see [`Cluster::learn`].
    pub fn new(config_server: &str, key: Option<Arc<Key>>) -> Option<Cluster> {
        let clock = Arc::new(Clock::default());
        Some(Cluster {
            config: Arc::new(upstream(config_server, None, &clock, key.as_ref())?),
            key,
            clock,
            cursors: Cursors::default(),
            retried: Retried::default(),
            transactions: Transactions::default(),
            wire_version: AtomicI32::new(0),
            shards: RwLock::default(),
            // Far from where the servers' ids are likely to be, and another for each start, so that a cursor of an
            // earlier front is not mistaken for one of this.
            next_cursor: AtomicI64::new((1 << 62) + (i64::from(rand::random::<u32>()) << 24)),
        })
    }

    /// Asks the config server which shards there are, and how new it is.
    pub async fn learn(&self) -> Result<(), Failure> {
        let hello = self.config.command("admin", &doc! { "hello": 1 }).await?;
        self.wire_version.store(hello.get_i32("maxWireVersion")?, Ordering::Relaxed);
        let reply = self.config.command("config", &doc! { "find": "shards", "sort": { "_id": 1 }, "batchSize": 1000 }).await?;
        let known = self.shards();
        let mut shards = Vec::new();
        for shard in first_batch(&reply)? {
            let (name, host) = (shard.get_str("_id")?, shard.get_str("host")?);
            let same = known.iter().find(|known| known.name == name && host.split('/').next_back() == Some(&known.hosts.join(",")));
            match same {
                Some(same) => shards.push(same.clone()),
                None => shards.extend(upstream(host, Some(name), &self.clock, self.key.as_ref()).map(Arc::new)),
            }
        }
        *self.shards.write().expect("nothing panics with the shards") = shards;
        Ok(())
    }

    pub fn shards(&self) -> Vec<Arc<Upstream>> {
        self.shards.read().expect("nothing panics with the shards").clone()
    }

    pub fn shard(&self, name: &str) -> Result<Arc<Upstream>, Failure> {
        let shards = self.shards();
        let shard = shards.into_iter().find(|shard| shard.name == name);
        shard.ok_or_else(|| Failure::new(Code::ShardNotFound, format!("there is no shard {name}")))
    }

    /// The shard whose routing code serves this client: clients are dealt out in turn, away from shards that have no
    /// primary.
    pub fn router(&self, client: usize) -> Result<Arc<Upstream>, Failure> {
        let shards = self.shards();
        let first = client.checked_rem(shards.len()).ok_or_else(|| Failure::new(Code::ShardNotFound, "there are no shards"))?;
        let mut turns = shards[first..].iter().chain(&shards[..first]);
        Ok(turns.find(|shard| shard.has_primary()).unwrap_or(&shards[first]).clone())
    }

    pub fn next_cursor(&self) -> i64 {
        self.next_cursor.fetch_add(1, Ordering::Relaxed)
    }
}

fn upstream(connection_string: &str, name: Option<&str>, clock: &Arc<Clock>, key: Option<&Arc<Key>>) -> Option<Upstream> {
    let (set, hosts) = connection_string.split_once('/')?;
    Some(Upstream::new(name.unwrap_or(set).into(), hosts.split(',').map(String::from).collect(), clock.clone(), key.cloned()))
}
