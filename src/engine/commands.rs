//! What operators ask: judged by one table, carried out beside the work.

use super::{job::Job, order};
use crate::{
    cutover::{Cutover, Outcome, Step, gates},
    error::{Error, Result},
    model::{Activity, ClusterTime, Milestone, Verb, permits},
    observe::{Answer, Command, GiveUp, Handover, Request},
    tasks::panicked,
    verify,
};
use serde_json::json;
use std::time::Duration;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// What the job does next.
#[derive(Debug)]
pub(super) enum Done {
    /// Look again at phase and activity.
    Again,
    /// Nothing is left to do.
    Ended,
    /// Give up, once nothing is at work any more, and say so.
    Abort(GiveUp, oneshot::Sender<Answer>),
}

/// Long requests under way.
pub(super) struct Running {
    tasks: JoinSet<(oneshot::Sender<Answer>, Ended)>,
    stop: CancellationToken,
    step: watch::Sender<Option<Step>>,
}

/// How a long request ended.
pub(super) enum Ended {
    Cutover(Result<Outcome>),
    Verify(Result<verify::Report>),
}

impl Running {
    pub(super) fn new(job: &Job, stop: CancellationToken) -> Self {
        let step = watch::Sender::new(job.board.known().step);
        Self { tasks: JoinSet::new(), stop, step }
    }

    /// The next that ends; never, while there is none.
    pub(super) async fn finished(&mut self) -> Option<(oneshot::Sender<Answer>, Ended)> {
        match self.tasks.join_next().await {
            None => None,
            Some(Ok(ended)) => Some(ended),
            Some(Err(panic)) => {
                tracing::error!(error = %panicked(&panic), "a request failed");
                None
            }
        }
    }

    /// Carries a request out, or starts it; tells when the work has to stop for it.
    pub(super) async fn ask(&mut self, job: &mut Job, request: Request) -> Option<Done> {
        let Request { command, answer } = request;
        if let Some(no) = refused(job, &command) {
            let _ = answer.send(no);
            return None;
        }
        match command {
            Command::Pause { by } => {
                let paused = job.become_active(Activity::Paused { by }).await;
                let _ = answer.send(paused.map_or_else(|e| Answer::from(&e), |()| Answer::done("paused; the place is kept")));
                Some(Done::Again)
            }
            Command::Resume => {
                let _ = answer.send(Answer::done("it is running"));
                None
            }
            Command::Verify => {
                self.verify(job, answer);
                None
            }
            Command::Cutover(order) => {
                self.cutover(job, order, answer).await;
                None
            }
            Command::Abort(how) => Some(Done::Abort(how, answer)),
        }
    }

    fn verify(&mut self, job: &Job, answer: oneshot::Sender<Answer>) {
        let (clusters, selection, board, stop) = (job.clusters.clone(), job.config.selection.clone(), job.board.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let (progress, watched, over) = (board.progress.clone(), clusters.source.clone(), stop.clone());
            let settle = move |time: ClusterTime| {
                let (mut progress, watched, over) = (progress.subscribe(), watched.clone(), over.clone());
                async move {
                    over.run_until_cancelled(watched.structure_at(time)).await.ok_or(Error::Interrupted)?;
                    progress.wait_for(|p| p.applied >= time).await.map(drop).map_err(|_| Error::Interrupted)
                }
            };
            let settings = verify::Settings { parked: true, live: true, ..verify::Settings::new(clusters.retry()) };
            let report = verify::verify(&clusters.source, &clusters.reader, &selection, &settings, &board.metrics, settle, &stop).await;
            (answer, Ended::Verify(report))
        });
    }

    async fn cutover(&mut self, job: &Job, order: Handover, answer: oneshot::Sender<Answer>) {
        let judged = match order::judge(job, &order).await {
            Ok(Ok(judged)) => judged,
            Ok(Err(no)) => return drop(answer.send(no)),
            Err(error) => return drop(answer.send(Answer::from(&error))),
        };
        if order.dry_run || !judged.shut().is_empty() {
            return drop(answer.send(judged.told()));
        }
        if let Err(error) = job.step(Milestone::CutoverBegun).await {
            let _ = answer.send(Answer::from(&error));
            return;
        }
        let saga = Cutover {
            source: job.clusters.source.clone(),
            target: job.clusters.target.clone(),
            reader: job.clusters.reader.clone(),
            store: job.store.clone(),
            catalog: job.board.catalog.clone(),
            selection: job.config.selection.clone(),
            metrics: job.board.metrics.clone(),
            progress: job.board.progress.subscribe(),
            writes_stopped: judged.plan.writes_stopped,
            target_fenced: judged.plan.target_fenced,
            then_reverse: order.then_reverse,
            waived: order.waive_indexes.into(),
            step: self.step.clone(),
            compare: verify::Settings::new(job.clusters.retry()),
            stop: self.stop.clone(),
        };
        let timeout = Duration::from_secs(order.timeout_seconds);
        self.tasks.spawn(async move { (answer, Ended::Cutover(saga.run(timeout).await)) });
    }

    /// What the end of a long request means for the job.
    pub(super) async fn conclude(&mut self, job: &Job, (answer, ended): (oneshot::Sender<Answer>, Ended)) -> Result<Option<Done>> {
        match ended {
            Ended::Verify(report) => {
                let told = match report {
                    Ok(report) => {
                        job.board.known().differences =
                            Some(report.namespaces.iter().map(|n| n.differences).sum::<u64>().max(u64::from(!report.equal)));
                        told_of(&report)
                    }
                    Err(error) => Answer::from(&error),
                };
                let _ = answer.send(told);
                Ok(None)
            }
            Ended::Cutover(Err(error)) => {
                let mut told = Answer::from(&error);
                told.message = format!("the cutover is neither committed nor undone yet, and the source may be blocked: {}", told.message);
                told.hint = Some("`mongoferry resume` finds out and goes on; `mongoferry abort` gives the source back".into());
                let _ = answer.send(told);
                Err(error)
            }
            Ended::Cutover(Ok(outcome)) => {
                let (told, done) = self.cut_over(job, outcome).await?;
                job.board.publish();
                let _ = answer.send(told);
                Ok(done)
            }
        }
    }

    async fn cut_over(&self, job: &Job, outcome: Outcome) -> Result<(Answer, Option<Done>)> {
        let blocked_seconds = |blocked: Option<Duration>| blocked.map(|d| d.as_secs_f64());
        match outcome {
            Outcome::Committed { fence, blocked, steps, shut } => {
                job.step(Milestone::Sealed(fence)).await?;
                let mut known = job.board.known();
                known.cutover.step = "committed".into();
                known.cutover.fence = Some(fence);
                known.cutover.writes_blocked_seconds = blocked_seconds(blocked);
                let mut told = match blocked {
                    Some(blocked) => format!(
                        "committed: the target is the primary cluster; writes were blocked for {:.1} s, and stay blocked on the source",
                        blocked.as_secs_f64()
                    ),
                    None => "committed: the target is the primary cluster".to_owned(),
                };
                if let Some(why) = shut {
                    told.push_str(&format!("; it is not yet open to users ({why}): start the same command again, which opens it"));
                }
                let details = json!({"fence": fence, "writes_blocked_seconds": blocked_seconds(blocked), "steps": durations(&steps)});
                Ok((Answer::done(told).with(details), Some(Done::Ended)))
            }
            Outcome::Undone { step, reason, blocked, steps, sealed } => {
                if !sealed {
                    job.step(Milestone::CutoverUndone).await?;
                }
                let mut known = job.board.known();
                known.cutover.step = step.label().into();
                known.cutover.last_failure = Some(reason.clone());
                known.cutover.writes_blocked_seconds = blocked_seconds(blocked);
                let told = Answer::no(format!(
                    "the cutover was undone, the source is writable and the tail goes on: {} failed: {reason}",
                    step.label()
                ));
                // The work begins anew with taking a sealed target back.
                let details = json!({
                    "step": step.label(), "reason": reason, "writes_blocked_seconds": blocked_seconds(blocked), "steps": durations(&steps)
                });
                Ok((told.with(details), sealed.then_some(Done::Again)))
            }
        }
    }

    /// Ends what is under way: a cutover that is not yet confirmed is undone.
    pub(super) async fn end(&mut self, job: &Job) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.finished().await {
            self.conclude(job, ended).await?;
        }
        Ok(())
    }
}

/// A request that comes while nothing is worked on.
pub(super) async fn ask_idle(job: &Job, request: Request) -> Result<Option<Done>> {
    let Request { command, answer } = request;
    if let Some(no) = refused(job, &command) {
        let _ = answer.send(no);
        return Ok(None);
    }
    match command {
        Command::Resume => {
            job.become_active(Activity::Running).await?;
            let _ = answer.send(Answer::done("running"));
            Ok(Some(Done::Again))
        }
        Command::Abort(how) => Ok(Some(Done::Abort(how, answer))),
        Command::Cutover(order) if order.dry_run => {
            let told = order::judge(job, &order).await;
            let _ = answer.send(told.map_or_else(|e| Answer::from(&e), |judged| judged.map_or_else(|no| no, |judged| judged.told())));
            Ok(None)
        }
        Command::Pause { .. } | Command::Verify | Command::Cutover(_) => {
            let _ = answer.send(Answer::no("it is not running"));
            Ok(None)
        }
    }
}

/// The table's "no", in words.
fn refused(job: &Job, command: &Command) -> Option<Answer> {
    let verb = match command {
        Command::Pause { .. } => Verb::Pause,
        Command::Resume => Verb::Resume,
        Command::Verify => Verb::Verify,
        // A dry run may be asked for at any time: it tells what is missing.
        Command::Cutover(order) if order.dry_run => return None,
        Command::Cutover(_) => Verb::Cutover,
        Command::Abort(_) => Verb::Abort,
    };
    let (phase, activity) = (job.board.phase(), job.board.activity());
    if permits(&phase, &activity, verb) {
        return None;
    }
    let shut =
        gates(&job.board.facts()).into_iter().filter(|g| !g.open).map(|g| format!("{}: {}", g.name, g.why)).collect::<Vec<_>>().join("; ");
    let why = if verb == Verb::Cutover { format!(": {shut}") } else { String::new() };
    let mut no =
        Answer::no(format!("`{}` is not possible while the migration is {} and {}{why}", verb.label(), phase.label(), activity.label()));
    no.hint = Some("`mongoferry status` tells what is possible now".into());
    Some(no)
}

/// What each step took, in seconds.
fn durations(steps: &[(Step, Duration)]) -> serde_json::Value {
    steps.iter().map(|(step, took)| json!({"step": step.label(), "seconds": took.as_secs_f64()})).collect()
}

fn told_of(report: &verify::Report) -> Answer {
    let told = if report.equal { Answer::done("source and target are equal") } else { Answer::no("source and target differ") };
    told.with(serde_json::to_value(report).unwrap_or_default())
}
