//! Which partition is next: mostly of the largest collections, spread over them so that inserts do not meet in one place; the
//! small ones from the other end.

use crate::model::{CollectionUuid, Partition};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Partitions by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not yet begun.
    pub waiting: u64,
    /// At work.
    pub running: u64,
    /// Durable.
    pub done: u64,
}

pub(super) struct Queue(Mutex<State>);

struct State {
    /// Those with partitions that are waiting or at work.
    collections: BTreeMap<CollectionUuid, Left>,
    done: u64,
}

#[derive(Default)]
struct Left {
    waiting: VecDeque<Partition>,
    running: usize,
}

impl Left {
    /// Partitions are of about one size, so their number is the size of a collection.
    fn size(&self) -> usize {
        self.waiting.len() + self.running
    }
}

impl Queue {
    pub(super) fn new(mut partitions: Vec<Partition>) -> Self {
        partitions.sort_by_key(|p| p.id);
        let mut state = State { collections: BTreeMap::new(), done: 0 };
        for p in partitions {
            if p.done {
                state.done += 1;
            } else {
                state.collections.entry(p.id.collection).or_default().waiting.push_back(p);
            }
        }
        Self(Mutex::new(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, from_small_end: bool) -> Option<Partition> {
        let mut state = self.state();
        let waiting = state.collections.values_mut().filter(|left| !left.waiting.is_empty());
        let from = if from_small_end {
            waiting.min_by_key(|left| left.size())
        } else {
            // Readers are given out as seats are by D'Hondt's method: in proportion to what is left.
            waiting.max_by_key(|left| (left.size() * 1024 / (left.running + 1), Reverse(left.running)))
        }?;
        from.running += 1;
        from.waiting.pop_front()
    }

    /// A partition is done; whether it was the last of its collection.
    pub(super) fn finished(&self, collection: CollectionUuid) -> bool {
        let mut state = self.state();
        state.done += 1;
        let Some(left) = state.collections.get_mut(&collection) else { return false };
        left.running -= 1;
        let last = left.size() == 0;
        if last {
            state.collections.remove(&collection);
        }
        last
    }

    pub(super) fn holds(&self, collection: CollectionUuid) -> bool {
        self.state().collections.contains_key(&collection)
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state();
        let sum = |of: fn(&Left) -> usize| state.collections.values().map(|left| of(left) as u64).sum();
        Counts { waiting: sum(|left| left.waiting.len()), running: sum(|left| left.running), done: state.done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(sizes: &[(u8, i32)]) -> Queue {
        let cover = |&(n, parts): &(u8, i32)| Partition::cover(uuid(n), (1..parts).map(|n| bson::rawdoc! {"_id": n}).collect());
        Queue::new(sizes.iter().flat_map(cover).collect())
    }

    fn uuid(n: u8) -> CollectionUuid {
        CollectionUuid([n; 16])
    }

    #[test]
    fn large_collections_first_and_small_ones_from_the_other_end() {
        let queue = queue(&[(1, 4), (2, 1)]);
        assert_eq!(queue.take(false).unwrap().id.collection, uuid(1));
        assert_eq!(queue.take(true).unwrap().id.collection, uuid(2));
        assert!(queue.finished(uuid(2)));
        assert!(!queue.finished(uuid(1)));
        assert!(queue.holds(uuid(1)) && !queue.holds(uuid(2)));
        assert_eq!(queue.counts(), Counts { waiting: 3, running: 0, done: 2 });
    }

    #[test]
    fn readers_are_spread_in_proportion_to_what_is_left() {
        let equal = queue(&[(1, 2), (2, 2), (3, 2)]);
        let mut taken: Vec<_> = std::iter::from_fn(|| equal.take(false)).map(|p| p.id.collection).collect();
        assert_eq!(taken.len(), 6);
        taken.truncate(3);
        taken.sort();
        assert_eq!(taken, [uuid(1), uuid(2), uuid(3)]);
        let one_is_large = queue(&[(1, 2), (2, 20)]);
        let taken: Vec<_> = (0..4).filter_map(|_| one_is_large.take(false)).map(|p| p.id.collection).collect();
        assert_eq!(taken, [uuid(2); 4]);
    }
}
