//! What is known of the running migration, in one place, and the snapshot made of it.

use super::{repair::Hands, throttle::Steering, trend::Trend, verifier::MongoProver};
use crate::{
    catalog::{Catalog, State},
    copy::Counts,
    cutover::{Facts, Step, gates},
    model::{
        Activity, ClusterTime, CopyStatus, CutoverStatus, DirectionStatus, EventStatus, InFlightStatus, Phase, Status, Verb,
        VerificationStatus, permits,
    },
    observe::Metrics,
    parity::Parity,
    race::Race,
    source::{Estimate, OplogWindow},
    tail::{Progress, Room},
    verify::Findings,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// What only the job knows. Changed by the job, read for snapshots.
#[derive(Debug)]
pub(super) struct Known {
    pub migration: String,
    pub direction: DirectionStatus,
    /// What the users may not do.
    pub done_without: Vec<String>,
    pub phase: Phase,
    pub activity: Activity,
    pub estimate: Estimate,
    /// Copied by earlier runs: documents and bytes.
    pub before: (u64, u64),
    /// What the counters of this process had counted before: documents, bytes, and documents that were there already.
    pub counted: (u64, u64, u64),
    /// The source's clock, and when we looked at it.
    pub source_time: Option<(ClusterTime, Instant)>,
    pub window: Option<OplogWindow>,
    pub room: Option<Room>,
    /// Of the latest start, where verification is on.
    pub prover: Option<Arc<MongoProver>>,
    /// Of the latest start, for repairs.
    pub hands: Option<Hands>,
    /// Differences of the last verification.
    pub differences: Option<u64>,
    pub cutover: CutoverStatus,
    pub step: Option<Step>,
    /// Of the lag.
    pub trend: Trend,
}

/// The board. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Board {
    known: Arc<Mutex<Known>>,
    pub catalog: Catalog,
    pub race: Race,
    pub parity: Parity,
    pub findings: Findings,
    pub metrics: Arc<Metrics>,
    pub progress: watch::Sender<Progress>,
    /// Settings and throttle.
    pub steering: Steering,
    /// Partitions waiting, running and done.
    pub partitions: watch::Sender<Counts>,
    status: watch::Sender<Status>,
}

impl Board {
    pub(super) fn new(
        known: Known,
        catalog: Catalog,
        parity: Parity,
        metrics: Arc<Metrics>,
        resume: ClusterTime,
        steering: Steering,
        status: watch::Sender<Status>,
    ) -> Self {
        let progress = watch::Sender::new(Progress { applied: resume, resume, saved_at: None });
        Self {
            known: Arc::new(Mutex::new(known)),
            catalog,
            race: Race::default(),
            parity,
            findings: Findings::default(),
            metrics,
            progress,
            steering,
            partitions: watch::Sender::default(),
            status,
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self) -> Phase {
        self.known().phase.clone()
    }

    pub(super) fn activity(&self) -> Activity {
        self.known().activity.clone()
    }

    pub(super) fn facts(&self) -> Facts {
        let progress = *self.progress.borrow();
        let lag_seconds = self.lag();
        let verification = self.verification();
        let known = self.known();
        Facts {
            phase: Some(known.phase.clone()),
            running: matches!(known.activity, Activity::Running),
            lag_seconds,
            headroom_seconds: known.window.map(|w| w.headroom(progress.resume)),
            applied: progress.applied,
            newest_read: self.race.newest_read(),
            newest_shown: self.race.newest_shown(),
            copying: self.catalog.living().iter().filter(|c| c.entry().state.is_incomplete()).map(|c| c.entry().ns.clone()).collect(),
            unfinished: self.catalog.unfinished_indexes(),
            differences: known.differences,
            verification,
            accepts_unproved: false,
        }
    }

    /// Seconds between the source's clock as last seen, carried on to now, and the frontier.
    pub(super) fn lag(&self) -> Option<f64> {
        let (newest, at) = self.known().source_time?;
        let applied = self.progress.borrow().applied;
        let seen = f64::from(newest.seconds_since(applied));
        // While the source does not answer, its clock still runs.
        let unseen = at.elapsed().saturating_sub(super::sample::EVERY * 3).as_secs_f64();
        Some(seen + unseen)
    }

    /// What is proved equal, as of now.
    fn verification(&self) -> VerificationStatus {
        // Looked at first: what is behind it was touched, and noted, before.
        let applied = self.progress.borrow().applied;
        let living = self.catalog.living();
        let documents = living.iter().filter(|c| !c.entry().is_view()).map(|c| (c.uuid(), c.entry().ns.to_string()));
        let mut status = self.parity.status(&documents.collect::<Vec<_>>(), applied);
        if !self.is_verified() {
            "off".clone_into(&mut status.state);
        }
        status
    }

    /// Whether both sides are compared all the time, as an operator has it now.
    pub(super) fn is_verified(&self) -> bool {
        self.parity.is_on() && self.steering.settings.borrow().verification
    }

    /// Makes the snapshot and shows it everywhere.
    pub(super) fn publish(&self) {
        let status = self.snapshot();
        self.metrics.show(&status);
        self.status.send_replace(status);
    }

    pub(super) fn snapshot(&self) -> Status {
        let facts = self.facts();
        let gates = gates(&facts);
        let progress = *self.progress.borrow();
        let known = self.known();
        let (reason, remedy, exit_code) = match &known.activity {
            Activity::Running => (None, None, None),
            Activity::Paused { by } => (Some(format!("paused by {by}")), Some("`mongoferry resume` goes on".to_owned()), None),
            Activity::Halted { reason, remedy, exit_code } => (Some(reason.clone()), Some(remedy.clone()), Some(*exit_code)),
        };
        let (in_flight, limit) = known.room.as_ref().map_or((0, 0), Room::in_flight);
        let m = &self.metrics;
        let (bytes, limit_bytes) = (in_flight, limit);
        let (partitions, living) = (*self.partitions.borrow(), self.catalog.living());
        let permitted = Verb::ALL.into_iter().filter(|verb| permits(&known.phase, &known.activity, *verb));
        Status {
            format: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            migration: known.migration.clone(),
            direction: Some(known.direction.clone()),
            phase: known.phase.label().to_owned(),
            activity: known.activity.label().to_owned(),
            reason,
            remedy,
            exit_code,
            can_cut_over: gates.iter().all(|g| g.open),
            can_write_to_target: matches!(known.phase, Phase::Committed { .. }),
            gates,
            lag_seconds: facts.lag_seconds,
            catch_up_seconds: known.trend.catch_up_seconds(),
            headroom_seconds: facts.headroom_seconds,
            oplog_window_seconds: known.window.map(|w| w.seconds()),
            checkpoint_age_seconds: progress.saved_at.map(|at| at.elapsed().as_secs_f64()),
            applied_cluster_time: Some(progress.applied),
            source_cluster_time: known.source_time.map(|(t, _)| t),
            resume_cluster_time: Some(progress.resume),
            copy: CopyStatus {
                documents: known.before.0 + (m.copied_documents() + m.already_there_documents()) - (known.counted.0 + known.counted.2),
                bytes: known.before.1 + m.copied_bytes() - known.counted.1,
                estimated_documents: known.estimate.documents,
                estimated_bytes: known.estimate.bytes,
                already_there: m.already_there_documents() - known.counted.2,
                reread: m.reread_documents(),
                partitions_done: partitions.done,
                partitions: partitions.waiting + partitions.running + partitions.done,
                collections_done: living.iter().filter(|c| c.entry().state == State::Complete).count() as u64,
                collections: living.len() as u64,
                indexes: living.iter().map(|c| c.entry().indexes.len() as u64).sum(),
            },
            events: EventStatus {
                read: m.events_read_total(),
                applied: m.events_applied_total(),
                ddl: m.events_applied(crate::observe::AppliedOp::Ddl),
                reread: m.events_applied(crate::observe::AppliedOp::Reread),
            },
            in_flight: InFlightStatus { bytes, limit_bytes },
            retries: m.retries_total(),
            done_without: known.done_without.clone(),
            unfinished_indexes: facts.unfinished,
            verification: facts.verification,
            cutover: (known.cutover != CutoverStatus::default()).then(|| known.cutover.clone()),
            throttle: self.steering.status(),
            settings: self.steering.settings.borrow().clone(),
            permitted: permitted.map(|verb| verb.label().to_owned()).collect(),
        }
    }
}

/// How long a question of the start may be repeated before somebody is told.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(20);
