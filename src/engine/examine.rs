//! `verify` of a running migration: compares everything while the tail goes on, and mends what persists where that is asked
//! for.

use super::{
    board::Board,
    connect::Clusters,
    repair::{Mending, Repair},
    verifier::settle,
};
use crate::{
    accounts::Accounts,
    error::{Error, Result},
    model::{Namespace, Selection, ShardKey},
    observe::{Answer, Examination},
    verify::{self, Pace, Report, Settings},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// Differences that one repair takes on.
const MENDED_AT_ONCE: usize = 100_000;
/// Differences and repairs that an answer lists.
const LISTED: usize = 1_000;

/// What a verification needs.
pub(super) struct Verification<'a> {
    pub clusters: &'a Clusters,
    pub selection: &'a Selection,
    pub board: &'a Board,
    /// Users and roles, where they are replicated.
    pub accounts: Option<&'a Accounts>,
    pub pace: Pace,
    /// As `--shard` asks for.
    pub sharded_by: Arc<BTreeMap<Namespace, ShardKey>>,
    pub stop: &'a CancellationToken,
}

/// What came of it.
pub(super) struct Verified {
    /// As it is now: behind the repairs, where there were any.
    report: Report,
    /// What was done, or is to be done by somebody.
    repairs: Option<Vec<Repair>>,
}

impl Verification<'_> {
    /// Compares, and mends.
    ///
    /// # Errors
    /// As classified; never a verdict on a part.
    pub(super) async fn run(&self, how: Examination) -> Result<Verified> {
        let settings = Settings {
            shard_keys: self.clusters.target.shard_keys().await?,
            parked: true,
            live: true,
            ignore_field_order: how.ignore_field_order,
            ignore_sharding: how.ignore_sharding,
            sharded_by: self.sharded_by.clone(),
            max_listed: if how.repair { MENDED_AT_ONCE } else { LISTED },
            mended: self.board.findings.mended(),
            pace: self.pace.clone(),
            ..Settings::new(self.clusters.retry())
        };
        let report = self.compare(&settings).await?;
        self.tell_verifier(&report);
        if !how.repair || report.equal {
            return Ok(Verified { report, repairs: how.repair.then(Vec::new) });
        }
        let hands = self.board.known().hands.clone().ok_or_else(|| Error::Bug("a repair without a tail".into()))?;
        let mending = Mending { board: self.board, clusters: self.clusters, hands, stop: self.stop };
        let mut repairs = mending.mend(report.differences.clone()).await?;
        // What was mended is looked at again, and with it the documents of its collection.
        let only: BTreeSet<_> = report.differences.iter().map(|d| d.ns.clone()).collect();
        let again = Settings { only: Some(Arc::new(only)), mended: verify::Mended::default(), ..settings };
        let after = self.compare(&again).await?;
        for repair in repairs.iter_mut().filter(|r| r.outcome == "attempted") {
            let d = &repair.difference;
            let same = |other: &&verify::Difference| other.ns == d.ns && (other.id.clone(), &other.part) == (d.id.clone(), &d.part);
            if after.differences.iter().any(|other| same(&other)) {
                repair.outcome = "failed";
            } else {
                repair.outcome = "mended";
                self.board.findings.mended().note(d);
            }
        }
        self.tell_verifier(&after);
        let (documents, bytes) = (report.documents, report.bytes);
        // More than was listed is still there, and was not looked at again.
        let equal = after.equal && !report.truncated;
        let report = Report { equal, documents, bytes, namespaces: report.namespaces, truncated: report.truncated, ..after };
        Ok(Verified { report, repairs: Some(repairs) })
    }

    async fn compare(&self, settings: &Settings) -> Result<Report> {
        let settle = settle(&self.clusters.source, &self.board.progress, self.stop);
        let (source, target) = (&self.clusters.source, &self.clusters.reader);
        let accounts = match self.accounts {
            Some(accounts) => accounts.settled().await?,
            None => Vec::new(),
        };
        let report = verify::verify(source, target, self.selection, settings, &self.board.metrics, settle, self.stop).await?;
        Ok(report.with_accounts(&accounts))
    }

    /// The continuous verification looks at what was found, and at what it had found itself.
    fn tell_verifier(&self, report: &Report) {
        for difference in &report.differences {
            if let (Some(collection), Some(key)) = (self.board.catalog.named(&difference.ns), &difference.key) {
                self.board.parity.note(collection.uuid(), key);
            }
        }
        self.board.findings.look_again();
    }
}

impl Verified {
    /// Differences that are left.
    pub(super) fn differences(&self) -> u64 {
        let listed = self.report.differences.len() as u64;
        listed.max(u64::from(!self.report.equal))
    }

    /// For whoever asked.
    pub(super) fn answer(mut self) -> Answer {
        let differences = &mut self.report.differences;
        self.report.truncated |= differences.len() > LISTED;
        differences.truncate(LISTED);
        let mut details = self.report.to_json();
        let told = match &self.repairs {
            None => self.verdict(),
            Some(repairs) => {
                let count = |outcome: &str| repairs.iter().filter(|r| r.outcome == outcome).count();
                let came_back = repairs.iter().filter(|r| r.came_back).count();
                details["repairs"] = repairs.iter().take(LISTED).map(|r| serde_json::to_value(r).unwrap_or(Value::Null)).collect();
                details["repaired"] = json!({
                    "mended": count("mended"), "failed": count("failed"), "left": count("left"), "came_back": came_back,
                });
                self.verdict()
            }
        };
        told.with(details)
    }

    fn verdict(&self) -> Answer {
        if self.report.equal { Answer::done("source and target are equal") } else { Answer::no("source and target differ") }
    }
}
