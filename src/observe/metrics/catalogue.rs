//! Every name, kind, label, unit and help text, once. A test holds this list against what is really
//! exposed; the table of the README, the alert rules and the dashboard are held against it too.
//!
//! A name says its unit: `_seconds`, `_bytes`, else a count. `_total` only ever grows, and starts at 0
//! with the process.

use super::labels::{
    ACTIVITIES, AppliedOp, EventOp, GATES, INDEX_STATES, MismatchKind, PARTITION_STATES, RetryCause, SIDES, SWITCHES, WORK,
};
use crate::model::{LOG_LEVELS, Phase, SlowReason};
use std::fmt::Write;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size: `_bucket`, `_sum` and `_count`.
    Histogram {
        /// Upper bounds of the buckets, in the metric's unit.
        buckets: &'static [f64],
    },
}

impl Kind {
    /// As in the exposition.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram { .. } => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// In full, with the prefix and the unit.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Each label with all of its values; a version has no closed set.
    pub labels: &'static [(&'static str, &'static [&'static str])],
    /// One sentence for people.
    pub help: &'static str,
}

type Labels = &'static [(&'static str, &'static [&'static str])];

const fn counter(name: &'static str, labels: Labels, help: &'static str) -> Entry {
    Entry { name, kind: Kind::Counter, labels, help }
}
const fn gauge(name: &'static str, labels: Labels, help: &'static str) -> Entry {
    Entry { name, kind: Kind::Gauge, labels, help }
}
const fn histogram(name: &'static str, buckets: &'static [f64], help: &'static str) -> Entry {
    Entry { name, kind: Kind::Histogram { buckets }, labels: &[], help }
}

/// Seconds of one call to a server: from a cached read on the same host to one that nearly timed out.
const CALL_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Events of one batch: one when idle, thousands when catching up.
const BATCH_EVENTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// Makes one constant per metric, and the list of them all in the same order.
macro_rules! catalogue {
    ($($id:ident = $entry:expr;)+) => {
        $(pub(super) const $id: Entry = $entry;)+

        /// All metrics of ours, in the order of the reference.
        pub const CATALOGUE: &[Entry] = &[$($id),+];
    };
}

catalogue! {
    // Where it stands.
    LAG = gauge("mongoferry_lag_seconds", &[], "Seconds between the newest time known of the source and what is on the target; NaN while unknown.");
    HEADROOM = gauge("mongoferry_oplog_headroom_seconds", &[], "Seconds until the source's oplog would overwrite the resume point: window minus lag; NaN while unknown.");
    WINDOW = gauge("mongoferry_oplog_window_seconds", &[], "Seconds that the source's oplog holds when it is full, at the rate so far; NaN while unknown.");
    CHECKPOINT_AGE = gauge("mongoferry_checkpoint_age_seconds", &[], "Seconds since the resume point was last saved, growing even if the engine hangs; NaN before the first.");
    APPLIED_TIME = gauge("mongoferry_applied_cluster_time_seconds", &[], "Cluster time of the source, in seconds since 1970, up to which everything is on the target; NaN while unknown.");
    PHASE = gauge("mongoferry_phase", &[("phase", &Phase::LABELS)], "1 for the phase the migration is in, 0 for the others.");
    ACTIVITY = gauge("mongoferry_activity", &[("activity", &ACTIVITIES)], "1 for what the migration is doing, 0 for the others.");
    CAN_CUT_OVER = gauge("mongoferry_can_cut_over", &[], "1 while every gate of the cutover is open.");
    GATE_OPEN = gauge("mongoferry_cutover_gate_open", &[("gate", &GATES)], "1 for each gate of the cutover that is open, 0 for one that is shut or not yet judged.");
    WRITES_BLOCKED = gauge("mongoferry_writes_blocked_seconds", &[], "Seconds for which the current or last cutover blocked writes to the source.");
    LEASE_AGE = gauge("mongoferry_lease_age_seconds", &[], "Seconds since the lease of the migration was last renewed; NaN while it is not held.");

    // The change stream.
    EVENTS_READ = counter("mongoferry_events_read_total", &[("op", &EventOp::LABELS)], "Events read from the change stream.");
    EVENTS_READ_BYTES = counter("mongoferry_events_read_bytes_total", &[], "Bytes of events read from the change stream.");
    EVENTS_APPLIED = counter("mongoferry_events_applied_total", &[("op", &AppliedOp::LABELS)], "Events durably on the target, by what was done for them.");
    APPLY_DURATION = histogram("mongoferry_apply_duration_seconds", CALL_SECONDS, "Seconds to make one batch of events durable on the target.");
    APPLY_BATCH = histogram("mongoferry_apply_batch_events", BATCH_EVENTS, "Events in one batch: small when idle, large under load.");
    IN_FLIGHT = gauge("mongoferry_in_flight_bytes", &[], "Bytes of events read and not yet behind the resume point.");
    IN_FLIGHT_LIMIT = gauge("mongoferry_in_flight_limit_bytes", &[], "Bytes at which reading waits.");
    CHECKPOINTS = counter("mongoferry_checkpoints_total", &[], "Times the resume point was saved.");
    CHECKPOINT_DURATION = histogram("mongoferry_checkpoint_duration_seconds", CALL_SECONDS, "Seconds to save the resume point.");
    RETRIES = counter("mongoferry_retries_total", &[("side", &SIDES), ("cause", &RetryCause::LABELS)], "Calls made once more after a failure that may pass.");

    // The initial copy.
    COPIED_DOCUMENTS = counter("mongoferry_copied_documents_total", &[], "Documents made durable on the target by the copy, since the process started.");
    COPIED_BYTES = counter("mongoferry_copied_bytes_total", &[], "Bytes of documents made durable on the target by the copy, since the process started.");
    COPY_ALREADY_THERE = counter("mongoferry_copy_already_there_documents_total", &[], "Documents the copy found on the target: the tail or an earlier run had brought them.");
    COPY_REREAD = counter("mongoferry_copy_reread_documents_total", &[], "Documents read again because an event raced their batch.");
    COPY_DONE_DOCUMENTS = gauge("mongoferry_copy_done_documents", &[], "Documents durably on the target by the copy, earlier runs included.");
    COPY_DONE_BYTES = gauge("mongoferry_copy_done_bytes", &[], "Bytes durably on the target by the copy, earlier runs included.");
    COPY_ESTIMATED_DOCUMENTS = gauge("mongoferry_copy_estimated_documents", &[], "The source's estimate of all documents to copy.");
    COPY_ESTIMATED_BYTES = gauge("mongoferry_copy_estimated_bytes", &[], "The source's estimate of all bytes to copy.");
    COPY_PARTITIONS = gauge("mongoferry_copy_partitions", &[("state", &PARTITION_STATES)], "Partitions of the copy planned so far.");
    COPY_READ_DURATION = histogram("mongoferry_copy_read_duration_seconds", CALL_SECONDS, "Seconds to read one batch of the copy.");
    COPY_INSERT_DURATION = histogram("mongoferry_copy_insert_duration_seconds", CALL_SECONDS, "Seconds to make one batch of the copy durable on the target.");
    COPY_READ_STALLS = counter("mongoferry_copy_read_stalls_total", &[], "Times a reader of the copy waited because the memory budget or the writers were full.");

    // Indexes and parity.
    UNFINISHED_INDEXES = gauge("mongoferry_unfinished_indexes", &[("state", &INDEX_STATES)], "Indexes not yet on the target, for another reason than the cutover's.");
    INDEX_BUILDS = gauge("mongoferry_index_builds_running", &[], "Index builds under way on the target, those of the cutover included.");
    VERIFIED_DOCUMENTS = counter("mongoferry_verified_documents_total", &[], "Documents of the source compared with the target.");
    VERIFIED_BYTES = counter("mongoferry_verified_bytes_total", &[], "Bytes of documents of the source compared with the target.");
    MISMATCHES = gauge("mongoferry_mismatches", &[("kind", &MismatchKind::LABELS)], "Differences that the last finished verification could not explain by changes on their way.");
    PARITY_AGE = gauge("mongoferry_parity_age_seconds", &[], "Seconds since a verification last found both sides equal; NaN before the first.");

    // What holds the work back.
    THROTTLED = gauge("mongoferry_throttled", &[("reason", &SlowReason::LABELS)], "1 for each reason that holds the work back, 0 for the others.");
    COPY_SHARE = gauge("mongoferry_throttle_copy_ratio", &[], "Share of its own speed that the adaptive throttle allows the copy, from 0 to 1.");
    TAIL_SHARE = gauge("mongoferry_throttle_tail_ratio", &[], "Share of its own speed that the adaptive throttle allows the tail, from 0 to 1.");

    // What an operator has set.
    SETTING_ON = gauge("mongoferry_setting_on", &[("setting", &SWITCHES)], "1 for each setting that is on, 0 for one that is off.");
    RATE_LIMIT_BYTES = gauge("mongoferry_rate_limit_bytes", &[("work", &WORK)], "Bytes a second that the rate of a work allows; 0 while it has no such limit.");
    RATE_LIMIT_OPERATIONS = gauge("mongoferry_rate_limit_operations", &[("work", &WORK)], "Documents or events a second that the rate of a work allows; 0 while it has no such limit.");
    LOG_LEVEL = gauge("mongoferry_log_level", &[("level", &LOG_LEVELS)], "1 for the level of the log, 0 for the others.");

    BUILD_INFO = gauge("mongoferry_build_info", &[("version", &[])], "Always 1; the label tells the version.");
}

/// The catalogue as a Markdown table, for the README.
#[must_use]
pub fn reference_table() -> String {
    let mut table = String::from("| Metric | Kind | Labels | Meaning |\n| --- | --- | --- | --- |\n");
    for entry in CATALOGUE {
        let labels: Vec<String> = entry
            .labels
            .iter()
            .map(|(label, values)| if values.is_empty() { format!("`{label}`") } else { format!("`{label}`: {}", values.join(", ")) })
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{}` | {} | {} | {} |", entry.name, entry.kind.label(), labels.join("; "), entry.help);
    }
    table
}
