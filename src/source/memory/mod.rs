//! The source in memory: a history that the user writes, read through nodes that lag, with faults. For simulation.
//!
//! Every choice (which node answers, how far it has come, which call fails) comes from one seeded generator.

mod cursor;
mod history;

pub use cursor::{MemoryScan, MemoryStream};
pub use history::{Moment, Snapshot, Standing};

use super::{CollectionRef, Estimate, Fetched, Found, OplogWindow, ScanRange, Source, StartAt};
use crate::{
    error::{Error, Result},
    model::{Bound, ClusterTime, CollectionInfo, CollectionKind, Distributed, DocumentKey, IndexSpec, Namespace, Side, bound_of},
};
use history::History;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What goes wrong, each with its chance for one call.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SourceFaults {
    /// The stream ends.
    pub stream: f64,
    /// A scan fails half way.
    pub scan: f64,
    /// A read by key fails.
    pub fetch: f64,
    /// Turns that any call waits, at most.
    pub slow: u32,
}

#[derive(Debug)]
struct World {
    history: History,
    rng: StdRng,
    faults: SourceFaults,
    /// What every event counts as.
    event_bytes: usize,
    idle: Duration,
    /// Number of the oldest event that the oplog still holds.
    oldest: usize,
    blocked: bool,
}

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct MemorySource(Arc<Mutex<World>>);

impl MemorySource {
    /// Empty. `event_bytes`: what every event counts as in flight; `idle`: how often a stream without news says so.
    #[must_use]
    pub fn new(seed: u64, event_bytes: usize, idle: Duration) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let (history, faults) = (History::default(), SourceFaults::default());
        Self(Arc::new(Mutex::new(World { history, rng, faults, event_bytes, idle, oldest: 0, blocked: false })))
    }

    fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn unreachable(doing: &str) -> Error {
        Error::Unreachable {
            side: Side::Source,
            doing: doing.to_owned(),
            why: crate::error::Trouble::Network,
            source: "a fault of the simulation".into(),
        }
    }

    async fn slow(&self) {
        let turns = self.with(|w| w.rng.random_range(0..=w.faults.slow));
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// From now on.
    pub fn set_faults(&self, faults: SourceFaults) {
        self.with(|w| w.faults = faults);
    }

    /// Writes, as the application does: all at one time. `None` where writes are blocked.
    pub fn write<R>(&self, change: impl FnOnce(&mut Moment<'_>) -> R) -> Option<R> {
        self.with(|w| (!w.blocked).then(|| w.history.moment(change)))
    }

    /// The newest time.
    #[must_use]
    pub fn now(&self) -> ClusterTime {
        self.with(|w| history::time(w.history.now()))
    }

    /// What there is now, and its time.
    #[must_use]
    pub fn snapshot(&self) -> (ClusterTime, Snapshot) {
        self.with(|w| (history::time(w.history.now()), w.history.snapshots[w.history.now()].clone()))
    }

    /// The oplog forgets all but its newest `keep` events.
    pub fn roll_over(&self, keep: usize) {
        self.with(|w| w.oldest = w.history.events.len().saturating_sub(keep).max(w.oldest));
    }

    /// Something of the collection as it is now; `None` where it is gone.
    fn of<R>(&self, of: &CollectionRef, f: impl FnOnce(&Standing) -> R) -> Found<R> {
        self.with(|w| w.history.snapshots[w.history.now()].get(&of.uuid).map_or(Found::Gone, |s| Found::Here(f(s))))
    }
}

impl Source for MemorySource {
    type Stream = MemoryStream;
    type Scan = MemoryScan;

    async fn is_sharded(&self) -> Result<bool> {
        Ok(false)
    }
    async fn distribution(&self) -> Result<Option<BTreeMap<Namespace, Distributed>>> {
        Ok(None)
    }
    async fn operation_time(&self) -> Result<ClusterTime> {
        self.slow().await;
        Ok(self.now())
    }

    async fn oplog_window(&self) -> Result<Option<OplogWindow>> {
        let (oldest, newest) = self.with(|w| (w.history.events.get(w.oldest).map_or(0, |(m, _)| *m), w.history.now()));
        Ok(Some(OplogWindow { oldest: history::time(oldest), newest: history::time(newest), filled: 1.0 }))
    }

    async fn stream(&self, from: StartAt) -> Result<MemoryStream> {
        self.slow().await;
        self.with(|w| {
            let (next, wanted) = match from {
                StartAt::Time(t) => (w.history.events.partition_point(|(m, _)| history::time(*m) < t), t),
                StartAt::After(p) => (cursor::parse(&p.token).ok_or_else(|| Error::Bug("a token of another stream".into()))?, p.time),
            };
            if next < w.oldest {
                let oldest = w.history.events.get(w.oldest).map(|(m, _)| history::time(*m));
                return Err(Error::PositionLost { wanted, oldest });
            }
            Ok(MemoryStream { source: self.clone(), next, idle: w.idle })
        })
    }

    /// Database by database, each at a time of its own.
    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        let databases: BTreeSet<_> = self.snapshot().1.values().map(|s| s.ns.db().to_owned()).collect();
        let mut all = Vec::new();
        for db in databases {
            self.slow().await;
            let (_, now) = self.snapshot();
            all.extend(now.into_iter().filter(|(_, s)| s.ns.db() == db).map(|(uuid, s)| CollectionInfo {
                ns: s.ns,
                uuid: Some(uuid),
                kind: CollectionKind::Collection,
                options: s.options,
            }));
        }
        Ok(all)
    }

    /// There are no indexes here yet.
    async fn indexes(&self, of: &CollectionRef) -> Result<Found<Vec<IndexSpec>>> {
        Ok(self.of(of, |_| Vec::new()))
    }

    async fn estimate(&self, of: &CollectionRef) -> Result<Estimate> {
        let sizes = self.of(of, |s| Estimate {
            documents: s.documents.len() as u64,
            bytes: s.documents.iter().map(|d| d.as_bytes().len() as u64).sum(),
        });
        Ok(match sizes {
            Found::Here(estimate) => estimate,
            Found::Gone => Estimate::default(),
        })
    }

    async fn split(&self, of: &CollectionRef, parts: u32) -> Result<Vec<Bound>> {
        let bounds = self.of(of, |s| {
            let each = s.documents.len().div_ceil(parts.max(1) as usize).max(1);
            s.documents.iter().skip(each).step_by(each).filter_map(|d| bound_of(d)).collect()
        });
        Ok(match bounds {
            Found::Here(bounds) => bounds,
            Found::Gone => Vec::new(),
        })
    }

    async fn scan(&self, of: &CollectionRef, range: ScanRange) -> Result<Found<MemoryScan>> {
        self.slow().await;
        self.with(|w| {
            if w.rng.random_bool(w.faults.scan) {
                return Err(Self::unreachable("opening a scan"));
            }
            let now = w.history.now();
            if !w.history.snapshots[now].contains_key(&of.uuid) {
                return Ok(Found::Gone);
            }
            let mut node = w.rng.random_range(history::moment(range.after).min(now)..=now);
            // A node that does not have the collection yet is asked again until it does.
            while !w.history.snapshots[node].contains_key(&of.uuid) {
                node += 1;
            }
            Ok(Found::Here(MemoryScan::new(self.clone(), of.uuid, &range, node)))
        })
    }

    async fn fetch(&self, of: &CollectionRef, keys: &[DocumentKey], after: ClusterTime) -> Result<Found<Fetched>> {
        self.slow().await;
        self.with(|w| {
            if w.rng.random_bool(w.faults.fetch) {
                return Err(Self::unreachable("reading documents again"));
            }
            let now = w.history.now();
            if !w.history.snapshots[now].contains_key(&of.uuid) {
                return Ok(Found::Gone);
            }
            let from = history::moment(after).min(now);
            let at = if w.rng.random_bool(0.5) { now } else { w.rng.random_range(from..=now) };
            let Some(standing) = w.history.snapshots[at].get(&of.uuid) else { return Ok(Found::Gone) };
            let documents = keys.iter().filter_map(|key| standing.documents.get(key.id()).cloned()).collect();
            Ok(Found::Here(Fetched { documents, read_at: history::time(at) }))
        })
    }

    async fn count(&self, of: &CollectionRef) -> Result<Found<u64>> {
        Ok(self.of(of, |s| s.documents.len() as u64))
    }

    async fn note(&self, _text: &str) -> Result<ClusterTime> {
        Ok(self.with(|w| {
            w.history.moment(|_| ());
            history::time(w.history.now())
        }))
    }

    async fn block_writes(&self, _within: Duration) -> Result<()> {
        self.with(|w| w.blocked = true);
        Ok(())
    }

    async fn allow_writes(&self) -> Result<()> {
        self.with(|w| w.blocked = false);
        Ok(())
    }

    async fn writes_blocked(&self) -> Result<Option<bool>> {
        Ok(Some(self.with(|w| w.blocked)))
    }
}
