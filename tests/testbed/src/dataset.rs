//! A shop's data: customers, orders, payments and events, the same for the same seed.
//!
//! Made fast: documents are encoded once and go out as raw `insert` commands over several connections, so that the
//! server is the limit. Each document follows from the seed, its collection and its number alone.

mod shop;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mongodb::Client;
use mongodb::bson::{RawArrayBuf, doc, rawdoc};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Error, Result};
use shop::Subject;

/// Connections that insert at once.
const CONNECTIONS: usize = 4;
/// Limits of one insert command.
const BATCH_DOCUMENTS: u64 = 1000;
const BATCH_BYTES: u64 = 4 << 20;

/// What to make.
#[derive(Debug, Clone)]
pub struct DataSet {
    pub database: String,
    /// Over all collections, in equal shares.
    pub documents: u64,
    /// The mean size of a document, in bytes; some 300 at least, 700,000 at most.
    pub approx_bytes: usize,
    /// `customers`, `orders`, `payments`, `events`, then `customers2`, ….
    pub collections: u32,
    pub seed: u64,
    /// With secondary indexes: a unique one, a compound one, a partial one and a TTL one that expires nothing.
    pub indexes: bool,
}

impl Default for DataSet {
    fn default() -> Self {
        DataSet { database: "shop".into(), documents: 100_000, approx_bytes: 1024, collections: 4, seed: 1, indexes: true }
    }
}

impl DataSet {
    /// Its collections.
    pub fn names(&self) -> Vec<String> {
        (0..self.collections).map(|collection| subject(collection).0).collect()
    }
}

/// What was made.
#[derive(Debug, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filled {
    pub documents: u64,
    /// Of the documents as BSON, without indexes.
    pub bytes: u64,
    /// With the building of indexes.
    pub seconds: f64,
}

/// Inserts the data set and builds its indexes. The collections should not hold documents of the same seed.
pub async fn fill(client: &Client, set: DataSet) -> Result<Filled> {
    let started = Instant::now();
    let set = Arc::new(set);
    let batches: Arc<Vec<Batch>> = Arc::new(batches(&set));
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, set, batches, next) = (client.clone(), set.clone(), batches.clone(), next.clone());
        writers.spawn(async move {
            let mut bytes = 0;
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                bytes += insert(&client, &set, batch).await?;
            }
            Ok::<u64, Error>(bytes)
        });
    }
    let mut bytes = 0;
    while let Some(ended) = writers.join_next().await {
        bytes += ended.expect("a writer does not panic")?;
    }
    if set.indexes {
        for collection in 0..set.collections {
            let (name, subject) = subject(collection);
            let command = doc! { "createIndexes": name, "indexes": [subject.index()] };
            client.database(&set.database).run_command(command).await?;
        }
    }
    Ok(Filled { documents: set.documents, bytes, seconds: started.elapsed().as_secs_f64() })
}

/// Consecutive documents of one collection.
struct Batch {
    collection: u32,
    first: u64,
    count: u64,
}

fn batches(set: &DataSet) -> Vec<Batch> {
    let collections = u64::from(set.collections.max(1));
    // Half of the limit, because sizes vary around the mean by half of it.
    let most = (BATCH_BYTES / 2 / set.approx_bytes.max(1) as u64).clamp(1, BATCH_DOCUMENTS);
    let mut all = Vec::new();
    for collection in 0..collections {
        let share = set.documents / collections + u64::from(collection < set.documents % collections);
        for first in (0..share).step_by(most as usize) {
            all.push(Batch { collection: collection as u32, first, count: most.min(share - first) });
        }
    }
    // Collections in turn, so that the writers do not all work on one.
    all.sort_by_key(|batch| (batch.first, batch.collection));
    all
}

fn subject(collection: u32) -> (String, Subject) {
    let subject = Subject::ALL[collection as usize % Subject::ALL.len()];
    let round = collection as usize / Subject::ALL.len();
    let name = subject.name();
    (if round == 0 { name.into() } else { format!("{name}{}", round + 1) }, subject)
}

/// Answers the bytes of the documents.
async fn insert(client: &Client, set: &DataSet, batch: &Batch) -> Result<u64> {
    let (name, subject) = subject(batch.collection);
    let mut documents = RawArrayBuf::new();
    let mut bytes = 0;
    for number in batch.first..batch.first + batch.count {
        let seed = set.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(batch.collection) << 56);
        let document = subject.document(&mut SmallRng::seed_from_u64(seed), set.seed, number, set.approx_bytes);
        bytes += document.as_bytes().len() as u64;
        documents.push(document);
    }
    let command = rawdoc! { "insert": name, "ordered": false, "documents": documents };
    let reply = client.database(&set.database).run_raw_command(command).await?;
    if let Ok(errors) = reply.get_array("writeErrors") {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(Error::NotStored(format!("{} documents of a batch, the first: {first}", errors.len())));
    }
    Ok(bytes)
}
