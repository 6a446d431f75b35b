//! Lists both sides, compares structure, and looks again until what differs is explained or confirmed.

use super::{
    Settings, parallel,
    plan::{self, Pair},
    report::{Difference, DifferenceKind, Draft},
    structure,
};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, CollectionKind, CollectionUuid, IndexSpec, Selection, UnfinishedIndex, index_title},
    source::{CollectionRef, Found, Source},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128;

/// Both sides as they were listed.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) pairs: Vec<Pair>,
    /// Each with a digest of what the source had there.
    pub(super) differences: Vec<(Difference, u128)>,
    pub(super) indexes: u64,
    /// What the looks took, without the waits between them.
    pub(super) took: Duration,
}

impl Survey {
    /// Into the report.
    pub(super) fn tell(self, draft: &mut Draft) {
        for pair in &self.pairs {
            draft.namespace(&pair.source_info.ns, &pair.target_info.ns);
            match pair.source_info.kind {
                CollectionKind::Collection => {}
                CollectionKind::View | CollectionKind::TimeSeries => draft.covered.views += 1,
            }
        }
        draft.covered.indexes = self.indexes;
        draft.differences.extend(self.differences.into_iter().map(|(difference, _)| difference));
    }
}

/// Lists and compares, and looks again while anything differs: a difference is real when it is seen twice in a
/// row, each time after the target has caught up, with an unchanged source.
///
/// # Errors
/// As classified.
pub(super) async fn survey<A: Source, B: Source, F, Fut>(
    (source, target): (&A, &B),
    selection: &Selection,
    settings: &Settings,
    settle: &F,
    stop: &CancellationToken,
) -> Result<Survey>
where
    F: Fn(ClusterTime) -> Fut,
    Fut: Future<Output = Result<()>> + Send,
{
    let mut found = look((source, target), selection, settings, stop).await?;
    let mut strikes: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..settings.generations.max(2) {
        if found.differences.iter().all(|d| strikes.get(&name(d)).is_some_and(|n| *n >= 2)) {
            return Ok(found);
        }
        settle(source.operation_time().await?).await?;
        let so_far = found.took;
        found = look((source, target), selection, settings, stop).await?;
        found.took += so_far;
        strikes = found.differences.iter().map(|d| (name(d), strikes.get(&name(d)).map_or(1, |n| n + 1))).collect();
    }
    for (difference, _) in found.differences.iter_mut().filter(|d| strikes.get(&name(d)).is_none_or(|n| *n < 2)) {
        *difference = Difference::of(DifferenceKind::Unsettled, &difference.ns, format!("structure in motion: {}", difference.detail));
    }
    Ok(found)
}

/// What makes two findings the same.
fn name((difference, source): &(Difference, u128)) -> String {
    format!("{} {} {} {source:x}", difference.ns, difference.kind.label(), difference.detail)
}

/// Lists and compares once.
///
/// # Errors
/// As classified.
pub(super) async fn look<A: Source, B: Source>(
    (source, target): (&A, &B),
    selection: &Selection,
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<Survey> {
    if stop.is_cancelled() {
        return Err(Error::Interrupted);
    }
    let began = Instant::now();
    // Asked before the target is: an index that is finished by now is there.
    let unfinished = settings.building.as_ref().map(|catalog| catalog.unfinished_indexes().iter().map(UnfinishedIndex::title).collect());
    let settings = &Settings { waived: unfinished.unwrap_or_else(|| settings.waived.clone()), ..settings.clone() };
    let ours = source.collections().await?;
    let theirs = target.collections().await?;
    let plan = plan::plan(&ours, &theirs, selection);
    let identity = |d: &Difference| ours.iter().find(|info| info.ns == d.ns).and_then(|info| info.uuid);
    let mut found = Survey::default();
    found.differences.extend(plan.unpaired.into_iter().map(|d| {
        let uuid = identity(&d).map_or([0; 16], |CollectionUuid(bytes)| bytes);
        (d, u128::from_le_bytes(uuid))
    }));
    let compared = parallel::all(plan.pairs, settings.workers, stop, |pair, _| {
        let (source, target, settings) = (source.clone(), target.clone(), settings.clone());
        async move { compare(&source, &target, pair, &settings).await }
    })
    .await?;
    for (pair, differences, indexes) in compared {
        found.pairs.push(pair);
        found.differences.extend(differences);
        found.indexes += indexes;
    }
    found.pairs.sort_by(|a, b| a.source_info.ns.cmp(&b.source_info.ns));
    found.differences.sort_by_key(name);
    found.took = began.elapsed();
    Ok(found)
}

type Compared = (Pair, Vec<(Difference, u128)>, u64);

async fn compare<A: Source, B: Source>(source: &A, target: &B, pair: Pair, settings: &Settings) -> Result<Compared> {
    let mut bytes = pair.source_info.options.as_bytes().to_vec();
    bytes.extend(pair.source_info.uuid.iter().flat_map(|CollectionUuid(uuid)| uuid));
    let mut differences = structure::options(&pair, settings.parked);
    let mut count = 0;
    if let Some((ours, theirs)) = pair.collections() {
        let (mut ours, mut theirs) = (listed(source, &ours).await?, listed(target, &theirs).await?);
        let ns = pair.source_info.ns.as_str();
        for side in [&mut ours, &mut theirs] {
            side.retain(|spec| !settings.waived.contains(&index_title(ns, spec.name())));
        }
        if let Some(key) = settings.shard_keys.get(&pair.target_info.ns) {
            theirs.retain(|spec| !key.is_supported_by(spec) || ours.iter().any(|own| own.name() == spec.name()));
        }
        bytes.extend(ours.iter().flat_map(|spec| spec.0.as_bytes()));
        count = ours.len() as u64;
        differences.extend(structure::indexes(&pair, &ours, &theirs, settings.parked));
    }
    let digest = xxh3_128(&bytes);
    Ok((pair, differences.into_iter().map(|d| (d, digest)).collect(), count))
}

/// Indexes; none where the collection is gone, which the next listing will tell.
async fn listed<S: Source>(of: &S, collection: &CollectionRef) -> Result<Vec<IndexSpec>> {
    Ok(match of.indexes(collection).await? {
        Found::Here(specs) => specs,
        Found::Gone => Vec::new(),
    })
}
