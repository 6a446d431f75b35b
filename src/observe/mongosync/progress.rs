//! Our status in mongosync's words. Pure. Fields, types and when one is left out follow mongosync's reference for
//! `progress` (1.22); deploy/MONGOSYNC-API.md tells field by field what is the same.

use crate::model::Status;
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Headroom below which mongosync warns, and below which it says no more than that.
const LOW_OPLOG_SECONDS: f64 = 15.0 * 60.0;
const MUCH_OPLOG_SECONDS: f64 = 72.0 * 3600.0;
/// What a single mongosync calls itself.
const ID: &str = "coordinator";

/// What is not in a status.
#[derive(Debug, Clone, Default)]
pub(super) struct Besides {
    /// `host:port` of source and target.
    pub hosts: [String; 2],
    /// Documents compared so far.
    pub verified_documents: u64,
    /// Seconds since both sides were last found equal.
    pub parity_age_seconds: Option<f64>,
    /// What a start was told in vain.
    pub warnings: Vec<String>,
}

/// `progress` of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    /// `INITIALIZING`, `IDLE`, `RUNNING`, `PAUSED`, `COMMITTING` or `COMMITTED`.
    pub state: &'static str,
    /// Whether `commit` would be accepted.
    pub can_commit: bool,
    /// Whether the application may write to the destination.
    pub can_write: bool,
    /// What it is at.
    info: Option<&'static str>,
    lag_time_seconds: Option<i64>,
    lag: Option<Lag>,
    total_events_applied: u64,
    collection_copy: Option<CollectionCopy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_building: Option<IndexBuilding>,
    direction_mapping: Option<DirectionMapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_oplog_time_remaining: Option<String>,
    #[serde(rename = "estimatedSecondsToCEACatchup", skip_serializing_if = "Option::is_none")]
    estimated_seconds_to_cea_catchup: Option<i64>,
    #[serde(rename = "mongosyncID")]
    mongosync_id: &'static str,
    #[serde(rename = "coordinatorID")]
    coordinator_id: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Ping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<Ping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<Verification>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Lag {
    overall_lag_seconds: i64,
    crud_lag_seconds: i64,
    ddl_lag_seconds: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CollectionCopy {
    estimated_total_bytes: u64,
    estimated_copied_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct IndexBuilding {
    indexes_built: u64,
    total_indexes_to_build: u64,
    collections_finished: u64,
    collections_total: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
struct DirectionMapping {
    source: String,
    destination: String,
}

impl DirectionMapping {
    /// The clusters keep their names when the direction changes.
    fn of(s: &Status, besides: &Besides) -> Self {
        let [source, destination] = [0, 1].map(|n| format!("cluster{n}: {}", besides.hosts[n]));
        let back = s.direction.as_ref().is_some_and(|direction| direction.way == "reverse");
        if back { Self { source: destination, destination: source } } else { Self { source, destination } }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Ping {
    ping_latency_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct Verification {
    source: VerifiedSide,
    destination: VerifiedSide,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VerifiedSide {
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_time_seconds: Option<i64>,
    estimated_document_count: u64,
    hashed_document_count: u64,
    total_collection_count: u64,
    scanned_collection_count: u64,
}

impl Progress {
    pub(super) fn of(s: &Status, besides: &Besides) -> Self {
        let state = state(s);
        let begun = !matches!(state, "INITIALIZING" | "IDLE");
        let lag = match (begun, state) {
            (false, _) => None,
            (true, "COMMITTED") => Some(0),
            (true, _) => s.lag_seconds.map(whole),
        };
        let following = matches!(s.phase.as_str(), "catching_up" | "tailing");
        Self {
            state,
            can_commit: state == "RUNNING" && s.can_cut_over,
            can_write: s.can_write_to_target,
            info: begun.then(|| info(s)).flatten(),
            lag_time_seconds: lag,
            lag: lag.map(|lag| Lag { overall_lag_seconds: lag, crud_lag_seconds: lag, ddl_lag_seconds: lag }),
            total_events_applied: s.events.applied,
            collection_copy: begun
                .then_some(CollectionCopy { estimated_total_bytes: s.copy.estimated_bytes, estimated_copied_bytes: s.copy.bytes }),
            index_building: (begun && following).then(|| index_building(s)),
            direction_mapping: begun.then(|| DirectionMapping::of(s, besides)),
            estimated_oplog_time_remaining: (state == "RUNNING" && !s.can_write_to_target).then(|| oplog_time(s.headroom_seconds)),
            estimated_seconds_to_cea_catchup: s.catch_up_seconds.filter(|_| following && state == "RUNNING").map(whole),
            mongosync_id: ID,
            coordinator_id: (state != "INITIALIZING").then_some(ID),
            source: ping(s.throttle.source_latency_ms),
            destination: ping(s.throttle.target_latency_ms),
            verification: (begun && s.settings.verification).then(|| verification(s, besides)),
            warnings: warnings(s, besides),
        }
    }
}

/// mongosync's state. It has none for a halt: ours is left by `resume`, as a pause is.
fn state(s: &Status) -> &'static str {
    match (s.phase.as_str(), s.activity.as_str()) {
        ("", _) => "INITIALIZING",
        (_, "held") => "IDLE",
        ("committed", _) => "COMMITTED",
        (_, "paused" | "halted") => "PAUSED",
        ("cutting_over", _) => "COMMITTING",
        _ => "RUNNING",
    }
}

fn info(s: &Status) -> Option<&'static str> {
    Some(match s.phase.as_str() {
        "planned" | "copying" => "collection copy",
        "catching_up" | "tailing" => "change event application",
        "cutting_over" => "waiting for commit to complete",
        "committed" => "commit completed",
        _ => return None,
    })
}

fn index_building(s: &Status) -> IndexBuilding {
    let unfinished = s.unfinished_indexes.len() as u64;
    let waiting: BTreeSet<&str> = s.unfinished_indexes.iter().map(|index| index.ns.as_str()).collect();
    IndexBuilding {
        indexes_built: s.copy.indexes.saturating_sub(unfinished),
        total_indexes_to_build: s.copy.indexes,
        collections_finished: s.copy.collections.saturating_sub(waiting.len() as u64),
        collections_total: s.copy.collections,
    }
}

fn oplog_time(headroom: Option<f64>) -> String {
    let unit = |n: i64, name: &str| if n == 1 { format!("1 {name}") } else { format!("{n} {name}s") };
    match headroom {
        None => "not checked yet".to_owned(),
        Some(s) if s > MUCH_OPLOG_SECONDS => "more than 72 hours".to_owned(),
        Some(s) if s < LOW_OPLOG_SECONDS => "less than 15 minutes".to_owned(),
        Some(s) if s < 3600.0 => unit(whole(s) / 60, "minute"),
        Some(s) => unit(whole(s) / 3600, "hour"),
    }
}

/// Left out below a millisecond, as mongosync does.
fn ping(latency_ms: Option<f64>) -> Option<Ping> {
    latency_ms.map(whole).filter(|ms| *ms >= 1).map(|ping_latency_ms| Ping { ping_latency_ms })
}

fn verification(s: &Status, besides: &Besides) -> Verification {
    let proved = besides.parity_age_seconds.is_some();
    let side = VerifiedSide {
        phase: match (proved, besides.verified_documents) {
            (true, _) => "stream hashing",
            (false, 0) => "not started",
            (false, _) => "initial hashing",
        },
        lag_time_seconds: besides.parity_age_seconds.map(whole),
        estimated_document_count: s.copy.estimated_documents,
        hashed_document_count: besides.verified_documents,
        total_collection_count: s.copy.collections,
        scanned_collection_count: if proved { s.copy.collections } else { 0 },
    };
    Verification { source: side.clone(), destination: side }
}

fn warnings(s: &Status, besides: &Besides) -> Vec<String> {
    let oplog = s.headroom_seconds.filter(|headroom| *headroom < LOW_OPLOG_SECONDS && state(s) != "COMMITTED").map(|headroom| {
        format!("the oplog of the source reaches {headroom:.0} seconds further back than needed: make it larger (`replSetResizeOplog`)")
    });
    let undone = s.cutover.as_ref().and_then(|cutover| cutover.last_failure.as_ref());
    let undone = undone.map(|why| format!("the last commit was undone: {why}"));
    let differing = s.verification.warnings.iter().map(|d| format!("`{}`: {}", d.ns, d.detail));
    besides.warnings.iter().cloned().chain(oplog).chain(undone).chain(differing).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "seconds and milliseconds of a status are far below")]
fn whole(value: f64) -> i64 {
    value.max(0.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CopyStatus, CutoverStatus, PersistentDifference, UnfinishedIndex, VerificationStatus};
    use serde_json::{Value, json};

    fn shown(s: &Status) -> Value {
        let besides = Besides { hosts: ["a:1".into(), "b:2".into()], ..Besides::default() };
        serde_json::to_value(Progress::of(s, &besides)).unwrap()
    }

    fn status(phase: &str, activity: &str) -> Status {
        Status { phase: phase.into(), activity: activity.into(), ..Status::default() }
    }

    #[test]
    fn states_are_mongosyncs() {
        for (phase, activity, state, info) in [
            ("", "", "INITIALIZING", json!(null)),
            ("planned", "held", "IDLE", json!(null)),
            ("copying", "running", "RUNNING", json!("collection copy")),
            ("catching_up", "running", "RUNNING", json!("change event application")),
            ("tailing", "running", "RUNNING", json!("change event application")),
            ("tailing", "paused", "PAUSED", json!("change event application")),
            ("copying", "halted", "PAUSED", json!("collection copy")),
            ("cutting_over", "running", "COMMITTING", json!("waiting for commit to complete")),
            ("committed", "running", "COMMITTED", json!("commit completed")),
        ] {
            let shown = shown(&status(phase, activity));
            assert_eq!((&shown["state"], &shown["info"]), (&json!(state), &info), "{phase} {activity}");
        }
    }

    #[test]
    fn nothing_is_known_before_the_start() {
        let shown = shown(&status("planned", "held"));
        for field in ["info", "lagTimeSeconds", "collectionCopy", "directionMapping"] {
            assert!(shown.as_object().unwrap().contains_key(field) && shown[field].is_null(), "{field}");
        }
        for field in ["verification", "warnings", "estimatedOplogTimeRemaining", "indexBuilding"] {
            assert!(shown.get(field).is_none(), "{field} is left out");
        }
    }

    #[test]
    fn a_running_migration_in_full() {
        let index = UnfinishedIndex { ns: "a.b".into(), name: "x".into(), state: "building".into(), error: None, progress: None };
        let s = Status {
            can_cut_over: true,
            lag_seconds: Some(1.4),
            headroom_seconds: Some(4.2 * 3600.0),
            catch_up_seconds: Some(12.0),
            copy: CopyStatus { bytes: 5, estimated_bytes: 9, collections: 3, indexes: 7, estimated_documents: 2, ..CopyStatus::default() },
            unfinished_indexes: vec![index.clone(), index],
            ..status("tailing", "running")
        };
        let besides =
            Besides { hosts: ["a:1".into(), "b:2".into()], verified_documents: 2, parity_age_seconds: Some(3.0), warnings: vec![] };
        let side = json!({
            "phase": "stream hashing", "lagTimeSeconds": 3, "estimatedDocumentCount": 2, "hashedDocumentCount": 2,
            "totalCollectionCount": 3, "scannedCollectionCount": 3,
        });
        let wanted = json!({
            "state": "RUNNING", "canCommit": true, "canWrite": false, "info": "change event application",
            "lagTimeSeconds": 1, "lag": {"overallLagSeconds": 1, "crudLagSeconds": 1, "ddlLagSeconds": 1},
            "totalEventsApplied": 0,
            "collectionCopy": {"estimatedTotalBytes": 9, "estimatedCopiedBytes": 5},
            "indexBuilding": {"indexesBuilt": 5, "totalIndexesToBuild": 7, "collectionsFinished": 2, "collectionsTotal": 3},
            "directionMapping": {"Source": "cluster0: a:1", "Destination": "cluster1: b:2"},
            "estimatedOplogTimeRemaining": "4 hours", "estimatedSecondsToCEACatchup": 12,
            "mongosyncID": "coordinator", "coordinatorID": "coordinator",
            "verification": {"source": side, "destination": side},
        });
        assert_eq!(serde_json::to_value(Progress::of(&s, &besides)).unwrap(), wanted);
    }

    #[test]
    fn oplog_times_are_in_its_words() {
        for (seconds, words) in [
            (None, "not checked yet"),
            (Some(60.0), "less than 15 minutes"),
            (Some(2700.0), "45 minutes"),
            (Some(3700.0), "1 hour"),
            (Some(43_200.0), "12 hours"),
            (Some(300_000.0), "more than 72 hours"),
        ] {
            assert_eq!(oplog_time(seconds), words);
        }
    }

    #[test]
    fn what_went_wrong_is_a_warning() {
        let cutover = Some(CutoverStatus { last_failure: Some("drain: too slow".into()), ..CutoverStatus::default() });
        let sharded =
            PersistentDifference { ns: "a.b".into(), detail: "sharded on the source only".into(), ..PersistentDifference::default() };
        let verification = VerificationStatus { warnings: vec![sharded], ..VerificationStatus::default() };
        let shown = shown(&Status { headroom_seconds: Some(10.0), cutover, verification, ..status("tailing", "running") });
        let warnings = shown["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 3);
        assert_eq!(warnings[2], "`a.b`: sharded on the source only");
        assert!(warnings[1].as_str().unwrap().contains("drain: too slow"));
        assert_eq!(shown["canCommit"], false);
    }
}
