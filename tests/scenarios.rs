//! What must survive a migration, one folder each in `tests/scenarios`: `README.md` there tells how one is written.
//!
//! Each is played in up to three placements: its steps before the start, while copying, while tailing. All scenarios
//! of a placement share one pair of servers and one `run`, each in databases of its own; what is known not to work
//! yet, and what is to halt, is played alone. At the end the test bed's own reader compares both sides.

mod clusters;
pub mod notation;
pub mod scenario;
mod stage;

use notation::CANARY;
use scenario::{Placement, Scenario};

#[test]
fn every_scenario_can_be_read() {
    let all = Scenario::all();
    assert!(!all.is_empty());
    for scenario in &all {
        assert!(!scenario.steps.is_empty() && !scenario.shows.is_empty(), "{} shows nothing", scenario.name);
    }
}

mod real {
    use super::{
        CANARY, Placement, Scenario,
        clusters::Clusters,
        stage::{Failures, Sides, Stage, compare},
    };
    use crate::support::{DEADLINE, Pair};
    use futures_util::FutureExt;
    use std::{panic::AssertUnwindSafe, time::Duration};
    use testbed::Options;
    use tokio::time::timeout;

    /// How long a scenario that is not expected to pass may take.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// Differences told of one scenario.
    const TOLD: usize = 12;

    /// Whether one was asked for by name.
    fn chosen(scenario: &Scenario) -> bool {
        let asked = std::env::var("MONGOFERRY_TEST_SCENARIO").unwrap_or_default();
        asked.is_empty() || asked.split(',').any(|name| name == scenario.name)
    }

    fn scenarios(placement: Placement, wanted: impl Fn(&Scenario) -> bool) -> Vec<Scenario> {
        Scenario::all().into_iter().filter(|s| s.plays(placement) && chosen(s) && wanted(s)).collect()
    }

    /// Those that share servers.
    fn together(placement: Placement) -> Vec<Scenario> {
        scenarios(placement, |s| s.halt.is_none() && !s.pending.contains_key(&placement))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everything_arrives_that_was_there_before() {
        assert_all_pass(Placement::Copy).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everything_arrives_that_happens_while_copying() {
        assert_all_pass(Placement::During).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everything_arrives_that_happens_while_tailing() {
        assert_all_pass(Placement::Tail).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everything_arrives_that_happens_on_clusters_while_tailing() {
        assert_all_pass_on_clusters(Placement::Tail).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everything_arrives_that_was_there_on_clusters_before() {
        assert_all_pass_on_clusters(Placement::Copy).await;
    }

    /// What is pending is told, and a scenario that passes though it is pending fails the test: switch it on.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_pending_does_not_pass_yet() {
        let mut passing = Vec::new();
        for placement in [Placement::Copy, Placement::During, Placement::Tail] {
            for scenario in scenarios(placement, |s| s.pending.contains_key(&placement)) {
                eprintln!("PENDING: {} ({placement:?}): {}", scenario.name, scenario.pending[&placement]);
                let played = AssertUnwindSafe(timeout(PATIENCE, play(placement, std::slice::from_ref(&scenario)))).catch_unwind().await;
                if matches!(&played, Ok(Ok(failures)) if failures.is_empty()) {
                    passing.push(format!("{} ({placement:?})", scenario.name));
                }
            }
        }
        assert!(passing.is_empty(), "pending, and passing: take `pending` out of {}", passing.join(", "));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_replicated_halts_with_a_reason() {
        for placement in [Placement::Copy, Placement::During, Placement::Tail] {
            for scenario in scenarios(placement, |s| s.halt.is_some() && !s.pending.contains_key(&placement)) {
                eprintln!("{} ({placement:?})", scenario.name);
                assert_halts(placement, &scenario).await;
            }
        }
    }

    async fn assert_all_pass(placement: Placement) {
        let scenarios = together(placement);
        if !scenarios.is_empty() {
            told(placement, &scenarios, &play(placement, &scenarios).await);
        } // else others were asked for by name
    }

    async fn assert_all_pass_on_clusters(placement: Placement) {
        let scenarios: Vec<_> = together(placement).into_iter().filter(|s| s.not_on_clusters.is_none()).collect();
        if !scenarios.is_empty() {
            told(placement, &scenarios, &play_on_clusters(placement, &scenarios).await);
        }
    }

    /// Fails with what went wrong.
    fn told(placement: Placement, scenarios: &[Scenario], failures: &Failures) {
        let told: Vec<_> = failures.iter().map(|(name, what)| format!("{name}:\n    {}", few(what))).collect();
        let names: Vec<_> = failures.keys().map(String::as_str).collect();
        let (failed, all) = (failures.len(), scenarios.len());
        assert!(failures.is_empty(), "{placement:?}: {failed} of {all} scenarios failed: {}\n{}", names.join(","), told.join("\n"));
    }

    fn few(what: &[String]) -> String {
        let more = what.len().saturating_sub(TOLD);
        let tail = if more > 0 { format!("\n    and {more} more") } else { String::new() };
        what[..what.len() - more].join("\n    ") + &tail
    }

    /// Plays all of them on one pair of servers, hands over, and compares.
    async fn play(placement: Placement, scenarios: &[Scenario]) -> Failures {
        let pair = pair().await;
        let stage = Stage::set(sides(&pair), scenarios).await;
        let failures = hand_over(stage, placement, scenarios, &[]).await;
        pair.end().await;
        failures
    }

    /// As [`play`], from a sharded cluster to another.
    async fn play_on_clusters(placement: Placement, scenarios: &[Scenario]) -> Failures {
        let clusters = Clusters::start().await;
        clusters.place(scenarios).await;
        let stage = Stage::set(clusters.sides(), scenarios).await;
        clusters.shard(scenarios).await;
        // A router cannot block writes for sure, so the cutover is told that there are none.
        let failures = hand_over(stage, placement, scenarios, &["--writes-stopped"]).await;
        clusters.end().await;
        failures
    }

    /// Plays the steps, hands over, and compares.
    async fn hand_over(mut stage: Stage<'_>, placement: Placement, scenarios: &[Scenario], how: &[&str]) -> Failures {
        let mut ferry = stage.act(placement, &[]).await;
        ferry.wait_for_phase("tailing").await;
        ferry.wait_until_caught_up(stage.sides.from).await;
        let Stage { sides, mut failures, .. } = stage;
        let ready = ferry.wait_within(DEADLINE, "every gate to be open", |s| s["can_cut_over"] == true).await;
        let metrics = ferry.metrics().await;
        let status = ready.unwrap_or_else(|status| {
            let why = failures.entry("(all)".into()).or_default();
            why.push(format!("not ready within {DEADLINE:?}: {}", status["gates"]));
            why.extend(metrics.lines().filter(|line| line.starts_with("mongoferry_retries")).map(String::from));
            let log = ferry.log();
            why.extend(log.lines().rev().take(5).map(String::from));
            status
        });
        let cutover = ferry.cutover(how).await;
        if cutover.code != 0 {
            let verified = ferry.verb(&["verify", "--output", "json"]).await.json();
            let all = failures.entry("(all)".into()).or_default();
            all.push(cutover.stdout);
            all.extend(verified["differences"].as_array().into_iter().flatten().map(ToString::to_string));
            return failures;
        }
        assert_eq!(ferry.wait_exit().await, 0, "after the cutover\n{}", ferry.log());
        compare(sides.from, sides.to, scenarios, &mut failures).await;
        // Whatever the documents held, nothing of it is told.
        for (place, text) in [("the log", ferry.log()), ("the status", status.to_string()), ("the metrics", metrics)] {
            if let Some(line) = text.lines().find(|line| line.contains(CANARY.trim_end())) {
                failures.entry("(all)".into()).or_default().push(format!("{place} shows what is in a document: {line}"));
            }
        }
        failures
    }

    async fn assert_halts(placement: Placement, scenario: &Scenario) {
        let halt = scenario.halt.as_ref().expect("chosen by it");
        let pair = pair().await;
        let mut stage = Stage::set(sides(&pair), std::slice::from_ref(scenario)).await;
        let mut ferry = stage.act(placement, &["--on-halt", "exit"]).await;
        let code = ferry.wait_exit().await;
        assert!(stage.failures.is_empty(), "{:?}", stage.failures);
        let log = ferry.log();
        assert_eq!(code, halt.exit, "{} ({placement:?})\n{log}", scenario.name);
        for part in &halt.says {
            let part = part.replace("{db}", &scenario.name);
            assert!(log.contains(&part), "{} ({placement:?}): no `{part}` in\n{log}", scenario.name);
        }
        assert!(!log.contains(CANARY.trim_end()), "{} ({placement:?}) shows what is in a document:\n{log}", scenario.name);
        drop(stage);
        pair.end().await;
    }

    async fn pair() -> Pair {
        // Transactions may wait for the copy.
        let patient = ["--setParameter", "transactionLifetimeLimitSeconds=900"].map(String::from).to_vec();
        // Large ones have to fit beside everything else that is not yet on disk.
        let source = Options { extra_args: patient, oplog_mb: 1024, cache_gb: 1.0, ..Options::default() };
        Pair::with(source, Options::default()).await
    }

    fn sides(pair: &Pair) -> Sides<'_> {
        Sides { from: &pair.from, to: &pair.to, source: pair.source.uri(), target: pair.target.uri() }
    }
}
