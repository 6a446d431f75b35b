//! The saga: steps forward within a deadline; when one fails, everything is undone and the tail goes on.
//!
//! The source is what must not wait: it is given back first, whatever the target does. A target that may be
//! sealed is [taken back](super::take_back) afterwards, before the tail goes on; a restart after a crash goes the same way.
//! Each step is saved before it is taken.

use super::{
    DONE, STEPS, Step,
    undo::{Settled, note_undone, settle},
};
use crate::{
    accounts::Accounts,
    catalog::Catalog,
    checkpoint::{Handover, Store},
    error::{Error, Result},
    indexes::seal,
    model::{Activity, ClusterTime, Phase, Selection},
    observe::Metrics,
    source::Source,
    tail::Progress,
    target::Target,
    verify::{self, Counted, Proof, Prover, Reach},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Everything a cutover needs.
#[derive(Debug)]
pub struct Cutover<S, T, C> {
    /// Fenced and asked.
    pub source: S,
    /// Sealed.
    pub target: T,
    /// The target, to be read.
    pub reader: S,
    /// Where the saga is noted.
    pub store: C,
    /// What is replicated, by UUID.
    pub catalog: Catalog,
    /// What is replicated, by name.
    pub selection: Selection,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How far the tail is.
    pub progress: watch::Receiver<Progress>,
    /// The operator's word that nobody writes: the source is not fenced by us.
    pub writes_stopped: bool,
    /// Whether users are kept from writing to the target by a block that is ours to lift.
    pub target_fenced: bool,
    /// Whether the way back begins behind the commit; saved with it.
    pub then_reverse: bool,
    /// Indexes that the target may do without: see [`crate::model::index_title`].
    pub waived: Arc<[String]>,
    /// Told of each step as it begins.
    pub step: watch::Sender<Option<Step>>,
    /// How both sides are compared.
    pub compare: verify::Settings,
    /// Users and roles, where they are replicated.
    pub accounts: Option<Accounts>,
    /// What was proved so far; nothing where verification is off.
    pub prover: Option<Arc<Prover<S, S, C>>>,
    /// The operator's word that what is not proved equal may be handed over.
    pub accepts_unproved: bool,
    /// Fires when the tail ends: there is nothing to wait for then.
    pub stop: CancellationToken,
}

/// How a cutover ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Handed over.
    Committed {
        /// The last source time that reached the target.
        fence: ClusterTime,
        /// For how long writes were blocked by us until the target could be written to; on the source they stay blocked.
        blocked: Option<Duration>,
        /// What was proved equal, and what that took behind the fence.
        proof: Proof,
        /// How long each step took.
        steps: Vec<(Step, Duration)>,
        /// Why the target is not open to users yet, where that failed.
        shut: Option<String>,
    },
    /// Nothing has changed: the source is writable, the tail goes on.
    Undone {
        /// The step that failed.
        step: Step,
        /// Why, for people.
        reason: String,
        /// For how long writes were blocked by us.
        blocked: Option<Duration>,
        /// How long each step took, the failed one included.
        steps: Vec<(Step, Duration)>,
        /// Whether the target may be sealed: nothing may be applied to it before [`super::take_back`].
        sealed: bool,
    },
}

/// What a saga gathers on its way.
#[derive(Debug)]
struct Run {
    deadline: Instant,
    fence: ClusterTime,
    fenced_at: Option<Instant>,
    /// Events read when the tail had passed the fence.
    events: u64,
    proof: Proof,
    steps: Vec<(Step, Duration)>,
    /// Of the target: see [`Handover::at`].
    handed_over_at: ClusterTime,
}

impl Run {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Time that the steps behind the first are left, whatever there is to look at before the fence.
const FOR_THE_REST: Duration = Duration::from_secs(20);

/// A step's own "no", apart from errors.
type Verdict = std::result::Result<(), String>;

impl<S: Source, T: Target, C: Store> Cutover<S, T, C> {
    /// Runs to its end within `timeout`, one way or the other. Gates are judged before, by the caller.
    ///
    /// # Errors
    /// Where the undoing failed, or where it is not known whether the commit was saved: the source may still be
    /// fenced. [`settle`] asks the record whether to complete or to undo; `abort` lifts the fence.
    ///
    /// # Cancel safety
    /// Not to be dropped half way.
    pub async fn run(mut self, timeout: Duration) -> Result<Outcome> {
        let deadline = Instant::now() + timeout;
        let mut run = Run {
            deadline,
            fence: ClusterTime::default(),
            fenced_at: None,
            events: 0,
            proof: Proof::default(),
            steps: Vec::new(),
            handed_over_at: ClusterTime::default(),
        };
        let mut shut = None;
        let target_fenced = self.target_fenced;
        for step in STEPS.into_iter().filter(|step| *step != Step::Open || target_fenced) {
            self.step.send_replace(Some(step));
            tracing::info!(step = step.label(), "cutover");
            let began = Instant::now();
            let verdict = match self.take(step, &mut run).await {
                // Neither done nor not done: only the record knows.
                Err(error) if step == Step::Commit => match settle(&self.source, &self.store).await? {
                    Settled::Committed(_) => Ok(()),
                    Settled::Undone => Err(error.story()),
                },
                Err(error) => Err(error.story()),
                Ok(verdict) => verdict,
            };
            run.steps.push((step, began.elapsed()));
            let late = step < Step::Commit && Instant::now() > deadline;
            let verdict = if late { verdict.and_then(|()| Err(format!("the time of {timeout:?} is up"))) } else { verdict };
            match verdict {
                Ok(()) => {}
                Err(reason) if step > Step::Commit => shut = Some(reason),
                Err(reason) => return self.undo(step, reason, run).await,
            }
        }
        if shut.is_none() {
            // Only saves the next start a look: it does the last step once more otherwise.
            let _ = self.store.save_step(DONE).await;
        }
        Ok(Outcome::Committed { fence: run.fence, blocked: run.fenced_at.map(|at| at.elapsed()), proof: run.proof, steps: run.steps, shut })
    }

    /// The source first. A target that may be sealed is left for [`super::take_back`].
    async fn undo(&self, step: Step, reason: String, run: Run) -> Result<Outcome> {
        tracing::warn!(step = step.label(), reason, "undoing the cutover");
        if !self.writes_stopped && step >= Step::Fence {
            self.source.allow_writes().await?;
        }
        let blocked = run.fenced_at.map(|at| at.elapsed());
        let sealed = step >= Step::Seal;
        if !sealed {
            note_undone(&self.store).await?;
        }
        Ok(Outcome::Undone { step, reason, blocked, steps: run.steps, sealed })
    }

    async fn take(&mut self, step: Step, run: &mut Run) -> Result<Verdict> {
        let saving = self.store.save_step(step.label());
        if step > Step::Commit {
            saving.await?;
        } else {
            // A target that falls silent must not keep the source. That it saves the step late does no harm.
            match tokio::time::timeout_at(run.deadline, saving).await {
                Ok(saved) => saved?,
                Err(_) => return Ok(Err("time is up".to_owned())),
            }
        }
        self.within_time(step, run).await
    }

    /// A step that only asks is left when time is up: what it asks may hang. The others limit themselves, for
    /// what they have begun must not come into force behind the undoing.
    async fn within_time(&mut self, step: Step, run: &mut Run) -> Result<Verdict> {
        match step {
            Step::Recheck | Step::Confirm => match tokio::time::timeout_at(run.deadline, self.forward(step, run)).await {
                Ok(verdict) => verdict,
                Err(_) => Ok(Err("time is up".to_owned())),
            },
            Step::Begin | Step::Fence | Step::Drain | Step::Seal | Step::Commit | Step::Open => self.forward(step, run).await,
        }
    }

    async fn forward(&mut self, step: Step, run: &mut Run) -> Result<Verdict> {
        match step {
            Step::Begin => {
                self.store.save_phase(&Phase::CuttingOver, &Activity::Running).await?;
                // What happened to structure since the gates were judged may have left documents to be copied.
                let (_, caught_up) = self.drain("ahead of the fence", run.deadline).await?;
                if caught_up.is_err() {
                    return Ok(caught_up);
                }
                if let Some(new) = self.catalog.living().iter().find(|c| c.entry().state.is_incomplete()) {
                    return Ok(Err(format!("`{}` came up meanwhile, and is being copied", new.entry().ns)));
                }
                // Whatever is looked at before the fence keeps no writer waiting.
                if let (Some(prover), true) = (&self.prover, run.left() > FOR_THE_REST) {
                    let applied = self.progress.borrow().applied;
                    let reached = |time| self.reached(time);
                    let ahead = prover.prove(&reached, applied, Reach::Ahead, &self.stop);
                    if let Ok(proof) = tokio::time::timeout(run.left() - FOR_THE_REST, ahead).await {
                        let looked_at = proof?.documents_looked_at;
                        tracing::info!(documents = looked_at, "looked at what was touched, before the fence");
                    }
                }
            }
            Step::Fence if self.writes_stopped => {}
            Step::Fence => {
                // Noted first: a crash between the two only lifts a fence that is not there.
                self.store.save_fenced(true).await?;
                run.fenced_at = Some(Instant::now());
                self.source.block_writes(run.left()).await?;
            }
            Step::Drain => {
                let (fence, verdict) = self.drain("cutover", run.deadline).await?;
                run.fence = fence;
                run.events = self.metrics.events_read_total();
                return Ok(verdict);
            }
            Step::Recheck => {
                if let Some(accounts) = &self.accounts {
                    accounts.take_over().await?;
                }
                return self.recheck(run).await;
            }
            Step::Seal => drop(seal(&self.source, &self.target.within(run.left()), &self.catalog, &self.waived).await?),
            Step::Confirm => {
                let (fence, verdict) = self.drain("cutover", run.deadline).await?;
                run.fence = fence;
                let behind = self.metrics.events_read_total() - run.events;
                if verdict.is_ok() && behind > 0 {
                    return Ok(Err(format!("{behind} changes came from the source behind the fence: somebody still writes to it")));
                }
                run.handed_over_at = self.target_time().await?;
                // The target's TTLs are at work by now: documents were counted before.
                return if verdict.is_ok() { self.compare(false, Counted::None).await } else { Ok(verdict) };
            }
            Step::Commit => {
                let handover = Handover { at: run.handed_over_at, then_reverse: self.then_reverse, waived: self.waived.to_vec() };
                self.store.save_commit(step.label(), &Phase::Committed { fence: run.fence }, handover).await?;
            }
            Step::Open => self.reader.allow_writes().await?,
        }
        Ok(Ok(()))
    }

    /// A time of the target behind everything that we have written to it, and before anything that somebody writes who was
    /// told of the commit. The note makes the clocks of all its shards move past that time; a replica set needs none.
    async fn target_time(&self) -> Result<ClusterTime> {
        let at = self.reader.operation_time().await?;
        match self.reader.note("handover").await {
            Ok(_) | Err(Error::Forbidden { .. }) => Ok(at),
            Err(error) => Err(error),
        }
    }

    /// A challenge: a note in the source's oplog, and the tail must pass it. Whatever was read from the source before is
    /// older than the note, so the target is consistent then: see [`super::gates`].
    async fn drain(&mut self, what: &str, deadline: Instant) -> Result<(ClusterTime, Verdict)> {
        let challenge = format!("{what} {:016x}", rand::random::<u64>());
        let fence = match self.source.note(&challenge).await {
            // Without the privilege the server's own note comes within ten seconds. A time behind that of the last operation:
            // events of one transaction share theirs, so to have reached it is not to have passed it.
            Err(Error::Forbidden { .. }) => {
                let last = self.source.operation_time().await?;
                ClusterTime { i: last.i + 1, ..last }
            }
            other => other?,
        };
        let mut progress = self.progress.clone();
        let passed = progress.wait_for(|p| p.applied >= fence);
        match tokio::time::timeout_at(deadline, self.stop.run_until_cancelled(passed)).await {
            Ok(Some(Ok(_))) => Ok((fence, Ok(()))),
            Ok(Some(Err(_)) | None) => Ok((fence, Err("the tail ended".to_owned()))),
            Err(_) => Ok((fence, Err(format!("the tail did not reach {fence} in time; it is at {}", self.progress.borrow().applied)))),
        }
    }

    /// Waits until the tail has brought what the source had at a time.
    async fn reached(&self, time: ClusterTime) -> Result<()> {
        let mut progress = self.progress.clone();
        let passed = self.stop.run_until_cancelled(progress.wait_for(|p| p.applied >= time)).await;
        passed.and_then(std::result::Result::ok).map(drop).ok_or(Error::Interrupted)
    }

    /// Both sides stand still: completes the proof of the documents, and compares everything else.
    async fn recheck(&self, run: &mut Run) -> Result<Verdict> {
        match &self.prover {
            None => run.proof.missing = Some("verification is off: documents were counted, not compared".to_owned()),
            Some(prover) => {
                // The target has everything that was written before the fence; who writes behind it is found to differ.
                let caught_up = |_| std::future::ready(Ok(()));
                let reach = if self.accepts_unproved { Reach::WithoutUnproved } else { Reach::Whole };
                run.proof = prover.prove(&caught_up, run.fence, reach, &self.stop).await?;
                tracing::info!(
                    complete = run.proof.complete,
                    documents = run.proof.documents,
                    looked_at = run.proof.documents_looked_at,
                    seconds = run.proof.seconds,
                    "proof of the documents"
                );
                if let (Some(missing), false) = (&run.proof.missing, self.accepts_unproved && !run.proof.differs) {
                    return Ok(Err(format!("the documents are not proved equal: {missing}")));
                }
            }
        }
        let counted = if run.proof.complete { Counted::OfFew } else { Counted::All };
        self.compare(true, counted).await
    }

    /// Without the documents, save that of some they are counted.
    async fn compare(&self, parked: bool, counted: Counted) -> Result<Verdict> {
        let report = verify::structure_only(
            &self.source,
            &self.reader,
            &self.selection,
            &verify::Settings { parked, counted, live: true, waived: self.waived.clone(), ..self.compare.clone() },
            &self.stop,
        )
        .await?;
        let unequal = match &self.accounts {
            Some(accounts) => accounts.unequal().await?,
            None => Vec::new(),
        };
        let report = report.with_accounts(&unequal);
        if report.equal {
            return Ok(Ok(()));
        }
        let first = report.differences.first().map(|d| format!("`{}`: {} {}", d.ns, d.kind.label(), d.detail)).unwrap_or_default();
        Ok(Err(format!("source and target differ in {} places, the first is {first}", report.differences.len())))
    }
}
