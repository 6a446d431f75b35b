//! Looks at options, indexes and views.

use super::{Known, Prover, Round, STRUCTURE_EVERY, STRUCTURE_FOUND_EVERY, is_due};
use crate::{
    checkpoint::Store,
    error::Result,
    model::ClusterTime,
    source::Source,
    verify::{
        Settings,
        report::{Difference, DifferenceKind},
        sharding::sharding,
        survey::survey,
    },
};
use std::sync::PoisonError;
use tokio::time::Instant;

/// What is in motion for longer is looked at again later: documents wait meanwhile.
const GENERATIONS: u32 = 3;

impl<A: Source, B: Source, C: Store> Prover<A, B, C> {
    /// Not while anything is being copied: the target is made then.
    pub(super) fn is_structure_due(&self, known: &Known) -> bool {
        if self.catalog.living().iter().any(|c| c.entry().state.is_incomplete()) {
            return false;
        }
        let rests = known.structure.is_empty() && !known.structure_moves;
        let (every, pause) = if rests { (STRUCTURE_EVERY.min(self.every), 20) } else { (STRUCTURE_FOUND_EVERY, 4) };
        let pause = known.structure_took * pause;
        let restless = is_due(known.structure_at, pause) && self.parity.take_structure();
        restless || is_due(known.structure_at, every.max(pause))
    }

    pub(super) async fn look_at_structure<F, Fut>(&self, known: &mut Known, round: &Round<'_, F>) -> Result<()>
    where
        F: Fn(ClusterTime) -> Fut,
        Fut: Future<Output = Result<()>> + Send,
    {
        let shard_keys = self.shard_keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let building = Some(self.catalog.clone());
        let settings = Settings { building, generations: GENERATIONS, parked: true, live: true, shard_keys, ..round.settings.clone() };
        let both = (&self.source, &self.target);
        let found = survey(both, &self.selection, &settings, round.settle, round.stop).await?;
        let sharding = sharding(both, &found.pairs, &settings, round.settle, round.stop).await?.unwrap_or_default();
        let (moving, now): (Vec<_>, _) = found.differences.into_iter().map(|(d, _)| d).partition(|d| d.kind == DifferenceKind::Unsettled);
        known.structure_moves = !moving.is_empty();
        let mut before = std::mem::replace(&mut known.structure, now);
        // What was found before of something that is in motion may still be so.
        let stays = |d: &&Difference| moving.iter().any(|m| m.ns == d.ns) && !known.structure.iter().any(|now| same(now, d));
        let stays: Vec<_> = before.iter().filter(stays).cloned().collect();
        known.structure.extend(stays);
        before.append(&mut std::mem::replace(&mut known.sharding, sharding));
        known.structure.iter_mut().for_each(|d| self.findings.mended.tell(d));
        for d in known.structure.iter().chain(&known.sharding) {
            // Once: it may be looked at for weeks.
            if !before.iter().any(|b| same(b, d)) {
                tracing::warn!(ns = %d.ns, kind = d.kind.label(), detail = d.detail, "source and target differ in structure");
            }
        }
        (known.structure_at, known.structure_took) = (Some(Instant::now()), found.took);
        Ok(())
    }
}

fn same(a: &Difference, b: &Difference) -> bool {
    (&a.ns, a.kind, &a.detail) == (&b.ns, b.kind, &b.detail)
}
