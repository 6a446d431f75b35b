//! What the process counts. Names and texts are in the catalogue, call sites hold verbs.
//!
//! The registry is ours alone and has no prefix: a prefix would rename the process collector too.

mod age;
mod catalogue;
mod labels;
mod mirror;
mod register;
#[cfg(test)]
mod tests;

pub use catalogue::{CATALOGUE, Entry, Kind, reference_table};
pub use labels::{AppliedOp, EventOp, GATES, MismatchKind, RetryCause};

use crate::model::{Side, Status};
use age::Age;
use catalogue as c;
use mirror::Mirror;
use prometheus::{Gauge, Histogram, IntCounter, Registry, TextEncoder};
use std::time::Duration;

/// All metrics of a process. Made once and shared by `Arc`; every verb is a few atomic additions.
pub struct Metrics {
    registry: Registry,
    mirror: Mirror,
    events_read: [IntCounter; EventOp::LABELS.len()],
    events_read_bytes: IntCounter,
    events_applied: [IntCounter; AppliedOp::LABELS.len()],
    apply_duration: Histogram,
    apply_batch: Histogram,
    copied_documents: IntCounter,
    copied_bytes: IntCounter,
    already_there: IntCounter,
    reread: IntCounter,
    partitions: [Gauge; labels::PARTITION_STATES.len()],
    copy_read: Histogram,
    copy_insert: Histogram,
    copy_stalls: IntCounter,
    retries: [[IntCounter; RetryCause::LABELS.len()]; labels::SIDES.len()],
    checkpoints: IntCounter,
    checkpoint_duration: Histogram,
    index_builds: Gauge,
    mismatches: [Gauge; MismatchKind::LABELS.len()],
    parity_age: Age,
    verified_documents: IntCounter,
    verified_bytes: IntCounter,
    lease_age: Age,
}

impl Metrics {
    /// All at zero, or unknown.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made once, on purpose: two of them would each count half")]
    pub fn new() -> Self {
        use register::{counter, counter_grid, counters, gauge, gauges, histogram};
        let registry = Registry::new();
        let r = &registry;
        #[cfg(target_os = "linux")]
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect("registered first");
        for version in gauges(r, &c::BUILD_INFO, [env!("CARGO_PKG_VERSION")]) {
            version.set(1.0);
        }
        Self {
            mirror: Mirror::new(r),
            events_read: counters(r, &c::EVENTS_READ, EventOp::LABELS),
            events_read_bytes: counter(r, &c::EVENTS_READ_BYTES),
            events_applied: counters(r, &c::EVENTS_APPLIED, AppliedOp::LABELS),
            apply_duration: histogram(r, &c::APPLY_DURATION),
            apply_batch: histogram(r, &c::APPLY_BATCH),
            copied_documents: counter(r, &c::COPIED_DOCUMENTS),
            copied_bytes: counter(r, &c::COPIED_BYTES),
            already_there: counter(r, &c::COPY_ALREADY_THERE),
            reread: counter(r, &c::COPY_REREAD),
            partitions: gauges(r, &c::COPY_PARTITIONS, labels::PARTITION_STATES),
            copy_read: histogram(r, &c::COPY_READ_DURATION),
            copy_insert: histogram(r, &c::COPY_INSERT_DURATION),
            copy_stalls: counter(r, &c::COPY_READ_STALLS),
            retries: counter_grid(r, &c::RETRIES, labels::SIDES, RetryCause::LABELS),
            checkpoints: counter(r, &c::CHECKPOINTS),
            checkpoint_duration: histogram(r, &c::CHECKPOINT_DURATION),
            index_builds: gauge(r, &c::INDEX_BUILDS),
            mismatches: gauges(r, &c::MISMATCHES, MismatchKind::LABELS),
            parity_age: Age::new(gauge(r, &c::PARITY_AGE)),
            verified_documents: counter(r, &c::VERIFIED_DOCUMENTS),
            verified_bytes: counter(r, &c::VERIFIED_BYTES),
            lease_age: Age::new(gauge(r, &c::LEASE_AGE)),
            registry,
        }
    }

    /// Everything in the text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        for age in [&self.mirror.checkpoint_age, &self.parity_age, &self.lease_age] {
            age.refresh();
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("the families are well-formed")
    }

    /// Sets every gauge that mirrors the status. The engine calls it with each snapshot it publishes.
    pub fn show(&self, status: &Status) {
        self.mirror.show(status);
    }

    // The tail.

    /// Events of one kind came from the change stream; `bytes` as they came. Once per batch and kind.
    pub fn read(&self, op: EventOp, events: u64, bytes: u64) {
        self.events_read[op as usize].inc_by(events);
        self.events_read_bytes.inc_by(bytes);
    }

    /// Events are durably on the target. Once per batch and kind.
    pub fn applied(&self, op: AppliedOp, events: u64) {
        self.events_applied[op as usize].inc_by(events);
    }

    /// One batch was made durable.
    pub fn applied_batch(&self, events: u64, took: Duration) {
        self.apply_batch.observe(events as f64);
        self.apply_duration.observe(took.as_secs_f64());
    }

    /// The resume point was saved.
    pub fn checkpoint_saved(&self, took: Duration) {
        self.checkpoints.inc();
        self.checkpoint_duration.observe(took.as_secs_f64());
        self.mirror.checkpoint_age.set(Some(0.0));
    }

    /// A call to `side` is made once more.
    pub fn retried(&self, side: Side, cause: RetryCause) {
        self.retries[side as usize][cause as usize].inc();
    }

    /// The lease of the migration was taken or renewed.
    pub fn lease_renewed(&self) {
        self.lease_age.set(Some(0.0));
    }

    /// The lease was given back or lost.
    pub fn lease_gone(&self) {
        self.lease_age.set(None);
    }

    // The copy.

    /// One batch of the copy is durable: `documents` of `bytes` were inserted, `already_there` were not
    /// since the target had them.
    pub fn copied(&self, documents: u64, bytes: u64, already_there: u64) {
        self.copied_documents.inc_by(documents);
        self.copied_bytes.inc_by(bytes);
        self.already_there.inc_by(already_there);
    }

    /// Documents have to be read again since an event raced their batch.
    pub fn reread(&self, documents: u64) {
        self.reread.inc_by(documents);
    }

    /// One batch of the copy was read.
    pub fn copy_read(&self, took: Duration) {
        self.copy_read.observe(took.as_secs_f64());
    }

    /// One batch of the copy was inserted.
    pub fn copy_inserted(&self, took: Duration) {
        self.copy_insert.observe(took.as_secs_f64());
    }

    /// A reader of the copy has to wait for room.
    pub fn copy_stalled(&self) {
        self.copy_stalls.inc();
    }

    /// How many partitions are in which state now.
    pub fn partitions(&self, waiting: u64, running: u64, done: u64) {
        for (gauge, count) in self.partitions.iter().zip([waiting, running, done]) {
            gauge.set(count as f64);
        }
    }

    // Indexes and parity.

    /// An index build begins; it ends when the guard is dropped.
    #[must_use]
    pub fn index_build(&self) -> IndexBuild {
        self.index_builds.inc();
        IndexBuild(self.index_builds.clone())
    }

    /// Documents of the source were compared.
    pub fn verified(&self, documents: u64, bytes: u64) {
        self.verified_documents.inc_by(documents);
        self.verified_bytes.inc_by(bytes);
    }

    /// A verification ended with so many differences of a kind that changes on their way do not explain.
    pub fn mismatches(&self, kind: MismatchKind, count: u64) {
        self.mismatches[kind as usize].set(count as f64);
    }

    /// Both sides were found equal, `ago`.
    pub fn parity_proved(&self, ago: Duration) {
        self.parity_age.set(Some(ago.as_secs_f64()));
    }

    // What the status needs. All count from the start of the process.

    /// Events read from the change stream.
    #[must_use]
    pub fn events_read_total(&self) -> u64 {
        sum(&self.events_read)
    }

    /// Events durably on the target.
    #[must_use]
    pub fn events_applied_total(&self) -> u64 {
        sum(&self.events_applied)
    }

    /// Events of one way of applying that are durably on the target.
    #[must_use]
    pub fn events_applied(&self, op: AppliedOp) -> u64 {
        self.events_applied[op as usize].get()
    }

    /// Documents inserted by the copy.
    #[must_use]
    pub fn copied_documents(&self) -> u64 {
        self.copied_documents.get()
    }

    /// Bytes inserted by the copy.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes.get()
    }

    /// Documents the copy found on the target.
    #[must_use]
    pub fn already_there_documents(&self) -> u64 {
        self.already_there.get()
    }

    /// Documents read again because an event raced their batch.
    #[must_use]
    pub fn reread_documents(&self) -> u64 {
        self.reread.get()
    }

    /// Calls made once more.
    #[must_use]
    pub fn retries_total(&self) -> u64 {
        self.retries.iter().map(|causes| sum(causes)).sum()
    }

    /// Documents of the source compared.
    #[must_use]
    pub fn verified_documents(&self) -> u64 {
        self.verified_documents.get()
    }

    /// Seconds since a verification last found both sides equal.
    #[must_use]
    pub fn parity_age_seconds(&self) -> Option<f64> {
        self.parity_age.seconds()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// An index build under way.
#[derive(Debug)]
pub struct IndexBuild(Gauge);

impl Drop for IndexBuild {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn sum(counters: &[IntCounter]) -> u64 {
    counters.iter().map(IntCounter::get).sum()
}
