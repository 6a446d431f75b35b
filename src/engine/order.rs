//! Whether a cutover may begin: every gate at once, those included that only the order and the clusters decide, and what it
//! would do. Shared by the rehearsal and the real thing, so that one cannot promise what the other refuses.

use super::{job::Job, privileges, reverse};
use crate::{
    cutover::{Facts, Plan, gates, rehearse},
    error::Result,
    model::{Gate, UnfinishedIndex, index_title},
    observe::{Answer, Handover},
    source::Source,
};
use serde_json::{Value, json};
use std::time::Duration;

/// An order with everything that speaks for and against it.
#[derive(Debug)]
pub(super) struct Judged {
    gates: Vec<Gate>,
    pub plan: Plan,
}

/// Judges an order. The inner error is a "no" to an order that makes no sense.
///
/// # Errors
/// As classified, where a cluster could not be asked.
pub(super) async fn judge(job: &Job, order: &Handover) -> Result<Result<Judged, Answer>> {
    let mut facts = job.board.facts();
    facts.accepts_unproved = order.accept_unproved_documents;
    if let Some(no) = waive(&mut facts, &order.waive_indexes) {
        return Ok(Err(no));
    }
    let mut gates = gates(&facts);
    let (fence, writes_stopped) = fence(job, order).await?;
    gates.push(fence);
    if order.then_reverse {
        gates.push(match reverse::hindrance(&job.config).await? {
            None => gate("reverse", true, "the old source can follow the new primary".to_owned()),
            Some(error) => {
                let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                gate("reverse", false, format!("{}{hint}", error.story()))
            }
        });
    }
    let living = job.board.catalog.living();
    let plan = Plan {
        timeout: Duration::from_secs(order.timeout_seconds),
        writes_stopped,
        target_fenced: job.target_fenced(),
        then_reverse: order.then_reverse,
        collections: living.len(),
        waived: order.waive_indexes.len(),
        ..Plan::default()
    };
    let plan = living.iter().fold(plan, |plan, collection| {
        let entry = collection.entry();
        let kept = entry.indexes.values().filter(|s| !order.waive_indexes.contains(&index_title(entry.ns.as_str(), s.name())));
        plan.counting(kept)
    });
    Ok(Ok(Judged { gates, plan }))
}

impl Judged {
    /// The gates that are shut, each with its reason.
    pub(super) fn shut(&self) -> Vec<String> {
        self.gates.iter().filter(|g| !g.open).map(|g| format!("{}: {}", g.name, g.why)).collect()
    }

    /// The answer to whoever only wants to know, or has to be told why not.
    pub(super) fn told(&self) -> Answer {
        let steps: Vec<Value> = rehearse(&self.plan).into_iter().map(|(step, does)| json!({"step": step.label(), "does": does})).collect();
        let told = match self.shut().as_slice() {
            [] => Answer::done("every gate is open"),
            shut => Answer::no(format!("not ready to cut over: {}", shut.join("; "))),
        };
        told.with(json!({"gates": self.gates, "steps": steps}))
    }
}

fn gate(name: &str, open: bool, why: String) -> Gate {
    Gate { name: name.to_owned(), open, why }
}

/// Whether the source can be fenced, and whether that has been done without us: then it is left as it is, also by an undoing.
async fn fence(job: &Job, order: &Handover) -> Result<(Gate, bool)> {
    let gate = |open, why: &str| gate("fence", open, why.to_owned());
    if order.writes_stopped {
        return Ok((gate(true, "by your word nobody writes to the source"), true));
    }
    Ok(match job.clusters.source.writes_blocked().await? {
        None => (gate(false, "the source's server cannot block writes; stop all writers, then give `--writes-stopped`"), false),
        Some(true) => (gate(true, "writes of users are blocked on the source already, and stay so"), true),
        Some(false) => match privileges::missing_for_fence(job.clusters.source.cluster()).await? {
            None => (gate(true, "writes of users will be blocked on the source"), false),
            Some((_, grant)) => {
                let why = format!(
                    "the user of the source may not block writes; grant it in mongosh: {grant}; or stop all writers, then give `--writes-stopped`"
                );
                (gate(false, &why), false)
            }
        },
    })
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
