//! The job: the only one that changes the phase. It hears milestones and commands, saves, publishes, and
//! starts or stops the work.

use super::{
    board::Board,
    commands::{Done, Running, abort, ask_idle},
    connect::Clusters,
    sample,
    work::Work,
};
use crate::{
    checkpoint::{LEASE, MongoStore, Store},
    config::Config,
    error::{Error, Remedy, Result},
    model::{Activity, ClusterTime, Milestone, Phase, Position},
    observe::Request,
    source::StartAt,
    tasks::{first_error, panicked},
};
use std::{future::pending, sync::Arc};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// An open migration.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) config: Arc<Config>,
    pub(super) clusters: Clusters,
    pub(super) store: MongoStore,
    pub(super) board: Board,
    resume_point: Option<Position>,
    start_at: ClusterTime,
    /// What halted it, for the exit code of a process that is stopped meanwhile.
    halted: Option<Error>,
}

/// Why the loop of one activity ended.
enum Turn {
    /// Look again at phase and activity.
    Again,
    /// Committed, or aborted.
    Ended,
}

impl Job {
    pub(super) fn new(
        config: Config,
        clusters: Clusters,
        store: MongoStore,
        board: Board,
        resume_point: Option<Position>,
        start_at: ClusterTime,
    ) -> Self {
        Self { config: Arc::new(config), clusters, store, board, resume_point, start_at, halted: None }
    }

    /// Works until the migration is committed, aborted, or `stop` fires; answers requests all the while.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: &CancellationToken) -> Result<()> {
        let closing = CancellationToken::new();
        let mut watchers: JoinSet<Result<()>> = JoinSet::new();
        watchers.spawn(sample::publish(self.board.clone(), closing.clone()));
        watchers.spawn(sample::ask(self.clusters.source.clone(), self.board.clone(), closing.clone()));
        let (held, mut lease) = watch::channel(true);
        let mut keeper: JoinSet<Result<()>> = JoinSet::new();
        keeper.spawn(keep_lease(self.store.clone(), self.board.clone(), held, closing.clone()));
        let mut outcome = Ok(());
        while outcome.is_ok() && !matches!(self.board.phase(), Phase::Committed { .. }) {
            let turn = match self.board.activity() {
                Activity::Running => self.work(&mut requests, &mut lease, &mut keeper, stop).await,
                Activity::Paused { .. } | Activity::Halted { .. } => self.wait(&mut requests, &mut keeper, stop).await,
            };
            match turn {
                Ok(Turn::Again) => {}
                Ok(Turn::Ended) => break,
                Err(error) => outcome = Err(error),
            }
        }
        self.board.publish();
        closing.cancel();
        let watched = first_error(watchers, &closing).await;
        // Its errors were seen in the loop; behind an abort there is no lease to renew.
        let _ = first_error(keeper, &closing).await;
        // A successor need not wait for the lease to lapse; if this fails, it will.
        let _ = self.store.release().await;
        outcome.and(watched)
    }

    /// One stretch of work: until it fails, is paused, committed, or the lease is in doubt.
    async fn work(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        lease: &mut watch::Receiver<bool>,
        keeper: &mut JoinSet<Result<()>>,
        stop: &CancellationToken,
    ) -> Result<Turn> {
        let session = stop.child_token();
        let (copied_at, mut copied) = mpsc::channel(1);
        let mut work: JoinSet<Result<()>> = JoinSet::new();
        let doing = Work {
            config: self.config.clone(),
            clusters: self.clusters.until(&session),
            store: self.store.clone(),
            board: self.board.clone(),
        };
        work.spawn(doing.run(self.start(), copied_at, session.clone()));
        let mut running = Running::new(self, session.clone());
        let mut progress = self.board.progress.subscribe();
        let ended = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break Err(Error::Interrupted),
                Some(kept) = keeper.join_next() => break Err(kept.unwrap_or_else(|e| Err(panicked(&e))).err().unwrap_or(Error::Interrupted)),
                Some(done) = running.finished() => match running.conclude(self, done).await {
                    Ok(None) => {}
                    Ok(Some(turn)) => break Ok(turn),
                    Err(error) => break Err(error),
                },
                ended = work.join_next() => {
                    let error = ended.unwrap_or(Ok(Ok(()))).unwrap_or_else(|e| Err(panicked(&e))).err();
                    break Err(error.unwrap_or_else(|| Error::Bug("the work ended by itself".into())));
                }
                Ok(()) = lease.changed() => if !*lease.borrow_and_update() { break Ok(Done::Again) },
                Some(at) = copied.recv() => if let Err(error) = self.step(Milestone::CopyFinished(at)).await { break Err(error) },
                Ok(()) = progress.changed() => {
                    let applied = progress.borrow_and_update().applied;
                    if let Err(error) = self.step(Milestone::Applied(applied)).await { break Err(error) }
                }
                request = requests.recv() => match request {
                    None => break Err(Error::Interrupted),
                    Some(request) => if let Some(done) = running.ask(self, request).await { break Ok(done) },
                },
            }
        };
        // A cutover under way is brought to its end, which is the undoing, before the tail is stopped.
        running.end(self).await?;
        session.cancel();
        let rest = first_error(work, &session).await;
        self.note_resume_point().await?;
        match ended {
            Ok(done) => self.turn(done, rest, lease).await,
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error) => self.halt(error),
        }
    }

    async fn turn(&mut self, done: Done, rest: Result<()>, lease: &mut watch::Receiver<bool>) -> Result<Turn> {
        match done {
            Done::Ended => Ok(Turn::Ended),
            Done::Abort(answer) => {
                abort(self, answer).await;
                Ok(Turn::Ended)
            }
            Done::Again => {
                if let Err(error) = rest
                    && !matches!(error, Error::Interrupted)
                {
                    return self.halt(error);
                }
                // In doubt: nothing is written until the lease is renewed. Its loss ends the keeper, and so the job.
                let _ = tokio::time::timeout(LEASE, lease.wait_for(|held| *held)).await;
                self.halted = None;
                Ok(Turn::Again)
            }
        }
    }

    /// Paused or halted: only a command, a signal or the loss of the lease changes anything.
    async fn wait(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        keeper: &mut JoinSet<Result<()>>,
        stop: &CancellationToken,
    ) -> Result<Turn> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(self.halted.take().unwrap_or(Error::Interrupted)),
                Some(kept) = keeper.join_next() => return Err(kept.unwrap_or_else(|e| Err(panicked(&e))).err().unwrap_or(Error::Interrupted)),
                request = requests.recv() => match request {
                    None => return Err(Error::Interrupted),
                    Some(request) => match ask_idle(self, request).await? {
                        None => {}
                        Some(Done::Again) => return Ok(Turn::Again),
                        Some(Done::Ended) => return Ok(Turn::Ended),
                        Some(Done::Abort(answer)) => {
                            abort(self, answer).await;
                            return Ok(Turn::Ended);
                        }
                    },
                },
            }
        }
    }

    /// The one place where the phase changes: step, save, publish.
    pub(super) async fn step(&self, milestone: Milestone) -> Result<()> {
        let before = self.board.phase();
        let after = before.step(milestone).map_err(|e| Error::Bug(e.to_string()))?;
        if after != before {
            tracing::info!(phase = after.label(), "phase");
            // The saga has saved its own phases, before it acted on them.
            if !matches!(milestone, Milestone::CutoverBegun | Milestone::CutoverUndone | Milestone::Sealed(_)) {
                self.store.save_phase(&after, &self.board.activity()).await?;
            }
            self.board.known().phase = after;
            self.board.publish();
        }
        Ok(())
    }

    pub(super) async fn become_active(&self, activity: Activity) -> Result<()> {
        self.store.save_phase(&self.board.phase(), &activity).await?;
        self.board.known().activity = activity;
        self.board.publish();
        Ok(())
    }

    fn halt(&mut self, error: Error) -> Result<Turn> {
        // Without the lease nothing may be saved, and a fault of ours is not waited on.
        if matches!(error, Error::LeaseLost { .. }) || error.remedy() == Remedy::Report {
            return Err(error);
        }
        tracing::error!(error = error.story(), hint = error.hint(), "halted");
        let activity = Activity::Halted { reason: error.story(), remedy: error.hint().unwrap_or_default(), exit_code: error.exit_code() };
        self.board.known().activity = activity;
        self.board.publish();
        if self.config.exit_on_halt {
            return Err(error);
        }
        self.halted = Some(error);
        Ok(Turn::Again)
    }

    fn start(&self) -> StartAt {
        self.resume_point.clone().map_or(StartAt::Time(self.start_at), StartAt::After)
    }

    /// Where the next start goes on: what was really saved.
    async fn note_resume_point(&mut self) -> Result<()> {
        if let Ok(Some(record)) = self.store.load().await {
            self.resume_point = record.resume_point();
        }
        Ok(())
    }
}

/// Renews the lease. Tells when it is in doubt: not renewed for two thirds of its term, before anybody else may
/// take it.
async fn keep_lease(store: MongoStore, board: Board, held: watch::Sender<bool>, stop: CancellationToken) -> Result<()> {
    let mut tick = tokio::time::interval(LEASE / 5);
    let mut renewed = Instant::now();
    let store = store.hasty(LEASE / 5);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let asked = Instant::now();
        match store.renew().await {
            Ok(()) => {
                renewed = asked;
                board.metrics.lease_renewed();
            }
            Err(error @ Error::LeaseLost { .. }) => return Err(error),
            Err(error) => tracing::warn!(error = error.story(), "the lease could not be renewed"),
        }
        let sure = renewed.elapsed() < LEASE * 2 / 3;
        held.send_if_modified(|held| std::mem::replace(held, sure) != sure);
    }
    // The keeper ends only with the job: its end would be taken for the loss of the lease.
    if !stop.is_cancelled() {
        pending::<()>().await;
    }
    Ok(())
}
