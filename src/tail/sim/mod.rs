//! The tail as it is, over clusters in memory, with a stand-in for the copy: random histories, faults, kills and restarts. At the
//! end the target equals the source byte for byte, and the resume point is the end of the log.
//!
//! `MONGOFERRY_TEST_HISTORIES` says how many histories, `MONGOFERRY_TEST_SEED` the first one.

mod copy;
mod writer;

use super::{Progress, Room, Tail};
use crate::{
    capped::Doubts,
    catalog::{Catalog, Entry, State, reconcile},
    checkpoint::{MemoryStore, Store, StoreFaults},
    error::{Error, Result},
    model::{ClusterTime, Namespace, Selection, shelf::Shelf},
    observe::Metrics,
    parity::Parity,
    race::Race,
    retry::Retry,
    source::{
        Source, StartAt,
        memory::{MemorySource, SourceFaults},
    },
    target::{
        Target,
        memory::{MemoryTarget, TargetFaults},
    },
};
use bson::RawDocument;
use copy::Copy;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinSet, yield_now},
};
use tokio_util::sync::CancellationToken;

/// A history that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);

struct Sim {
    r: StdRng,
    source: MemorySource,
    target: MemoryTarget,
    store: MemoryStore,
    /// Shared by all runs: building one is dear.
    metrics: Arc<Metrics>,
    start_at: ClusterTime,
    listed_until: ClusterTime,
    /// The chance of a fault for one call.
    faulty: f64,
    /// How often the application changes the structure.
    restless: f64,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// When everything is on the target.
    AtTheEnd,
    /// Told to stop, after so many turns.
    Stop(u32),
    /// As by `kill -9`, after so many turns.
    Crash(u32),
}

impl Sim {
    fn new(seed: u64, metrics: Arc<Metrics>) -> Self {
        let mut r = StdRng::seed_from_u64(seed);
        // Now and then events are so large that only a few are in flight.
        let event_bytes = if r.random_bool(0.3) { 60_000 } else { 500 };
        let source = MemorySource::new(r.random(), event_bytes, Duration::ZERO);
        let (target, store) = (MemoryTarget::new(r.random()), MemoryStore::new(r.random()));
        let faulty = [0.0, 0.01, 0.04][r.random_range(0..3)];
        let restless = [0.0, 0.02, 0.1][r.random_range(0..3)];
        let zero = ClusterTime::default();
        Self { r, source, target, store, metrics, start_at: zero, listed_until: zero, faulty, restless }
    }

    fn faults(&self, kill: Kill) {
        let on = kill != Kill::AtTheEnd;
        let (chance, slow) = if on { (self.faulty, 4) } else { (0.0, 2) };
        self.source.set_faults(SourceFaults { stream: chance, scan: chance * 3.0, fetch: chance, slow });
        self.target.set_faults(TargetFaults {
            refuse: chance,
            write_then_fail: chance,
            insert_then_fail: chance * 3.0,
            shape: chance * 3.0,
            late: if matches!(kill, Kill::Crash(_)) { chance * 5.0 } else { 0.0 },
            slow: slow * 2,
        });
        self.store.set_faults(StoreFaults { refuse: chance, answer_lost: chance, slow });
    }

    /// As the plan does: the time first, then the listing, while the application writes.
    async fn plan(&mut self) -> Result<()> {
        writer::begin(&self.source, &mut self.r);
        self.start_at = self.source.operation_time().await?;
        let (source, restless, mut r) = (self.source.clone(), self.restless, StdRng::seed_from_u64(self.r.random()));
        let mut others = JoinSet::new();
        others.spawn(async move {
            for _ in 0..r.random_range(0..12) {
                writer::write(&source, &mut r, restless);
                yield_now().await;
            }
        });
        let listed = self.source.collections().await?;
        self.listed_until = self.source.operation_time().await?;
        let selection = Selection::default();
        let mut entries = Vec::new();
        for info in listed {
            let mut entry = Entry::new(&info, selection.target_of(&info.ns), State::Copying, self.start_at);
            entry.target_uuid = self.target.create(&entry.target, &info.options).await?;
            entries.push(entry);
        }
        self.store.save_entries(&entries).await?;
        others.join_all().await;
        Ok(())
    }

    async fn run(&mut self, kill: Kill) -> Result<()> {
        self.faults(kill);
        let mut entries = self.store.entries().await?;
        let living = self.source.collections().await?.iter().filter_map(|c| c.uuid).collect();
        reconcile(&self.target, &mut entries, &living, self.source.operation_time().await?).await?;
        self.store.save_entries(&entries).await?;
        let (catalog, race) = (Catalog::new(entries, self.listed_until), Race::default());
        let saved = self.store.resume_point();
        race.resume_from(saved.as_ref().map_or(self.start_at, |p| p.time));
        for collection in catalog.living().iter().filter(|c| c.entry().state == State::Copying) {
            race.begin(collection.uuid());
        }
        let tail = Tail {
            source: self.source.clone(),
            target: self.target.clone(),
            store: self.store.clone(),
            catalog: catalog.clone(),
            race: race.clone(),
            parity: Parity::default(),
            selection: Selection::default(),
            metrics: self.metrics.clone(),
            indexes_changed: Arc::new(Notify::new()),
            copy_wanted: Arc::new(Notify::new()),
            retry: Retry::new(LIMIT, CancellationToken::new(), |_| {}),
            capped: Doubts::default(),
            lanes: self.r.random_range(1..=6),
            checkpoint_every: Duration::from_micros(1),
            room: Room::new(1 << 20),
            pace: crate::throttle::Pace::default(),
            at_once: CancellationToken::new(),
        };
        let (rereads, reread) = mpsc::channel(2);
        let copy = Copy {
            source: self.source.clone(),
            target: self.target.clone(),
            store: self.store.clone(),
            catalog,
            race,
            rereads,
            partitions: self.r.random_range(1..=3),
            batch: self.r.random_range(1..=4),
            stall: if self.r.random_bool(0.5) { 150 } else { 5 },
            seed: self.r.random(),
        };
        let (progress, applied) = watch::channel(Progress::default());
        let stop = CancellationToken::new();
        let mut tailing = JoinSet::new();
        let mut copying = JoinSet::new();
        tailing.spawn(tail.run(saved.map_or(StartAt::Time(self.start_at), StartAt::After), reread, progress, stop.clone()));
        copying.spawn(copy.run());
        let (mut copied, mut turns, mut outcome) = (false, 0, Ok(()));
        loop {
            match copying.try_join_next() {
                Some(Ok(Ok(()))) => copied = true,
                Some(Ok(Err(error))) => {
                    outcome = Err(error);
                    break;
                }
                Some(Err(panic)) => return Err(Error::Bug(panic.to_string())),
                None => {}
            }
            let everything = copied && applied.borrow().applied == self.source.now();
            let ends = match kill {
                Kill::AtTheEnd => everything,
                Kill::Stop(after) => everything || turns >= after,
                Kill::Crash(after) => turns >= after,
            };
            if ends || !tailing.is_empty() && applied.has_changed().is_err() {
                break;
            }
            turns += 1;
            yield_now().await;
        }
        if let Kill::Crash(_) = kill {
            tailing.abort_all();
            copying.abort_all();
        }
        stop.cancel();
        let tailed = tailing.join_next().await;
        copying.shutdown().await;
        // Aborted tasks are gone once each has been polled.
        for _ in 0..20 {
            yield_now().await;
        }
        match (tailed, outcome) {
            (Some(Ok(Err(error))), Ok(()) | Err(Error::Interrupted)) => Err(error),
            (Some(Err(panic)), _) if panic.is_panic() => Err(Error::Bug(panic.to_string())),
            (_, outcome) => outcome,
        }
    }

    /// Runs until the application has come to its end and everything has arrived.
    async fn play(mut self) -> Result<(), String> {
        self.faults(Kill::AtTheEnd);
        self.plan().await.map_err(|e| e.story())?;
        let (source, restless, mut r) = (self.source.clone(), self.restless, StdRng::seed_from_u64(self.r.random()));
        let mut application = JoinSet::new();
        application.spawn(async move {
            for _ in 0..r.random_range(20..150) {
                writer::write(&source, &mut r, restless);
                for _ in 0..r.random_range(0..6) {
                    yield_now().await;
                }
            }
        });
        for _ in 0..self.r.random_range(0..6) {
            let turns = self.r.random_range(0..300);
            let kill = if self.r.random_bool(0.5) { Kill::Stop(turns) } else { Kill::Crash(turns) };
            tolerated(self.run(kill).await)?;
        }
        application.join_all().await;
        // A time of its own behind all events: those of a transaction share one, so to have applied one of them is not to have all.
        self.source.note("the end").await.map_err(|e| e.story())?;
        self.run(Kill::AtTheEnd).await.map_err(|e| e.story())?;
        self.compare().await
    }

    async fn compare(&self) -> Result<(), String> {
        let (now, source) = self.source.snapshot();
        let source: BTreeSet<_> = source.into_values().flat_map(|s| shown(&s.ns, &s.options, &s.documents)).collect();
        let target: BTreeSet<_> = self.target.snapshot().into_iter().flat_map(|(ns, s)| shown(&ns, &s.options, &s.documents)).collect();
        if source != target {
            let missing: Vec<_> = source.difference(&target).collect();
            let extra: Vec<_> = target.difference(&source).collect();
            return Err(format!("missing on the target: {missing:#?}, and there instead: {extra:#?}"));
        }
        let saved = self.store.resume_point().map(|p| p.time);
        if saved != Some(now) {
            return Err(format!("the log ends at {now}, the resume point is {saved:?}"));
        }
        let entries = self.store.entries().await.map_err(|e| e.story())?;
        match entries.iter().find(|e| e.state == State::Copying) {
            Some(e) => Err(format!("the copy of `{}` never ended", e.ns)),
            None => Ok(()),
        }
    }
}

/// Options and documents, comparable byte by byte and legible.
fn shown(ns: &Namespace, options: &RawDocument, documents: &Shelf) -> Vec<(Namespace, Vec<u8>, String)> {
    let all = std::iter::once(options).chain(documents.iter().map(|d| &**d));
    all.map(|doc| (ns.clone(), doc.as_bytes().to_vec(), bson::Document::try_from(doc).unwrap().to_string())).collect()
}

/// A fault of the simulation ends a run as a cut network would; anything else is a defect.
fn tolerated(outcome: Result<()>) -> Result<(), String> {
    match outcome {
        Ok(()) | Err(Error::Unreachable { .. } | Error::Interrupted) => Ok(()),
        Err(other) => Err(other.story()),
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn whatever_happens_the_target_ends_as_the_source() {
    let first = number("MONGOFERRY_TEST_SEED", 0);
    let metrics = Arc::new(Metrics::new());
    for seed in first..first + number("MONGOFERRY_TEST_HISTORIES", 100) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let outcome = runtime.block_on(async { tokio::time::timeout(LIMIT, Sim::new(seed, metrics.clone()).play()).await });
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(why)) => panic!("seed {seed}: {why}"),
            Err(_) => panic!("seed {seed}: it hangs"),
        }
    }
}
