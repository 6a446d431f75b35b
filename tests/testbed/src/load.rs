//! A mixed load with a seed: the kinds of writes that replication gets wrong first.
//!
//! Each of a few workers writes batches of operations of one kind, at its share of the rate. Workers own the documents
//! they insert, apart from the hot ones, which all of them update. The seed decides what each worker does; how the
//! workers interleave is up to the server. No error stops the load: elections are waited out, a write block is waited
//! for, and whatever else the server says is counted.

mod counts;
mod ddl;
mod documents;
mod pace;
mod send;
#[cfg(test)]
mod tests;
mod transaction;
mod updates;
mod worker;

use std::sync::Arc;

use mongodb::Client;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use counts::Tally;
pub use counts::{Counts, Kind};
use worker::Worker;

/// What to write.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    pub seed: u64,
    /// Single operations (statements) a second over all workers; 0 is as fast as it goes.
    pub ops_per_second: u32,
    /// Databases `load0`, `load1`, ….
    pub databases: u32,
    /// Collections over all databases, `c0`, `c1`, …, dealt out in turn.
    pub collections: u32,
    /// Workers, each with a connection of its own.
    pub threads: u32,
    /// Also create, drop, rename and modify collections and indexes named `load0.ddl*`, several times a second.
    pub ddl: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { seed: rand::random(), ops_per_second: 2000, databases: 2, collections: 4, threads: 4, ddl: false }
    }
}

impl LoadOptions {
    /// The collections that are written to, without those of the DDL noise.
    pub fn namespaces(&self) -> Vec<(String, String)> {
        let databases = self.databases.max(1);
        (0..self.collections.max(1)).map(|i| (format!("load{}", i % databases), format!("c{i}"))).collect()
    }
}

/// A running load. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    workers: JoinSet<()>,
    stopping: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Load {
    /// Starts to write; prints the seed to stderr. Needs a replica set (transactions).
    pub fn start(client: Client, options: LoadOptions) -> Load {
        eprintln!("load: seed {}", options.seed);
        let tally = Arc::new(Tally::new(options.seed));
        let stopping = CancellationToken::new();
        let mut workers = JoinSet::new();
        for n in 0..options.threads.max(1) {
            workers.spawn(Worker::new(n, &client, &options, &tally, &stopping).run());
        }
        if options.ddl {
            workers.spawn(ddl::noise(client, options.seed, tally.clone(), stopping.clone()));
        }
        Load { tally, workers, _stop_on_drop: stopping.clone().drop_guard(), stopping }
    }

    /// What has been done so far.
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Lets every worker finish its batch; answers the final counts.
    ///
    /// # Panics
    /// If a worker panicked.
    pub async fn stop(mut self) -> Counts {
        self.stopping.cancel();
        while let Some(ended) = self.workers.join_next().await {
            ended.expect("a load worker panicked");
        }
        self.tally.counts()
    }
}
