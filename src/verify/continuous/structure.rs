//! Looks at options, indexes and views.

use super::{Known, Prover, Round, STRUCTURE_EVERY, STRUCTURE_FOUND_EVERY, is_due};
use crate::{
    checkpoint::Store,
    error::Result,
    model::{ClusterTime, UnfinishedIndex, index_title},
    source::Source,
    verify::{Settings, report::Difference, sharding::sharding, survey::survey},
};
use std::sync::PoisonError;
use tokio::time::Instant;

impl<A: Source, B: Source, C: Store> Prover<A, B, C> {
    /// Not while anything is being copied: the target is made then.
    pub(super) fn is_structure_due(&self, known: &Known) -> bool {
        let copying = self.catalog.living().iter().any(|c| c.entry().state.is_incomplete());
        let every = if known.structure.is_empty() { STRUCTURE_EVERY.min(self.every) } else { STRUCTURE_FOUND_EVERY };
        let every = every.max(known.structure_took * 20);
        let restless = is_due(known.structure_at, known.structure_took * 20) && self.parity.take_structure();
        !copying && (restless || is_due(known.structure_at, every))
    }

    pub(super) async fn look_at_structure<F, Fut>(&self, known: &mut Known, round: &Round<'_, F>) -> Result<()>
    where
        F: Fn(ClusterTime) -> Fut,
        Fut: Future<Output = Result<()>> + Send,
    {
        let started = Instant::now();
        let unfinished = || self.catalog.unfinished_indexes().iter().map(UnfinishedIndex::title).collect::<Vec<_>>();
        let shard_keys = self.shard_keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let settings = Settings { waived: unfinished().into(), parked: true, live: true, shard_keys, ..round.settings.clone() };
        let both = (&self.source, &self.target);
        let found = survey(both, &self.selection, &settings, round.settle, round.stop).await?;
        // An index that came meanwhile is being built.
        let unfinished = unfinished();
        let is_built = |d: &Difference| d.part.as_ref().is_none_or(|name| !unfinished.contains(&index_title(d.ns.as_str(), name)));
        let sharding = sharding(both, &found.pairs, &settings, round.settle, round.stop).await?.unwrap_or_default();
        let now = found.differences.into_iter().map(|(d, _)| d).filter(is_built).collect();
        let mut before = std::mem::replace(&mut known.structure, now);
        before.append(&mut std::mem::replace(&mut known.sharding, sharding));
        known.structure.iter_mut().for_each(|d| self.findings.mended.tell(d));
        for d in known.structure.iter().chain(&known.sharding) {
            // Once: it may be looked at for weeks.
            if !before.iter().any(|b| (&b.ns, b.kind, &b.detail) == (&d.ns, d.kind, &d.detail)) {
                tracing::warn!(ns = %d.ns, kind = d.kind.label(), detail = d.detail, "source and target differ in structure");
            }
        }
        (known.structure_at, known.structure_took) = (Some(Instant::now()), started.elapsed());
        Ok(())
    }
}
