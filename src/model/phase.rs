//! Where a migration is, and what may happen next. Pure: no I/O, no clock.

use super::ClusterTime;
use serde::{Deserialize, Serialize};

/// How far the data has come. Durable; forward only, save by an explicit restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing has been written but the migration's own record.
    Planned,
    /// Set once the change stream's start is saved; collections are copied while the tail runs.
    Copying {
        /// Operation time of the source before anything was listed or read.
        start_at: ClusterTime,
    },
    /// The copy is complete. The target is not consistent before `copied_at`.
    CatchingUp {
        /// As in `Copying`.
        start_at: ClusterTime,
        /// Newest source time ever read into the target.
        copied_at: ClusterTime,
    },
    /// The target equals the source at the tail's position.
    Tailing,
    /// A cutover is under way; stored before the source is fenced, so that a crash is undone on restart.
    CuttingOver,
    /// Handed over. Nothing is replicated any more.
    Committed {
        /// The last source time that reached the target.
        fence: ClusterTime,
    },
}

/// Whether work is going on in that phase. Apart from `Phase`, so that resuming never has to remember
/// what it was doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "activity", rename_all = "snake_case")]
pub enum Activity {
    /// Copying and tailing as the phase says.
    Running,
    /// By an operator; durable, a restart stays paused.
    Paused {
        /// Who, as told by the control endpoint.
        by: String,
    },
    /// By an error that retrying cannot mend. Not durable: a restart tries again.
    Halted {
        /// What happened.
        reason: String,
        /// What to do.
        remedy: String,
        /// The exit code that goes with it.
        exit_code: u8,
    },
}

/// What the rooms tell the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    /// The change stream is open and its start saved.
    StreamOpened(ClusterTime),
    /// All partitions are durable; the newest time ever read is given.
    CopyFinished(ClusterTime),
    /// The frontier moved here.
    Applied(ClusterTime),
    /// A cutover begins.
    CutoverBegun,
    /// A cutover was undone.
    CutoverUndone,
    /// The target is sealed; the fence is given.
    Sealed(ClusterTime),
}

/// A milestone that makes no sense in a phase.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{milestone:?} cannot happen while {phase}")]
pub struct IllegalStep {
    /// Label of the phase.
    pub phase: &'static str,
    /// What was told.
    pub milestone: Milestone,
}

impl Phase {
    /// For status and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Phase::Planned => "planned",
            Phase::Copying { .. } => "copying",
            Phase::CatchingUp { .. } => "catching_up",
            Phase::Tailing => "tailing",
            Phase::CuttingOver => "cutting_over",
            Phase::Committed { .. } => "committed",
        }
    }

    /// All labels, in order.
    pub const LABELS: [&'static str; 6] = ["planned", "copying", "catching_up", "tailing", "cutting_over", "committed"];

    /// The next phase.
    ///
    /// # Errors
    /// [`IllegalStep`] where the milestone cannot come in this phase: a broken invariant.
    pub fn step(&self, milestone: Milestone) -> Result<Phase, IllegalStep> {
        use {Milestone as M, Phase as P};
        Ok(match (self, milestone) {
            (P::Planned, M::StreamOpened(start_at)) => P::Copying { start_at },
            (P::Copying { start_at }, M::CopyFinished(copied_at)) => P::CatchingUp { start_at: *start_at, copied_at },
            (P::CatchingUp { copied_at, .. }, M::Applied(t)) if t >= *copied_at => P::Tailing,
            (same @ (P::Copying { .. } | P::CatchingUp { .. } | P::Tailing | P::CuttingOver), M::Applied(_)) => same.clone(),
            (P::Tailing, M::CutoverBegun) => P::CuttingOver,
            (P::CuttingOver, M::CutoverUndone) => P::Tailing,
            (P::CuttingOver, M::Sealed(fence)) => P::Committed { fence },
            (phase, milestone) => return Err(IllegalStep { phase: phase.label(), milestone }),
        })
    }
}

impl Activity {
    /// For status and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Activity::Running => "running",
            Activity::Paused { .. } => "paused",
            Activity::Halted { .. } => "halted",
        }
    }
}

/// What an operator may ask of a running migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Stop copying and tailing; keep the place.
    Pause,
    /// Go on after a pause or a halt.
    Resume,
    /// Compare both sides.
    Verify,
    /// Hand over.
    Cutover,
    /// Give up: undo the fence, drop the metadata, end.
    Abort,
}

impl Verb {
    /// All, in the order of the help.
    pub const ALL: [Verb; 5] = [Verb::Pause, Verb::Resume, Verb::Verify, Verb::Cutover, Verb::Abort];

    /// As on the command line.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Verify => "verify",
            Verb::Cutover => "cutover",
            Verb::Abort => "abort",
        }
    }
}

/// The one table of what may be asked when. The gates of a cutover are judged apart, by facts.
#[must_use]
pub fn permits(phase: &Phase, activity: &Activity, verb: Verb) -> bool {
    let running = matches!(activity, Activity::Running);
    match verb {
        Verb::Pause => running && !matches!(phase, Phase::CuttingOver | Phase::Committed { .. }),
        Verb::Resume => !running && !matches!(phase, Phase::Committed { .. }),
        Verb::Verify => running && matches!(phase, Phase::Tailing),
        Verb::Cutover => running && matches!(phase, Phase::Tailing),
        // Also while cutting over: abort always gives the source back.
        Verb::Abort => !matches!(phase, Phase::Committed { .. }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(t: u32) -> ClusterTime {
        ClusterTime { t, i: 1 }
    }

    #[test]
    fn the_happy_road() {
        let road = [
            Milestone::StreamOpened(at(10)),
            Milestone::CopyFinished(at(20)),
            Milestone::Applied(at(15)),
            Milestone::Applied(at(20)),
            Milestone::CutoverBegun,
            Milestone::Applied(at(30)),
            Milestone::Sealed(at(30)),
        ];
        let end = road.into_iter().try_fold(Phase::Planned, |phase, m| phase.step(m)).unwrap();
        assert_eq!(end, Phase::Committed { fence: at(30) });
    }

    #[test]
    fn no_cutover_from_a_half_copied_target() {
        for phase in [Phase::Copying { start_at: at(1) }, Phase::CatchingUp { start_at: at(1), copied_at: at(9) }] {
            assert!(phase.step(Milestone::CutoverBegun).is_err());
            assert!(!permits(&phase, &Activity::Running, Verb::Cutover));
        }
    }

    #[test]
    fn a_cutover_that_fails_leads_back_to_tailing() {
        assert_eq!(Phase::CuttingOver.step(Milestone::CutoverUndone), Ok(Phase::Tailing));
    }

    #[test]
    fn nothing_follows_the_commit() {
        let committed = Phase::Committed { fence: at(5) };
        for verb in Verb::ALL {
            assert!(!permits(&committed, &Activity::Running, verb), "{verb:?}");
        }
    }

    #[test]
    fn the_wire_form_is_pinned() {
        let json = serde_json::to_string(&Phase::Copying { start_at: ClusterTime { t: 7, i: 2 } }).unwrap();
        assert_eq!(json, r#"{"phase":"copying","start_at":{"t":7,"i":2}}"#);
        let json = serde_json::to_string(&Activity::Paused { by: "ops".into() }).unwrap();
        assert_eq!(json, r#"{"activity":"paused","by":"ops"}"#);
    }
}
