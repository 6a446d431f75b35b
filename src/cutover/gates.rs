//! From facts to a verdict: which conditions of a cutover hold. Pure; all of them are told at once.

use crate::model::{ClusterTime, Gate, Namespace, Phase, UnfinishedIndex, VerificationStatus};

/// Lag beyond which draining would keep writers waiting.
const MAX_LAG_SECONDS: f64 = 10.0;
/// Headroom below which the source's oplog might overtake us while we cut over.
const MIN_HEADROOM_SECONDS: f64 = 60.0;

/// What the gates are judged by.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// How far the data has come.
    pub phase: Option<Phase>,
    /// Whether work is going on.
    pub running: bool,
    /// Seconds; `None` where it is not known.
    pub lag_seconds: Option<f64>,
    /// Seconds; `None` where it is not known.
    pub headroom_seconds: Option<f64>,
    /// What the tail has brought to the target.
    pub applied: ClusterTime,
    /// The newest time the target may show, but for documents that the tail has read again.
    pub newest_read: ClusterTime,
    /// The newest time the target may show.
    pub newest_shown: ClusterTime,
    /// Collections whose documents are still being copied.
    pub copying: Vec<Namespace>,
    /// Wanted, but not built.
    pub unfinished: Vec<UnfinishedIndex>,
    /// Differences that the last verification left, if there was one.
    pub differences: Option<u64>,
    /// What the continuous verification has proved.
    pub verification: VerificationStatus,
    /// The operator's word that documents which are not proved equal may be handed over.
    pub accepts_unproved: bool,
}

/// The gates, by the names that metrics know.
#[must_use]
pub fn gates(facts: &Facts) -> Vec<Gate> {
    let seconds = |s: Option<f64>| s.map_or("not known".to_owned(), |s| format!("{s:.0} s"));
    let phase = facts.phase.as_ref().map_or("not started", Phase::label);
    let tailing = facts.running && matches!(facts.phase, Some(Phase::Tailing));
    vec![
        gate(
            "tailing",
            tailing,
            if facts.running { format!("the migration is {phase}") } else { format!("the migration is {phase}, and not running") },
        ),
        gate(
            "lag",
            facts.lag_seconds.is_some_and(|s| s <= MAX_LAG_SECONDS),
            format!("lag is {}; at most {MAX_LAG_SECONDS} s", seconds(facts.lag_seconds)),
        ),
        consistent(facts),
        gate(
            "copied",
            facts.copying.is_empty(),
            facts.copying.first().map_or("all collections are copied".to_owned(), |ns| format!("`{ns}` is still being copied")),
        ),
        gate("indexes", facts.unfinished.is_empty(), indexes(&facts.unfinished)),
        // Where the oplog's ends cannot be asked for, this cannot be judged, and is no reason to stay.
        gate(
            "headroom",
            facts.headroom_seconds.is_none_or(|s| s >= MIN_HEADROOM_SECONDS),
            format!("headroom is {}; at least {MIN_HEADROOM_SECONDS} s", seconds(facts.headroom_seconds)),
        ),
        parity(facts),
    ]
}

/// Whether the drain of a cutover will find, or soon make, the target consistent.
///
/// Documents that the tail reads again show the source as it is then, which is a moment ahead of the stream. From a
/// source that tells no diffs every update does, so under load the target is never consistent as of the tail's position.
/// It need not be before the fence. The drain waits for an event that the source wrote behind the fence, and so behind
/// every read before it; what is read again during the drain shows a source that stands still; and whoever still writes
/// is found by the last step before the commit. So only as much must be missing as a lag of which the gate allows.
fn consistent(facts: &Facts) -> Gate {
    let Facts { applied, newest_read, newest_shown, .. } = facts;
    let open = applied >= newest_read && f64::from(newest_shown.seconds_since(*applied)) <= MAX_LAG_SECONDS;
    let why = if applied >= newest_shown {
        "the target equals the source as of the tail's position".to_owned()
    } else if open {
        format!("single documents are as of {newest_shown}; the tail, at {applied}, will have passed it behind the fence")
    } else {
        format!("the target shows parts of the source as of {}; the tail is at {applied}", newest_read.max(newest_shown))
    };
    gate("consistent", open, why)
}

fn gate(name: &str, open: bool, why: String) -> Gate {
    Gate { name: name.to_owned(), open, why }
}

/// Differences shut it, whoever found them; what is not compared shuts it where it is to be.
fn parity(facts: &Facts) -> Gate {
    let v = &facts.verification;
    let (collections, differences) = (v.verified + v.stale + v.pending + v.different, v.differences.max(facts.differences.unwrap_or(0)));
    let (open, why) = match (v.state.as_str(), facts.differences) {
        _ if differences > 0 => {
            (false, format!("{differences} differences; `mongoferry status` lists them, `mongoferry verify --repair` mends them"))
        }
        ("off" | "", None) => (true, "not verified since the start; `mongoferry verify` does it".to_owned()),
        ("off" | "", Some(_)) => (true, "no differences in the last verification".to_owned()),
        ("failed", _) => (false, format!("verification fails: {}", v.failure.as_deref().unwrap_or("for no known reason"))),
        ("pending", _) => (false, format!("{} of {collections} collections are not yet compared", v.pending)),
        (_, _) => (true, format!("{} documents are proved equal; what is touched since is compared at the cutover", v.documents)),
    };
    match (open, differences) {
        (false, 0) if facts.accepts_unproved => gate("parity", true, format!("{why}; accepted by `--accept-unproved-documents`")),
        (false, 0) => gate("parity", false, format!("{why}; `--accept-unproved-documents` hands over without the proof")),
        (open, _) => gate("parity", open, why),
    }
}

fn indexes(unfinished: &[UnfinishedIndex]) -> String {
    let Some(first) = unfinished.first() else { return "all indexes are built".to_owned() };
    let which = format!("`{}` of `{}` is {}", first.name, first.ns, first.state);
    if unfinished.len() == 1 { which } else { format!("{which}, and {} more are not finished", unfinished.len() - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Facts {
        Facts { phase: Some(Phase::Tailing), running: true, lag_seconds: Some(0.5), headroom_seconds: Some(9000.0), ..Facts::default() }
    }
    fn proved(state: &str) -> VerificationStatus {
        VerificationStatus { state: state.into(), ..VerificationStatus::default() }
    }
    fn shut(facts: &Facts) -> Vec<String> {
        gates(facts).into_iter().filter(|g| !g.open).map(|g| g.name).collect()
    }

    #[test]
    fn ready_when_everything_holds() {
        assert!(shut(&ready()).is_empty());
        assert!(shut(&Facts { verification: proved("stale"), ..ready() }).is_empty(), "the cutover compares what is left");
        assert!(shut(&Facts { verification: proved("pending"), accepts_unproved: true, ..ready() }).is_empty());
    }

    #[test]
    fn each_gate_has_its_own_reason() {
        let index = UnfinishedIndex { ns: "a.b".into(), name: "x".into(), state: "failed".into(), error: None, progress: None };
        for (name, facts) in [
            ("tailing", Facts { phase: Some(Phase::Copying { start_at: ClusterTime::default() }), ..ready() }),
            ("tailing", Facts { running: false, ..ready() }),
            ("lag", Facts { lag_seconds: Some(11.0), ..ready() }),
            ("lag", Facts { lag_seconds: None, ..ready() }),
            ("consistent", Facts { newest_read: ClusterTime { t: 9, i: 1 }, newest_shown: ClusterTime { t: 9, i: 1 }, ..ready() }),
            ("consistent", Facts { newest_shown: ClusterTime { t: 11, i: 1 }, ..ready() }),
            ("copied", Facts { copying: vec![Namespace::new("a", "b")], ..ready() }),
            ("indexes", Facts { unfinished: vec![index], ..ready() }),
            ("headroom", Facts { headroom_seconds: Some(30.0), ..ready() }),
            ("parity", Facts { differences: Some(1), ..ready() }),
            ("parity", Facts { verification: proved("pending"), ..ready() }),
            ("parity", Facts { verification: proved("failed"), ..ready() }),
            (
                "parity",
                Facts { verification: VerificationStatus { differences: 1, ..proved("different") }, accepts_unproved: true, ..ready() },
            ),
        ] {
            assert_eq!(shut(&facts), [name], "{facts:?}");
        }
    }

    #[test]
    fn documents_read_again_may_be_as_far_ahead_as_a_lag() {
        assert!(shut(&Facts { newest_shown: ClusterTime { t: 10, i: 9 }, ..ready() }).is_empty());
    }

    #[test]
    fn the_names_are_those_that_metrics_know() {
        let names: Vec<_> = gates(&ready()).into_iter().map(|g| g.name).collect();
        assert_eq!(names, crate::observe::GATES);
    }
}
