//! One snapshot of a running migration: what `status`, `/status`, the progress line and the gauges all show.

use super::{ClusterTime, Settings, ThrottleStatus};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A condition of the cutover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gate {
    /// Short name, stable: scripts read it.
    pub name: String,
    /// Whether it lets the cutover through.
    pub open: bool,
    /// Why it is shut, or what was found.
    pub why: String,
}

/// Progress of the initial copy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CopyStatus {
    /// Documents durably on the target by the copy.
    pub documents: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The source's estimate of all documents to copy.
    pub estimated_documents: u64,
    /// The source's estimate of their size in bytes.
    pub estimated_bytes: u64,
    /// Documents the tail or an earlier run had brought already.
    pub already_there: u64,
    /// Documents read again because an event raced their batch.
    pub reread: u64,
    /// Partitions finished.
    pub partitions_done: u64,
    /// Partitions planned so far.
    pub partitions: u64,
    /// Collections whose copy is complete.
    pub collections_done: u64,
    /// Collections to copy.
    pub collections: u64,
    /// Indexes wanted on the target.
    pub indexes: u64,
}

/// Events of the change stream since the process started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventStatus {
    /// Read from the stream.
    pub read: u64,
    /// Durably on the target.
    pub applied: u64,
    /// Structural events applied.
    pub ddl: u64,
    /// Documents read again from the source in their lane.
    pub reread: u64,
}

/// What is between the source's cursor and the target's acknowledgement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct InFlightStatus {
    /// Bytes counted against the limit.
    pub bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
}

/// An index that is not yet on the target in its final form for a reason other than the cutover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UnfinishedIndex {
    /// Namespace on the source.
    pub ns: String,
    /// Name of the index.
    pub name: String,
    /// `waiting`, `building` or `failed`.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
    /// How much of the collection its build has read, from 0 to 1, where the target tells.
    #[serde(default)]
    pub progress: Option<f64>,
}

/// How an index is named where it may be waived: `db.collection:index`, with its namespace on the source.
#[must_use]
pub fn index_title(ns: &str, name: &str) -> String {
    format!("{ns}:{name}")
}

impl UnfinishedIndex {
    /// See [`index_title`].
    #[must_use]
    pub fn title(&self) -> String {
        index_title(&self.ns, &self.name)
    }
}

/// Where a cutover stands, or how the last one ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CutoverStatus {
    /// The step at work, or the last one.
    pub step: String,
    /// Cluster time of the source after which no write came.
    pub fence: Option<ClusterTime>,
    /// Seconds for which writes to the source were blocked by us.
    pub writes_blocked_seconds: Option<f64>,
    /// What was proved equal behind the fence, in words.
    pub proof: Option<String>,
    /// How the last attempt failed.
    pub last_failure: Option<String>,
}

/// A difference that was looked at again and persists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PersistentDifference {
    /// Namespace on the source; of an extra collection, on the target.
    pub ns: String,
    /// As in the report of `verify`.
    pub kind: String,
    /// The document's `_id`, as in the report of `verify`.
    pub id: Option<String>,
    /// In words. Names fields, never values.
    pub detail: String,
}

/// How far one collection is proved equal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CollectionVerification {
    /// Namespace on the source.
    pub ns: String,
    /// `pending`: not yet compared as a whole; `verified`: equal as of the tail's position; `stale`: equal as of
    /// `proved_cluster_time`, and touched since; `different`: differences persist.
    pub state: String,
    /// Documents compared, each counted once.
    pub documents: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Partitions in which it is compared; 0 while not yet split.
    pub partitions: u64,
    /// Partitions compared as a whole at least once.
    pub partitions_proved: u64,
    /// Differences that persist.
    pub differences: u64,
    /// Source time up to which both sides are proved equal.
    pub proved_cluster_time: Option<ClusterTime>,
}

/// What the continuous verification has proved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct VerificationStatus {
    /// `off`, `failed`, or as for a collection: the worst of all.
    pub state: String,
    /// Why it cannot go on at the moment. It tries again.
    pub failure: Option<String>,
    /// Source time up to which every collection is proved equal.
    pub proved_cluster_time: Option<ClusterTime>,
    /// Documents compared, each counted once.
    pub documents: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Collections in that state.
    pub verified: u64,
    /// Collections in that state.
    pub stale: u64,
    /// Collections in that state.
    pub pending: u64,
    /// Collections in that state.
    pub different: u64,
    /// Differences that persist, of documents and of structure.
    pub differences: u64,
    /// The first of them.
    pub listed_differences: Vec<PersistentDifference>,
    /// Differences that say nothing against a cutover: shard keys and zones. Their details tell what mends them.
    pub warnings: Vec<PersistentDifference>,
    /// By namespace, those that are not verified first; of more than 200, the first.
    pub collections: Vec<CollectionVerification>,
}

/// Which way the data goes: a way back has source and target in each other's place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DirectionStatus {
    /// `forward`, or `reverse` after an odd number of turns.
    pub way: String,
    /// How often the direction has changed since the first migration.
    pub turn: u32,
    /// Identity of the migration that this is the way back of.
    pub reverse_of: Option<String>,
    /// Hosts of the cluster that is read from now.
    pub source: String,
    /// Hosts of the cluster that is written to now.
    pub target: String,
}

/// The snapshot. `format` grows only when a field changes its meaning or goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Status {
    /// 1.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// Identity of the migration.
    pub migration: String,
    /// Which way the data goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<DirectionStatus>,
    /// `planned`, `copying`, `catching_up`, `tailing`, `cutting_over`, `committed`.
    pub phase: String,
    /// `running`, `paused`, `halted`; `held` before a start that is waited for.
    pub activity: String,
    /// Why it is paused or halted.
    pub reason: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Exit code that goes with a halt.
    pub exit_code: Option<u8>,
    /// What a user may not do that mongoferry does without, and what that costs.
    pub done_without: Vec<String>,
    /// Whether every gate is open.
    pub can_cut_over: bool,
    /// Whether the application may write to the target: only after the commit.
    pub can_write_to_target: bool,
    /// All gates, open and shut.
    pub gates: Vec<Gate>,
    /// Seconds between the newest time known of the source and what is on the target.
    pub lag_seconds: Option<f64>,
    /// Seconds until the lag is gone, if it goes on falling as it did of late; `null` while it does not fall.
    pub catch_up_seconds: Option<f64>,
    /// Seconds until the oplog of the source would overwrite our resume point: window minus lag.
    pub headroom_seconds: Option<f64>,
    /// Seconds that the source's oplog holds when it is full, at the rate so far.
    pub oplog_window_seconds: Option<f64>,
    /// Seconds since the resume point was last saved.
    pub checkpoint_age_seconds: Option<f64>,
    /// Source time up to which everything is on the target.
    pub applied_cluster_time: Option<ClusterTime>,
    /// Newest time known of the source.
    pub source_cluster_time: Option<ClusterTime>,
    /// Source time of the saved resume point.
    pub resume_cluster_time: Option<ClusterTime>,
    /// The initial copy.
    pub copy: CopyStatus,
    /// The change stream.
    pub events: EventStatus,
    /// Memory of the tail.
    pub in_flight: InFlightStatus,
    /// Calls repeated since the process started.
    pub retries: u64,
    /// Indexes still to be built, or that could not be.
    pub unfinished_indexes: Vec<UnfinishedIndex>,
    /// What is proved equal.
    pub verification: VerificationStatus,
    /// What the cutover is at.
    pub cutover: Option<CutoverStatus>,
    /// What holds the work back.
    pub throttle: ThrottleStatus,
    /// What may be changed while it runs.
    pub settings: Settings,
    /// The verbs that make sense now.
    pub permitted: Vec<String>,
}
