//! Where copy and tail meet. Pure: which keys were touched since when, which reads are still open, how far
//! the resume point may go. The copy asks, the tail tells; neither names the other.
//!
//! A batch read from the source *before* an event and inserted *after* it could bring back a deleted
//! document or bury an update. So:
//! - the tail notes every key it touches in a collection that is still being copied, with its cluster time;
//! - when a batch has been inserted, each of its keys that was touched after the batch was read is read
//!   again in the key's lane ([`Race::raced`]);
//! - every open read holds the resume point back ([`Hold`]): to the time its node had reported before the
//!   oldest batch that is not yet confirmed (inserted, raced keys read again, progress durable). After a
//!   crash the events in between are seen again. A batch that was inserted, perhaps in part, and never confirmed
//!   holds it for the rest of the run, whatever became of the task that had it;
//! - a read starts at or after the newest resume point that was ever given out ([`Race::hold`]).
//!
//! Touched keys are kept until the resume point has passed them. No read, open or to come, is older.

#[cfg(test)]
mod model;
mod reread;

pub use reread::Reread;

use crate::model::{CanonicalKey, ClusterTime, CollectionUuid};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Keys remembered for one collection at most; beyond it, every key counts as touched. About 6 MiB.
const MAX_KEYS: usize = 200_000;

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Race(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The newest resume point that was given out to be saved.
    promised: ClusterTime,
    /// Collections still being copied.
    touched: HashMap<CollectionUuid, Touched>,
    /// Times that hold the resume point back, with how many hold there.
    holds: BTreeMap<ClusterTime, u32>,
    /// The newest source time that was ever read into the target.
    newest_read: ClusterTime,
    newest_reread: ClusterTime,
}

#[derive(Debug, Default)]
struct Touched {
    keys: HashMap<CanonicalKey, ClusterTime>,
    /// Set where the keys were too many: all of them, up to this time.
    any: Option<ClusterTime>,
}

impl Race {
    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock only means that another task panicked; the state is a set of plain values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to remember what the tail touches in this collection. Before the first read of it.
    pub fn begin(&self, collection: CollectionUuid) {
        self.state().touched.entry(collection).or_default();
    }

    /// The collection is copied, or gone: nothing of it is remembered any more.
    pub fn end(&self, collection: CollectionUuid) {
        self.state().touched.remove(&collection);
    }

    /// The tail sends a change of this key down its lane. Before it does so.
    pub fn touch(&self, collection: CollectionUuid, key: CanonicalKey, time: ClusterTime) {
        if let Some(touched) = self.state().touched.get_mut(&collection) {
            touched.note(key, time);
        }
    }

    /// Whether any key of it was touched that is not forgotten yet: else none of its reads can have raced.
    #[must_use]
    pub fn is_touched(&self, collection: CollectionUuid) -> bool {
        self.state().touched.get(&collection).is_some_and(Touched::is_any)
    }

    /// Which of a batch's keys were touched after `before`, each with the time at which it was last.
    #[must_use]
    pub fn raced(&self, collection: CollectionUuid, keys: &[CanonicalKey], before: ClusterTime) -> Vec<(usize, ClusterTime)> {
        let state = self.state();
        let Some(touched) = state.touched.get(&collection) else { return Vec::new() };
        keys.iter().enumerate().filter_map(|(n, key)| touched.last(*key).filter(|t| *t > before).map(|t| (n, t))).collect()
    }

    /// A hold at the newest resume point ever given out, and that time: a read may start there.
    #[must_use]
    pub fn hold(&self) -> Hold {
        let at = {
            let mut state = self.state();
            let at = state.promised;
            state.raise(at);
            at
        };
        Hold { race: self.clone(), at, inserting: false }
    }

    /// How far the resume point may go, and so far it is given out: the newest of `positions` (ascending)
    /// that no hold forbids. Forgets the keys that it passes.
    pub fn promise(&self, newest: impl IntoIterator<Item = ClusterTime>) -> Option<usize> {
        let mut state = self.state();
        let limit = state.holds.keys().next().copied();
        let chosen = newest.into_iter().enumerate().take_while(|(_, t)| limit.is_none_or(|limit| *t <= limit)).last();
        let (n, time) = chosen?;
        state.promised = state.promised.max(time);
        let passed = state.promised;
        for touched in state.touched.values_mut() {
            touched.forget(passed);
        }
        Some(n)
    }

    /// Begins anew at the saved resume point. Nothing of an earlier run may be at work any more: what it left unconfirmed will
    /// be replayed from there, and holds nothing back.
    pub fn resume_from(&self, saved: ClusterTime) {
        let mut state = self.state();
        let State { newest_read, newest_reread, .. } = *state;
        *state = State { promised: saved, newest_read, newest_reread, ..State::default() };
    }

    /// The target may show the source as late as this.
    pub fn read(&self, at: ClusterTime) {
        let mut state = self.state();
        state.newest_read = state.newest_read.max(at);
    }

    /// As [`Race::read`], for single documents that the tail reads again: under load that never ends.
    pub fn reread(&self, at: ClusterTime) {
        let mut state = self.state();
        state.newest_reread = state.newest_reread.max(at);
    }

    /// As late as this the target may show the source, but for documents read again by the tail.
    #[must_use]
    pub fn newest_read(&self) -> ClusterTime {
        self.state().newest_read
    }

    /// The target is consistent once the tail has passed this time.
    #[must_use]
    pub fn newest_shown(&self) -> ClusterTime {
        let state = self.state();
        state.newest_read.max(state.newest_reread)
    }
}

impl State {
    fn raise(&mut self, at: ClusterTime) {
        *self.holds.entry(at).or_insert(0) += 1;
    }

    fn release(&mut self, at: ClusterTime) {
        if let Some(n) = self.holds.get_mut(&at) {
            *n -= 1;
            if *n == 0 {
                self.holds.remove(&at);
            }
        }
    }
}

impl Touched {
    fn is_any(&self) -> bool {
        self.any.is_some() || !self.keys.is_empty()
    }

    fn note(&mut self, key: CanonicalKey, time: ClusterTime) {
        if self.any.is_some() || key == CanonicalKey::ANY || self.keys.len() >= MAX_KEYS {
            self.keys.clear();
            self.any = self.any.max(Some(time));
        } else {
            self.keys.insert(key, time);
        }
    }

    fn last(&self, key: CanonicalKey) -> Option<ClusterTime> {
        self.any.or_else(|| self.keys.get(&key).copied())
    }

    fn forget(&mut self, passed: ClusterTime) {
        self.keys.retain(|_, t| *t > passed);
        self.any = self.any.filter(|t| *t > passed);
    }
}

/// Holds the resume point back: until it is dropped, or, once something read under it may be on the target, until that is
/// confirmed. An insert that failed half way, or a task that ended between insert and re-read, leaves what only a replay can mend:
/// so such a hold outlives its owner, and only a new start ([`Race::resume_from`]), which replays it, is rid of it.
#[derive(Debug)]
pub struct Hold {
    race: Race,
    at: ClusterTime,
    inserting: bool,
}

impl Hold {
    /// Where it holds.
    #[must_use]
    pub fn at(&self) -> ClusterTime {
        self.at
    }

    /// Moves it forward: the node has reported this time.
    pub fn advance(&mut self, to: ClusterTime) {
        if to > self.at {
            let mut state = self.race.state();
            state.raise(to);
            state.release(self.at);
            self.at = to;
        }
    }

    /// A second hold at the same time.
    #[must_use]
    pub fn split(&self) -> Hold {
        self.race.state().raise(self.at);
        Hold { race: self.race.clone(), at: self.at, inserting: false }
    }

    /// From now on, what was read under it may be on the target. Before the insert.
    pub fn inserting(&mut self) {
        self.inserting = true;
    }

    /// What was read under it is on the target, its raced keys are read again, and the progress is durable.
    pub fn confirm(mut self) {
        self.inserting = false;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.inserting {
            self.race.state().release(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: CollectionUuid = CollectionUuid([1; 16]);
    const fn at(t: u32) -> ClusterTime {
        ClusterTime { t, i: 0 }
    }
    fn key(n: u128) -> CanonicalKey {
        CanonicalKey(n)
    }

    #[test]
    fn keys_touched_after_the_read_are_raced() {
        let race = Race::default();
        race.begin(X);
        race.touch(X, key(1), at(5));
        race.touch(X, key(2), at(7));
        assert_eq!(race.raced(X, &[key(1), key(2), key(3)], at(5)), [(1, at(7))]);
    }

    #[test]
    fn too_many_keys_mean_any_key() {
        let race = Race::default();
        race.begin(X);
        for n in 0..=MAX_KEYS as u128 {
            race.touch(X, key(n + 1), at(5));
        }
        assert_eq!(race.raced(X, &[key(u128::MAX)], at(4)).len(), 1);
        assert_eq!(race.promise([at(5)]), Some(0));
        assert!(race.raced(X, &[key(u128::MAX)], at(4)).is_empty());
    }

    #[test]
    fn the_resume_point_waits_for_the_oldest_hold() {
        let race = Race::default();
        race.resume_from(at(3));
        let mut cursor = race.hold();
        assert_eq!(cursor.at(), at(3));
        assert_eq!(race.promise([at(2), at(3), at(4)]), Some(1));
        let batch = cursor.split();
        cursor.advance(at(9));
        assert_eq!(race.promise([at(4)]), None, "the batch read before 9 is not confirmed");
        drop(batch);
        assert_eq!(race.promise([at(8), at(9), at(10)]), Some(1));
        assert_eq!(race.hold().at(), at(9), "a later read starts at what was given out");
    }

    #[test]
    fn a_batch_that_is_never_confirmed_holds_for_ever() {
        let race = Race::default();
        race.resume_from(at(3));
        let mut cursor = race.hold();
        let (mut lost, mut confirmed) = (cursor.split(), cursor.split());
        cursor.advance(at(9));
        confirmed.inserting();
        confirmed.confirm();
        lost.inserting();
        drop(lost);
        assert_eq!(race.promise([at(3), at(4)]), Some(0), "the insert may have been done in part");
    }

    #[test]
    fn a_key_is_remembered_until_the_resume_point_has_passed_it() {
        let race = Race::default();
        race.begin(X);
        race.touch(X, key(1), at(5));
        race.promise([at(4)]);
        assert_eq!(race.raced(X, &[key(1)], at(4)).len(), 1);
        race.promise([at(5)]);
        assert!(race.raced(X, &[key(1)], at(4)).is_empty());
    }
}
