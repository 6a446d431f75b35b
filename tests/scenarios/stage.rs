//! Scenarios between a source and a target: what is there before, `run`, the steps in their time, and the comparison.

use super::scenario::{Placement, Player, Scenario};
use crate::support::{Ferry, run, slow_down, speed_up};
use bson::doc;
use mongodb::Client;
use std::{collections::BTreeMap, time::Duration};
use testbed::{Difference, parity::Kind};

/// Holds the copy open: read slowly, and released when the steps are done.
const FILLER: &str = "filler";
const FILLER_BATCHES: i32 = 24;
/// The collections with such names are left out, in every scenario.
const UNSELECTED: &str = "unselected";

/// What went wrong, by scenario.
pub type Failures = BTreeMap<String, Vec<String>>;

/// Where they are played.
pub struct Sides<'a> {
    pub from: &'a Client,
    pub to: &'a Client,
    pub source: String,
    pub target: String,
}

/// Filters and renames, all scenarios' at once.
fn arguments(scenarios: &[Scenario]) -> Vec<String> {
    let renames = scenarios.iter().flat_map(|s| &s.rename).flat_map(|(from, to)| ["--rename".to_owned(), format!("{from}={to}")]);
    ["--exclude".to_owned(), format!("*.{UNSELECTED}*")].into_iter().chain(renames).collect()
}

/// Scenarios being played.
pub struct Stage<'a> {
    pub sides: Sides<'a>,
    players: Vec<Player<'a>>,
    arguments: Vec<String>,
    pub failures: Failures,
}

impl<'a> Stage<'a> {
    /// Creates what is there before.
    pub async fn set(sides: Sides<'a>, scenarios: &'a [Scenario]) -> Self {
        // So that the filter means something.
        run(sides.from, FILLER, doc! {"insert": UNSELECTED, "documents": [{"_id": 1}]}).await;
        run(sides.from, FILLER, doc! {"insert": "first", "documents": [{"_id": 1}]}).await;
        let players = scenarios.iter().map(|scenario| Player::new(scenario, sides.from, sides.to)).collect();
        let mut stage = Self { sides, players, arguments: arguments(scenarios), failures: Failures::new() };
        for player in &mut stage.players {
            let taken = player.before().await;
            note(&mut stage.failures, player.scenario, taken);
        }
        stage
    }

    /// Starts `run`, and takes the steps when their time has come.
    pub async fn act(&mut self, placement: Placement, more: &[&str]) -> Ferry {
        match placement {
            Placement::Copy => {
                self.steps().await;
                self.ferry(more)
            }
            Placement::During => self.act_while_copying(more).await,
            Placement::Tail => {
                let mut ferry = self.ferry(more);
                ferry.wait_for_phase("tailing").await;
                self.steps().await;
                ferry
            }
        }
    }

    fn ferry(&self, more: &[&str]) -> Ferry {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Ferry::start(&self.sides.source, &self.sides.target, &arguments)
    }

    async fn act_while_copying(&mut self, more: &[&str]) -> Ferry {
        // A batch of the copy is about 4 MiB: these documents come one by one, each slowly.
        for n in 0..FILLER_BATCHES {
            run(self.sides.from, FILLER, doc! {"insert": "slow", "documents": [{"_id": n, "text": "x".repeat(5 << 20)}]}).await;
        }
        let data = doc! {
            "failCommands": ["getMore"], "namespace": format!("{FILLER}.slow"), "blockConnection": true, "blockTimeMS": 6_000,
            "appName": "mongoferry",
        };
        let slow = |mode: &str| doc! {"configureFailPoint": "failCommand", "mode": mode, "data": data.clone()};
        run(self.sides.from, "admin", slow("alwaysOn")).await;
        slow_down(self.sides.to, &["insert"], Duration::from_millis(60)).await;
        let mut ferry = self.ferry(&[more, &["--copy-partitions", "2", "--partition-size", "1GiB"]].concat());
        ferry.wait_for("the copy to begin", |s| s["copy"]["documents"].as_u64() > Some(0)).await;
        self.steps().await;
        let still = ferry.status().await;
        assert_eq!(still["phase"], "copying", "the steps took longer than the copy: {still:#}");
        run(self.sides.from, "admin", slow("off")).await;
        speed_up(self.sides.to).await;
        ferry
    }

    async fn steps(&mut self) {
        for player in &mut self.players {
            let taken = player.steps().await;
            note(&mut self.failures, player.scenario, taken);
        }
    }
}

/// Notes what went wrong, if anything did.
fn note(failures: &mut Failures, scenario: &Scenario, taken: Result<(), String>) {
    if let Err(why) = taken {
        failures.entry(scenario.name.clone()).or_default().push(why);
    }
}

/// Both sides as the test bed reads them; differences by scenario.
pub async fn compare(from: &Client, to: &Client, scenarios: &[Scenario], failures: &mut Failures) {
    let renames: BTreeMap<&str, &str> = scenarios.iter().flat_map(|s| &s.rename).map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let pick = |database: &str, collection: &str| {
        let full = format!("{database}.{collection}");
        let image = renames.get(full.as_str()).copied().unwrap_or(&full).split_once('.')?;
        (!collection.starts_with(UNSELECTED)).then(|| (image.0.to_owned(), image.1.to_owned()))
    };
    let report = testbed::compare(from, to, pick).await.unwrap();
    assert!(report.documents().0 > 0, "nothing was compared");
    // The index of a hashed shard key, which newer servers let a user drop (RAN on 6.0.27): the target needs it.
    let kept = |d: &&Difference| d.kind == Kind::ExtraIndex && d.to_string().contains("_id_hashed");
    for difference in report.differences.iter().filter(|d| !kept(d)) {
        let database = difference.namespace.split('.').next().unwrap_or_default();
        let owner = scenarios.iter().find(|s| s.owns(database)).map_or("(all)", |s| &s.name);
        failures.entry(owner.to_owned()).or_default().push(difference.to_string());
    }
}
