//! Looks at single documents: those that the tail touched, and those that differed.

use super::{Known, Prover, Round, name_of, readable};
use crate::{
    checkpoint::Store,
    error::Result,
    model::{ClusterTime, CollectionUuid, DocumentKey},
    source::Source,
    verify::{
        recheck::{Readable, Suspect, recheck},
        report::DifferenceKind,
    },
};
use std::collections::BTreeMap;
use tokio::time::Instant;

impl<A: Source, B: Source, C: Store> Prover<A, B, C> {
    /// Looks at all touched keys, and with `found_too` at all differences again; gives how many documents that were.
    pub(super) async fn look_at_keys<F, Fut>(&self, known: &mut Known, round: &Round<'_, F>, found_too: bool) -> Result<u64>
    where
        F: Fn(ClusterTime) -> Fut,
        Fut: Future<Output = Result<()>> + Send,
    {
        let is_here = |uuid: CollectionUuid| self.catalog.find(uuid).is_some_and(|c| readable(&c).is_some());
        known.found.retain(|(uuid, _), _| is_here(*uuid));
        known.overflow.retain(|range, _| is_here(range.collection));
        let taken = self.parity.take(round.applied);
        let mut by_collection: BTreeMap<CollectionUuid, Vec<DocumentKey>> = BTreeMap::new();
        if found_too {
            for ((uuid, _), difference) in &known.found {
                by_collection.entry(*uuid).or_default().extend(difference.key.clone());
            }
        }
        for (uuid, keys) in &taken {
            by_collection.entry(*uuid).or_default().extend(keys.iter().cloned());
        }
        let pairs: Vec<(CollectionUuid, Option<Readable>)> =
            by_collection.keys().map(|uuid| (*uuid, self.catalog.find(*uuid).and_then(|c| readable(&c)))).collect();
        let mut suspects = Vec::new();
        for (at, (_, keys)) in by_collection.into_iter().enumerate().filter(|(at, _)| pairs[*at].1.is_some()) {
            suspects.extend(keys.into_iter().map(|key| Suspect::new(at, key)));
        }
        let looked = suspects.len() as u64;
        let left = self.recheck(known, round, &pairs, suspects).await?;
        for (uuid, _) in &taken {
            let again: Vec<_> = left.iter().filter(|(of, _)| of == uuid).map(|(_, key)| key.clone()).collect();
            self.parity.looked(*uuid, &again, round.applied);
        }
        known.keys_at = Some(Instant::now());
        if found_too {
            known.found_at = known.keys_at;
        }
        Ok(looked)
    }

    /// Looks at suspects in generations; what is confirmed is found, what is seen equal is found no longer. Gives those
    /// of which it cannot be told.
    pub(super) async fn recheck<F, Fut>(
        &self,
        known: &mut Known,
        round: &Round<'_, F>,
        pairs: &[(CollectionUuid, Option<Readable>)],
        suspects: Vec<Suspect>,
    ) -> Result<Vec<(CollectionUuid, DocumentKey)>>
    where
        F: Fn(ClusterTime) -> Fut,
        Fut: Future<Output = Result<()>> + Send,
    {
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let readable: Vec<Option<Readable>> = pairs.iter().map(|(_, pair)| pair.clone()).collect();
        let names: Vec<_> = suspects.iter().map(|s| (pairs[s.pair].0, name_of(&s.key))).collect();
        let both = (&self.source, &self.target);
        let rechecked = recheck(both, &readable, suspects, round.settings, round.settle, round.stop).await?;
        for name in names {
            known.found.remove(&name);
        }
        for (at, (uuid, _)) in pairs.iter().enumerate().filter(|(at, (_, pair))| pair.is_none() || rechecked.gone.contains(at)) {
            tracing::debug!(pair = at, "gone while it was verified");
            known.found.retain(|(of, _), _| of != uuid);
        }
        let mut left = Vec::new();
        for (pair, mut difference) in rechecked.differences {
            let (uuid, Some(key)) = (pairs[pair].0, difference.key.clone()) else { continue };
            if difference.kind == DifferenceKind::Unsettled {
                left.push((uuid, key));
                continue;
            }
            tracing::warn!(ns = %difference.ns, kind = difference.kind.label(), "source and target differ in a document");
            self.findings.mended.tell(&mut difference);
            known.found.insert((uuid, name_of(&key)), difference);
        }
        Ok(left)
    }
}
