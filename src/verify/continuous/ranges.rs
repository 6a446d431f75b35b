//! Compares whole ranges.

use super::{Known, Prover, Round, name_of, readable};
use crate::{
    checkpoint::Store,
    error::Result,
    model::{ClusterTime, Partition, PartitionId},
    source::Source,
    verify::{
        Settings, parallel,
        partition::{Outcome, Room, Task, compare},
        recheck::{Readable, Suspect},
    },
};
use std::sync::{Arc, atomic::AtomicI64};

impl<A: Source, B: Source, C: Store> Prover<A, B, C> {
    /// Compares these ranges, several at a time; gives the documents that were compared.
    pub(super) async fn compare_ranges<F, Fut>(&self, known: &mut Known, round: &Round<'_, F>, ranges: Vec<PartitionId>) -> Result<u64>
    where
        F: Fn(ClusterTime) -> Fut,
        Fut: Future<Output = Result<()>> + Send,
    {
        if ranges.is_empty() {
            return Ok(0);
        }
        let times = (self.source.operation_time().await?, self.target.operation_time().await?);
        let pairs: Vec<_> = ranges.iter().map(|id| (id.collection, self.catalog.find(id.collection).and_then(|c| readable(&c)))).collect();
        let mut tasks = Vec::new();
        for (at, (id, (_, pair))) in ranges.iter().zip(&pairs).enumerate() {
            let (Some(pair), Some(partition)) = (pair, self.parity.range(*id)) else { continue };
            tasks.push(self.task(at, pair, partition, round.settings, times).await?);
        }
        let room: Room = Arc::new(AtomicI64::new(i64::from(round.settings.max_kept)));
        let run = |task, stop| {
            compare(self.source.clone(), self.target.clone(), task, round.settings.clone(), room.clone(), self.metrics.clone(), stop)
        };
        let outcomes: Vec<Outcome> = parallel::all(tasks, round.settings.workers, round.stop, run).await?;
        let suspects =
            outcomes.iter().filter(|o| !o.gone).flat_map(|o| o.mismatches.iter().map(|(key, _)| Suspect::new(o.pair, key.clone())));
        let left = self.recheck(known, round, &pairs, suspects.collect()).await?;
        let mut proved = Vec::new();
        let mut documents = 0;
        for outcome in outcomes.iter().filter(|o| !o.gone) {
            let id = ranges[outcome.pair];
            if outcome.overflow > 0 {
                known.overflow.insert(id, outcome.overflow);
            } else {
                known.overflow.remove(&id);
            }
            documents += outcome.documents;
            // Saved as proved first: what is touched from then on is marked, and was while it was compared.
            if let Some(range) = self.parity.range(id) {
                let differs = outcome.mismatches.iter().any(|(key, _)| known.found.contains_key(&(id.collection, name_of(key))));
                let done = outcome.overflow == 0 && !differs;
                proved.push(Partition { done, documents: outcome.documents, bytes: outcome.bytes, ..range });
            }
        }
        self.store.save_ranges(&proved).await?;
        for outcome in outcomes.iter().filter(|o| !o.gone) {
            self.parity.scanned(ranges[outcome.pair], outcome.documents, outcome.bytes);
        }
        for (uuid, key) in left {
            self.parity.note(uuid, &key);
        }
        Ok(documents)
    }

    async fn task(
        &self,
        at: usize,
        pair: &Readable,
        partition: Partition,
        settings: &Settings,
        (source_time, target_time): (ClusterTime, ClusterTime),
    ) -> Result<Task> {
        let size = self.source.estimate(&pair.source).await?;
        let per_document = (size.bytes / size.documents.max(1)).max(1);
        let fitting = u32::try_from(settings.batch_bytes / per_document).unwrap_or(u32::MAX);
        Ok(Task {
            pair: at,
            source: pair.source.clone(),
            target: pair.target.clone(),
            partition,
            batch_documents: fitting.clamp(1, settings.batch_documents.max(1)),
            source_time,
            target_time,
        })
    }
}
