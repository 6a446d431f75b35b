//! What operators ask: judged by one table, carried out beside the work.

use super::{job::Job, settings::aside};
use crate::{
    cutover::{Cutover, Facts, Outcome, Step, gates},
    error::{Error, Result},
    model::{Activity, ClusterTime, Milestone, UnfinishedIndex, Verb, permits},
    observe::{Answer, Command, Handover, Request},
    source::Source,
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
    /// Look again, once nothing is at work any more, and say so.
    Paused(oneshot::Sender<Answer>),
    /// Give up, once nothing is at work any more, and say so.
    Abort(oneshot::Sender<Answer>),
}

/// Long requests under way.
pub(super) struct Running {
    tasks: JoinSet<(oneshot::Sender<Answer>, Ended)>,
    stop: CancellationToken,
    /// Fires where a pause does not wait for what was read.
    at_once: CancellationToken,
    step: watch::Sender<Option<Step>>,
}

/// How a long request ended.
pub(super) enum Ended {
    Cutover(Result<Outcome>),
    Verify(Result<verify::Report>),
}

impl Running {
    pub(super) fn new(job: &Job, stop: CancellationToken, at_once: CancellationToken) -> Self {
        let step = watch::Sender::new(job.board.known().step);
        Self { tasks: JoinSet::new(), stop, at_once, step }
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
        if let Some(told) = told_aside(job, &command).await {
            let _ = answer.send(told);
            return None;
        }
        match command {
            Command::Pause { by, immediate } => {
                if let Err(error) = job.become_active(Activity::Paused { by }).await {
                    let _ = answer.send(Answer::from(&error));
                    return Some(Done::Again);
                }
                if immediate {
                    self.at_once.cancel();
                }
                Some(Done::Paused(answer))
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
            Command::Abort => Some(Done::Abort(answer)),
            // Answered aside.
            Command::Start(_) | Command::Set { .. } | Command::Throttle { .. } | Command::Unthrottle => None,
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
        let mut facts = job.board.facts();
        if let Some(no) = waive(&mut facts, &order.waive_indexes) {
            let _ = answer.send(no);
            return;
        }
        let gates = gates(&facts);
        let mut shut: Vec<String> = gates.iter().filter(|g| !g.open).map(|g| format!("{}: {}", g.name, g.why)).collect();
        match job.clusters.source.writes_blocked().await {
            Ok(None) if !order.writes_stopped => {
                shut.push("fence: the source's server cannot block writes; stop all writers, then give `--writes-stopped`".to_owned());
            }
            Ok(_) => {}
            Err(error) => {
                let _ = answer.send(Answer::from(&error));
                return;
            }
        }
        let details = json!({"gates": gates});
        if !shut.is_empty() || order.dry_run {
            let told = if shut.is_empty() {
                Answer::done("every gate is open")
            } else {
                Answer::no(format!("not ready to cut over: {}", shut.join("; ")))
            };
            let _ = answer.send(told.with(details));
            return;
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
            writes_stopped: order.writes_stopped,
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
            Ended::Cutover(outcome) => {
                let (told, done) = self.cut_over(job, outcome).await?;
                job.board.publish();
                let _ = answer.send(told);
                Ok(done)
            }
        }
    }

    async fn cut_over(&self, job: &Job, outcome: Result<Outcome>) -> Result<(Answer, Option<Done>)> {
        let blocked_seconds = |blocked: Option<Duration>| blocked.map(|d| d.as_secs_f64());
        match outcome? {
            Outcome::Committed { fence, blocked } => {
                job.step(Milestone::Sealed(fence)).await?;
                let mut known = job.board.known();
                known.cutover.step = "committed".into();
                known.cutover.fence = Some(fence);
                known.cutover.writes_blocked_seconds = blocked_seconds(blocked);
                let told = match blocked {
                    Some(blocked) => format!(
                        "committed: the target is the primary cluster; writes were blocked for {:.1} s, and stay blocked on the source",
                        blocked.as_secs_f64()
                    ),
                    None => "committed: the target is the primary cluster".to_owned(),
                };
                let details = json!({"fence": fence, "writes_blocked_seconds": blocked_seconds(blocked)});
                Ok((Answer::done(told).with(details), Some(Done::Ended)))
            }
            Outcome::Undone { step, reason, blocked, sealed } => {
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
                Ok((told.with(json!({"step": step.label(), "reason": reason})), sealed.then_some(Done::Again)))
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
    if let Some(told) = told_aside(job, &command).await {
        let _ = answer.send(told);
        return Ok(None);
    }
    match command {
        Command::Resume => {
            job.become_active(Activity::Running).await?;
            let _ = answer.send(Answer::done("running"));
            Ok(Some(Done::Again))
        }
        Command::Abort => Ok(Some(Done::Abort(answer))),
        _ => {
            let _ = answer.send(Answer::no("it is not running"));
            Ok(None)
        }
    }
}

/// An answer that needs no work: a setting changed, or the table's "no".
async fn told_aside(job: &Job, command: &Command) -> Option<Answer> {
    match aside(job, command).await {
        Some(answer) => Some(answer),
        None => refused(job, command),
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
        Command::Abort => Verb::Abort,
        Command::Start(_) | Command::Set { .. } | Command::Throttle { .. } | Command::Unthrottle => return None,
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

/// Takes the waived indexes out of what is judged. A name that is none of them is most likely a slip: it is told.
fn waive(facts: &mut Facts, waived: &[String]) -> Option<Answer> {
    let unfinished: Vec<String> = facts.unfinished.iter().map(UnfinishedIndex::title).collect();
    if let Some(unknown) = waived.iter().find(|name| !unfinished.contains(*name)) {
        let mut no = Answer::no(format!("`{unknown}` is no unfinished index, so there is nothing to waive"));
        no.hint = Some(match unfinished.as_slice() {
            [] => "all indexes are built: leave `--waive-index` out".to_owned(),
            some => format!("these are unfinished: {}", some.join(", ")),
        });
        return Some(no);
    }
    facts.unfinished.retain(|index| !waived.contains(&index.title()));
    None
}

/// Gives the migration up: the source is writable, the metadata is gone; the target's namespaces stay.
pub(super) async fn abort(job: &Job, answer: oneshot::Sender<Answer>) {
    let given_up = async {
        if job.store.load().await?.is_some_and(|record| record.fenced) {
            job.clusters.source.allow_writes().await?;
        }
        job.store.wipe().await
    };
    let told = match given_up.await {
        Ok(()) => Answer::done("aborted: the source is writable and the metadata is gone; what was copied stays on the target"),
        Err(error) => Answer::from(&error),
    };
    let _ = answer.send(told);
}

fn told_of(report: &verify::Report) -> Answer {
    let told = if report.equal { Answer::done("source and target are equal") } else { Answer::no("source and target differ") };
    told.with(serde_json::to_value(report).unwrap_or_default())
}
