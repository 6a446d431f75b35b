//! The job: the only one that changes the phase. It hears milestones and commands, saves, publishes, and
//! starts or stops the work.

use super::{
    abort::abort,
    board::Board,
    commands::{Done, Running, ask_idle},
    connect::Clusters,
    lease::Keeper,
    sample, throttle,
    work::Work,
};
use crate::{
    accounts::Accounts,
    checkpoint::{MongoStore, Record, Store},
    config::Config,
    cutover::{Settled, settle},
    error::{Error, Remedy, Result},
    model::{Activity, ClusterTime, Milestone, Phase, Position},
    observe::{Answer, Request},
    source::{Source, StartAt},
    tasks::{first_error, panicked},
};
use std::sync::Arc;
use tokio::{sync::mpsc, task::JoinSet};
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
    lease: Keeper,
    accounts: Option<Accounts>,
    target_fenced: bool,
}

/// Why the loop of one activity ended.
enum Turn {
    /// Look again at phase and activity.
    Again,
    /// Committed, or aborted.
    Ended,
}

impl Job {
    pub(super) fn new(config: Config, clusters: Clusters, store: MongoStore, board: Board, record: &Record, lease: Keeper) -> Self {
        let (resume_point, start_at) = (record.resume_point(), record.start_at);
        let accounts = clusters.accounts(&config);
        let target_fenced = record.way_back.as_ref().is_some_and(|way| way.target_fenced);
        let config = Arc::new(config);
        Self { accounts, config, clusters, store, board, resume_point, start_at, halted: None, lease, target_fenced }
    }

    /// Whether users are kept from writing to the target by a block that is ours to lift at the commit.
    pub(super) fn target_fenced(&self) -> bool {
        self.target_fenced
    }

    /// Works until the migration is committed, aborted, or `stop` fires; answers requests all the while.
    pub(super) async fn run(mut self, requests: &mut mpsc::Receiver<Request>, stop: &CancellationToken) -> Result<()> {
        let closing = CancellationToken::new();
        let mut watchers: JoinSet<Result<()>> = JoinSet::new();
        watchers.spawn(sample::publish(self.board.clone(), closing.clone()));
        watchers.spawn(sample::ask(self.clusters.source.clone(), self.board.clone(), closing.clone()));
        for cluster in [self.clusters.source.cluster(), self.clusters.target.cluster()] {
            watchers.spawn(throttle::collect(cluster.clone(), self.board.steering.clone(), closing.clone()));
        }
        watchers.spawn(throttle::govern(self.board.clone(), self.config.throttle, closing.clone()));
        let mut outcome = Ok(());
        while outcome.is_ok() && !matches!(self.board.phase(), Phase::Committed { .. }) {
            let turn = match self.board.activity() {
                Activity::Running => self.work(requests, stop).await,
                Activity::Paused { .. } | Activity::Halted { .. } => self.wait(requests, stop).await,
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
        self.lease.end().await;
        // A successor need not wait for the lease to lapse; if this fails, it will.
        let _ = self.store.release().await;
        outcome.and(watched)
    }

    /// Users and roles, where they are replicated; calls are no longer repeated once `stop` fires.
    pub(super) fn accounts(&self, stop: &CancellationToken) -> Option<Accounts> {
        let clusters = self.clusters.until(stop);
        self.accounts.as_ref().map(|accounts| accounts.with(clusters.source.cluster(), clusters.target.cluster()))
    }

    /// One stretch of work: until it fails, is paused, committed, or the lease is in doubt.
    async fn work(&mut self, requests: &mut mpsc::Receiver<Request>, stop: &CancellationToken) -> Result<Turn> {
        // A cutover that failed where it could not be undone, or whose commit is in doubt.
        if self.board.phase() == Phase::CuttingOver {
            match settle(&self.clusters.source, &self.store).await {
                Ok(Settled::Undone) => {}
                Ok(Settled::Committed(fence)) => {
                    if self.target_fenced
                        && let Err(error) = self.clusters.reader.allow_writes().await
                    {
                        return self.halt(error);
                    }
                    return self.step(Milestone::Sealed(fence)).await.map(|()| Turn::Ended);
                }
                Err(error) => return self.halt(error),
            }
        }
        let (session, at_once) = (stop.child_token(), CancellationToken::new());
        let (reach, mut reached) = mpsc::channel(1);
        let mut work: JoinSet<Result<()>> = JoinSet::new();
        let doing = Work {
            config: self.config.clone(),
            clusters: self.clusters.until(&session),
            store: self.store.clone(),
            board: self.board.clone(),
            accounts: self.accounts(&session),
            at_once: at_once.clone(),
        };
        work.spawn(doing.run(self.start(), reach, session.clone()));
        let mut running = Running::new(self, session.clone(), at_once);
        let mut progress = self.board.progress.subscribe();
        let ended = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break Err(Error::Interrupted),
                trouble = self.lease.trouble() => break trouble.map(|()| Done::Again),
                Some(done) = running.finished() => match running.conclude(self, done).await {
                    Ok(None) => {}
                    Ok(Some(turn)) => break Ok(turn),
                    Err(error) => break Err(error),
                },
                ended = work.join_next() => {
                    let error = ended.unwrap_or(Ok(Ok(()))).unwrap_or_else(|e| Err(panicked(&e))).err();
                    break Err(error.unwrap_or_else(|| Error::Bug("the work ended by itself".into())));
                }
                Some(milestone) = reached.recv() => {
                    if let Err(error) = self.step(milestone).await { break Err(error) }
                    // On an idle source the tail may be there already, and not move for long.
                    progress.mark_changed();
                }
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
            Ok(done) => self.turn(done, rest).await,
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error) => self.halt(error),
        }
    }

    async fn turn(&mut self, done: Done, rest: Result<()>) -> Result<Turn> {
        match done {
            Done::Ended => Ok(Turn::Ended),
            Done::Abort(how, answer) => {
                abort(self, how, answer).await;
                Ok(Turn::Ended)
            }
            Done::Again | Done::Paused(_) => {
                if let Err(error) = rest
                    && !matches!(error, Error::Interrupted)
                {
                    if let Done::Paused(answer) = done {
                        let _ = answer.send(Answer::from(&error));
                    }
                    return self.halt(error);
                }
                if let Done::Paused(answer) = done {
                    let _ = answer.send(Answer::done("paused; the place is kept"));
                }
                // In doubt: nothing is written until the lease is renewed. Its loss ends the keeper, and so the job.
                self.lease.certainty().await;
                self.halted = None;
                Ok(Turn::Again)
            }
        }
    }

    /// Paused or halted: only a command, a signal or the loss of the lease changes anything.
    async fn wait(&mut self, requests: &mut mpsc::Receiver<Request>, stop: &CancellationToken) -> Result<Turn> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(self.halted.take().unwrap_or(Error::Interrupted)),
                error = self.lease.lost() => return Err(error),
                request = requests.recv() => match request {
                    None => return Err(Error::Interrupted),
                    Some(request) => match ask_idle(self, request).await? {
                        None => {}
                        Some(Done::Again | Done::Paused(_)) => return Ok(Turn::Again),
                        Some(Done::Ended) => return Ok(Turn::Ended),
                        Some(Done::Abort(how, answer)) => {
                            abort(self, how, answer).await;
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
