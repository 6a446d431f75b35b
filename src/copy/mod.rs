//! The initial copy: partitions of every collection, read and inserted in parallel while the tail runs.
//!
//! It only inserts: a document that is there already came from the tail or from an earlier run, and is at
//! least as new. What an event raced is read again through the tail's lanes (see [`crate::race`]).

mod memory;
mod partition;
mod plan;
mod queue;

pub use memory::Memory;
pub use plan::{Planned, listed, plan, plan_late};
pub use queue::Counts;

use crate::{
    catalog::{Catalog, Collection, State},
    checkpoint::Store,
    error::Result,
    model::{CollectionUuid, Partition},
    observe::Metrics,
    race::{Race, Reread},
    retry::Retry,
    source::Source,
    target::Target,
    tasks::first_error,
    throttle::Pace,
};
use partition::End;
use queue::Queue;
use std::sync::Arc;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Everything the copy needs.
#[derive(Debug, Clone)]
pub struct Copy<S, T, C> {
    /// Read from.
    pub source: S,
    /// Written to.
    pub target: T,
    /// Where progress is kept.
    pub store: C,
    /// Which collections there are.
    pub catalog: Catalog,
    /// Where the tail is met.
    pub race: Race,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Rung when a collection is complete: its indexes can be built.
    pub indexes_changed: Arc<Notify>,
    /// Partitions at the same time.
    pub partitions: usize,
    /// Inserts at the same time, over all partitions.
    pub writers: Arc<Semaphore>,
    /// Bound on bytes.
    pub memory: Memory,
    /// Told how many partitions there are in which state.
    pub counts: watch::Sender<Counts>,
    /// When the next batch may be read.
    pub pace: Pace,
    /// With scans that fail.
    pub retry: Retry,
    /// Re-reads, to the tail's router.
    pub rereads: mpsc::Sender<Reread>,
}

impl<S: Source, T: Target, C: Store> Copy<S, T, C> {
    /// Copies what is left of `partitions`, and returns when all of it is durable. [`Race::begin`] was called for each
    /// collection before any event of it was applied.
    ///
    /// # Errors
    /// The first of any partition. Progress up to it is saved.
    pub async fn run(self, partitions: Vec<Partition>, stop: CancellationToken) -> Result<()> {
        let stop = stop.child_token();
        let queue = Arc::new(Queue::new(partitions));
        self.complete_empty(&queue).await?;
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        for n in 0..self.partitions {
            // One worker begins with the smallest collections, so that they are not starved by large ones.
            let from_small_end = self.partitions > 1 && n + 1 == self.partitions;
            tasks.spawn(self.clone().work(queue.clone(), from_small_end, stop.clone()));
        }
        drop(self);
        first_error(tasks, &stop).await
    }

    async fn work(self, queue: Arc<Queue>, from_small_end: bool, stop: CancellationToken) -> Result<()> {
        while let Some(partition) = queue.take(from_small_end) {
            self.show(&queue);
            let uuid = partition.id.collection;
            let end = partition::copy(&self, partition, &stop).await?;
            if matches!(end, End::Stopped) {
                return Ok(());
            }
            if queue.finished(uuid) {
                self.complete(uuid).await?;
            }
            self.show(&queue);
        }
        Ok(())
    }

    /// A collection whose last partition was done when an earlier run ended.
    async fn complete_empty(&self, queue: &Queue) -> Result<()> {
        for collection in self.catalog.living() {
            let (state, capped) = (collection.entry().state, collection.entry().capped);
            if state == State::Copying && !capped && !queue.holds(collection.uuid()) {
                self.complete(collection.uuid()).await?;
            }
        }
        Ok(())
    }

    async fn complete(&self, uuid: CollectionUuid) -> Result<()> {
        let Some(collection) = self.catalog.find(uuid) else { return Ok(()) };
        let _one_at_a_time = collection.saving.lock().await;
        let entry = {
            let mut entry = collection.entry_mut();
            if entry.state != State::Copying {
                return Ok(());
            }
            entry.state = State::Complete;
            entry.clone()
        };
        tracing::info!(ns = %entry.ns, "collection copied");
        self.store.save_entries(&[entry]).await?;
        self.race.end(uuid);
        self.indexes_changed.notify_one();
        Ok(())
    }

    async fn save(&self, collection: &Collection) -> Result<()> {
        let _one_at_a_time = collection.saving.lock().await;
        let entry = collection.entry().clone();
        self.store.save_entries(&[entry]).await
    }

    fn show(&self, queue: &Queue) {
        let counts = queue.counts();
        self.counts.send_replace(counts);
        self.metrics.partitions(counts.waiting, counts.running, counts.done);
    }
}
