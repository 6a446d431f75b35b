//! What each step of a cutover would do, in words: for `cutover --dry-run`. Pure.

use super::{STEPS, Step};
use crate::model::IndexSpec;
use std::time::Duration;

/// What is known of a cutover before it begins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Within which it completes or is undone.
    pub timeout: Duration,
    /// Nobody writes, by the operator's word or by a block that is there already.
    pub writes_stopped: bool,
    /// Whether users are kept from writing to the target by a block that is ours to lift.
    pub target_fenced: bool,
    /// Whether the way back begins behind it.
    pub then_reverse: bool,
    /// Collections and views.
    pub collections: usize,
    /// Indexes that become unique.
    pub unique: usize,
    /// Indexes that get their TTL.
    pub ttl: usize,
    /// Indexes that the target does without.
    pub waived: usize,
}

impl Plan {
    /// Counts what the seal will have to do with these indexes.
    #[must_use]
    pub fn counting<'a>(self, indexes: impl IntoIterator<Item = &'a IndexSpec>) -> Self {
        indexes.into_iter().fold(self, |plan, spec| Self {
            unique: plan.unique + usize::from(spec.is("unique")),
            ttl: plan.ttl + usize::from(spec.has("expireAfterSeconds")),
            ..plan
        })
    }
}

/// The steps that will be taken, and what each does.
#[must_use]
pub fn rehearse(plan: &Plan) -> Vec<(Step, String)> {
    let taken = STEPS.into_iter().filter(|step| *step != Step::Open || plan.target_fenced);
    taken.map(|step| (step, does(step, plan))).collect()
}

fn does(step: Step, plan: &Plan) -> String {
    match step {
        Step::Begin => format!("saves the attempt; it completes within {:?} or is undone", plan.timeout),
        Step::Fence if plan.writes_stopped => "leaves the source as it is: nobody writes to it".to_owned(),
        Step::Fence => "blocks writes of users on the source".to_owned(),
        Step::Drain => "writes a note into the source's oplog and waits until the tail has passed it".to_owned(),
        Step::Recheck => format!("compares options, indexes and exact counts of {} collections and views", plan.collections),
        Step::Seal => {
            let waived = if plan.waived == 0 { String::new() } else { format!(", leaves {} out as waived", plan.waived) };
            format!("makes {} indexes unique, gives {} their TTL{waived}", plan.unique, plan.ttl)
        }
        Step::Confirm => "drains once more: nothing may have come behind the fence; compares the sealed structure".to_owned(),
        Step::Commit if plan.then_reverse => "saves that it is done; nothing is undone behind it; the way back begins".to_owned(),
        Step::Commit => "saves that it is done; nothing is undone behind it".to_owned(),
        Step::Open => "lets users write to the target".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_rehearsal_says_what_the_seal_would_do_and_opens_only_what_is_shut() {
        let specs = [
            IndexSpec(rawdoc! {"key": {"a": 1}, "name": "a", "unique": true}),
            IndexSpec(rawdoc! {"key": {"b": 1}, "name": "b", "expireAfterSeconds": 5}),
            IndexSpec(rawdoc! {"key": {"c": 1}, "name": "c"}),
        ];
        let plan = Plan { waived: 1, ..Plan::default() }.counting(&specs);
        let told = rehearse(&plan);
        assert_eq!(
            told.iter().find(|(s, _)| *s == Step::Seal).unwrap().1,
            "makes 1 indexes unique, gives 1 their TTL, leaves 1 out as waived"
        );
        assert_eq!(told.last().unwrap().0, Step::Commit);
        assert_eq!(rehearse(&Plan { target_fenced: true, ..plan }).last().unwrap().0, Step::Open);
    }
}
