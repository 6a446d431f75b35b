//! From a configuration to a job: preflight, the record, the lease, the plan.

use super::{
    board::{Board, Known, START_DEADLINE},
    connect::Clusters,
    job::Job,
    lease::Keeper,
    preflight::inspect,
    throttle::Steering,
    trend::Trend,
};
use crate::{
    catalog::{Catalog, State},
    checkpoint::{FORMAT, MongoStore, Record, Store},
    config::Config,
    copy::{Counts, plan},
    error::{Error, Result},
    model::{Activity, ClusterTime, CutoverStatus, Fingerprint, KeptSettings, Milestone, Phase, Settings, Status},
    observe::{Metrics, StartOrder},
    source::{Estimate, Source},
    target::Target,
};
use bson::doc;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Opens a migration: the first one of its metadata, or the one that stands there.
///
/// # Errors
/// Whatever the preflight found first, before anything is written.
pub(super) async fn open(
    config: &Config,
    order: StartOrder,
    clusters: &Clusters,
    metrics: Arc<Metrics>,
    status: watch::Sender<Status>,
    stop: &CancellationToken,
) -> Result<Job> {
    let mut inspected = inspect(config, &clusters.hasty(START_DEADLINE)).await;
    if stop.is_cancelled() {
        return Err(Error::Interrupted);
    }
    if !inspected.errors.is_empty() {
        return Err(inspected.errors.swap_remove(0));
    }
    let fingerprint = inspected.fingerprint.take().ok_or_else(|| Error::Bug("the preflight passed without a fingerprint".into()))?;
    let raw_diffs = inspected.features.is_some_and(|f| f.raw_diffs);
    let clusters = Clusters { source: clusters.source.clone().with_raw_diffs(raw_diffs), ..clusters.clone() };
    let store = MongoStore::new(clusters.target.cluster().clone(), &config.metadata_database);
    let opening = Opening { config, order, clusters: &clusters, store: &store };
    let mut record = match inspected.record.take() {
        Some(record) => {
            store.take().await?;
            record
        }
        None => opening.begin(fingerprint, &inspected.occupied).await?,
    };
    let lease = Keeper::start(store.clone(), metrics.clone());
    opening.give_source_back(&mut record).await?;
    if record.phase == Phase::Planned {
        opening.plan(&mut record).await?;
    }
    let board = opening.board(&record, metrics, status).await?;
    Ok(Job::new(config.clone(), clusters, store, board, &record, lease))
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
            self.clusters.target.drop_collection(ns).await?;
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
            settings: self.order.verification.map(|verification| {
                let options = self.config.settings.clone();
                KeptSettings { set: Settings { verification, ..options.clone() }, options }
            }),
        };
        self.store.create(&record).await?;
        Ok(record)
    }

    /// Ends the migration that stood there, unless somebody is at work on it.
    async fn give_up_former(&self) -> Result<()> {
        let Some(former) = self.store.load().await? else { return Ok(()) };
        self.store.take().await?;
        if former.fenced && !matches!(former.phase, Phase::Committed { .. }) {
            self.clusters.source.allow_writes().await?;
        }
        self.store.wipe().await
    }

    /// A cutover that a crash cut short: the source is never left fenced. The target is taken back by the work.
    async fn give_source_back(&self, record: &mut Record) -> Result<()> {
        if record.fenced && !matches!(record.phase, Phase::Committed { .. }) {
            tracing::warn!("undoing a cutover that was cut short");
            self.clusters.source.allow_writes().await?;
            self.store.save_fenced(false).await?;
            record.fenced = false;
        }
        Ok(())
    }

    /// Saves where the change stream begins, and only then lists and plans: a crash between the two only
    /// repeats an empty plan; the other order could lose every write made between them.
    async fn plan(&self, record: &mut Record) -> Result<()> {
        let mut half = self.store.entries().await?;
        for entry in &mut half {
            self.clusters.target.drop_collection(&entry.target).await?;
            entry.state = State::Dropped;
        }
        self.store.save_entries(&half).await?;
        self.store.forget(&half.iter().map(|e| e.uuid).collect::<Vec<_>>()).await?;
        record.start_at = self.clusters.source.operation_time().await?;
        record.resume_time = record.start_at;
        let time = |t: ClusterTime| doc! {"t": i64::from(t.t), "i": i64::from(t.i)};
        self.store.set(doc! {"start_at": time(record.start_at), "resume_time": time(record.start_at)}).await?;
        let c = self.clusters;
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
        let copied = |of: fn(&crate::model::Partition) -> u64| partitions.iter().map(of).sum();
        let mut estimate = Estimate::default();
        for collection in catalog.living().iter().filter(|c| !c.entry().is_view()) {
            let one = self.clusters.source.estimate(&collection.on_source()).await?;
            estimate.documents += one.documents;
            estimate.bytes += one.bytes;
        }
        let known = Known {
            migration: record.id.clone(),
            phase: record.phase.clone(),
            // A halt is not carried over: a restart tries again.
            activity: if matches!(record.activity, Activity::Halted { .. }) { Activity::Running } else { record.activity.clone() },
            estimate,
            before: (copied(|p| p.documents), copied(|p| p.bytes)),
            source_time: None,
            window: None,
            room: None,
            differences: None,
            cutover: CutoverStatus::default(),
            step: None,
            trend: Trend::default(),
        };
        let options = self.config.settings.clone();
        let steering = Steering::new(options.clone(), Settings::resumed(options, record.settings.clone()));
        let board = Board::new(known, catalog, metrics, record.resume_time, steering, status);
        let done = partitions.iter().filter(|p| p.done).count() as u64;
        board.partitions.send_replace(Counts { waiting: partitions.len() as u64 - done, running: 0, done });
        Ok(board)
    }
}
