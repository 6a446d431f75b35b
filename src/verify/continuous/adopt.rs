//! Takes collections in as soon as they are copied, and lets go of those that are gone.

use super::{Prover, Round, readable};
use crate::{
    checkpoint::Store,
    error::{Error, Result},
    model::{ClusterTime, Partition, split_count},
    source::Source,
};
use std::collections::BTreeSet;

/// Collections taken in by one round.
const AT_ONCE: usize = 100;

impl<A: Source, B: Source, C: Store> Prover<A, B, C> {
    /// Whether there were new ones.
    pub(super) async fn adopt<F, Fut>(&self, round: &Round<'_, F>) -> Result<bool>
    where
        F: Fn(ClusterTime) -> Fut,
        Fut: Future<Output = Result<()>> + Send,
    {
        let living = self.catalog.living();
        self.parity.retain(&living.iter().map(|c| c.uuid()).collect::<BTreeSet<_>>());
        let fresh = living.iter().filter(|c| !self.parity.follows(c.uuid())).filter_map(|c| readable(c));
        let fresh: Vec<_> = fresh.take(AT_ONCE).collect();
        let mut planned = Vec::with_capacity(fresh.len());
        for pair in &fresh {
            if round.stop.is_cancelled() {
                return Err(Error::Interrupted);
            }
            let size = self.source.estimate(&pair.source).await?;
            let bounds = self.source.split(&pair.source, split_count(size.bytes, round.settings.partition_bytes)).await?;
            planned.push((Partition::cover(pair.source.uuid, bounds), pair.collated));
        }
        let all: Vec<Partition> = planned.iter().flat_map(|(ranges, _)| ranges.clone()).collect();
        if all.is_empty() {
            return Ok(false);
        }
        self.store.save_ranges(&all).await?;
        for (ranges, collated) in planned {
            self.parity.follow(ranges[0].id.collection, &ranges, None, collated);
        }
        // What the tail had sent down its lanes before it was told to remember is on the target behind this.
        (round.settle)(self.source.operation_time().await?).await?;
        Ok(true)
    }
}
