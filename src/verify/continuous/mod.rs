//! Verifies all the time, while the tail goes on: a collection as a whole as soon as it is copied, from then on only what
//! the tail touched; and everything anew now and then, since the tail knows nothing of somebody else who writes to the
//! target.
//!
//! It works in rounds. What a round left half way is done again by the next; what persists is listed until it is seen equal.

mod adopt;
mod keys;
mod proof;
mod ranges;
mod structure;

pub use proof::{Proof, Reach};

use super::{
    Mended, Settings,
    compare::digest_of,
    recheck::Readable,
    report::{Difference, DifferenceKind},
};
use crate::{
    catalog::{Catalog, Collection, State},
    checkpoint::Store,
    error::{Error, Result},
    model::{ClusterTime, CollectionUuid, DocumentKey, Namespace, PartitionId, PersistentDifference, Selection, ShardKey},
    observe::{Metrics, MismatchKind as Label},
    parity::{Listed, Parity},
    source::{CollectionRef, Source},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often touched keys are looked at: a document that is written to all the time is read no oftener.
const KEYS_EVERY: Duration = Duration::from_secs(2);
/// How often differences that persist are looked at again.
const FOUND_EVERY: Duration = Duration::from_secs(10);
/// How often structure that differs, or is in motion, is looked at again, at most; and never for more than a fifth of the time.
const STRUCTURE_FOUND_EVERY: Duration = Duration::from_secs(2);
/// How often structure is compared, at most; and never for more than a twentieth of the time.
const STRUCTURE_EVERY: Duration = Duration::from_secs(30);

/// What is found, by key; survives the verifier. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    known: Arc<tokio::sync::Mutex<Known>>,
    /// Differences and structure are to be looked at at once.
    look: Arc<AtomicBool>,
    mended: Mended,
}

impl Findings {
    /// What was mended.
    #[must_use]
    pub fn mended(&self) -> Mended {
        self.mended.clone()
    }

    /// Has differences and structure looked at again at once.
    pub fn look_again(&self) {
        self.look.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Known {
    found: BTreeMap<(CollectionUuid, Vec<u8>), Difference>,
    /// Mismatches for which there was no room in a range.
    overflow: BTreeMap<PartitionId, u64>,
    structure: Vec<Difference>,
    /// Shard keys and zones that differ.
    sharding: Vec<Difference>,
    keys_at: Option<Instant>,
    found_at: Option<Instant>,
    structure_at: Option<Instant>,
    structure_took: Duration,
    /// It was in motion then: nothing is known of what differed.
    structure_moves: bool,
    /// When everything was last begun anew, or first proved.
    whole_at: Option<Instant>,
}

/// The verifier.
#[derive(Debug)]
pub struct Prover<A, B, C> {
    /// Read.
    pub source: A,
    /// The target, to be read.
    pub target: B,
    /// Which collections there are.
    pub catalog: Catalog,
    /// What the tail touched, and what is proved.
    pub parity: Parity,
    /// Where ranges are kept.
    pub store: C,
    /// What is replicated.
    pub selection: Selection,
    /// How to compare.
    pub settings: Settings,
    /// Those of the target, as they were seen last: their indexes are nobody's difference.
    pub shard_keys: Arc<Mutex<Arc<BTreeMap<Namespace, ShardKey>>>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How often everything is compared anew.
    pub every: Duration,
    /// What was found so far.
    pub findings: Findings,
    /// The round under way.
    pub round: Arc<Mutex<CancellationToken>>,
}

/// What a round needs from outside.
#[derive(Debug)]
pub(super) struct Round<'a, F> {
    /// Waits until the target has caught up with a time of the source.
    settle: &'a F,
    /// What the tail had brought to the target when the round began.
    applied: ClusterTime,
    settings: &'a Settings,
    stop: &'a CancellationToken,
}

impl<A: Source, B: Source, C: Store> Prover<A, B, C> {
    /// One round; whether there was anything to do. `applied` is what the tail has brought to the target.
    ///
    /// # Errors
    /// As classified; [`Error::Interrupted`] where `stop` fired, or a proof was asked for meanwhile.
    ///
    /// # Cancel safety
    /// Safe to drop: the next round begins with what was left.
    pub async fn round<F, Fut>(&self, settle: &F, applied: ClusterTime, stop: &CancellationToken) -> Result<bool>
    where
        F: Fn(ClusterTime) -> Fut + Sync,
        Fut: Future<Output = Result<()>> + Send,
    {
        let known = &mut *self.findings.known.lock().await;
        if self.findings.look.swap(false, Ordering::Relaxed) {
            (known.keys_at, known.found_at, known.structure_at) = (None, None, None);
        }
        let stop = stop.child_token();
        *self.round.lock().unwrap_or_else(PoisonError::into_inner) = stop.clone();
        self.parity.abandon();
        // Whoever cuts the round short does not wait for a stream that rests.
        let settle = |time| {
            let (settled, stop) = (settle(time), &stop);
            async move { stop.run_until_cancelled(settled).await.unwrap_or(Err(Error::Interrupted)) }
        };
        let round = Round { settle: &settle, applied, settings: &self.settings, stop: &stop };
        let mut busy = self.adopt(&round).await?;
        if is_due(known.keys_at, KEYS_EVERY) {
            let found_too = is_due(known.found_at, FOUND_EVERY);
            busy |= self.look_at_keys(known, &round, found_too).await? > 0;
        }
        self.plan_anew(known);
        let ranges = self.parity.scan(self.settings.workers * 2);
        busy |= !ranges.is_empty();
        self.compare_ranges(known, &round, ranges).await?;
        if self.is_structure_due(known) {
            self.look_at_structure(known, &round).await?;
        }
        self.show(known);
        Ok(busy)
    }

    /// Everything again, when it is time.
    fn plan_anew(&self, known: &mut Known) {
        if self.parity.left().unproved > 0 || self.parity.is_due_again() {
            known.whole_at = None;
            return;
        }
        if is_due(Some(*known.whole_at.get_or_insert_with(Instant::now)), self.every) {
            known.whole_at = None;
            self.parity.all_again();
        }
    }

    /// What is known by now, for status, gates and metrics.
    fn show(&self, known: &Known) {
        let shown = |d: &Difference| PersistentDifference {
            ns: d.ns.to_string(),
            kind: d.kind.label().into(),
            id: d.id.clone(),
            detail: d.detail.clone(),
        };
        let listed = |collection, d: &Difference| Listed { collection, key: d.key.clone(), difference: shown(d) };
        let living = self.catalog.living();
        let by_name = |d: &Difference| living.iter().find(|c| c.entry().ns == d.ns).map(|c| c.uuid());
        let structure = known.structure.iter().map(|d| listed(by_name(d), d));
        let documents = known.found.iter().map(|((uuid, _), d)| listed(Some(*uuid), d));
        let mut unlisted: BTreeMap<CollectionUuid, u64> = BTreeMap::new();
        for (range, n) in &known.overflow {
            *unlisted.entry(range.collection).or_default() += n;
        }
        self.parity.show_differences(structure.chain(documents).collect(), unlisted);
        self.parity.show_warnings(known.sharding.iter().map(shown).collect());
        self.parity.show_failure(None);
        let count =
            |kinds: &[DifferenceKind]| known.found.values().chain(&known.structure).filter(|d| kinds.contains(&d.kind)).count() as u64;
        let overflow = known.overflow.values().sum::<u64>();
        self.metrics.mismatches(Label::Missing, count(&[DifferenceKind::Missing, DifferenceKind::CollectionMissing]));
        self.metrics.mismatches(Label::Extra, count(&[DifferenceKind::Extra, DifferenceKind::CollectionExtra]));
        self.metrics.mismatches(Label::Different, count(&[DifferenceKind::Different]) + overflow);
        self.metrics.mismatches(Label::Options, count(&[DifferenceKind::Options]));
        self.metrics.mismatches(Label::Indexes, count(&[DifferenceKind::Index]));
        let is_equal = known.found.is_empty() && known.structure.is_empty() && overflow == 0;
        let left = self.parity.left();
        if is_equal && left.unproved == 0 && left.stale == 0 {
            self.metrics.parity_proved(known.keys_at.map(|at| at.elapsed()).unwrap_or_default());
        }
    }
}

/// Both sides of a collection as they are called now; `None` where there is nothing to compare.
fn readable(collection: &Collection) -> Option<Readable> {
    let entry = collection.entry();
    if entry.state != State::Complete || entry.is_view() {
        return None;
    }
    Some(Readable {
        source: CollectionRef { ns: entry.ns.clone(), uuid: entry.uuid },
        target: CollectionRef { ns: entry.target.clone(), uuid: entry.target_uuid? },
        batch_documents: u32::MAX,
        collated: crate::model::collated(&entry.options),
        digest: digest_of(false),
    })
}

fn name_of(key: &DocumentKey) -> Vec<u8> {
    key.as_raw().as_bytes().to_vec()
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= every)
}
