//! Completes the proof: everything that is still open is looked at, at full speed.

use super::{Prover, Round};
use crate::{
    checkpoint::Store,
    error::{Error, Result},
    model::ClusterTime,
    source::Source,
    verify::{Pace, Settings},
};
use serde::Serialize;
use std::{sync::PoisonError, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Rounds after which a source that never rests is left.
const ROUNDS: u32 = 100;

/// So few documents take a moment behind the fence.
const FEW: u64 = 2_000;
/// Rounds ahead of the fence at most: what is written meanwhile is few.
const ROUNDS_AHEAD: u32 = 5;

/// How far a proof is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// While writes go on: until little is left.
    Ahead,
    /// Both sides stand still: until nothing is left.
    Whole,
    /// The same, but for what was never compared as a whole.
    WithoutUnproved,
}

/// What is proved, and what it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Proof {
    /// Whether every selected document is proved equal.
    pub complete: bool,
    /// Why not, or what was found to differ.
    pub missing: Option<String>,
    /// Whether documents were found to differ.
    pub differs: bool,
    /// Documents proved equal, in all.
    pub documents: u64,
    /// Documents that were looked at for it by themselves, since they were touched.
    pub documents_looked_at: u64,
    /// Partitions that were compared for it as a whole.
    pub partitions_compared: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

impl<A: Source, B: Source, C: Store> Prover<A, B, C> {
    /// Looks at everything that is open. The round under way is cut short.
    ///
    /// # Errors
    /// As classified; never a verdict on a part.
    ///
    /// # Cancel safety
    /// Safe to drop: what was left half way is done again.
    pub async fn prove<F, Fut>(&self, settle: &F, applied: ClusterTime, reach: Reach, stop: &CancellationToken) -> Result<Proof>
    where
        F: Fn(ClusterTime) -> Fut + Sync,
        Fut: Future<Output = Result<()>> + Send,
    {
        let started = Instant::now();
        let known = &mut *loop {
            self.round.lock().unwrap_or_else(PoisonError::into_inner).cancel();
            if let Ok(known) = tokio::time::timeout(Duration::from_millis(20), self.findings.known.lock()).await {
                break known;
            }
        };
        self.parity.abandon();
        let settings = Settings { pace: Pace::default(), ..self.settings.clone() };
        let round = Round { settle, applied, settings: &settings, stop };
        let mut proof = Proof::default();
        for n in 0..ROUNDS {
            if stop.is_cancelled() {
                return Err(Error::Interrupted);
            }
            if reach == Reach::Whole {
                while self.adopt(&round).await? {}
            }
            let looked_at = self.look_at_keys(known, &round, n == 0).await?;
            proof.documents_looked_at += looked_at;
            let ranges = self.parity.scan_open(settings.workers * 2, reach == Reach::Whole);
            proof.partitions_compared += ranges.len() as u64;
            self.compare_ranges(known, &round, ranges).await?;
            let left = self.parity.left();
            let is_done = match reach {
                Reach::Ahead => left.stale == 0 && (looked_at < FEW || n >= ROUNDS_AHEAD),
                Reach::Whole => left.keys == 0 && left.stale == 0 && left.unproved == 0,
                Reach::WithoutUnproved => left.keys == 0 && left.stale == 0,
            };
            if is_done {
                break;
            }
        }
        self.show(known);
        let living: Vec<_> =
            self.catalog.living().iter().filter(|c| !c.entry().is_view()).map(|c| (c.uuid(), c.entry().ns.to_string())).collect();
        let status = self.parity.status(&living, applied);
        proof.documents = status.documents;
        let first = known.found.values().next().map(|d| format!(", the first in `{}`: {}", d.ns, d.kind.label()));
        proof.missing = match (status.pending, status.stale) {
            _ if !known.found.is_empty() => Some(format!("{} documents differ{}", known.found.len(), first.unwrap_or_default())),
            _ if !known.overflow.is_empty() => Some(format!("{} documents differ", known.overflow.values().sum::<u64>())),
            (0, 0) => None,
            (0, stale) => Some(format!("{stale} collections did not come to rest")),
            (pending, _) => Some(format!("{pending} collections are not compared")),
        };
        proof.differs = !known.found.is_empty() || !known.overflow.is_empty();
        proof.complete = proof.missing.is_none();
        proof.seconds = started.elapsed().as_secs_f64();
        Ok(proof)
    }
}
