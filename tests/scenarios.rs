//! What must survive a migration, one folder each in `tests/scenarios`: `README.md` there tells how one is written.
//!
//! Each is played in up to three placements: its steps before the start, while copying, while tailing. All scenarios
//! of a placement share one pair of servers and one `run`, each in databases of its own; what is known not to work
//! yet, and what is to halt, is played alone. At the end the test bed's own reader compares both sides.

pub mod notation;
pub mod scenario;

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
    use super::{CANARY, Placement, Scenario, scenario::Player};
    use crate::support::{Ferry, Pair, run, slow_down, speed_up};
    use bson::doc;
    use futures_util::FutureExt;
    use std::{collections::BTreeMap, panic::AssertUnwindSafe, time::Duration};
    use testbed::Options;
    use tokio::time::timeout;

    /// Holds the copy open: read slowly, and released when the steps are done.
    const FILLER: &str = "filler";
    const FILLER_BATCHES: i32 = 24;
    /// The collections with such names are left out, in every scenario.
    const UNSELECTED: &str = "unselected";
    /// How long a scenario that is not expected to pass may take.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// Differences told of one scenario.
    const TOLD: usize = 12;

    /// What went wrong, by scenario.
    type Failures = BTreeMap<String, Vec<String>>;

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
        if scenarios.is_empty() {
            return; // others were asked for by name
        }
        let failures = play(placement, &scenarios).await;
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
        let mut stage = Stage::set(&pair, scenarios).await;
        let arguments = arguments(scenarios);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut ferry = stage.act(placement, &arguments).await;
        ferry.wait_for_phase("tailing").await;
        ferry.wait_until_caught_up(&pair.from).await;
        let mut failures = std::mem::take(&mut stage.failures);
        drop(stage);
        let ready = ferry.wait_within(PATIENCE, "every gate to be open", |s| s["can_cut_over"] == true).await;
        let status = ready.unwrap_or_else(|status| status);
        let metrics = ferry.metrics().await;
        let cutover = ferry.verb(&["cutover", "--yes"]).await;
        if cutover.code != 0 {
            let verified = ferry.verb(&["verify", "--output", "json"]).await.json();
            let all = failures.entry("(all)".into()).or_default();
            all.push(cutover.stdout);
            all.extend(verified["differences"].as_array().into_iter().flatten().map(ToString::to_string));
            pair.end().await;
            return failures;
        }
        assert_eq!(ferry.wait_exit().await, 0, "after the cutover\n{}", ferry.log());
        compare(&pair, scenarios, &mut failures).await;
        // Whatever the documents held, nothing of it is told.
        for (place, text) in [("the log", ferry.log()), ("the status", status.to_string()), ("the metrics", metrics)] {
            if let Some(line) = text.lines().find(|line| line.contains(CANARY.trim_end())) {
                failures.entry("(all)".into()).or_default().push(format!("{place} shows what is in a document: {line}"));
            }
        }
        pair.end().await;
        failures
    }

    async fn assert_halts(placement: Placement, scenario: &Scenario) {
        let halt = scenario.halt.as_ref().expect("chosen by it");
        let pair = pair().await;
        let mut stage = Stage::set(&pair, std::slice::from_ref(scenario)).await;
        let arguments = arguments(std::slice::from_ref(scenario));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--on-halt", "exit"]).collect();
        let mut ferry = stage.act(placement, &arguments).await;
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

    /// Filters and renames, all scenarios' at once.
    fn arguments(scenarios: &[Scenario]) -> Vec<String> {
        let renames = scenarios.iter().flat_map(|s| &s.rename).flat_map(|(from, to)| ["--rename".to_owned(), format!("{from}={to}")]);
        ["--exclude".to_owned(), format!("*.{UNSELECTED}*")].into_iter().chain(renames).collect()
    }

    /// Scenarios being played.
    struct Stage<'a> {
        pair: &'a Pair,
        players: Vec<Player<'a>>,
        failures: Failures,
    }

    impl<'a> Stage<'a> {
        /// Creates what is there before.
        async fn set(pair: &'a Pair, scenarios: &'a [Scenario]) -> Self {
            // So that the filter means something.
            run(&pair.from, FILLER, doc! {"insert": UNSELECTED, "documents": [{"_id": 1}]}).await;
            run(&pair.from, FILLER, doc! {"insert": "first", "documents": [{"_id": 1}]}).await;
            let players = scenarios.iter().map(|scenario| Player::new(scenario, &pair.from, &pair.to)).collect();
            let mut stage = Self { pair, players, failures: Failures::new() };
            for player in &mut stage.players {
                if let Err(why) = player.before().await {
                    stage.failures.entry(player.scenario.name.clone()).or_default().push(why);
                }
            }
            stage
        }

        /// Starts `run`, and takes the steps when their time has come.
        async fn act(&mut self, placement: Placement, arguments: &[&str]) -> Ferry {
            match placement {
                Placement::Copy => {
                    self.steps().await;
                    self.pair.ferry(arguments)
                }
                Placement::During => self.act_while_copying(arguments).await,
                Placement::Tail => {
                    let mut ferry = self.pair.ferry(arguments);
                    ferry.wait_for_phase("tailing").await;
                    self.steps().await;
                    ferry
                }
            }
        }

        async fn act_while_copying(&mut self, arguments: &[&str]) -> Ferry {
            // A batch of the copy is about 4 MiB: these documents come one by one, each slowly.
            for n in 0..FILLER_BATCHES {
                run(&self.pair.from, FILLER, doc! {"insert": "slow", "documents": [{"_id": n, "text": "x".repeat(5 << 20)}]}).await;
            }
            let data = doc! {
                "failCommands": ["getMore"], "namespace": format!("{FILLER}.slow"), "blockConnection": true, "blockTimeMS": 6_000,
                "appName": "mongoferry",
            };
            let slow = |mode: &str| doc! {"configureFailPoint": "failCommand", "mode": mode, "data": data.clone()};
            run(&self.pair.from, "admin", slow("alwaysOn")).await;
            slow_down(&self.pair.to, &["insert"], Duration::from_millis(60)).await;
            let mut ferry = self.pair.ferry(&[arguments, &["--copy-partitions", "2", "--partition-size", "1GiB"]].concat());
            ferry.wait_for("the copy to begin", |s| s["copy"]["documents"].as_u64() > Some(0)).await;
            self.steps().await;
            let still = ferry.status().await;
            assert_eq!(still["phase"], "copying", "the steps took longer than the copy: {still:#}");
            run(&self.pair.from, "admin", slow("off")).await;
            speed_up(&self.pair.to).await;
            ferry
        }

        async fn steps(&mut self) {
            for player in &mut self.players {
                if let Err(why) = player.steps().await {
                    self.failures.entry(player.scenario.name.clone()).or_default().push(why);
                }
            }
        }
    }

    /// Both sides as the test bed reads them; differences by scenario.
    async fn compare(pair: &Pair, scenarios: &[Scenario], failures: &mut Failures) {
        let renames: BTreeMap<&str, &str> = scenarios.iter().flat_map(|s| &s.rename).map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let pick = |database: &str, collection: &str| {
            let full = format!("{database}.{collection}");
            let image = renames.get(full.as_str()).copied().unwrap_or(&full).split_once('.')?;
            (!collection.starts_with(UNSELECTED)).then(|| (image.0.to_owned(), image.1.to_owned()))
        };
        let report = testbed::compare(&pair.from, &pair.to, pick).await.unwrap();
        assert!(report.documents().0 > 0, "nothing was compared");
        for difference in &report.differences {
            let database = difference.namespace.split('.').next().unwrap_or_default();
            let owner = scenarios.iter().find(|s| s.owns(database)).map_or("(all)", |s| &s.name);
            failures.entry(owner.to_owned()).or_default().push(difference.to_string());
        }
    }
}
