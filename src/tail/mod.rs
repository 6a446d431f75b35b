//! Follows the change stream onto the target.
//!
//! ```text
//! reader ──batch──▶ router ──Parcel──▶ lane 0..n ──▶ target ──Passed──▶ ledger ──▶ checkpoint
//!                     ▲ room in flight ◀────── given back when the frontier has passed ──────┘
//! ```
//! One way, a file each. The only thing that comes back is room in flight, and it comes back by being
//! dropped: that bounds memory and replay, makes back-pressure, and is the barrier of structural changes.

mod ddl;
mod fold;
mod lane;
mod ledger;
mod reader;
mod repeats;
mod router;
#[cfg(test)]
mod sim;

use crate::{
    capped::Doubts,
    catalog::{Catalog, Collection},
    checkpoint::Store,
    error::Result,
    model::{ClusterTime, Position, Selection, Write},
    observe::Metrics,
    parity::Parity,
    race::{Race, Reread},
    retry::Retry,
    source::{Source, StartAt},
    target::Target,
    tasks::first_error,
    throttle::Pace,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Work waiting in front of a lane. Small: what waits there is in flight already.
const LANE_QUEUE: usize = 1_024;
/// Acknowledgements waiting for the ledger.
const LEDGER_QUEUE: usize = 4_096;

/// Everything the tail needs. `Clone`d for each start.
#[derive(Debug, Clone)]
pub struct Tail<S, T, C> {
    /// Read from.
    pub source: S,
    /// Written to.
    pub target: T,
    /// Where progress is kept.
    pub store: C,
    /// Which collections there are.
    pub catalog: Catalog,
    /// Where the copy is met.
    pub race: Race,
    /// Told of what is touched.
    pub parity: Parity,
    /// What is replicated.
    pub selection: Selection,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Rung when the wanted indexes changed.
    pub indexes_changed: Arc<Notify>,
    /// Rung when a collection came into the selection whose documents are to be copied.
    pub copy_wanted: Arc<Notify>,
    /// With scans of capped collections that fail.
    pub retry: Retry,
    /// What capped collections show already.
    pub capped: Doubts,
    /// Ordered workers.
    pub lanes: usize,
    /// How often the resume point is saved.
    pub checkpoint_every: Duration,
    /// Room in flight, as of the latest start.
    pub room: Room,
    /// When the next batch may be read.
    pub pace: Pace,
    /// Fires when what was read and not begun is to be left for the next start.
    pub at_once: CancellationToken,
}

/// How far the tail has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Everything up to here is durably on the target.
    pub applied: ClusterTime,
    /// The saved resume point.
    pub resume: ClusterTime,
    /// When it was saved.
    pub saved_at: Option<tokio::time::Instant>,
}

/// A change on its way. Its `place` is given up only when the frontier has passed it.
struct Parcel {
    seq: u64,
    position: Position,
    write: Write,
    collection: Arc<Collection>,
    place: OwnedSemaphorePermit,
}

/// What goes down a lane.
enum Work {
    Change(Parcel),
    Reread { reread: Reread, place: OwnedSemaphorePermit },
}

/// What the ledger hears: this number is durable.
struct Passed {
    seq: u64,
    position: Position,
    place: OwnedSemaphorePermit,
}

/// Room in flight, counted in KiB of memory. An event costs several times its size: it is held here, in the
/// command, and in the driver's copies of it.
#[derive(Debug, Clone)]
pub struct Room {
    places: Arc<Semaphore>,
    limit: u32,
}

/// Copies of an event that are alive while its batch is written.
const COPIES: u64 = 5;

impl Room {
    /// For about so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let limit = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).clamp(1_024, 1 << 28);
        Self { places: Arc::new(Semaphore::new(limit as usize)), limit }
    }

    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from((bytes as u64 * COPIES).div_ceil(1024) + 1).unwrap_or(u32::MAX).min(self.limit)
    }

    /// Waits for room; `None` when `stop` fires first: after a failure none may ever come free.
    pub(crate) async fn take(&self, bytes: usize, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        stop.run_until_cancelled(self.places.clone().acquire_many_owned(self.cost(bytes))).await?.ok()
    }

    /// Waits until nothing is in flight but what `but` holds.
    async fn all(&self, but: &OwnedSemaphorePermit, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        let rest = self.limit - u32::try_from(but.num_permits()).unwrap_or(self.limit);
        stop.run_until_cancelled(self.places.clone().acquire_many_owned(rest)).await?.ok()
    }

    /// Bytes in flight, and the limit.
    #[must_use]
    pub fn in_flight(&self) -> (u64, u64) {
        ((self.limit as usize - self.places.available_permits()) as u64 * 1024, u64::from(self.limit) * 1024)
    }
}

impl<S: Source, T: Target, C: Store> Tail<S, T, C> {
    /// Runs until `stop` fires or something fails. Returns once every task it started has ended.
    ///
    /// # Errors
    /// The first of any task.
    pub async fn run(
        self,
        from: StartAt,
        rereads: mpsc::Receiver<Reread>,
        progress: watch::Sender<Progress>,
        stop: CancellationToken,
    ) -> Result<()> {
        let stop = stop.child_token();
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        let (ledger, applied) = mpsc::channel(LEDGER_QUEUE);
        let mut lanes = Vec::with_capacity(self.lanes);
        for _ in 0..self.lanes {
            let (lane, work) = mpsc::channel(LANE_QUEUE);
            lanes.push(lane);
            tasks.spawn(lane::run(
                work,
                (self.source.clone(), self.target.clone(), self.store.clone()),
                self.race.clone(),
                self.metrics.clone(),
                ledger.clone(),
                self.at_once.clone(),
            ));
        }
        tasks.spawn(ledger::keep(
            applied,
            self.store.clone(),
            (self.race.clone(), self.parity.clone()),
            self.catalog.clone(),
            self.metrics.clone(),
            self.checkpoint_every,
            progress,
        ));
        let (batches, read) = mpsc::channel(1);
        tasks.spawn(reader::read(self.source.clone(), from, batches, self.pace.clone(), stop.clone()));
        tasks.spawn(
            router::Router { tail: self, lanes, ledger, stop: stop.clone(), newest: ClusterTime::default(), sharded: false }
                .route(read, rereads),
        );
        first_error(tasks, &stop).await
    }
}
