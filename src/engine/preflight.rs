//! Everything that can be known before anything is written: each finding with what to do about it.

use super::{
    board::START_DEADLINE,
    connect::Clusters,
    identity::{fit, identified, identity},
    layout, privileges, topology,
};
use crate::{
    checkpoint::{MongoStore, Record},
    config::Config,
    copy,
    error::{Error, Result},
    model::{CollectionInfo, CollectionKind, Fingerprint, Namespace, Phase, Side, raw},
    mongo::{Cluster, Topology},
    observe::Metrics,
    source::{
        CollectionRef, Found, Source,
        mongo::{Shows, probe_stream},
    },
    target::{Target, mongo::Features},
};
use bson::doc;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};
use tokio_util::sync::CancellationToken;

/// What a preflight found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// All findings.
    pub findings: Vec<Finding>,
    /// Namespace, documents and bytes, as the source estimates them.
    pub collections: Vec<(String, u64, u64)>,
}

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Fine.
    Ok,
    /// Worth knowing.
    Warning,
    /// In the way.
    Error,
}

/// One finding.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
    /// Exit code that goes with an error.
    pub exit_code: u8,
}

/// What the preflight learnt, for the start.
#[derive(Debug)]
pub(super) struct Inspected {
    pub report: CheckReport,
    pub errors: Vec<Error>,
    pub record: Option<Record>,
    pub fingerprint: Option<Fingerprint>,
    pub features: Option<Features>,
    /// Selected namespaces that the target already has, under their target's names.
    pub occupied: Vec<Namespace>,
    /// Whether it is a way back: the target holds what was once the source.
    way_back: bool,
    /// Whether the source is too old to show its structural changes.
    watched: bool,
    /// What the target is; a replica set until it was asked.
    pub target: Topology,
    /// What a user may not do that the work does without.
    pub done_without: Vec<String>,
}

/// The verb `check`: looks, and writes nothing.
///
/// # Errors
/// Only where not even looking was possible; what is in the way is a finding.
pub async fn check(config: &Config) -> Result<CheckReport> {
    super::access(&config.control)?;
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let clusters = Clusters::connect(config, &metrics, &stop, None).await?;
    let mut inspected = inspect(config, &clusters.hasty(START_DEADLINE), false).await;
    if inspected.errors.is_empty() {
        inspected.report.findings.extend(topology::look(config, &clusters).await?);
        inspected.sizes(config, &clusters).await?;
    }
    clusters.close().await;
    Ok(inspected.report)
}

/// Looks at everything that the errors so far allow to look at.
pub(super) async fn inspect(config: &Config, clusters: &Clusters, way_back: bool) -> Inspected {
    let mut seen = Inspected {
        report: CheckReport::default(),
        errors: Vec::new(),
        record: None,
        fingerprint: None,
        features: None,
        occupied: Vec::new(),
        way_back,
        watched: false,
        target: Topology::ReplicaSet,
        done_without: Vec::new(),
    };
    let (source, target) = (clusters.source.cluster(), clusters.target.cluster());
    let (ids, writable) = (seen.identity(source).await, seen.identity(target).await);
    let (Some(source_id), Some(target_id)) = (ids, writable) else { return seen };
    if source_id == target_id {
        seen.error(Error::BadConfig {
            field: "--target".into(),
            problem: "is the same cluster as `--source`".into(),
            hint: Some("give two different clusters".into()),
        });
        return seen;
    }
    seen.fingerprint = Some(identified(config, source_id, target_id));
    for outcome in [seen.abilities(config, clusters).await, seen.metadata(config, clusters).await] {
        seen.note(outcome);
    }
    if seen.errors.is_empty() {
        let outcome = seen.namespaces(config, clusters).await;
        seen.note(outcome);
        let outcome = seen.oplog(clusters).await;
        seen.note(outcome);
        let outcome = seen.accounts(config, clusters).await;
        seen.note(outcome);
    }
    seen
}

impl Inspected {
    fn finding(&mut self, level: Level, what: impl Into<String>, hint: Option<&str>) {
        self.report.findings.push(Finding { level, what: what.into(), hint: hint.map(str::to_owned), exit_code: 0 });
    }

    fn error(&mut self, error: Error) {
        self.report.findings.push(Finding { level: Level::Error, what: error.story(), hint: error.hint(), exit_code: error.exit_code() });
        self.errors.push(error);
    }

    fn note(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.error(error);
        }
    }

    /// Reaches the cluster, and learns its id where it can take part.
    async fn identity(&mut self, cluster: &Cluster) -> Option<String> {
        let seen = async {
            let topology = fit(cluster).await?;
            self.privileges(cluster, topology).await?;
            if cluster.side() == Side::Target {
                self.target = topology;
            }
            identity(cluster).await
        };
        match seen.await {
            Ok(id) => Some(id),
            Err(error) => {
                self.error(error);
                None
            }
        }
    }

    async fn privileges(&mut self, cluster: &Cluster, topology: Topology) -> Result<()> {
        let side = cluster.side();
        let what = if topology == Topology::Sharded { "sharded cluster" } else { "replica set" };
        self.finding(Level::Ok, format!("the {side} is a {what} and answers"), None);
        if let Some(missing) = privileges::missing(cluster, topology).await? {
            return Err(privileges::not_allowed(side, missing));
        }
        self.finding(Level::Ok, format!("the user of the {side} has the privileges"), None);
        if (side, topology) == (Side::Source, Topology::Sharded)
            && let Some((_, command)) = privileges::missing_for_notes(cluster).await?
        {
            let told = "the user of the source may not do `appendOplogNote`: a shard without writes holds the stream back for up to 10 s";
            self.finding(Level::Warning, told, Some(&format!("grant it in mongosh: {command}")));
            self.done_without.push(told.to_owned());
        }
        Ok(())
    }

    async fn abilities(&mut self, config: &Config, clusters: &Clusters) -> Result<()> {
        let expanded = probe_stream(clusters.source.cluster()).await? != Shows::Documents;
        if expanded {
            self.finding(Level::Ok, "the source has change streams with expanded events", None);
        } else {
            self.finding(
                Level::Warning,
                "the source's change streams show documents, drops and renames only: other changes of structure are found by looking at its catalog every second",
                None,
            );
        }
        self.watched = !expanded;
        let features = clusters.target.probe(&config.metadata_database).await?;
        if !features.collection_uuid || !features.convert_unique {
            return Err(Error::UnfitCluster {
                side: Side::Target,
                problem: "is older than 6.0: it cannot check a collection's identity or convert indexes".into(),
                hint: "upgrade the target to MongoDB 6.0 or newer".into(),
            });
        }
        if !expanded {
            self.finding(Level::Warning, "the source does not show raw diffs: every updated document is read again", None);
        } else if features.raw_diffs {
            self.finding(Level::Ok, "updates are applied by their raw diffs", None);
        } else {
            self.finding(Level::Warning, "the target does not apply raw diffs: every updated document is read again from the source", None);
        }
        self.features = Some(features);
        match clusters.source.writes_blocked().await? {
            None => self.finding(
                Level::Warning,
                "the source cannot block writes of users",
                Some("stop writers yourself before `mongoferry cutover --writes-stopped`"),
            ),
            Some(true) => self.finding(Level::Warning, "writes of users are blocked on the source", None),
            Some(false) => {
                if let Some((actions, grant)) = privileges::missing_for_fence(clusters.source.cluster()).await? {
                    let what = format!("the user of the source may not block writes of users: {} is missing", actions.join(", "));
                    let way_out =
                        format!("grant it in mongosh: {grant}; or stop writers yourself before `mongoferry cutover --writes-stopped`");
                    self.finding(Level::Warning, what, Some(&way_out));
                }
            }
        }
        Ok(())
    }

    async fn metadata(&mut self, config: &Config, clusters: &Clusters) -> Result<()> {
        // What stands there when a way back begins is judged by whoever begins it.
        if config.restart_from_scratch || self.way_back {
            return Ok(());
        }
        let store = MongoStore::new(clusters.target.cluster().clone(), &config.metadata_database);
        self.record = store.load().await?;
        let (Some(record), Some(ours)) = (&self.record, &self.fingerprint) else { return Ok(()) };
        let differences = ours.differences(&record.fingerprint);
        if !differences.is_empty() {
            return Err(Error::ForeignMetadata {
                database: config.metadata_database.clone(),
                problem: format!("is of a migration with other options: {}", differences.join("; ")),
                hint: "go on with the options of the first start; or keep this migration apart with another `--metadata-database`; or begin anew with `--restart-from-scratch`".into(),
            });
        }
        let what = format!("goes on with the migration {}, which is {}", record.id, record.phase.label());
        self.finding(Level::Ok, what, None);
        Ok(())
    }

    async fn namespaces(&mut self, config: &Config, clusters: &Clusters) -> Result<()> {
        let listed = copy::listed(&clusters.source, &config.selection).await?;
        layout::refuse(config, self.target, &listed, self.record.is_none())?;
        let existing: Vec<Namespace> = listed.iter().map(|c| c.ns.clone()).collect();
        if self.record.is_none()
            && !self.way_back
            && let Some(unknown) = config.selection.unknown(&existing).into_iter().next()
        {
            let nearest = unknown
                .nearest
                .map_or("`mongoferry check` without filters lists what there is".to_owned(), |n| format!("did you mean `{n}`?"));
            return Err(Error::BadConfig { field: unknown.written, problem: "matches nothing on the source".into(), hint: Some(nearest) });
        }
        let selected: Vec<CollectionInfo> = listed.into_iter().filter(|c| config.selection.takes(&c.ns)).collect();
        for cluster in [clusters.source.cluster(), clusters.target.cluster()] {
            if let Some(missing) = privileges::missing_for(cluster, &selected).await? {
                return Err(privileges::not_allowed(cluster.side(), missing));
            }
        }
        if self.target == Topology::Sharded {
            for (level, what, hint) in layout::look(config, clusters, &selected).await? {
                self.finding(level, what, hint.as_deref());
            }
        }
        if self.watched {
            fit_for_watching(clusters, &selected).await?;
        }
        let mut by_target: BTreeMap<Namespace, &Namespace> = BTreeMap::new();
        for c in &selected {
            if let Some(other) = by_target.insert(config.selection.target_of(&c.ns), &c.ns) {
                return Err(Error::BadConfig {
                    field: "--rename".into(),
                    problem: format!("gives `{other}` and `{}` the same name on the target", c.ns),
                    hint: Some("choose another name, or leave one of them out with `--exclude`".into()),
                });
            }
        }
        let there = clusters.target.collections().await?;
        self.occupied = there.into_iter().map(|c| c.ns).filter(|ns| by_target.contains_key(ns)).collect();
        if self.record.is_none() && !self.way_back && !self.occupied.is_empty() && !config.drop_target_namespaces {
            return Err(Error::TargetNotEmpty { namespaces: self.occupied.iter().map(ToString::to_string).collect() });
        }
        self.finding(
            Level::Ok,
            format!("{} collections and views are selected", selected.iter().filter(|c| !c.ns.is_buckets()).count()),
            None,
        );
        Ok(())
    }

    async fn accounts(&mut self, config: &Config, clusters: &Clusters) -> Result<()> {
        let Some(accounts) = clusters.accounts(config) else { return Ok(()) };
        for cluster in [clusters.source.cluster(), clusters.target.cluster()] {
            if let Some(missing) = privileges::missing_for_accounts(cluster).await? {
                return Err(privileges::not_allowed(cluster.side(), missing));
            }
        }
        let kept: Vec<String> = accounts.foresee().await?.iter().map(|name| format!("the {} `{}`", name.kind.label(), name.id)).collect();
        if !kept.is_empty() {
            let hint = "drop them there if they are to be as on the source";
            self.finding(Level::Warning, format!("the target's own stay: {}", kept.join(", ")), Some(hint));
        }
        self.finding(Level::Ok, "users and custom roles are replicated", None);
        Ok(())
    }

    async fn oplog(&mut self, clusters: &Clusters) -> Result<()> {
        let Some(window) = clusters.source.oplog_window().await? else {
            if clusters.source.is_sharded().await? {
                self.finding(
                    Level::Warning,
                    "the shards of the source cannot all be asked directly: headroom is not watched",
                    Some(topology::DIRECT),
                );
                return Ok(());
            }
            self.finding(
                Level::Warning,
                "the ends of the source's oplog cannot be asked for",
                Some("grant `clusterMonitor` on the source, else headroom is not watched"),
            );
            return Ok(());
        };
        let started = self.record.as_ref().filter(|r| !matches!(r.phase, Phase::Planned | Phase::Committed { .. }));
        if let Some(record) = started.filter(|r| r.resume_time < window.oldest) {
            return Err(Error::PositionLost { wanted: record.resume_time, oldest: Some(window.oldest) });
        }
        let seconds = window.seconds();
        if seconds < 600.0 {
            let hint = "enlarge it with `replSetResizeOplog`: it bounds how long mongoferry may be away";
            self.finding(Level::Warning, format!("the oplog of the source holds {seconds:.0} s at the rate so far"), Some(hint));
        } else {
            self.finding(Level::Ok, format!("the oplog of the source holds {:.1} h at the rate so far", seconds / 3600.0), None);
        }
        Ok(())
    }

    async fn sizes(&mut self, config: &Config, clusters: &Clusters) -> Result<()> {
        for info in clusters.source.collections().await? {
            let (true, Some(uuid)) = (config.selection.takes(&info.ns), info.uuid) else { continue };
            let estimate = clusters.source.estimate(&CollectionRef { ns: info.ns.clone(), uuid }).await?;
            self.report.collections.push((info.ns.to_string(), estimate.documents, estimate.bytes));
        }
        Ok(())
    }
}

/// What sources before 6.0 may hold that a watch does not see changes of, or that later servers no longer have.
async fn fit_for_watching(clusters: &Clusters, selected: &[CollectionInfo]) -> Result<()> {
    let refused =
        |what: &str, ns: &Namespace, hint: &str| Error::Unsupported { what: what.into(), ns: Some(ns.to_string()), hint: hint.into() };
    for info in selected {
        if info.kind == CollectionKind::TimeSeries || info.ns.is_buckets() {
            let hint = "the change streams of servers before 6.0 do not show it: exclude it with `--exclude`";
            return Err(refused("a time-series collection", &info.ns, hint));
        }
        if info.ns.coll() == "system.js" {
            let hint =
                "the change streams of servers before 6.0 do not show it: exclude it with `--exclude`, and copy it by hand at the cutover";
            return Err(refused("stored JavaScript", &info.ns, hint));
        }
        let Some(uuid) = info.uuid else { continue };
        let Found::Here(indexes) = clusters.source.indexes(&CollectionRef { ns: info.ns.clone(), uuid }).await? else { continue };
        // 4.4 keeps any number; what is none would expire everything on a server that takes it for 0.
        if let Some(timeless) = indexes.iter().find(|s| raw::get(&s.0, "expireAfterSeconds").is_some_and(|e| e.integer().is_none())) {
            let what = format!("the TTL index `{}`, whose time is no number,", timeless.name());
            return Err(refused(&what, &info.ns, "give it one: `collMod` with `index: {name: …, expireAfterSeconds: …}`, or drop it"));
        }
        if let Some(haystack) = indexes.iter().find(|spec| spec.has("bucketSize")) {
            let what = format!("the geoHaystack index `{}`", haystack.name());
            return Err(refused(&what, &info.ns, "servers from 5.0 on have none: drop it, or exclude the collection with `--exclude`"));
        }
    }
    Ok(())
}
