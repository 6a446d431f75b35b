//! What is proved equal, and what was touched since. Pure: the tail notes what it touches, the verifier takes it, looks,
//! and says what it found; neither names the other.
//!
//! A collection is followed in ranges of `_id`. A range is proved by comparing all of it; from then on only the keys that
//! the tail touches in it are looked at again. Keys are kept within a budget of bytes: beyond it, their ranges become
//! stale, and are compared again as a whole. What has to be durable is small: which ranges were touched since they were
//! proved ([`Marks`]). It is saved *before* the resume point moves past the touch, so that a restart, which knows no keys
//! any more, compares those ranges again, and only those.

mod bits;
mod order;
mod ranges;
mod status;

pub use bits::Bits;

use crate::model::{Bound, ClusterTime, CollectionUuid, DocumentKey, Partition, PersistentDifference};
pub use status::Listed;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a key costs besides its bytes.
const KEY_OVERHEAD: u64 = 96;
/// A key larger than this is not kept: its range becomes stale.
const LARGEST_KEY: usize = 64 << 10;
/// From so many touched keys on it matters how many documents there are: to read a quarter of them one by one takes longer than to
/// compare all of them in their order. Documents that come and go have touched keys without end.
const MANY_KEYS: usize = 1_000;

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Parity(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Bytes of keys that may be kept; 0: nothing is followed.
    limit: u64,
    used: u64,
    followed: BTreeMap<CollectionUuid, Followed>,
    structure_touched: bool,
    /// Why the verifier cannot go on, while it cannot.
    failure: Option<String>,
    /// Differences that persist, by collection; of none: in structure that is on one side only.
    listed: Vec<Listed>,
    /// Differences that say nothing against a cutover.
    warnings: Vec<PersistentDifference>,
    /// Those that are not listed.
    unlisted: BTreeMap<CollectionUuid, u64>,
}

#[derive(Debug, Default)]
struct Followed {
    /// Keys cannot be placed by us: a touch marks all ranges.
    collated: bool,
    /// Where ranges end and the next begin.
    bounds: Vec<Bound>,
    /// Documents and bytes of each range, as of its last comparison.
    sizes: Vec<(u64, u64)>,
    /// Ranges that were compared and found equal, or whose differences are all listed.
    proved: Bits,
    /// Ranges to be compared again as a whole: touched keys of them are not known.
    stale: Bits,
    /// Ranges to be compared again for another reason than a touch.
    again: Bits,
    /// Unproved and stale ranges being compared.
    scanning: Bits,
    /// Proved ranges being compared again.
    repeating: Bits,
    /// Ranges whose comparison was left half way.
    unfinished: Bits,
    /// Keys touched and not yet taken, by their exact bytes.
    keys: HashMap<Box<[u8]>, DocumentKey>,
    /// Ranges of those keys.
    touched: Bits,
    /// Keys being looked at, and their ranges.
    taken: Arc<[DocumentKey]>,
    taken_in: Bits,
    /// Touches up to here were looked at.
    proved_until: ClusterTime,
    /// Ranges with differences that persist: a restart finds them again.
    different: Bits,
    /// Counts changes of what is to be saved.
    version: u64,
    saved: u64,
}

/// Ranges of a collection that were touched since they were proved: what is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Which collection.
    pub collection: CollectionUuid,
    /// By number of the range.
    pub touched: Bits,
    version: u64,
}

impl Marks {
    /// As they were saved.
    #[must_use]
    pub fn new(collection: CollectionUuid, touched: Bits) -> Self {
        Self { collection, touched, version: 0 }
    }
}

/// What is left to be looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Touched keys.
    pub keys: u64,
    /// Ranges that were never proved.
    pub unproved: u64,
    /// Ranges whose proof has been overtaken.
    pub stale: u64,
}

impl Parity {
    /// That keeps keys of so many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Mutex::new(State { limit, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock only means that another task panicked; the state is a set of plain values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is followed at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.state().limit > 0
    }

    /// Begins to remember what the tail touches in this collection, before the first look at it. `ranges` cover it, in
    /// order; those that are `done` are proved, save for what `marks` tell.
    pub fn follow(&self, collection: CollectionUuid, ranges: &[Partition], marks: Option<&Bits>, collated: bool) {
        let mut f = Followed {
            collated,
            bounds: ranges.iter().filter_map(|r| r.max.clone()).collect(),
            sizes: ranges.iter().map(|r| (r.documents, r.bytes)).collect(),
            ..Followed::default()
        };
        for (n, range) in ranges.iter().enumerate() {
            f.proved.put(n, range.done);
            f.stale.put(n, range.done && marks.is_some_and(|marks| marks.has(n)));
        }
        f.version = 1;
        self.state().followed.insert(collection, f);
    }

    /// Whether it is followed.
    #[must_use]
    pub fn follows(&self, collection: CollectionUuid) -> bool {
        self.state().followed.contains_key(&collection)
    }

    /// Forgets all collections but these.
    pub fn retain(&self, living: &BTreeSet<CollectionUuid>) {
        self.keep(|uuid| living.contains(uuid));
    }

    /// Forgets a collection: what was proved of it is void.
    pub fn forget(&self, collection: CollectionUuid) {
        self.keep(|uuid| *uuid != collection);
    }

    fn keep(&self, is_kept: impl Fn(&CollectionUuid) -> bool) {
        let mut state = self.state();
        state.followed.retain(|uuid, _| is_kept(uuid));
        state.used = state.followed.values().flat_map(|f| f.keys.keys()).map(|key| cost(key)).sum();
    }

    /// The tail sends a change of this key down its lane. Before it does so.
    pub fn note(&self, collection: CollectionUuid, key: &DocumentKey) {
        let mut state = self.state();
        let (limit, used) = (state.limit, state.used);
        let Some(f) = state.followed.get_mut(&collection) else { return };
        let added = f.note(key, limit.saturating_sub(used));
        state.used += added;
    }

    /// A structural change was applied.
    pub fn note_structure(&self) {
        self.state().structure_touched = true;
    }

    /// Whether there was one since this was last asked.
    #[must_use]
    pub fn take_structure(&self) -> bool {
        std::mem::take(&mut self.state().structure_touched)
    }

    /// What has changed since it was last saved, to be saved before the resume point.
    #[must_use]
    pub fn marks(&self) -> Vec<Marks> {
        let state = self.state();
        let changed = state.followed.iter().filter(|(_, f)| f.version != f.saved);
        changed.map(|(uuid, f)| Marks { collection: *uuid, touched: f.marks(), version: f.version }).collect()
    }

    /// These are durable.
    pub fn saved(&self, marks: &[Marks]) {
        let mut state = self.state();
        for mark in marks {
            if let Some(f) = state.followed.get_mut(&mark.collection) {
                f.saved = mark.version;
            }
        }
    }

    /// Takes the touched keys of all collections, to be looked at. Each is answered by [`Parity::looked`]. `applied` is what
    /// the tail has brought to the target, as it was known before.
    #[must_use]
    pub fn take(&self, applied: ClusterTime) -> Vec<(CollectionUuid, Arc<[DocumentKey]>)> {
        let mut state = self.state();
        let mut all = Vec::new();
        for (uuid, f) in &mut state.followed {
            if f.keys.is_empty() {
                f.reach(applied);
            } else {
                f.taken = f.keys.drain().map(|(_, key)| key).collect();
                f.taken_in = std::mem::take(&mut f.touched);
                all.push((*uuid, f.taken.clone()));
            }
        }
        state.used = 0;
        all
    }

    /// The taken keys were looked at; `again` are those that were not seen equal and are in no list. `applied` is what the
    /// tail had brought when they were taken.
    pub fn looked(&self, collection: CollectionUuid, again: &[DocumentKey], applied: ClusterTime) {
        let mut state = self.state();
        let limit = state.limit;
        let Some(f) = state.followed.get_mut(&collection) else { return };
        f.taken = Arc::default();
        f.taken_in = Bits::default();
        f.version += 1;
        if again.is_empty() {
            f.reach(applied);
        }
        let added: u64 = again.iter().map(|key| f.note(key, limit)).sum();
        state.used += added;
    }

    /// Whatever was taken or being compared was left half way: it is to be done again.
    pub fn abandon(&self) {
        let mut state = self.state();
        let limit = state.limit;
        let mut added = 0;
        for f in state.followed.values_mut() {
            let (scanning, taken) = (std::mem::take(&mut f.scanning), std::mem::take(&mut f.taken));
            f.taken_in = Bits::default();
            f.stale.join(&scanning);
            f.unfinished.join(&scanning);
            let repeating = std::mem::take(&mut f.repeating);
            f.again.join(&repeating);
            f.unfinished.join(&repeating);
            added += taken.iter().map(|key| f.note(key, limit)).sum::<u64>();
        }
        state.used += added;
    }

    /// What is left to be looked at.
    #[must_use]
    pub fn left(&self) -> Left {
        let mut left = Left::default();
        for f in self.state().followed.values() {
            left.keys += (f.keys.len() + f.taken.len()) as u64;
            for n in 0..f.sizes.len() {
                left.unproved += u64::from(!f.proved.has(n));
                left.stale += u64::from(f.proved.has(n) && (f.stale.has(n) || f.scanning.has(n)));
            }
        }
        left
    }
}

impl Followed {
    /// Gives the bytes that it costs.
    fn note(&mut self, key: &DocumentKey, room: u64) -> u64 {
        // By `_id` alone: the fields of a shard key may be others by the time we look.
        let Some(key) = DocumentKey::of(key.as_raw()) else { return 0 };
        let bytes = key.as_raw().as_bytes();
        let range = (!self.collated).then(|| order::range_of(&self.bounds, key.id())).flatten();
        // It is yet to be read as a whole.
        if range.is_some_and(|n| !self.proved.has(n) && !self.scanning.has(n)) {
            return 0;
        }
        if self.keys.contains_key(bytes) {
            return 0;
        }
        let price = cost(bytes);
        if self.keys.len() >= MANY_KEYS && self.keys.len() as u64 * 4 > self.documents() {
            let touched = std::mem::take(&mut self.touched);
            self.stale.join(&touched);
            self.keys.clear();
        }
        // Its range may be stale by now: it is compared as a whole, and that sees this key.
        let stale = range.is_some_and(|n| self.stale.has(n));
        if stale && !self.scanning.has(range.unwrap_or_default()) {
            return 0;
        }
        let kept = bytes.len() <= LARGEST_KEY && price <= room;
        let into = if kept { &mut self.touched } else { &mut self.stale };
        let mut moved = false;
        match range {
            Some(n) => moved |= into.put(n, true),
            None => (0..self.sizes.len()).for_each(|n| moved |= into.put(n, true)),
        }
        self.version += u64::from(moved);
        if !kept {
            return 0;
        }
        self.keys.insert(bytes.into(), key);
        price
    }

    /// As of the last comparison.
    fn documents(&self) -> u64 {
        self.sizes.iter().map(|(documents, _)| documents).sum()
    }

    /// All touches up to `applied` were looked at.
    fn reach(&mut self, applied: ClusterTime) {
        if self.taken.is_empty() && (0..self.sizes.len()).all(|n| self.proved.has(n) && !self.stale.has(n) && !self.scanning.has(n)) {
            self.proved_until = self.proved_until.max(applied);
        }
    }

    fn marks(&self) -> Bits {
        let mut all = self.stale.clone();
        for more in [&self.touched, &self.taken_in, &self.scanning, &self.different] {
            all.join(more);
        }
        all
    }
}

fn cost(key: &[u8]) -> u64 {
    key.len() as u64 * 2 + KEY_OVERHEAD
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
