//! From a configuration to a job: preflight, the record, the lease, the plan.

use super::{
    board::{Board, Known, START_DEADLINE},
    connect::Clusters,
    identity::{fingerprint, identity},
    job::Job,
    layout,
    lease::Keeper,
    preflight::inspect,
    reverse::Former,
    throttle::Steering,
    trend::Trend,
    verifier,
};
use crate::{
    catalog::{Catalog, State},
    checkpoint::{FORMAT, MongoStore, Record, Store},
    config::{Config, redacted},
    copy::{Counts, plan},
    cutover::{DONE, settle},
    error::{Error, Result},
    model::{Activity, ClusterTime, CutoverStatus, DirectionStatus, Fingerprint, KeptSettings, Milestone, Phase, Settings, Side, Status},
    mongo::{Cluster, Topology},
    observe::{Metrics, StartOrder},
    source::{Estimate, Source},
    target::{Target, mongo::Sharding},
};
use bson::{DateTime, doc};
use secrecy::ExposeSecret;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Opens a migration: the one that stands in its metadata, or else a first one, or the way back of a former one.
///
/// # Errors
/// Whatever the preflight found first, before anything is written; but a source that a dead process has left fenced is given
/// back before.
pub(super) async fn open(
    config: &Config,
    order: StartOrder,
    clusters: &Clusters,
    (former, there): (Option<&Former>, Option<Box<Record>>),
    metrics: Arc<Metrics>,
    status: watch::Sender<Status>,
    stop: &CancellationToken,
) -> Result<Job> {
    // Which of them is to be gone on with.
    let former = former.filter(|former| !there.as_ref().is_some_and(|record| former.leads_to(record)));
    let way_back = former.is_some() || there.as_ref().is_some_and(|record| record.way_back.is_some());
    let clusters = if way_back { &clusters.clone().bypassing_if_needed().await? } else { clusters };
    let store = MongoStore::new(clusters.target.cluster().clone(), &config.metadata_database);
    if let Some(record) = there.filter(|record| cut_short(&record.phase, record.fenced)) {
        free_source(clusters, &store, &record).await?;
    }
    let mut inspected = inspect(config, &clusters.hasty(START_DEADLINE), former.is_some()).await;
    if stop.is_cancelled() {
        return Err(Error::Interrupted);
    }
    if !inspected.errors.is_empty() {
        return Err(inspected.errors.swap_remove(0));
    }
    let fingerprint = inspected.fingerprint.take().ok_or_else(|| Error::Bug("the preflight passed without a fingerprint".into()))?;
    let raw_diffs = inspected.features.is_some_and(|f| f.raw_diffs);
    let mut clusters = Clusters { source: clusters.source.clone().with_raw_diffs(raw_diffs), ..clusters.clone() };
    if inspected.target == Topology::Sharded {
        let split = inspected.record.as_ref().is_none_or(|record| record.phase == Phase::Planned);
        let wanted = layout::sharded(config, &clusters, split).await?;
        // A source's clock and the target's are not far apart.
        let begun = inspected.record.as_ref().map_or_else(DateTime::now, |r| DateTime::from_millis(i64::from(r.start_at.t) * 1_000));
        clusters.target = clusters.target.clone().sharded(Sharding::new(wanted, config.shard.keys().cloned().collect(), begun));
    }
    if let Some(former) = former {
        still_reached(former, &clusters).await?;
    }
    let opening = Opening { config, order, clusters: &clusters, store: &store };
    let mut record = match (inspected.record.take(), former) {
        (Some(_), _) => {
            store.take().await?;
            // Read again under the lease: whoever had it may have saved more since.
            store.load().await?.ok_or_else(|| Error::Bug("a record went while its lease was taken".into()))?
        }
        (None, Some(former)) => former.begin(&clusters, &store, fingerprint).await?,
        (None, None) => opening.begin(fingerprint, &inspected.occupied).await?,
    };
    let lease = Keeper::start(store.clone(), metrics.clone());
    clusters.target.cluster().end_former().await?;
    let cut_short = give_source_back(&clusters, &store).await?;
    record.fenced &= !cut_short;
    if record.phase == Phase::Planned {
        opening.plan(&mut record).await?;
    }
    let board = opening.board(&record, metrics, status).await?;
    board.known().done_without = inspected.done_without;
    if cut_short {
        let step = record.step.as_deref().unwrap_or("begin");
        board.known().cutover.last_failure = Some(format!("cut short at the step `{step}`, and undone by the next start"));
    }
    Ok(Job::new(config.clone(), clusters, store, board, &record, lease))
}

/// What the first look finds.
pub(super) enum Seen {
    /// There is nothing to do.
    Finished,
    /// A migration to go on with, one to make room, or none.
    Unfinished(Option<Box<Record>>),
}

/// Whether the migration is committed: then there is nothing to do but the last step of a cutover that leads back, which a
/// crash may have left out. Nothing is written to the metadata: the cluster that holds them may be fenced again by now.
///
/// # Errors
/// As classified.
pub(super) async fn finished(
    config: &Config,
    clusters: &Clusters,
    former: Option<&Former>,
    status: &watch::Sender<Status>,
) -> Result<Seen> {
    // The preflight will ask again, with more patience; what cannot be asked for is its to tell.
    let hasty = clusters.hasty(START_DEADLINE / 2);
    let store = |cluster: &Cluster| MongoStore::new(cluster.clone(), &config.metadata_database);
    let Ok(Some(record)) = store(hasty.target.cluster()).load().await else { return Ok(Seen::Unfinished(None)) };
    let superseded = former.is_some_and(|former| !former.leads_to(&record));
    if superseded || config.restart_from_scratch || !matches!(record.phase, Phase::Committed { .. }) {
        return Ok(Seen::Unfinished(Some(Box::new(record))));
    }
    if !fingerprint(config, &hasty).await.is_ok_and(|ours| ours.differences(&record.fingerprint).is_empty()) {
        return Ok(Seen::Unfinished(Some(Box::new(record))));
    }
    let later =
        store(hasty.source.cluster()).load().await.ok().flatten().filter(|r| r.way_back.as_ref().is_some_and(|w| w.of == record.id));
    let shut = record.step.as_deref() != Some(DONE) && record.way_back.as_ref().is_some_and(|way| way.target_fenced);
    if later.is_none() && shut {
        clusters.reader.allow_writes().await?;
    }
    status.send_replace(Status {
        format: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        migration: record.id.clone(),
        direction: Some(direction(config, &record)),
        phase: record.phase.label().to_owned(),
        activity: Activity::Running.label().to_owned(),
        reason: later.as_ref().map(|later| format!("it has a way back, which is {}", later.phase.label())),
        remedy: later.as_ref().map(|_| "`mongoferry reverse`, with the same options, goes on with what came after it".to_owned()),
        can_write_to_target: later.is_none_or(|later| !matches!(later.phase, Phase::Committed { .. })),
        ..Status::default()
    });
    Ok(Seen::Finished)
}

fn direction(config: &Config, record: &Record) -> DirectionStatus {
    let hosts = |side| redacted(config.uri(side).expose_secret());
    DirectionStatus {
        way: if record.turn().is_multiple_of(2) { "forward" } else { "reverse" }.into(),
        turn: record.turn(),
        reverse_of: record.way_back.as_ref().map(|way| way.of.clone()),
        source: hosts(Side::Source),
        target: hosts(Side::Target),
    }
}

/// Whether the new primary still tells everything since it was handed over.
async fn still_reached(former: &Former, clusters: &Clusters) -> Result<()> {
    match clusters.source.oplog_window().await? {
        Some(window) if former.at() < window.oldest => Err(Error::PositionLost { wanted: former.at(), oldest: Some(window.oldest) }),
        _ => Ok(()),
    }
}

/// Whether a cutover has begun that is neither committed nor undone.
fn cut_short(phase: &Phase, fenced: bool) -> bool {
    *phase == Phase::CuttingOver || (fenced && !matches!(phase, Phase::Committed { .. }))
}

/// A cutover that a crash cut short: the source is never left fenced. The target is taken back by the work. Says whether there
/// was one.
async fn give_source_back(clusters: &Clusters, store: &MongoStore) -> Result<bool> {
    let (phase, fenced) = store.standing().await?;
    if !cut_short(&phase, fenced) {
        return Ok(false);
    }
    tracing::warn!("undoing a cutover that was cut short");
    settle(&clusters.source, store).await?;
    Ok(true)
}

/// The same, before anything else is asked of a source whose shards may stand still, and whatever the preflight is going to find.
async fn free_source(clusters: &Clusters, store: &MongoStore, record: &Record) -> Result<()> {
    if identity(clusters.source.cluster()).await? != record.fingerprint.source {
        // To be told by the preflight.
        return Ok(());
    }
    store.take().await?;
    let given_back = give_source_back(clusters, store).await;
    let _ = store.release().await;
    given_back.map(drop)
}

struct Opening<'a> {
    config: &'a Config,
    order: StartOrder,
    clusters: &'a Clusters,
    store: &'a MongoStore,
}

impl Opening<'_> {
    /// The first record. What stands in the way is dropped, where that was permitted by name.
    async fn begin(&self, fingerprint: Fingerprint, occupied: &[crate::model::Namespace]) -> Result<Record> {
        if self.config.restart_from_scratch {
            self.give_up_former().await?;
        }
        for ns in occupied {
            tracing::warn!(%ns, "dropping a namespace of the target, as permitted");
            self.clusters.target.drop_collection(ns, None).await?;
        }
        let record = Record {
            format: FORMAT,
            id: format!("{:016x}", rand::random::<u64>()),
            fingerprint,
            phase: Phase::Planned,
            activity: Activity::Running,
            start_at: ClusterTime::default(),
            listed_until: ClusterTime::default(),
            resume_token: None,
            resume_time: ClusterTime::default(),
            fenced: false,
            step: None,
            handover: None,
            way_back: None,
            settings: self.order.verification.map(|verification| {
                let options = self.config.settings.clone();
                KeptSettings { set: Settings { verification, ..options.clone() }, options }
            }),
        };
        self.store.create(&record).await?;
        Ok(record)
    }

    /// Ends the migration that stood there, unless somebody is at work on it, or it is committed.
    async fn give_up_former(&self) -> Result<()> {
        let Some(former) = self.store.load().await? else { return Ok(()) };
        if let Phase::Committed { .. } = former.phase {
            let database = self.config.metadata_database.clone();
            return Err(Error::ForeignMetadata {
                hint: format!(
                    "to copy onto the old source again, run with source and target in each other's place; if you do mean to copy over the primary cluster, drop `{database}` on it first"
                ),
                database,
                problem: "say that the migration is committed: this target is the primary cluster now, and is not copied over".into(),
            });
        }
        self.store.take().await?;
        self.clusters.target.cluster().end_former().await?;
        if former.fenced {
            self.clusters.source.allow_writes().await?;
        }
        self.store.wipe().await
    }

    /// Saves where the change stream begins, and only then lists and plans: a crash between the two only
    /// repeats an empty plan; the other order could lose every write made between them.
    async fn plan(&self, record: &mut Record) -> Result<()> {
        let mut half = self.store.entries().await?;
        for entry in &mut half {
            self.clusters.target.drop_collection(&entry.target, entry.target_uuid).await?;
            entry.state = State::Dropped;
        }
        self.store.save_entries(&half).await?;
        self.store.forget(&half.iter().map(|e| e.uuid).collect::<Vec<_>>()).await?;
        record.start_at = self.clusters.source.operation_time().await?;
        record.resume_time = record.start_at;
        let time = |t: ClusterTime| doc! {"t": i64::from(t.t), "i": i64::from(t.i)};
        self.store.set(doc! {"start_at": time(record.start_at), "resume_time": time(record.start_at)}).await?;
        let c = self.clusters;
        c.target.place(&layout::databases(self.config, c).await?).await?;
        let planned = plan(&c.source, &c.target, self.store, &self.config.selection, self.config.copy.partition_bytes).await?;
        record.listed_until = planned.listed_until;
        self.store.set(doc! {"listed_until": time(planned.listed_until)}).await?;
        record.phase = record.phase.step(Milestone::StreamOpened(record.start_at)).map_err(|e| Error::Bug(e.to_string()))?;
        self.store.save_phase(&record.phase, &record.activity).await?;
        let (documents, bytes) = (planned.estimate.documents, planned.estimate.bytes);
        tracing::info!(collections = planned.entries.len(), partitions = planned.partitions.len(), documents, bytes, "planned");
        Ok(())
    }

    async fn board(&self, record: &Record, metrics: Arc<Metrics>, status: watch::Sender<Status>) -> Result<Board> {
        let (entries, partitions) = (self.store.entries().await?, self.store.partitions().await?);
        let catalog = Catalog::new(entries, record.listed_until);
        let parity = verifier::parity(self.config);
        verifier::restore(&parity, self.store, &catalog, record.resume_time).await?;
        let copied = |of: fn(&crate::model::Partition) -> u64| partitions.iter().map(of).sum();
        let mut estimate = Estimate::default();
        // A way back copies nothing.
        let copied_at_all = record.way_back.is_none();
        for collection in catalog.living().iter().filter(|c| copied_at_all && !c.entry().is_view()) {
            let one = self.clusters.source.estimate(&collection.on_source()).await?;
            estimate.documents += one.documents;
            estimate.bytes += one.bytes;
        }
        let known = Known {
            migration: record.id.clone(),
            direction: direction(self.config, record),
            done_without: Vec::new(),
            phase: record.phase.clone(),
            // A halt is not carried over: a restart tries again.
            activity: if matches!(record.activity, Activity::Halted { .. }) { Activity::Running } else { record.activity.clone() },
            estimate,
            before: (copied(|p| p.documents), copied(|p| p.bytes)),
            counted: (metrics.copied_documents(), metrics.copied_bytes(), metrics.already_there_documents()),
            source_time: None,
            window: None,
            room: None,
            prover: None,
            hands: None,
            differences: None,
            cutover: CutoverStatus::default(),
            step: None,
            trend: Trend::default(),
        };
        let options = self.config.settings.clone();
        let steering = Steering::new(options.clone(), Settings::resumed(options, record.settings.clone()));
        let board = Board::new(known, catalog, parity, metrics, record.resume_time, steering, status);
        let done = partitions.iter().filter(|p| p.done).count() as u64;
        board.partitions.send_replace(Counts { waiting: partitions.len() as u64 - done, running: 0, done });
        Ok(board)
    }
}
