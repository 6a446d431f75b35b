//! The work of a phase: tail, copy and index builder, started together and ended together.

use super::{board::Board, connect::Clusters, nudge::keep_moving, repair::Hands, resharded, verifier};
use crate::{
    accounts::Accounts,
    capped::{Doubts, Transfer},
    catalog::{Collection, Entry, State, reconcile},
    checkpoint::{MongoStore, Store},
    config::Config,
    copy::{Copy, Memory, plan_late},
    cutover::take_back,
    error::Result,
    indexes::Builder,
    model::{ClusterTime, CollectionInfo, Milestone, Phase},
    race::Reread,
    source::{
        Source, StartAt,
        mongo::{Known, Living, MongoSource},
    },
    tail::{Room, Tail},
    target::mongo::MongoTarget,
    tasks::first_error,
};
use std::sync::Arc;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Re-reads waiting for the router.
const REREAD_QUEUE: usize = 1_024;
/// Shares of the memory budget. The rest is for the replies of the stream, the allocator and everything small.
const COPY_SHARE: f64 = 0.5;
const TAIL_SHARE: f64 = 0.25;

/// What the tail rings: the index builder is to look again, the copy is to look again.
#[derive(Debug, Default)]
struct Bells {
    indexes_changed: Arc<Notify>,
    copy_wanted: Arc<Notify>,
}

/// What a start needs.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub config: Arc<Config>,
    pub clusters: Clusters,
    pub store: MongoStore,
    pub board: Board,
    /// Users and roles, where they are replicated.
    pub accounts: Option<Accounts>,
    /// Fires when what was read and not begun is to be left for the next start.
    pub at_once: CancellationToken,
}

impl Work {
    /// Runs until `stop` fires or something fails; tells what it has reached.
    pub(super) async fn run(self, from: StartAt, reached: mpsc::Sender<Milestone>, stop: CancellationToken) -> Result<()> {
        let stop = stop.child_token();
        if self.board.phase() == Phase::CuttingOver {
            take_back(&self.clusters.target, &self.store, &self.board.catalog).await?;
            let _ = reached.send(Milestone::CutoverUndone).await;
        }
        let start = from.time();
        let board = &self.board;
        board.race.resume_from(start);
        board.progress.send_modify(|p| p.applied = start);
        // Whatever an earlier run had read into the target, the source had it by now.
        let now = self.clusters.source.operation_time().await?;
        board.race.read(now);
        self.reconcile(now).await?;
        // Before the tail's first event: what it touches unnoticed could not be read again.
        for collection in board.catalog.living().iter().filter(|c| c.entry().state.is_incomplete()) {
            board.race.begin(collection.uuid());
        }
        let capped = self.copy_capped(&stop).await?;
        let bells = Bells::default();
        let (rereads, asked) = mpsc::channel(REREAD_QUEUE);
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        tasks.spawn(self.tail(&bells, capped).run(from, asked, board.progress.clone(), stop.clone()));
        let builder = self.builder(&bells);
        board.known().hands = Some(Hands { rereads: rereads.clone(), indexes_changed: bells.indexes_changed.clone() });
        tasks.spawn(self.clone().copy(builder.clone(), rereads, bells, reached, stop.clone()));
        tasks.spawn(builder.run(stop.clone()));
        if board.parity.is_on() {
            let prover = Arc::new(verifier::prover(&self.config, &self.clusters, &self.store, board));
            board.known().prover = Some(prover.clone());
            tasks.spawn(verifier::run(prover, self.clusters.target.clone(), board.clone(), stop.clone()));
        }
        let (source, race, progress) = (self.clusters.source.clone(), board.race.clone(), board.progress.subscribe());
        tasks.spawn(keep_moving(source, race, progress, stop.clone()));
        if self.clusters.target.is_sharded() {
            let (source, target) = (self.clusters.source.clone(), self.clusters.target.clone());
            let known = (board.catalog.clone(), board.race.clone());
            tasks.spawn(resharded::follow(source, target, self.store.clone(), known, stop.clone()));
        }
        if let Some(accounts) = self.accounts {
            tasks.spawn(accounts.follow(stop.clone()));
        }
        first_error(tasks, &stop).await
    }

    /// Capped collections, before the tail. Tells what they show.
    async fn copy_capped(&self, stop: &CancellationToken) -> Result<Doubts> {
        let (source, target, retry) = (&self.clusters.source, &self.clusters.target, &self.clusters.retry());
        let Board { race, metrics, steering, .. } = &self.board;
        let pace = &steering.throttle.copy;
        let mut spans = Vec::new();
        for collection in self.board.catalog.living() {
            let (state, capped) = (collection.entry().state, collection.entry().capped);
            if capped && state.is_incomplete() {
                let span = Transfer { source, target, race, metrics, pace, retry, stop }.run(&collection).await?;
                spans.push((collection.uuid(), span));
                collection.entry_mut().state = State::Complete;
                race.end(collection.uuid());
                let entry = collection.entry().clone();
                self.store.save_entries(&[entry]).await?;
            }
        }
        let mut doubts = Doubts::until(source.operation_time().await?);
        spans.into_iter().for_each(|(uuid, span)| doubts.copied(uuid, span));
        Ok(doubts)
    }

    /// See [`reconcile`]: after a crash, or after a change that failed half way.
    async fn reconcile(&self, now: ClusterTime) -> Result<()> {
        let living = self.clusters.source.collections().await?.iter().filter_map(|c| c.uuid).collect();
        let collections = self.board.catalog.living();
        let mut entries: Vec<Entry> = collections.iter().map(|c| c.entry().clone()).collect();
        reconcile(&self.clusters.target, &mut entries, &living, now).await?;
        collections.iter().zip(entries).for_each(|(collection, entry)| *collection.entry_mut() = entry);
        Ok(())
    }

    /// Copies what is not complete, and goes on with whatever comes into the selection later.
    async fn copy(
        self,
        builder: Builder<MongoTarget>,
        rereads: mpsc::Sender<Reread>,
        bells: Bells,
        reached: mpsc::Sender<Milestone>,
        stop: CancellationToken,
    ) -> Result<()> {
        if self.config.copy.indexes_before_data {
            builder.look().await?;
        }
        let board = &self.board;
        let incomplete = || board.catalog.living().into_iter().filter(|c| c.entry().state.is_incomplete() && !c.entry().capped);
        let mut told = false;
        while !stop.is_cancelled() {
            for collection in incomplete() {
                if collection.entry().state == State::Wanted {
                    plan_late(&self.clusters.source, &self.store, &collection, self.config.copy.partition_bytes).await?;
                }
                if self.config.copy.indexes_before_data {
                    builder.build(&collection).await?;
                }
            }
            let partitions = self.store.partitions().await?;
            self.copier(&rereads, &bells).run(partitions, stop.clone()).await?;
            if incomplete().next().is_some() {
                continue;
            }
            if !told && matches!(board.phase(), Phase::Copying { .. }) {
                told = true;
                // The job may have gone; it will find the same on the next start.
                let _ = reached.send(Milestone::CopyFinished(board.race.newest_shown())).await;
            }
            stop.run_until_cancelled(bells.copy_wanted.notified()).await;
        }
        Ok(())
    }

    fn copier(&self, rereads: &mpsc::Sender<Reread>, bells: &Bells) -> Copy<MongoSource, MongoTarget, MongoStore> {
        Copy {
            source: self.clusters.source.clone(),
            target: self.clusters.target.clone(),
            store: self.store.clone(),
            catalog: self.board.catalog.clone(),
            race: self.board.race.clone(),
            metrics: self.board.metrics.clone(),
            indexes_changed: bells.indexes_changed.clone(),
            partitions: self.config.copy.partitions,
            writers: Arc::new(Semaphore::new(self.config.copy.writers)),
            memory: Memory::new(self.share(COPY_SHARE)),
            counts: self.board.partitions.clone(),
            pace: self.board.steering.throttle.copy.clone(),
            retry: self.clusters.retry(),
            rereads: rereads.clone(),
        }
    }

    fn tail(&self, bells: &Bells, capped: Doubts) -> Tail<MongoSource, MongoTarget, MongoStore> {
        let room = Room::new(self.share(TAIL_SHARE));
        self.board.known().room = Some(room.clone());
        Tail {
            source: self.clusters.source.clone().knowing(self.known()),
            target: self.clusters.target.clone(),
            store: self.store.clone(),
            catalog: self.board.catalog.clone(),
            race: self.board.race.clone(),
            parity: self.board.parity.clone(),
            selection: self.config.selection.clone(),
            metrics: self.board.metrics.clone(),
            indexes_changed: bells.indexes_changed.clone(),
            copy_wanted: bells.copy_wanted.clone(),
            retry: self.clusters.retry(),
            capped,
            lanes: self.config.tail.lanes,
            checkpoint_every: self.config.tail.checkpoint_every,
            room,
            pace: self.board.steering.throttle.tail.clone(),
            at_once: self.at_once.clone(),
        }
    }

    /// For sources whose catalog must be watched.
    fn known(&self) -> Known {
        let info = |c: &Arc<Collection>| {
            let e = c.entry();
            let uuid = (!e.is_view()).then_some(e.uuid);
            let info = CollectionInfo { ns: e.ns.clone(), uuid, kind: e.kind, options: e.options.clone() };
            Living { info, indexes: e.indexes.values().cloned().collect(), known_at: e.known_at }
        };
        Known { selection: self.config.selection.clone(), living: self.board.catalog.living().iter().map(info).collect() }
    }

    fn builder(&self, bells: &Bells) -> Builder<MongoTarget> {
        Builder {
            target: self.clusters.target.clone(),
            catalog: self.board.catalog.clone(),
            metrics: self.board.metrics.clone(),
            changed: bells.indexes_changed.clone(),
            builds: Arc::new(Semaphore::new(self.config.copy.index_builds)),
            before_data: self.config.copy.indexes_before_data,
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a budget, about")]
    fn share(&self, part: f64) -> u64 {
        (self.config.memory as f64 * part) as u64
    }
}
