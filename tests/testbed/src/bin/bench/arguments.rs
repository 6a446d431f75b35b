//! What is measured, and how much of it.

use std::path::PathBuf;

use clap::Parser;
use testbed::DataSet;

use crate::DATABASE;

/// Measures mongoferry against a floor taken in the same run.
#[derive(Parser)]
#[command(version)]
pub struct Arguments {
    /// The program to measure; a release build.
    #[arg(long)]
    pub mongoferry: PathBuf,
    #[arg(long, default_value_t = 1_000_000, default_value_if("quick", "true", "50000"))]
    pub documents: u64,
    /// Mean bytes of a document.
    #[arg(long, default_value_t = 1024)]
    pub bytes: usize,
    #[arg(long, default_value_t = 4)]
    pub collections: u32,
    /// Each: floor, copy, mongodump | mongorestore, and the whole with indexes.
    #[arg(long, default_value_t = 3, default_value_if("quick", "true", "2"))]
    pub rounds: u32,
    /// Small and short, to see that it works: 50,000 documents, 2 rounds, 10,000 operations, 5 seconds. The numbers mean little.
    #[arg(long)]
    pub quick: bool,
    /// Inserts of a burst, and as many updates and deletes; never more than there are documents in one collection.
    #[arg(long, default_value_t = 200_000, default_value_if("quick", "true", "10000"))]
    pub operations: u64,
    /// Inserts a second of the steady load.
    #[arg(long, default_value_t = 500)]
    pub rate: u32,
    /// Seconds of the steady load.
    #[arg(long, default_value_t = 20.0, default_value_if("quick", "true", "5"))]
    pub seconds: f64,
    /// Connections of the floor, and inserts at the same time of mongoferry. By default two for each core: both servers share them
    /// with whoever writes.
    #[arg(long, default_value_t = 2 * std::thread::available_parallelism().map_or(1, usize::from))]
    pub writers: usize,
    /// Partitions that mongoferry reads at the same time.
    #[arg(long, default_value_t = 4)]
    pub partitions: usize,
    /// GiB of cache for each server.
    #[arg(long, default_value_t = 1.0)]
    pub cache_gb: f64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Leave out the tail and the comparison at the end.
    #[arg(long)]
    pub copy_only: bool,
    /// Measure copy and tail between sharded clusters instead, once with each of these numbers of shards on both sides: 1,2,3.
    #[arg(long, value_delimiter = ',', conflicts_with = "copy_only")]
    pub shards: Vec<usize>,
    /// Where the JSON goes; - for stdout, instead of the table.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Further arguments for mongoferry.
    #[arg(last = true)]
    pub more: Vec<String>,
}

impl Arguments {
    /// What the source is filled with.
    pub fn data_set(&self, indexes: bool) -> DataSet {
        DataSet {
            database: DATABASE.into(),
            documents: self.documents,
            approx_bytes: self.bytes,
            collections: self.collections,
            seed: self.seed,
            indexes,
        }
    }
}
