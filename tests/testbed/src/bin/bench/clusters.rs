//! Copy and tail between sharded clusters, by the number of their shards.
//!
//! All servers, both routers and mongoferry share this machine, so its cores are the limit and no number of shards makes
//! anything faster here. What is looked at is the cost: what one document and one event cost mongoferry itself must not
//! grow with the shards, and the ratio to the floor, which goes through the same router, must hold.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::doc;
use serde::Serialize;
use testbed::{ShardedCluster, end, fill, parity, sharded};
use tokio::time::sleep;

use crate::arguments::Arguments;
use crate::failure::{Failure, Result};
use crate::ferry::Ferry;
use crate::floor::{self, Indexes};
use crate::meter::Meter;
use crate::report::Spread;
use crate::tail::{Burst, Kind, Subject};
use crate::{BATCH_BYTES, BATCH_DOCUMENTS, DATABASE, LIVE, OPLOG_MB, copy, tell};

/// One number of shards on both sides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Clusters {
    pub shards: usize,
    pub documents: u64,
    pub floor_per_second: Spread,
    pub copy_per_second: Spread,
    pub copy_of_floor: Spread,
    /// Microseconds of mongoferry's CPU.
    pub copy_client_micros: Spread,
    /// Inserts, updates and deletes a second, until all are visible on the target.
    pub tail_per_second: [Spread; 3],
    pub tail_client_micros: [Spread; 3],
    pub equal: bool,
}

/// What one round finds.
struct Found {
    floor: f64,
    copy: f64,
    copy_micros: f64,
    tail: Vec<(f64, f64)>,
    equal: bool,
}

struct Side {
    cluster: ShardedCluster,
    client: Client,
}

impl Side {
    async fn start(shards: usize, cache_gb: f64) -> Result<Side> {
        let options = sharded::Options { shards, oplog_mb: OPLOG_MB, cache_gb, ..sharded::Options::default() };
        let cluster = ShardedCluster::start(options).await?;
        let client = cluster.client().await?;
        Ok(Side { cluster, client })
    }

    /// By its hashed `_id`, while it is empty: the server then spreads it.
    async fn shard(&self, database: &str, collections: &[String]) -> Result<()> {
        for collection in collections {
            let command = doc! { "shardCollection": format!("{database}.{collection}"), "key": { "_id": "hashed" } };
            self.client.database("admin").run_command(command).await?;
        }
        Ok(())
    }

    async fn stop(self) {
        end(self.client).await;
        self.cluster.stop();
    }
}

/// All rounds with this number of shards.
pub async fn measure(arguments: &Arguments, shards: usize) -> Result<Clusters> {
    let mut found = Vec::new();
    for round in 1..=arguments.rounds {
        tell(&format!("{shards} shards, round {round} of {}", arguments.rounds));
        found.push(self::round(arguments, shards).await?);
    }
    let spread = |of: &dyn Fn(&Found) -> f64| Spread::of(found.iter().map(of)).ok_or_else(|| Failure::new("no rounds"));
    let tail = |of: &dyn Fn(&(f64, f64)) -> f64| -> Result<[Spread; 3]> {
        Ok([spread(&|f| of(&f.tail[0]))?, spread(&|f| of(&f.tail[1]))?, spread(&|f| of(&f.tail[2]))?])
    };
    Ok(Clusters {
        shards,
        documents: arguments.documents,
        floor_per_second: spread(&|f| f.floor)?,
        copy_per_second: spread(&|f| f.copy)?,
        copy_of_floor: spread(&|f| f.copy / f.floor)?,
        copy_client_micros: spread(&|f| f.copy_micros)?,
        tail_per_second: tail(&|(rate, _)| *rate)?,
        tail_client_micros: tail(&|(_, micros)| *micros)?,
        equal: found.iter().all(|f| f.equal),
    })
}

async fn round(arguments: &Arguments, shards: usize) -> Result<Found> {
    let source = Side::start(shards, arguments.cache_gb).await?;
    let set = arguments.data_set(false);
    let collections = set.names();
    source.shard(DATABASE, &collections).await?;
    let filled = fill(&source.client, set).await?;
    let mean = filled.bytes / filled.documents.max(1);
    let batch = u32::try_from((BATCH_BYTES / mean.max(1)).clamp(1, BATCH_DOCUMENTS)).unwrap_or(1);

    let target = Side::start(shards, arguments.cache_gb).await?;
    let commands = floor::encode(&source.client, DATABASE, &collections, batch).await?;
    target.shard(DATABASE, &collections).await?;
    sleep(Duration::from_secs(2)).await;
    // The routers are threads of this process; what they and the servers use is not told apart.
    let of = |client: u32| Meter { client, source: std::process::id(), target: std::process::id() };
    let (seconds, _) = floor::send(&target.client, commands, arguments.writers, of(std::process::id())).await?;
    let floor = arguments.documents as f64 / seconds;
    target.stop().await;

    let target = Side::start(shards, arguments.cache_gb).await?;
    let subject = Subject {
        database: LIVE.into(),
        collection: "tail".into(),
        from: (DATABASE.into(), "customers".into()),
        operations: arguments.operations,
        seed: arguments.seed,
    };
    source.shard(LIVE, std::slice::from_ref(&subject.collection)).await?;
    let more = [format!("--copy-writers={}", arguments.writers), format!("--copy-partitions={}", arguments.partitions)];
    let more: Vec<String> = more.into_iter().chain(arguments.more.iter().cloned()).collect();
    let log = source.cluster.config().folder().join("mongoferry.log");
    let mut ferry = Ferry::start(&arguments.mongoferry, &source.cluster.uri(), &target.cluster.uri(), log, &more)?;
    let meter = of(ferry.pid());
    let copied = copy::watch(&mut ferry, arguments.documents, meter, &target.client, DATABASE, &Indexes::new()).await?;
    sleep(Duration::from_secs(2)).await;
    let bursts = subject.bursts(&source.client, Some(&target.client), meter).await?;
    ferry.stop().await?;
    let compared = testbed::compare(&source.client, &target.client, parity::everything).await?;
    target.stop().await;
    source.stop().await;
    Ok(Found {
        floor,
        copy: arguments.documents as f64 / copied.copy_seconds,
        copy_micros: copied.cpu.client() * 1e6 / arguments.documents as f64,
        tail: bursts.iter().map(cost).collect(),
        equal: compared.is_equal(),
    })
}

/// Operations a second, and microseconds of mongoferry's CPU for each.
fn cost(burst: &Burst) -> (f64, f64) {
    let operations = burst.operations as f64;
    (operations / burst.target_seconds.unwrap_or(f64::NAN), burst.cpu.client() * 1e6 / operations)
}

/// For people.
pub fn table(all: &[Clusters]) -> String {
    let mut text = String::from("shards  floor/s  copy/s  of the floor      µs/document");
    for kind in Kind::ALL {
        text += &format!("  {}/s (µs)", kind.label());
    }
    for c in all {
        let Spread { median, min, max } = c.copy_of_floor;
        text += &format!(
            "\n{:6}  {:7.0}  {:6.0}  {median:.2} ({min:.2}-{max:.2})  {:11.2}",
            c.shards, c.floor_per_second.median, c.copy_per_second.median, c.copy_client_micros.median
        );
        for (rate, micros) in c.tail_per_second.iter().zip(&c.tail_client_micros) {
            text += &format!("  {:7.0} ({:4.1})", rate.median, micros.median);
        }
        text += if c.equal { "  equal" } else { "  DIFFERENT" };
    }
    text
}
