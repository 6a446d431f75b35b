//! The continuous verification beside the work: it yields to the copy and to a tail that is behind, and never stops either.

use super::{board::Board, connect::Clusters};
use crate::{
    catalog::Catalog,
    checkpoint::{MongoStore, Store},
    config::Config,
    error::{Error, Result},
    model::{ClusterTime, CollectionUuid, Partition, collated},
    parity::Parity,
    source::mongo::MongoSource,
    tail::Progress,
    target::mongo::MongoTarget,
    verify::{self, Pace, Prover},
};
use futures_util::FutureExt;
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Keys of touched documents may take this share of the memory budget.
const KEYS_SHARE: u64 = 32;
/// Readers at once. Each holds three batches at most.
const WORKERS: usize = 2;
/// Per cent of the time that it takes: beside the copy, beside a tail that is behind, and otherwise.
const SHARE_BESIDE_COPY: u32 = 10;
const SHARE_BESIDE_LAG: u32 = 20;
const SHARE: u32 = 50;
/// Lag in seconds from which on it yields to the tail.
const LAG: f64 = 5.0;
/// How often the target is asked for its shard keys.
const KEYS_EVERY: Duration = Duration::from_secs(2);
/// Between rounds in which there was nothing to do, and after one that failed.
const IDLE: Duration = Duration::from_millis(200);
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// As a migration has it.
pub(super) type MongoProver = Prover<MongoSource, MongoSource, MongoStore>;

/// What is remembered of touches: nothing where verification is off.
pub(super) fn parity(config: &Config) -> Parity {
    if config.verify.continuous { Parity::new(config.memory / KEYS_SHARE) } else { Parity::default() }
}

/// Goes on from what was saved, where it is worth anything: see [`crate::checkpoint`].
///
/// # Errors
/// As classified.
pub(super) async fn restore(parity: &Parity, store: &MongoStore, catalog: &Catalog, resume: ClusterTime) -> Result<()> {
    if !parity.is_on() {
        return Ok(());
    }
    let saved = store.parity().await?;
    // Whoever moved the resume point since kept no marks.
    let holds = saved.time.is_some_and(|time| time >= resume);
    if !holds {
        // From here on touches are noted again. In this order: a proof that is void must not be taken for one by the clock.
        let void: Vec<Partition> = saved.ranges.iter().cloned().map(|range| Partition { done: false, ..range }).collect();
        store.save_ranges(&void).await?;
        store.save_marks(&[], resume).await?;
    }
    let mut by_collection: BTreeMap<CollectionUuid, Vec<Partition>> = BTreeMap::new();
    for range in saved.ranges {
        by_collection.entry(range.id.collection).or_default().push(range);
    }
    for (uuid, mut ranges) in by_collection {
        let Some(collection) = catalog.find(uuid).filter(|c| !c.entry().state.is_incomplete()) else { continue };
        ranges.sort_by_key(|range| range.id.number);
        if !covers(&ranges) {
            continue;
        }
        ranges.iter_mut().for_each(|range| range.done &= holds);
        let marks = saved.marks.iter().find(|m| m.collection == uuid).map(|m| &m.touched);
        parity.follow(uuid, &ranges, marks, collated(&collection.entry().options));
    }
    let left = parity.left();
    tracing::info!(unproved = left.unproved, stale = left.stale, "partitions to be verified");
    Ok(())
}

/// A save that was cut short leaves gaps.
fn covers(ranges: &[Partition]) -> bool {
    let ends = ranges.first().is_some_and(|first| first.min.is_none()) && ranges.last().is_some_and(|last| last.max.is_none());
    ends && ranges.windows(2).all(|two| two[0].max.is_some() && two[0].max == two[1].min)
}

/// Waits until the target has caught up with a time of the source.
pub(super) fn settle(
    source: &MongoSource,
    progress: &watch::Sender<Progress>,
    stop: &CancellationToken,
) -> impl Fn(ClusterTime) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync + use<> {
    let (source, progress, stop) = (source.clone(), progress.clone(), stop.clone());
    move |time| {
        let (mut progress, source, stop) = (progress.subscribe(), source.clone(), stop.clone());
        Box::pin(async move {
            stop.run_until_cancelled(source.structure_at(time)).await.ok_or(Error::Interrupted)?;
            let passed = stop.run_until_cancelled(progress.wait_for(|p| p.applied >= time)).await;
            passed.and_then(std::result::Result::ok).map(drop).ok_or(Error::Interrupted)
        })
    }
}

/// The verifier of one stretch of work.
pub(super) fn prover(config: &Config, clusters: &Clusters, store: &MongoStore, board: &Board) -> MongoProver {
    Prover {
        source: clusters.source.clone(),
        target: clusters.reader.clone(),
        catalog: board.catalog.clone(),
        parity: board.parity.clone(),
        store: store.clone(),
        selection: config.selection.clone(),
        shard_keys: Arc::default(),
        settings: verify::Settings {
            workers: WORKERS,
            max_kept: 20_000,
            partition_bytes: config.copy.partition_bytes,
            parked: true,
            live: true,
            sharded_by: Arc::new(config.shard.clone()),
            pace: Pace::new(config.verify.rate),
            ..verify::Settings::new(clusters.retry())
        },
        metrics: board.metrics.clone(),
        every: config.verify.every,
        findings: board.findings.clone(),
        round: Arc::default(),
    }
}

/// Verifies until `stop` fires. What goes wrong is told in the status, and tried again: it is no reason to halt.
///
/// # Errors
/// Only the loss of the lease.
pub(super) async fn run(prover: Arc<MongoProver>, target: MongoTarget, board: Board, stop: CancellationToken) -> Result<()> {
    let yielding = async {
        loop {
            prover.settings.pace.take_share(share(&board));
            tokio::time::sleep(IDLE).await;
        }
    };
    tokio::select! {
        done = verify(&prover, &target, &board, &stop) => done,
        () = yielding => Ok(()),
    }
}

async fn verify(prover: &MongoProver, target: &MongoTarget, board: &Board, stop: &CancellationToken) -> Result<()> {
    let settle = settle(&prover.source, &board.progress, stop);
    let mut keys = tokio::time::interval(KEYS_EVERY);
    while !stop.is_cancelled() {
        // As an operator has set it meanwhile.
        if !board.is_verified() {
            let _ = stop.run_until_cancelled(tokio::time::sleep(IDLE)).await;
            continue;
        }
        if keys.tick().now_or_never().is_some()
            && let Ok(now) = target.shard_keys().await
        {
            *prover.shard_keys.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        let applied = board.progress.borrow().applied;
        let pause = match prover.round(&settle, applied, stop).await {
            Ok(true) | Err(Error::Interrupted) => Duration::ZERO,
            Ok(false) => IDLE,
            Err(error @ Error::LeaseLost { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(error = error.story(), "verification failed, and is tried again");
                board.parity.show_failure(Some(error.story()));
                AFTER_FAILURE
            }
        };
        // A proof that was asked for goes first.
        let _ = stop.run_until_cancelled(tokio::time::sleep(pause.max(Duration::from_millis(1)))).await;
    }
    Ok(())
}

fn share(board: &Board) -> u32 {
    let copying = board.catalog.living().iter().any(|c| c.entry().state.is_incomplete());
    match (copying, board.lag().is_none_or(|lag| lag > LAG)) {
        (true, _) => SHARE_BESIDE_COPY,
        (false, true) => SHARE_BESIDE_LAG,
        (false, false) => SHARE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn ranges_with_a_gap_cover_nothing() {
        let whole = Partition::cover(CollectionUuid([1; 16]), vec![rawdoc! {"_id": 1}, rawdoc! {"_id": 2}]);
        assert!(covers(&whole) && covers(&Partition::cover(CollectionUuid([1; 16]), vec![])));
        assert!(!covers(&whole[..2]) && !covers(&whole[1..]) && !covers(&[]));
        assert!(!covers(&[whole[0].clone(), whole[2].clone()]));
    }
}
