//! What a load has done.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;
use tokio::time::Instant;

/// The kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Insert,
    /// Update operators on nested paths and array elements.
    Update,
    /// Arrays cut short, by `$slice` and by pipelines.
    Truncate,
    /// Updates by an aggregation pipeline.
    Pipeline,
    /// A field removed and set again, so that it moves to the end.
    Reorder,
    Replace,
    Delete,
    /// A document deleted and inserted again under the same `_id`.
    Reinsert,
    /// Updates of the few documents that all workers share.
    Hot,
    /// Operations in committed transactions.
    InTransaction,
    Ddl,
}

const KINDS: [Kind; 11] = [
    Kind::Insert,
    Kind::Update,
    Kind::Truncate,
    Kind::Pipeline,
    Kind::Reorder,
    Kind::Replace,
    Kind::Delete,
    Kind::Reinsert,
    Kind::Hot,
    Kind::InTransaction,
    Kind::Ddl,
];

/// Totals of a load.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub seed: u64,
    /// Since the start.
    pub seconds: f64,
    /// Single operations that the server accepted.
    pub operations: u64,
    /// The mean over the whole time.
    pub operations_per_second: f64,
    pub by_kind: BTreeMap<Kind, u64>,
    /// Committed transactions.
    pub transactions: u64,
    /// Transactions aborted, on purpose or by a conflict.
    pub aborted: u64,
    /// Batches sent again after a transient error, such as an election.
    pub retried: u64,
    /// Batches turned away by a write block (error 371).
    pub blocked: u64,
    /// Inserts whose `_id` was there already, mostly after a retry.
    pub duplicates: u64,
    /// Operations that failed for another reason.
    pub errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

#[derive(Debug)]
pub struct Tally {
    seed: u64,
    started: Instant,
    by_kind: [AtomicU64; KINDS.len()],
    pub transactions: AtomicU64,
    pub aborted: AtomicU64,
    pub retried: AtomicU64,
    pub blocked: AtomicU64,
    pub duplicates: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Tally {
    pub fn new(seed: u64) -> Tally {
        Tally {
            seed,
            started: Instant::now(),
            by_kind: Default::default(),
            transactions: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    pub fn did(&self, kind: Kind, operations: u64) {
        self.by_kind[kind as usize].fetch_add(operations, Relaxed);
    }

    pub fn failed(&self, operations: u64, error: String) {
        self.errors.fetch_add(operations, Relaxed);
        *self.last_error.lock().unwrap() = Some(error);
    }

    pub fn counts(&self) -> Counts {
        let by_kind: BTreeMap<Kind, u64> = KINDS.into_iter().map(|kind| (kind, self.by_kind[kind as usize].load(Relaxed))).collect();
        let seconds = self.started.elapsed().as_secs_f64();
        let operations = by_kind.values().sum();
        Counts {
            seed: self.seed,
            seconds,
            operations,
            operations_per_second: operations as f64 / seconds.max(0.001),
            by_kind,
            transactions: self.transactions.load(Relaxed),
            aborted: self.aborted.load(Relaxed),
            retried: self.retried.load(Relaxed),
            blocked: self.blocked.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            errors: self.errors.load(Relaxed),
            last_error: self.last_error.lock().unwrap().clone(),
        }
    }
}
