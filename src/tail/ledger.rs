//! The only writer of the resume point.

use super::{Passed, Progress};
use crate::{
    catalog::Catalog,
    checkpoint::{Frontier, Store},
    error::Result,
    model::{ClusterTime, Position},
    observe::Metrics,
    parity::Parity,
    race::Race,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

/// Positions kept as places to resume from, while a read of the copy holds the resume point back. Beyond it,
/// every second one is let go: the resume point may then be a little older than it could be.
const MAX_CANDIDATES: usize = 10_000;

/// Acknowledgements taken at once.
const AT_ONCE: usize = 4_096;

/// Keeps the ledger until all lanes have gone, then saves a last time.
pub(super) async fn keep<C: Store>(
    mut applied: mpsc::Receiver<Passed>,
    store: C,
    (race, parity): (Race, Parity),
    catalog: Catalog,
    metrics: Arc<Metrics>,
    every: Duration,
    progress: watch::Sender<Progress>,
) -> Result<()> {
    let mut ledger = Ledger { store, race, parity, catalog, metrics, progress, frontier: Frontier::default(), candidates: VecDeque::new() };
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(AT_ONCE);
    loop {
        tokio::select! {
            biased;
            // Saving first: under full load the other arm is always ready.
            _ = tick.tick() => ledger.save().await?,
            n = applied.recv_many(&mut batch, AT_ONCE) => {
                if n == 0 {
                    return ledger.save().await;
                }
                ledger.note(&mut batch);
            }
        }
    }
}

struct Ledger<C> {
    store: C,
    race: Race,
    parity: Parity,
    catalog: Catalog,
    metrics: Arc<Metrics>,
    progress: watch::Sender<Progress>,
    frontier: Frontier<Passed>,
    /// Passed by the frontier, not yet by the saved resume point; ascending.
    candidates: VecDeque<Position>,
}

impl<C: Store> Ledger<C> {
    fn note(&mut self, batch: &mut Vec<Passed>) {
        let candidates = &mut self.candidates;
        for passed in batch.drain(..) {
            self.frontier.applied(passed.seq, passed, |Passed { position, place, .. }| {
                // Of several positions at one time the newest will do: what holds the resume point back is a time.
                if candidates.back().is_some_and(|last| last.time == position.time) {
                    candidates.pop_back();
                }
                candidates.push_back(position);
                drop(place);
            });
        }
        if candidates.len() > MAX_CANDIDATES {
            let last = candidates.len() - 1;
            let mut n = 0;
            candidates.retain(|_| {
                n += 1;
                n % 2 == 0 || n > last
            });
        }
        if let Some(newest) = self.candidates.back().map(|p| p.time) {
            self.progress.send_if_modified(|p| {
                let moved = p.applied < newest;
                p.applied = p.applied.max(newest);
                moved
            });
        }
    }

    async fn save(&mut self) -> Result<()> {
        let Some(n) = self.race.promise(self.candidates.iter().map(|p| p.time)) else { return Ok(()) };
        let Some(position) = self.candidates.drain(..=n).next_back() else { return Ok(()) };
        let started = Instant::now();
        self.save_marks(position.time).await?;
        self.store.save_resume_point(&position).await?;
        self.metrics.checkpoint_saved(started.elapsed());
        self.progress.send_modify(|p| {
            p.resume = position.time;
            p.saved_at = Some(Instant::now());
        });
        let forgotten = self.catalog.forget_dropped(position.time);
        if !forgotten.is_empty() {
            self.store.forget(&forgotten).await?;
        }
        Ok(())
    }

    /// What was touched before the resume point is not seen again after a crash: the marks come first.
    async fn save_marks(&self, time: ClusterTime) -> Result<()> {
        if self.parity.is_on() {
            let marks = self.parity.marks();
            self.store.save_marks(&marks, time).await?;
            self.parity.saved(&marks);
        }
        Ok(())
    }
}
