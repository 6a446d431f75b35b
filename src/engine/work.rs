//! The work of a phase: tail, copy and index builder, started together and ended together.

use super::{board::Board, connect::Clusters};
use crate::{
    catalog::{Collection, Entry, State, reconcile},
    checkpoint::{MongoStore, Store},
    config::Config,
    copy::{Copy, Memory},
    error::{Error, Result},
    indexes::Builder,
    model::{ClusterTime, CollectionInfo, Partition, Phase, Position},
    race::Reread,
    source::{
        Source, StartAt,
        mongo::{Known, Living},
    },
    tail::{Room, Tail},
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

/// What a start needs.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub config: Arc<Config>,
    pub clusters: Clusters,
    pub store: MongoStore,
    pub board: Board,
}

impl Work {
    /// Runs until `stop` fires or something fails; tells `copied` when the copy is complete.
    pub(super) async fn run(self, from: StartAt, copied: mpsc::Sender<ClusterTime>, stop: CancellationToken) -> Result<()> {
        let stop = stop.child_token();
        let start = match &from {
            StartAt::Time(time) | StartAt::After(Position { time, .. }) => *time,
        };
        let board = &self.board;
        board.race.resume_from(start);
        // Whatever an earlier run had read into the target, the source had it by now.
        let now = self.clusters.source.operation_time().await?;
        board.race.read(now);
        self.reconcile(now).await?;
        // Before the tail's first event: what it touches unnoticed could not be read again.
        for collection in board.catalog.living().iter().filter(|c| c.entry().state == State::Copying) {
            board.race.begin(collection.uuid());
        }
        let changed = Arc::new(Notify::new());
        let (rereads, asked) = mpsc::channel(REREAD_QUEUE);
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        tasks.spawn(self.tail(&changed).run(from, asked, board.progress.clone(), stop.clone()));
        let builder = self.builder(&changed);
        if matches!(board.phase(), Phase::Copying { .. }) {
            let partitions = self.store.partitions().await?;
            tasks.spawn(self.clone().copy(partitions, builder.clone(), rereads, changed, copied, stop.clone()));
        }
        tasks.spawn(builder.run(stop.clone()));
        first_error(tasks, &stop).await
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

    async fn copy(
        self,
        partitions: Vec<Partition>,
        builder: Builder<crate::target::mongo::MongoTarget>,
        rereads: mpsc::Sender<Reread>,
        changed: Arc<Notify>,
        copied: mpsc::Sender<ClusterTime>,
        stop: CancellationToken,
    ) -> Result<()> {
        if self.config.copy.indexes_before_data {
            builder.look().await?;
            for collection in self.board.catalog.living().into_iter().filter(|c| c.entry().state == State::Copying) {
                builder.build(&collection).await?;
            }
        }
        let board = &self.board;
        let copy = Copy {
            source: self.clusters.source.clone(),
            target: self.clusters.target.clone(),
            store: self.store.clone(),
            catalog: board.catalog.clone(),
            race: board.race.clone(),
            metrics: board.metrics.clone(),
            indexes_changed: changed,
            partitions: self.config.copy.partitions,
            writers: Arc::new(Semaphore::new(self.config.copy.writers)),
            memory: Memory::new(self.share(COPY_SHARE)),
            counts: board.partitions.clone(),
            retry: self.clusters.retry(),
            rereads,
        };
        copy.run(partitions, stop.clone()).await?;
        let done = board.catalog.living().iter().all(|c| c.entry().state != State::Copying);
        if done && !stop.is_cancelled() {
            // The job may have gone; it will find the same on the next start.
            let _ = copied.send(board.race.newest_read()).await;
        } else if !stop.is_cancelled() {
            return Err(Error::Bug("the copy ended and left a collection behind".into()));
        }
        Ok(())
    }

    fn tail(&self, changed: &Arc<Notify>) -> Tail<crate::source::mongo::MongoSource, crate::target::mongo::MongoTarget, MongoStore> {
        let room = Room::new(self.share(TAIL_SHARE));
        self.board.known().room = Some(room.clone());
        Tail {
            source: self.clusters.source.clone().knowing(self.known()),
            target: self.clusters.target.clone(),
            store: self.store.clone(),
            catalog: self.board.catalog.clone(),
            race: self.board.race.clone(),
            selection: self.config.selection.clone(),
            metrics: self.board.metrics.clone(),
            indexes_changed: changed.clone(),
            lanes: self.config.tail.lanes,
            checkpoint_every: self.config.tail.checkpoint_every,
            room,
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

    fn builder(&self, changed: &Arc<Notify>) -> Builder<crate::target::mongo::MongoTarget> {
        Builder {
            target: self.clusters.target.clone(),
            catalog: self.board.catalog.clone(),
            metrics: self.board.metrics.clone(),
            changed: changed.clone(),
            builds: Arc::new(Semaphore::new(self.config.copy.index_builds)),
            before_data: self.config.copy.indexes_before_data,
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a budget, about")]
    fn share(&self, part: f64) -> u64 {
        (self.config.memory as f64 * part) as u64
    }
}
