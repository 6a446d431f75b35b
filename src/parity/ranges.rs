//! Ranges that are compared as a whole: which, and what came of it.

use super::{Followed, Parity};
use crate::model::{Partition, PartitionId};

impl Parity {
    /// Begins with up to `most` ranges that are to be compared as a whole: unproved ones first, then stale ones, then those
    /// that are due again. Those that were begun before and not finished come last, so that none keeps all others waiting.
    #[must_use]
    pub fn scan(&self, most: usize) -> Vec<PartitionId> {
        self.begin(most, &[|f, n| !f.proved.has(n), |f, n| f.proved.has(n) && f.stale.has(n), |f, n| f.again.has(n)])
    }

    /// The same for ranges whose proof was overtaken, and, with `unproved`, for those that have none.
    #[must_use]
    pub fn scan_open(&self, most: usize, unproved: bool) -> Vec<PartitionId> {
        let stale: fn(&Followed, usize) -> bool = |f, n| f.proved.has(n) && f.stale.has(n);
        if unproved { self.begin(most, &[|f, n| !f.proved.has(n), stale]) } else { self.begin(most, &[stale]) }
    }

    fn begin(&self, most: usize, wants: &[fn(&Followed, usize) -> bool]) -> Vec<PartitionId> {
        let mut state = self.state();
        let mut chosen = Vec::new();
        for again in [false, true] {
            for wanted in wants {
                for (uuid, f) in &mut state.followed {
                    for n in 0..f.sizes.len() {
                        let open = f.unfinished.has(n) == again && !f.scanning.has(n) && !f.repeating.has(n);
                        if chosen.len() < most && open && wanted(f, n) {
                            let repeats = f.proved.has(n) && !f.stale.has(n);
                            if repeats { &mut f.repeating } else { &mut f.scanning }.put(n, true);
                            f.stale.put(n, false);
                            f.again.put(n, false);
                            chosen.push(PartitionId { collection: *uuid, number: u32::try_from(n).unwrap_or(u32::MAX) });
                        }
                    }
                }
            }
        }
        chosen
    }

    /// A range as it is to be read.
    #[must_use]
    pub fn range(&self, id: PartitionId) -> Option<Partition> {
        let state = self.state();
        let f = state.followed.get(&id.collection)?;
        let n = id.number as usize;
        let (documents, bytes) = *f.sizes.get(n)?;
        let min = n.checked_sub(1).and_then(|before| f.bounds.get(before)).cloned();
        Some(Partition { id, min, max: f.bounds.get(n).cloned(), after: None, done: f.proved.has(n), documents, bytes })
    }

    /// A range was compared; its differences, if any, are listed or will be looked at again as keys.
    pub fn scanned(&self, id: PartitionId, documents: u64, bytes: u64) {
        if let Some(f) = self.state().followed.get_mut(&id.collection) {
            let n = id.number as usize;
            f.scanning.put(n, false);
            f.repeating.put(n, false);
            f.unfinished.put(n, false);
            f.proved.put(n, true);
            if let Some(size) = f.sizes.get_mut(n) {
                *size = (documents, bytes);
            }
            f.version += 1;
        }
    }

    /// All ranges are to be compared again: somebody else may have written to the target. What is proved stays so meanwhile.
    pub fn all_again(&self) {
        for f in self.state().followed.values_mut() {
            for n in 0..f.sizes.len() {
                f.again.put(n, f.proved.has(n));
            }
        }
    }

    /// Whether ranges are due again.
    #[must_use]
    pub fn is_due_again(&self) -> bool {
        self.state().followed.values().any(|f| (0..f.sizes.len()).any(|n| f.again.has(n) || f.repeating.has(n)))
    }
}
