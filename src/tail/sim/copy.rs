//! A stand-in for the copy: the least that keeps to the rules of [`crate::race`].

use crate::{
    catalog::{Catalog, Collection, State},
    checkpoint::{MemoryStore, Store},
    error::{Error, Result},
    model::{Batch, Partition, bound_of},
    race::{Hold, Race, Reread},
    source::{Found, Scan, ScanBatch, ScanRange, Source, memory::MemorySource},
    target::{Target, memory::MemoryTarget},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use tokio::{
    sync::mpsc,
    task::{JoinSet, yield_now},
};

#[derive(Clone)]
pub(super) struct Copy {
    pub source: MemorySource,
    pub target: MemoryTarget,
    pub store: MemoryStore,
    pub catalog: Catalog,
    pub race: Race,
    pub rereads: mpsc::Sender<Reread>,
    pub partitions: u32,
    pub batch: u32,
    /// Turns that a batch waits on its way, at most.
    pub stall: u32,
    pub seed: u64,
}

/// How a partition ended.
#[derive(PartialEq)]
enum End {
    Done,
    /// The collection is gone: the tail will tell.
    Gone,
}

impl Copy {
    /// Copies every collection that is not complete, all at once.
    pub async fn run(self) -> Result<()> {
        let mut tasks = JoinSet::new();
        for collection in self.catalog.living().into_iter().filter(|c| c.entry().state == State::Copying) {
            tasks.spawn(self.clone().collection(collection));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|e| Error::Bug(e.to_string()))??;
        }
        Ok(())
    }

    async fn collection(self, collection: Arc<Collection>) -> Result<()> {
        let uuid = collection.uuid();
        let mut all: Vec<_> = self.store.partitions().await?.into_iter().filter(|p| p.id.collection == uuid).collect();
        if all.is_empty() {
            all = Partition::cover(uuid, self.source.split(&collection.on_source(), self.partitions).await?);
            self.store.save_partitions(&all).await?;
        }
        let mut tasks = JoinSet::new();
        for partition in all.into_iter().filter(|p| !p.done) {
            tasks.spawn(self.clone().partition(collection.clone(), partition));
        }
        while let Some(ended) = tasks.join_next().await {
            if ended.map_err(|e| Error::Bug(e.to_string()))?? == End::Gone {
                return Ok(());
            }
        }
        let _alone = collection.gate.write().await;
        let complete = {
            let mut entry = collection.entry_mut();
            if entry.state != State::Copying {
                return Ok(());
            }
            entry.state = State::Complete;
            entry.clone()
        };
        self.race.end(uuid);
        self.store.save_entries(&[complete]).await
    }

    /// Reads ahead while batches are confirmed in order.
    async fn partition(self, collection: Arc<Collection>, mut partition: Partition) -> Result<End> {
        let (batches, mut read) = mpsc::channel(2);
        let mut reader = JoinSet::new();
        reader.spawn(self.clone().read(collection.clone(), partition.clone(), batches));
        let mut r = StdRng::seed_from_u64(self.seed.wrapping_add(u64::from(partition.id.number)));
        while let Some((batch, mut hold)) = read.recv().await {
            for _ in 0..r.random_range(0..=self.stall) {
                yield_now().await;
            }
            hold.inserting();
            let end = self.confirm(&collection, &mut partition, &batch).await?;
            // Where the collection is gone, so is what was inserted.
            hold.confirm();
            if end == End::Gone {
                return Ok(End::Gone);
            }
        }
        if reader.join_next().await.ok_or(Error::Interrupted)?.map_err(|e| Error::Bug(e.to_string()))?? == End::Gone {
            return Ok(End::Gone);
        }
        partition.done = true;
        self.store.save_partitions(&[partition]).await?;
        Ok(End::Done)
    }

    async fn read(self, collection: Arc<Collection>, partition: Partition, to: mpsc::Sender<(ScanBatch, Hold)>) -> Result<End> {
        let mut hold = self.race.hold();
        let (from, max) = (partition.from().cloned(), partition.max.clone());
        let range = ScanRange { from, max, after: hold.at(), batch_documents: self.batch, natural: false };
        let Found::Here(mut scan) = self.source.scan(&collection.on_source(), range).await? else { return Ok(End::Gone) };
        while let Some(batch) = scan.next().await? {
            let confirmed = hold.split();
            hold.advance(batch.read_at);
            if to.send((batch, confirmed)).await.is_err() {
                return Err(Error::Interrupted);
            }
        }
        Ok(End::Done)
    }

    async fn confirm(&self, collection: &Arc<Collection>, partition: &mut Partition, batch: &ScanBatch) -> Result<End> {
        self.race.read(batch.read_at);
        let documents = Batch::new(batch.documents.clone());
        {
            let _shared = collection.gate.read().await;
            let Some(to) = collection.on_target() else { return Ok(End::Gone) };
            self.target.insert(&to, &documents).await?;
        }
        let keys: Vec<_> = documents.keys().collect();
        let orders: Vec<_> = keys.iter().map(|key| collection.order_of(key)).collect();
        let raced = self.race.raced(collection.uuid(), &orders, batch.before);
        let (done, mut told) = mpsc::channel(raced.len().max(1));
        for (n, at_least) in &raced {
            let reread = Reread { collection: collection.clone(), key: keys[*n].clone(), at_least: *at_least, done: done.clone() };
            self.rereads.send(reread).await.map_err(|_| Error::Interrupted)?;
        }
        drop(done);
        for _ in &raced {
            told.recv().await.ok_or(Error::Interrupted)?;
        }
        partition.after = documents.last().and_then(|doc| bound_of(doc));
        partition.documents += documents.len();
        self.store.save_partitions(std::slice::from_ref(partition)).await?;
        Ok(End::Done)
    }
}
