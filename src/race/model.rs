//! The algorithm of copy and tail as an executable model over the real [`Race`]: random histories of one collection of three keys,
//! nodes that lag, crashes. The design never fails; every rule, left out, is caught.
//!
//! Invariant: once the copy is confirmed and the tail is past every time that was ever read from the source, or reached before a
//! crash, the target equals the source at the tail's position, for ever after, field order included.

use super::{Hold, Race};
use crate::model::{CanonicalKey, ClusterTime, CollectionUuid};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};

const KEYS: usize = 3;
const X: CollectionUuid = CollectionUuid([1; 16]);

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    CursorOpenedBeforeTheResumePoint,
    CheckpointPassesOpenCursors,
    NoReread,
    TimeOfThePrimary,
    StaleRefetch,
    CheckpointPassesBatchesInFlight,
}

/// Fields in order, the values absolute.
type Doc = Vec<(char, u8)>;
type Shown = BTreeMap<usize, Doc>;

#[derive(Debug, Clone)]
enum Event {
    Put(usize, Doc),
    Diff(usize, char, Option<u8>),
    Delete(usize),
}

impl Event {
    fn key(&self) -> usize {
        match self {
            Event::Put(k, _) | Event::Diff(k, ..) | Event::Delete(k) => *k,
        }
    }

    /// Whether there was anything to change.
    fn apply(&self, to: &mut Shown) -> bool {
        match self {
            Event::Put(k, doc) => drop(to.insert(*k, doc.clone())),
            Event::Delete(k) => drop(to.remove(k)),
            Event::Diff(k, field, value) => {
                let Some(doc) = to.get_mut(k) else { return false };
                doc.retain(|(f, _)| f != field);
                // A field that is there already is appended again, as the server does.
                doc.extend(value.map(|v| (*field, v)));
            }
        }
        true
    }
}

fn time(t: usize) -> ClusterTime {
    ClusterTime { t: u32::try_from(t).unwrap(), i: 0 }
}
fn canonical(k: usize) -> CanonicalKey {
    CanonicalKey(k as u128 + 1)
}

/// The source after each operation; the time is the operation's number.
struct Log {
    states: Vec<Shown>,
    events: Vec<Option<Event>>,
}

impl Log {
    fn now(&self) -> usize {
        self.states.len() - 1
    }

    fn write(&mut self, r: &mut StdRng) {
        let mut state = self.states[self.now()].clone();
        let (k, field, value) = (r.random_range(0..KEYS), ['v', 'w', 'x'][r.random_range(0..3)], r.random_range(0..99));
        let event = match (state.contains_key(&k), r.random_range(0..10)) {
            (false, _) => Event::Put(k, vec![('v', value)]),
            (true, 0..5) => Event::Diff(k, field, r.random_bool(0.8).then_some(value)),
            (true, 5..7) => Event::Put(k, vec![(field, value)]),
            (true, _) => Event::Delete(k),
        };
        event.apply(&mut state);
        self.states.push(state);
        self.events.push(Some(event));
    }
}

/// An open cursor of the copy.
struct Cursor {
    hold: Option<Hold>,
    /// What its node reported last.
    reported: usize,
}

/// One key, read and not yet confirmed.
struct Batch {
    key: usize,
    before: usize,
    at: usize,
    doc: Option<Doc>,
    inserted: bool,
    _hold: Option<Hold>,
}

/// What is lost in a crash.
struct Process {
    race: Race,
    pos: usize,
    flying: Vec<Batch>,
    cursors: Vec<Cursor>,
}

struct World {
    mutant: Mutant,
    r: StdRng,
    log: Log,
    target: Shown,
    /// Durable: the resume point, the keys whose copy is confirmed, the newest source time the target may have seen.
    saved: usize,
    confirmed: BTreeSet<usize>,
    newest: usize,
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let mut r = StdRng::seed_from_u64(seed);
        let first = (0..KEYS).filter(|_| r.random_bool(0.6)).map(|k| (k, vec![('v', 0)])).collect();
        let mut log = Log { states: vec![first], events: vec![None] };
        for _ in 0..r.random_range(0..4) {
            log.write(&mut r);
        }
        let saved = log.now();
        Self { mutant, r, log, target: Shown::new(), saved, confirmed: BTreeSet::new(), newest: 0 }
    }

    fn boot(&self) -> Process {
        let race = Race::default();
        race.resume_from(time(self.saved));
        race.read(time(self.newest));
        race.begin(X);
        Process { race, pos: self.saved, flying: Vec::new(), cursors: Vec::new() }
    }

    fn refetch(&mut self, race: &Race, key: usize, at_least: usize) {
        let now = self.log.now();
        let from = if self.mutant == Mutant::StaleRefetch { 0 } else { at_least };
        let t = if self.r.random_bool(0.5) { now } else { self.r.random_range(from..=now) };
        race.read(time(t));
        match self.log.states[t].get(&key) {
            Some(doc) => drop(self.target.insert(key, doc.clone())),
            None => drop(self.target.remove(&key)),
        }
    }

    fn tail_one(&mut self, p: &mut Process) {
        p.pos += 1;
        p.race.read(time(p.pos));
        let event = self.log.events[p.pos].clone().unwrap();
        p.race.touch(X, canonical(event.key()), time(p.pos));
        // An update that matched nothing behind the copy.
        if !event.apply(&mut self.target) && self.confirmed.contains(&event.key()) {
            self.refetch(&p.race, event.key(), p.pos);
        }
    }

    /// Reads a batch from a node that lags.
    fn read(&mut self, p: &mut Process) {
        let now = self.log.now();
        if self.r.random_bool(0.2) {
            p.cursors.pop(); // a partition ends, or its node dies
        }
        if p.cursors.len() < 2 {
            let mut hold = p.race.hold();
            let from = if self.mutant == Mutant::CursorOpenedBeforeTheResumePoint { 0 } else { hold.at().t as usize };
            let reported = self.r.random_range(from..=now);
            hold.advance(time(reported));
            let hold = (self.mutant != Mutant::CheckpointPassesOpenCursors).then_some(hold);
            p.cursors.push(Cursor { hold, reported });
        }
        let todo: Vec<_> = (0..KEYS).filter(|k| !self.confirmed.contains(k) && p.flying.iter().all(|b| b.key != *k)).collect();
        if todo.is_empty() || p.flying.len() >= 2 {
            return;
        }
        let (key, n) = (todo[self.r.random_range(0..todo.len())], self.r.random_range(0..p.cursors.len()));
        let cursor = &mut p.cursors[n];
        let at = self.r.random_range(cursor.reported..=now);
        let before = if self.mutant == Mutant::TimeOfThePrimary { now } else { cursor.reported };
        let mut hold = cursor.hold.as_ref().map_or_else(|| p.race.hold(), Hold::split);
        hold.advance(time(before));
        cursor.reported = at;
        if let Some(hold) = &mut cursor.hold {
            hold.advance(time(at));
        }
        let hold = (self.mutant != Mutant::CheckpointPassesBatchesInFlight).then_some(hold);
        p.flying.push(Batch { key, before, at, doc: self.log.states[at].get(&key).cloned(), inserted: false, _hold: hold });
    }

    /// Inserts a batch, never overwriting.
    fn insert(&mut self, p: &mut Process) {
        let n = self.r.random_range(0..p.flying.len());
        let batch = &mut p.flying[n];
        if !batch.inserted {
            batch.inserted = true;
            p.race.read(time(batch.at));
            if let Some(doc) = batch.doc.take() {
                self.target.entry(batch.key).or_insert(doc);
            }
        }
    }

    /// Reads again what raced, then confirms.
    fn confirm(&mut self, p: &mut Process) {
        let (done, rest) = std::mem::take(&mut p.flying).into_iter().partition(|b| b.inserted);
        p.flying = rest;
        let done: Vec<Batch> = done;
        for batch in done {
            for (_, t) in p.race.raced(X, &[canonical(batch.key)], time(batch.before)) {
                if self.mutant != Mutant::NoReread {
                    self.refetch(&p.race, batch.key, t.t as usize);
                }
            }
            self.confirmed.insert(batch.key);
        }
    }

    /// Whether it comes to its end with the invariant kept all along.
    fn run(&mut self) -> Result<(), String> {
        let mut p = self.boot();
        let mut writes = self.r.random_range(5..25);
        for _ in 0..5_000 {
            let idle = writes == 0;
            // The first arm whose share and condition fit.
            let choice = self.r.random_range(0..100);
            match choice {
                _ if choice < 30 && !idle => {
                    self.log.write(&mut self.r);
                    writes -= 1;
                }
                _ if choice < 55 && p.pos < self.log.now() => self.tail_one(&mut p),
                _ if choice < 68 => self.read(&mut p),
                _ if choice < 80 && !p.flying.is_empty() => self.insert(&mut p),
                _ if choice < 88 => self.confirm(&mut p),
                _ if choice < 95 => {
                    if let Some(n) = p.race.promise((self.saved..=p.pos).map(time)) {
                        self.saved += n;
                    }
                }
                _ if !idle || self.r.random_bool(0.3) => p = self.boot(),
                _ => {}
            }
            self.newest = self.newest.max(p.race.newest_read().t as usize);
            if self.confirmed.len() == KEYS && p.pos >= self.newest {
                let source = &self.log.states[p.pos];
                if self.target != *source {
                    return Err(format!("target {:?}, source {source:?}", self.target));
                }
                if idle && p.pos == self.log.now() {
                    return Ok(());
                }
            }
        }
        Err("no end".into())
    }
}

fn histories() -> u64 {
    std::env::var("MONGOFERRY_TEST_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

#[test]
fn copy_and_tail_at_the_same_time_never_lose_a_change() {
    for seed in 0..histories() {
        if let Err(why) = World::new(seed, Mutant::None).run() {
            panic!("seed {seed}: {why}");
        }
    }
}

#[test]
fn every_rule_left_out_is_caught() {
    for mutant in [
        Mutant::CursorOpenedBeforeTheResumePoint,
        Mutant::CheckpointPassesOpenCursors,
        Mutant::NoReread,
        Mutant::TimeOfThePrimary,
        Mutant::StaleRefetch,
        Mutant::CheckpointPassesBatchesInFlight,
    ] {
        let caught = (0..20_000).find(|seed| World::new(*seed, mutant).run().is_err());
        println!("{mutant:?}: caught by seed {caught:?}");
        assert!(caught.is_some(), "{mutant:?} is never caught");
    }
}
