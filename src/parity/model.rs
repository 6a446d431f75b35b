//! Random histories of touches, looks, saves and crashes: no touch may be forgotten before it was looked at.

use super::*;
use crate::model::PartitionId;
use bson::rawdoc;
use rand::{Rng, SeedableRng, rngs::StdRng};

const X: CollectionUuid = CollectionUuid([1; 16]);
const KEYS: usize = 30;
const RANGES: usize = 3;

struct History {
    r: StdRng,
    parity: Parity,
    limit: u64,
    clock: u32,
    /// When each key was last touched, and up to when it was last looked at.
    touched: [u32; KEYS],
    looked: [u32; KEYS],
    // What is durable.
    ranges: Vec<Partition>,
    marks: Bits,
    resume: u32,
}

fn key(n: usize) -> DocumentKey {
    DocumentKey::new(rawdoc! {"_id": i32::try_from(n).unwrap()}).unwrap()
}
fn range_of(n: usize) -> usize {
    n / 10
}

impl History {
    fn new(seed: u64) -> Self {
        let mut r = StdRng::seed_from_u64(seed);
        let limit = if r.random_bool(0.3) { 400 } else { 1 << 20 };
        let ranges = Partition::cover(X, vec![rawdoc! {"_id": 10}, rawdoc! {"_id": 20}]);
        let parity = Parity::new(limit);
        parity.follow(X, &ranges, None, false);
        let (touched, looked) = ([0; KEYS], [0; KEYS]);
        Self { r, parity, limit, clock: 0, touched, looked, ranges, marks: Bits::default(), resume: 0 }
    }

    fn touches(&mut self) {
        for _ in 0..self.r.random_range(0..4) {
            let n = self.r.random_range(0..KEYS);
            self.clock += 1;
            self.touched[n] = self.clock;
            self.parity.note(X, &key(n));
        }
    }

    /// Looks at what was touched; now and then it is cut short.
    fn look(&mut self) {
        let at = self.clock;
        let Some((_, taken)) = self.parity.take(ClusterTime::default()).pop() else { return };
        self.touches();
        if self.maybe_save() {
            return;
        }
        if self.r.random_bool(0.2) {
            return self.parity.abandon();
        }
        let taken: Vec<usize> = (0..KEYS).filter(|n| taken.contains(&key(*n))).collect();
        let again: Vec<usize> = taken.iter().copied().filter(|_| self.r.random_bool(0.1)).collect();
        for n in taken.into_iter().filter(|n| !again.contains(n)) {
            self.looked[n] = self.looked[n].max(at);
        }
        self.parity.looked(X, &again.into_iter().map(key).collect::<Vec<_>>(), ClusterTime::default());
    }

    fn scan(&mut self) {
        if self.r.random_bool(0.1) {
            self.parity.all_again();
        }
        let at = self.clock;
        let most = self.r.random_range(1..=RANGES);
        let ids = self.parity.scan(most);
        self.touches();
        if self.maybe_save() {
            return;
        }
        for id in ids {
            self.touches();
            if self.r.random_bool(0.2) {
                return self.parity.abandon();
            }
            let n = id.number as usize;
            self.ranges[n].done = true;
            for key in (0..KEYS).filter(|key| range_of(*key) == n) {
                self.looked[key] = self.looked[key].max(at);
            }
            if self.r.random_bool(0.1) {
                return self.crash();
            }
            self.parity.scanned(id, 1, 1);
        }
    }

    /// As the ledger does; a crash may come between marks and resume point. Whether it did.
    fn maybe_save(&mut self) -> bool {
        if self.r.random_bool(0.5) {
            let marks = self.parity.marks();
            if let Some(mark) = marks.first() {
                self.marks = mark.touched.clone();
            }
            if self.r.random_bool(0.1) {
                self.crash();
                return true;
            }
            self.parity.saved(&marks);
            self.resume = self.clock;
        }
        false
    }

    /// What is durable comes back, and the stream tells again what came behind the resume point.
    fn crash(&mut self) {
        self.parity = Parity::new(self.limit);
        self.parity.follow(X, &self.ranges, Some(&self.marks), false);
        for n in 0..KEYS {
            let is_open = self.parity.range(PartitionId { collection: X, number: u32::try_from(range_of(n)).unwrap() }).unwrap();
            let is_open = !is_open.done || self.marks.has(range_of(n));
            assert!(self.touched[n] <= self.looked[n] || self.touched[n] > self.resume || is_open, "key {n} was forgotten");
            if self.touched[n] > self.resume {
                self.parity.note(X, &key(n));
            }
        }
    }

    fn check(&self) {
        if self.parity.left() == Left::default() {
            for n in 0..KEYS {
                assert!(self.touched[n] <= self.looked[n], "nothing is left, and key {n} was not looked at");
            }
        }
    }
}

#[test]
fn no_touch_is_forgotten() {
    for seed in 0..3_000 {
        let mut history = History::new(seed);
        for _ in 0..40 {
            match history.r.random_range(0..10) {
                0..4 => history.touches(),
                4..6 => history.look(),
                6..8 => history.scan(),
                8 => {
                    let _crashed = history.maybe_save();
                }
                _ => history.crash(),
            }
            history.check();
        }
        // In the end everything is looked at.
        history.parity.abandon();
        let mut rounds = 0;
        while history.parity.left() != Left::default() {
            history.parity.scan(RANGES).into_iter().for_each(|id| history.parity.scanned(id, 1, 1));
            history
                .parity
                .take(ClusterTime::default())
                .iter()
                .for_each(|(uuid, _)| history.parity.looked(*uuid, &[], ClusterTime::default()));
            rounds += 1;
            assert!(rounds < 10, "seed {seed} does not come to rest: {:?}", history.parity.left());
        }
    }
}
