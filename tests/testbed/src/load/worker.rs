//! One worker: batches of one kind after another, on documents of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::counts::{Kind, Tally};
use super::pace::Pace;
use super::send::{is_blocked, is_transient, send, short};
use super::{LoadOptions, documents, transaction, updates};

/// Documents a worker keeps in one collection before it deletes as many as it inserts.
const KEPT: usize = 20_000;

/// How often each kind comes, in batches.
const WEIGHTS: [(Kind, u32); 10] = [
    (Kind::Insert, 26),
    (Kind::Update, 26),
    (Kind::Truncate, 6),
    (Kind::Pipeline, 8),
    (Kind::Reorder, 4),
    (Kind::Replace, 6),
    (Kind::Delete, 8),
    (Kind::Reinsert, 5),
    (Kind::Hot, 9),
    (Kind::InTransaction, 2),
];

pub struct Worker {
    number: u32,
    client: Client,
    namespaces: Vec<Namespace>,
    rng: StdRng,
    counter: u32,
    pace: Pace,
    tally: Arc<Tally>,
    stopping: CancellationToken,
}

/// A collection and the `_id`s in it that this worker has inserted.
pub struct Namespace {
    pub database: String,
    pub collection: String,
    pub alive: Vec<Bson>,
}

impl Worker {
    pub fn new(number: u32, client: &Client, options: &LoadOptions, tally: &Arc<Tally>, stopping: &CancellationToken) -> Worker {
        let namespaces = options.namespaces().into_iter();
        let namespaces = namespaces.map(|(database, collection)| Namespace { database, collection, alive: Vec::new() });
        let seed = options.seed.wrapping_add(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Worker {
            number,
            client: client.clone(),
            namespaces: namespaces.collect(),
            rng: StdRng::seed_from_u64(seed),
            counter: 0,
            pace: Pace::new(f64::from(options.ops_per_second) / f64::from(options.threads.max(1))),
            tally: tally.clone(),
            stopping: stopping.clone(),
        }
    }

    pub async fn run(mut self) {
        self.make_hot_documents().await;
        while !self.stopping.is_cancelled() {
            let size = self.rng.random_range(5..40);
            let at = self.rng.random_range(0..self.namespaces.len());
            let kind = self.kind(at);
            let due = match kind {
                Kind::Reorder | Kind::Reinsert => 2 * size,
                _ => size,
            };
            let done = kind == Kind::InTransaction || self.pace.take(due, &self.stopping).await;
            if !done || self.batch(kind, at, size as usize).await.is_none() {
                return;
            }
        }
    }

    fn kind(&mut self, at: usize) -> Kind {
        let weighted = WEIGHTS.choose_weighted(&mut self.rng, |(_, weight)| *weight);
        let kind = weighted.expect("the weights are positive").0;
        match self.namespaces[at].alive.len() {
            0..50 if kind != Kind::Hot => Kind::Insert,
            KEPT.. if kind == Kind::Insert => Kind::Delete,
            _ => kind,
        }
    }

    /// `None` when the load is to stop.
    async fn batch(&mut self, kind: Kind, at: usize, size: usize) -> Option<()> {
        match kind {
            Kind::Insert => {
                let ids = self.new_ids(size);
                self.insert(kind, at, &ids).await?;
                self.namespaces[at].alive.extend(ids);
            }
            Kind::Delete => {
                let ids = self.take_ids(at, size);
                self.delete(kind, at, &ids).await?;
            }
            Kind::Reinsert => {
                let ids = self.take_ids(at, size);
                self.delete(kind, at, &ids).await?;
                self.insert(kind, at, &ids).await?;
                self.namespaces[at].alive.extend(ids);
            }
            Kind::InTransaction => self.transaction().await?,
            Kind::Hot => {
                let hot: Vec<Bson> = documents::hot_ids().collect();
                let ids: Vec<Bson> = (0..size).filter_map(|_| hot.choose(&mut self.rng).cloned()).collect();
                self.update(kind, at, &ids).await?;
            }
            _ => {
                let ids = self.some_ids(at, size);
                self.update(kind, at, &ids).await?;
            }
        }
        Some(())
    }

    async fn insert(&mut self, kind: Kind, at: usize, ids: &[Bson]) -> Option<()> {
        let documents: Vec<_> = ids.iter().map(|id| documents::document(&mut self.rng, id.clone())).collect();
        let command = doc! { "insert": &self.namespaces[at].collection, "documents": documents, "ordered": false };
        self.send(kind, at, &command, ids.len()).await
    }

    async fn delete(&mut self, kind: Kind, at: usize, ids: &[Bson]) -> Option<()> {
        let deletes: Vec<_> = ids.iter().map(|id| doc! { "q": { "_id": id }, "limit": 1 }).collect();
        let command = doc! { "delete": &self.namespaces[at].collection, "deletes": deletes, "ordered": false };
        self.send(kind, at, &command, ids.len()).await
    }

    async fn update(&mut self, kind: Kind, at: usize, ids: &[Bson]) -> Option<()> {
        let statements = updates::statements(&mut self.rng, kind, ids);
        let count = statements.len();
        // In order, as one document may have several statements.
        let command = doc! { "update": &self.namespaces[at].collection, "updates": statements };
        self.send(kind, at, &command, count).await
    }

    async fn send(&self, kind: Kind, at: usize, command: &Document, operations: usize) -> Option<()> {
        let database = &self.namespaces[at].database;
        let done = send(&self.client, database, command, operations, &self.tally, &self.stopping).await?;
        self.tally.did(kind, done);
        Some(())
    }

    /// One in eight is of the largest size, one in ten is aborted on purpose.
    async fn transaction(&mut self) -> Option<()> {
        let size = if self.rng.random_ratio(1, 8) { 1000 } else { self.rng.random_range(2..100) };
        let abort = self.rng.random_ratio(1, 10);
        if !self.pace.take(size as u32, &self.stopping).await {
            return None;
        }
        let new = self.new_ids(size);
        let plan = transaction::plan(&mut self.rng, &mut self.namespaces, new, size);
        match transaction::run(&self.client, &plan, abort).await {
            Ok(true) => {
                self.tally.transactions.fetch_add(1, Relaxed);
                self.tally.did(Kind::InTransaction, size as u64);
                for (at, ids) in plan.inserted {
                    self.namespaces[at].alive.extend(ids);
                }
            }
            Ok(false) => _ = self.tally.aborted.fetch_add(1, Relaxed),
            Err(error) => {
                self.tally.aborted.fetch_add(1, Relaxed);
                if is_blocked(&error) {
                    self.tally.blocked.fetch_add(1, Relaxed);
                } else if is_transient(&error) {
                    self.tally.retried.fetch_add(1, Relaxed);
                } else {
                    self.tally.failed(size as u64, short(&error));
                }
            }
        }
        Some(())
    }

    async fn make_hot_documents(&mut self) {
        let hot: Vec<Bson> = documents::hot_ids().collect();
        for at in 0..self.namespaces.len() {
            let documents: Vec<_> = hot.iter().map(|id| documents::document(&mut self.rng, id.clone())).collect();
            let command = doc! { "insert": &self.namespaces[at].collection, "documents": documents, "ordered": false };
            let database = &self.namespaces[at].database;
            if let Some(done) = send(&self.client, database, &command, hot.len(), &self.tally, &self.stopping).await {
                // Another worker was first with the rest.
                self.tally.duplicates.fetch_sub(hot.len() as u64 - done, Relaxed);
                self.tally.did(Kind::Insert, done);
            }
        }
    }

    fn new_ids(&mut self, count: usize) -> Vec<Bson> {
        (0..count)
            .map(|_| {
                self.counter += 1;
                documents::id(&mut self.rng, self.number, self.counter)
            })
            .collect()
    }

    /// Some living documents, perhaps one of them twice.
    fn some_ids(&mut self, at: usize, count: usize) -> Vec<Bson> {
        let alive = &self.namespaces[at].alive;
        (0..count).filter_map(|_| alive.choose(&mut self.rng).cloned()).collect()
    }

    /// Some living documents, no more counted as such.
    fn take_ids(&mut self, at: usize, count: usize) -> Vec<Bson> {
        self.namespaces[at].take(&mut self.rng, count)
    }
}

impl Namespace {
    pub fn take(&mut self, rng: &mut StdRng, count: usize) -> Vec<Bson> {
        let count = count.min(self.alive.len());
        (0..count).map(|_| self.alive.swap_remove(rng.random_range(0..self.alive.len()))).collect()
    }
}
