//! Compares both sides: every document byte for byte, every option, every index.
//!
//! A pass reads both sides once, partition by partition (`partition`); what differs is looked at again, in
//! generations, until it is explained or confirmed (`recheck`). Structure is listed, compared and looked at
//! again in the same spirit (`survey`). A read that cannot be completed is an error, never a verdict.
//!
//! What "equal" says while the source changes: each document was, at some moment during the comparison, the
//! same on the source and on the target that had caught up with it.

mod compare;
mod continuous;
mod mended;
mod pace;
mod parallel;
mod partition;
mod plan;
mod recheck;
mod report;
mod sharding;
mod structure;
mod survey;

pub use compare::MismatchKind;
use compare::digest_of;
pub use continuous::{Findings, Proof, Prover, Reach};
pub use mended::Mended;
pub use pace::Pace;
pub use plan::{Pair, Plan, plan};
pub use report::{Covered, Difference, DifferenceKind, NamespaceReport, Report};
pub use structure::{indexes, options};

use crate::{
    catalog::Catalog,
    error::{Error, Result},
    model::{ClusterTime, CollectionUuid, Namespace, Partition, Selection, ShardKey, Side, split_count},
    observe::{self, Metrics},
    retry::Retry,
    source::{CollectionRef, Found, Source},
};
use partition::{Room, Task};
use recheck::{Readable, Suspect};
use report::Draft;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Whose documents are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// No collection's.
    None,
    /// Those of collections in which it takes a moment.
    OfFew,
    /// All collections'.
    All,
}

/// How to compare.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Partitions compared at once.
    pub workers: usize,
    /// Bytes of a partition, about.
    pub partition_bytes: u64,
    /// Documents of a batch at most.
    pub batch_documents: u32,
    /// Bytes of a batch, about.
    pub batch_bytes: u64,
    /// Mismatches kept for looking at them again.
    pub max_kept: u32,
    /// Differences that the report lists.
    pub max_listed: usize,
    /// Rounds of looking again.
    pub generations: u32,
    /// Indexes that the target may do without: see [`crate::model::index_title`].
    pub waived: Arc<[String]>,
    /// Of whoever builds the target's indexes meanwhile: what is not finished is rightly missing.
    pub building: Option<Catalog>,
    /// Shard keys of the target, by the names there: it needs an index for each that the source may not have.
    pub shard_keys: Arc<BTreeMap<Namespace, ShardKey>>,
    /// Shard keys that an operator has asked for, by the names on the target, whatever the source has.
    pub sharded_by: Arc<BTreeMap<Namespace, ShardKey>>,
    /// Whether shard keys and zones are left out.
    pub ignore_sharding: bool,
    /// The target is not sealed yet: some options are rightly not on it.
    pub parked: bool,
    /// Whose documents [`structure_only`] counts, too.
    pub counted: Counted,
    /// A migration follows the source meanwhile: a collection that is dropped is nothing unusual, and one that is distributed in
    /// another way is worth a warning.
    pub live: bool,
    /// Documents of these namespaces of the source only; structure is compared of all.
    pub only: Option<Arc<BTreeSet<Namespace>>>,
    /// Whether documents that differ in nothing but the order of fields are equal.
    pub ignore_field_order: bool,
    /// What was mended before.
    pub mended: Mended,
    /// How fast.
    pub pace: Pace,
    /// For scans that break.
    pub retry: Retry,
}

impl Settings {
    /// The defaults: for two clusters that nobody ferries between.
    #[must_use]
    pub fn new(retry: Retry) -> Self {
        Self {
            workers: 4,
            partition_bytes: 128 << 20,
            batch_documents: 1_000,
            batch_bytes: 4 << 20,
            waived: Arc::default(),
            building: None,
            shard_keys: Arc::default(),
            sharded_by: Arc::default(),
            ignore_sharding: false,
            max_kept: 100_000,
            max_listed: 1_000,
            generations: 10,
            parked: false,
            counted: Counted::All,
            live: false,
            only: None,
            ignore_field_order: false,
            mended: Mended::default(),
            pace: Pace::default(),
            retry,
        }
    }
}

/// A `settle` for two clusters that nobody ferries between: waits `first`, then twice as long each time, ten
/// seconds at most.
pub fn growing_pause(first: Duration) -> impl Fn(ClusterTime) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync {
    let times = AtomicU32::new(0);
    move |_| {
        let pause = first.saturating_mul(1 << times.fetch_add(1, Ordering::Relaxed).min(16)).min(Duration::from_secs(10));
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            Ok(())
        })
    }
}

/// Compares everything that is selected. `settle` waits until the target has caught up with a time of the
/// source; see [`growing_pause`] where nothing does.
///
/// # Errors
/// As classified; [`Error::Interrupted`] when `stop` fired; a collection dropped meanwhile, unless
/// [`Settings::live`].
///
/// # Cancel safety
/// Not safe to drop half way: use `stop`, which is looked at between batches.
pub async fn verify<A: Source, B: Source, F, Fut>(
    source: &A,
    target: &B,
    selection: &Selection,
    settings: &Settings,
    metrics: &Arc<Metrics>,
    settle: F,
    stop: &CancellationToken,
) -> Result<Report>
where
    F: Fn(ClusterTime) -> Fut + Sync,
    Fut: Future<Output = Result<()>> + Send,
{
    let source_time = source.operation_time().await?;
    let mut draft = Draft::default();
    draft.covered.documents = true;
    draft.covered.parked = settings.parked;
    let room: Room = Arc::new(AtomicI64::new(i64::from(settings.max_kept)));
    let mut compared: HashSet<(CollectionUuid, CollectionUuid)> = HashSet::new();
    let mut rounds = 0;
    let structure = loop {
        let found = survey::survey((source, target), selection, settings, &settle, stop).await?;
        // Gone ones keep their identity in none of the next listings, so only what lives is compared again.
        let fresh: Vec<Pair> = found
            .pairs
            .iter()
            .filter(|p| p.collections().is_some())
            .filter(|p| p.identity().is_some_and(|id| !compared.contains(&id)))
            .filter(|p| settings.only.as_ref().is_none_or(|only| only.contains(&p.source_info.ns)))
            .cloned()
            .collect();
        if fresh.is_empty() {
            break found;
        }
        rounds += 1;
        if rounds > settings.generations.max(1) {
            let detail = "was created or dropped each time".to_owned();
            draft.differences.extend(fresh.iter().map(|p| Difference::of(DifferenceKind::Unsettled, &p.source_info.ns, detail.clone())));
            break found;
        }
        let gone = documents((source, target), &fresh, settings, metrics, &room, &mut draft, &settle, stop).await?;
        compared.extend(fresh.iter().enumerate().filter(|(at, _)| !gone.contains(at)).filter_map(|(_, p)| p.identity()));
        if !settings.live {
            break found;
        }
    };
    if let Some(found) = sharding::sharding((source, target), &structure.pairs, settings, &settle, stop).await? {
        draft.covered.sharding = true;
        // No document is lost by it, and the source may be sharded in another way at any time: no reason against a cutover.
        if settings.live { draft.warnings.extend(found) } else { draft.differences.extend(found) }
    }
    structure.tell(&mut draft);
    draft.differences.iter_mut().for_each(|d| settings.mended.tell(d));
    draft.covered.field_order = !settings.ignore_field_order;
    tell_metrics(metrics, &draft);
    let report = draft.finish(settings.max_listed, source_time);
    if report.equal && settings.only.is_none() {
        metrics.parity_proved(Duration::ZERO);
    }
    Ok(report)
}

/// Collections with no more documents than this are counted in any case: it takes a moment.
const COUNTED_ANYWAY: u64 = 200_000;

/// Compares options and indexes, and counts documents exactly: for the moment of the cutover when the source
/// stands still and the documents have been compared. Nothing is looked at twice.
///
/// # Errors
/// As classified.
///
/// # Cancel safety
/// Not safe to drop half way.
pub async fn structure_only<A: Source, B: Source>(
    source: &A,
    target: &B,
    selection: &Selection,
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<Report> {
    let source_time = source.operation_time().await?;
    let found = survey::look((source, target), selection, settings, stop).await?;
    let mut draft = Draft::default();
    draft.covered.parked = settings.parked;
    let jobs: Vec<_> = found.pairs.iter().filter(|_| settings.counted != Counted::None).filter_map(plan::Pair::collections).collect();
    let counts = parallel::all(jobs, settings.workers, stop, |(ours, theirs), _| {
        let (source, target, all) = (source.clone(), target.clone(), settings.counted == Counted::All);
        async move {
            // To count is to read the whole index.
            if !all && source.estimate(&ours).await?.documents > COUNTED_ANYWAY {
                return Ok(None);
            }
            let both = tokio::join!(source.count(&ours), target.count(&theirs));
            Ok(Some((ours, theirs, number(both.0?), number(both.1?))))
        }
    })
    .await?;
    for (ours, theirs, n, m) in counts.into_iter().flatten() {
        draft.covered.collections += 1;
        draft.namespace(&ours.ns, &theirs.ns).documents = n;
        if n != m {
            let kind = if m < n { DifferenceKind::Missing } else { DifferenceKind::Extra };
            draft.differences.push(Difference::of(kind, &ours.ns, format!("{n} documents on the source, {m} on the target")));
        }
    }
    found.tell(&mut draft);
    Ok(draft.finish(settings.max_listed, source_time))
}

fn number(found: Found<u64>) -> u64 {
    match found {
        Found::Here(n) => n,
        Found::Gone => 0,
    }
}

/// Compares the documents of these pairs, in the draft; tells which were dropped meanwhile.
#[expect(clippy::too_many_arguments, reason = "one caller")]
async fn documents<A: Source, B: Source, F, Fut>(
    (source, target): (&A, &B),
    pairs: &[Pair],
    settings: &Settings,
    metrics: &Arc<Metrics>,
    room: &Room,
    draft: &mut Draft,
    settle: &F,
    stop: &CancellationToken,
) -> Result<BTreeSet<usize>>
where
    F: Fn(ClusterTime) -> Fut,
    Fut: Future<Output = Result<()>> + Send,
{
    let times = (source.operation_time().await?, target.operation_time().await?);
    let jobs: Vec<_> = pairs.iter().cloned().enumerate().collect();
    let split =
        parallel::all(jobs, settings.workers, stop, |(at, pair), _| split(source.clone(), at, pair, settings.clone(), times)).await?;
    let mut readable: Vec<Option<Readable>> = vec![None; pairs.len()];
    let mut tasks = Vec::new();
    for (task, collated) in split.into_iter().flatten() {
        let (source, target) = (task.source.clone(), task.target.clone());
        readable[task.pair] = Some(Readable {
            source,
            target,
            batch_documents: task.batch_documents,
            collated,
            digest: digest_of(settings.ignore_field_order),
        });
        tasks.push(task);
    }
    // The partitions of one collection follow each other; several collections are read at a time only at their ends.
    tasks.sort_by_key(|task| (task.pair, task.partition.id.number));
    let run =
        |task: Task, stop| partition::compare(source.clone(), target.clone(), task, settings.clone(), room.clone(), metrics.clone(), stop);
    let outcomes = parallel::all(tasks, settings.workers, stop, run).await?;
    let mut gone_pairs = BTreeSet::new();
    for outcome in outcomes.iter().filter(|o| o.gone) {
        if let Some(Some(pair)) = readable.get(outcome.pair) {
            gone(settings, Side::Source, &pair.source)?;
        }
        gone_pairs.insert(outcome.pair);
    }
    let mut suspects = Vec::new();
    for outcome in outcomes {
        let Some(Some(pair)) = readable.get(outcome.pair) else { continue };
        let counted = draft.namespace(&pair.source.ns, &pair.target.ns);
        counted.documents += outcome.documents;
        counted.bytes += outcome.bytes;
        if !gone_pairs.contains(&outcome.pair) {
            counted.differences += outcome.overflow;
            draft.overflow += outcome.overflow;
            suspects.extend(outcome.mismatches.into_iter().map(|(key, _)| Suspect::new(outcome.pair, key)));
        }
    }
    // What is explained makes room again.
    room.store(i64::from(settings.max_kept), Ordering::Relaxed);
    draft.covered.rechecked += suspects.len() as u64;
    tracing::debug!(suspects = suspects.len(), "documents compared once");
    let rechecked = recheck::recheck((source, target), &readable, suspects, settings, settle, stop).await?;
    draft.covered.generations = draft.covered.generations.max(rechecked.generations);
    draft.differences.extend(rechecked.differences.into_iter().map(|(_, found)| found));
    gone_pairs.extend(rechecked.gone);
    draft.covered.collections += (pairs.len() - gone_pairs.len()) as u64;
    Ok(gone_pairs)
}

/// The partitions of a pair, and whether a collation decides which keys are equal.
async fn split<A: Source>(
    source: A,
    at: usize,
    pair: Pair,
    settings: Settings,
    (source_time, target_time): (ClusterTime, ClusterTime),
) -> Result<Vec<(Task, bool)>> {
    let Some((ours, theirs)) = pair.collections() else { return Ok(Vec::new()) };
    let size = source.estimate(&ours).await?;
    let bounds = source.split(&ours, split_count(size.bytes, settings.partition_bytes)).await?;
    let per_document = (size.bytes / size.documents.max(1)).max(1);
    let fitting = u32::try_from(settings.batch_bytes / per_document).unwrap_or(u32::MAX);
    let task = |partition| Task {
        pair: at,
        source: ours.clone(),
        target: theirs.clone(),
        partition,
        batch_documents: fitting.clamp(1, settings.batch_documents.max(1)),
        source_time,
        target_time,
    };
    let collated = pair.source_info.has_collation() || pair.target_info.has_collation();
    Ok(Partition::cover(ours.uuid, bounds).into_iter().map(|p| (task(p), collated)).collect())
}

/// What a collection that is dropped meanwhile means.
fn gone(settings: &Settings, side: Side, of: &CollectionRef) -> Result<()> {
    if settings.live {
        tracing::debug!(ns = %of.ns, "dropped while it was compared");
        return Ok(());
    }
    Err(Error::UnfitCluster {
        side,
        problem: format!("lost `{}` on one side while it was compared", of.ns),
        hint: "compare again when no collections are being dropped".into(),
    })
}

fn tell_metrics(metrics: &Metrics, draft: &Draft) {
    use observe::MismatchKind as Label;
    let count = |wanted: &[DifferenceKind]| draft.differences.iter().filter(|d| wanted.contains(&d.kind)).count() as u64;
    metrics.mismatches(Label::Missing, count(&[DifferenceKind::Missing, DifferenceKind::CollectionMissing]));
    metrics.mismatches(Label::Extra, count(&[DifferenceKind::Extra, DifferenceKind::CollectionExtra]));
    metrics.mismatches(Label::Different, count(&[DifferenceKind::Different, DifferenceKind::Unsettled]) + draft.overflow);
    metrics.mismatches(Label::Options, count(&[DifferenceKind::Options]));
    metrics.mismatches(Label::Indexes, count(&[DifferenceKind::Index]));
}
