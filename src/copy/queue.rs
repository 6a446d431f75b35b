//! Which partition is next: those of the largest collections first, the small ones from the other end.

use crate::model::{CollectionUuid, Partition};
use std::{
    collections::{HashMap, VecDeque},
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
    waiting: VecDeque<Partition>,
    /// Partitions of each collection that are waiting or at work.
    left: HashMap<CollectionUuid, usize>,
    running: u64,
    done: u64,
}

impl Queue {
    pub(super) fn new(partitions: Vec<Partition>) -> Self {
        let done = partitions.iter().filter(|p| p.done).count() as u64;
        let mut waiting: Vec<Partition> = partitions.into_iter().filter(|p| !p.done).collect();
        let mut left: HashMap<CollectionUuid, usize> = HashMap::new();
        for p in &waiting {
            *left.entry(p.id.collection).or_default() += 1;
        }
        // Partitions are of about one size, so their number is the size of a collection.
        waiting.sort_by_key(|p| (std::cmp::Reverse(left[&p.id.collection]), p.id));
        Self(Mutex::new(State { waiting: waiting.into(), left, running: 0, done }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, from_small_end: bool) -> Option<Partition> {
        let mut state = self.state();
        let next = if from_small_end { state.waiting.pop_back() } else { state.waiting.pop_front() }?;
        state.running += 1;
        Some(next)
    }

    /// A partition is done; whether it was the last of its collection.
    pub(super) fn finished(&self, collection: CollectionUuid) -> bool {
        let mut state = self.state();
        state.running -= 1;
        state.done += 1;
        let left = state.left.entry(collection).or_insert(1);
        *left -= 1;
        *left == 0
    }

    pub(super) fn holds(&self, collection: CollectionUuid) -> bool {
        self.state().left.contains_key(&collection)
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state();
        Counts { waiting: state.waiting.len() as u64, running: state.running, done: state.done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_collections_first_and_small_ones_from_the_other_end() {
        let (large, small) = (CollectionUuid([1; 16]), CollectionUuid([2; 16]));
        let bounds = (0..3).map(|n| bson::rawdoc! {"_id": n}).collect();
        let queue = Queue::new([Partition::cover(small, vec![]), Partition::cover(large, bounds)].concat());
        assert_eq!(queue.take(false).unwrap().id.collection, large);
        assert_eq!(queue.take(true).unwrap().id.collection, small);
        assert!(queue.finished(small));
        assert!(!queue.finished(large));
        assert_eq!(queue.counts(), Counts { waiting: 3, running: 0, done: 2 });
    }
}
