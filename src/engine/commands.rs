//! What operators ask: judged by one table, carried out beside the work.

use super::{
    examine::{Verification, Verified},
    job::Job,
    order,
    settings::aside,
};
use crate::{
    cutover::{Cutover, Outcome, Step, gates},
    error::Result,
    model::{Activity, Milestone, Verb, permits},
    observe::{Answer, Command, Examination, GiveUp, Handover, Request},
    tasks::panicked,
    verify::{self, Pace},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
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
    Abort(GiveUp, oneshot::Sender<Answer>),
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
    Verify(Result<Verified>),
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
            Command::Verify(examination) => {
                self.verify(job, examination, answer);
                None
            }
            Command::Cutover(order) => {
                self.cutover(job, order, answer).await;
                None
            }
            Command::Abort(how) => Some(Done::Abort(how, answer)),
            // Answered aside.
            Command::Start(_) | Command::Reverse | Command::Set { .. } | Command::Throttle { .. } | Command::Unthrottle => None,
        }
    }

    fn verify(&mut self, job: &Job, examination: Examination, answer: oneshot::Sender<Answer>) {
        let accounts = job.accounts(&self.stop);
        let (clusters, selection, board, stop) = (job.clusters.clone(), job.config.selection.clone(), job.board.clone(), self.stop.clone());
        let pace = Pace::new(job.config.verify.rate);
        let sharded_by = Arc::new(job.config.shard.clone());
        self.tasks.spawn(async move {
            let verification = Verification {
                clusters: &clusters,
                selection: &selection,
                board: &board,
                accounts: accounts.as_ref(),
                pace,
                sharded_by,
                stop: &stop,
            };
            let found = verification.run(examination).await;
            (answer, Ended::Verify(found))
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
        let shard_keys = match job.clusters.target.shard_keys().await {
            Ok(keys) => keys,
            Err(error) => {
                let _ = answer.send(Answer::from(&error));
                return;
            }
        };
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
            compare: verify::Settings { shard_keys, ..verify::Settings::new(job.clusters.retry()) },
            accounts: job.accounts(&self.stop),
            prover: job.board.known().prover.clone().filter(|_| job.board.is_verified()),
            accepts_unproved: order.accept_unproved_documents,
            stop: self.stop.clone(),
        };
        let timeout = Duration::from_secs(order.timeout_seconds);
        self.tasks.spawn(async move { (answer, Ended::Cutover(saga.run(timeout).await)) });
    }

    /// What the end of a long request means for the job.
    pub(super) async fn conclude(&mut self, job: &Job, (answer, ended): (oneshot::Sender<Answer>, Ended)) -> Result<Option<Done>> {
        match ended {
            Ended::Verify(verified) => {
                let told = match verified {
                    Ok(verified) => {
                        job.board.known().differences = Some(verified.differences());
                        job.board.publish();
                        verified.answer()
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
            Outcome::Committed { fence, blocked, proof, steps, shut } => {
                job.step(Milestone::Sealed(fence)).await?;
                let mut known = job.board.known();
                known.cutover.step = "committed".into();
                known.cutover.fence = Some(fence);
                known.cutover.writes_blocked_seconds = blocked_seconds(blocked);
                known.cutover.proof = Some(proof_in_words(&proof));
                let mut told = match blocked {
                    Some(blocked) => format!(
                        "committed: the target is the primary cluster; writes were blocked for {:.1} s, and stay blocked on the source",
                        blocked.as_secs_f64()
                    ),
                    None => "committed: the target is the primary cluster".to_owned(),
                };
                told.push_str(&format!("; {}", proof_in_words(&proof)));
                if let Some(why) = shut {
                    told.push_str(&format!("; it is not yet open to users ({why}): start the same command again, which opens it"));
                }
                let details = json!({
                    "fence": fence,
                    "writes_blocked_seconds": blocked_seconds(blocked),
                    "proof": proof,
                    "steps": durations(&steps),
                });
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
        Command::Abort(how) => Ok(Some(Done::Abort(how, answer))),
        Command::Cutover(order) if order.dry_run => {
            let told = order::judge(job, &order).await;
            let _ = answer.send(told.map_or_else(|e| Answer::from(&e), |judged| judged.map_or_else(|no| no, |judged| judged.told())));
            Ok(None)
        }
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
        Command::Verify(_) => Verb::Verify,
        // A dry run may be asked for at any time: it tells what is missing.
        Command::Cutover(order) if order.dry_run => return None,
        Command::Cutover(_) => Verb::Cutover,
        Command::Abort(_) => Verb::Abort,
        Command::Start(_) | Command::Reverse | Command::Set { .. } | Command::Throttle { .. } | Command::Unthrottle => return None,
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

fn proof_in_words(proof: &verify::Proof) -> String {
    let looked = format!(
        "{} documents and {} partitions were left to compare, in {:.1} s",
        proof.documents_looked_at, proof.partitions_compared, proof.seconds
    );
    match &proof.missing {
        None => format!("{} documents are proved equal ({looked})", proof.documents),
        Some(missing) => format!("NOT all documents are proved equal: {missing}"),
    }
}
