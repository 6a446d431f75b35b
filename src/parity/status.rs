//! What people are shown of it.

use super::{Bits, Followed, Parity, order};
use crate::model::{ClusterTime, CollectionUuid, CollectionVerification, DocumentKey, PersistentDifference, VerificationStatus};

/// Collections and differences that a status lists at most; all are counted.
const MAX_LISTED: usize = 200;

/// A difference that persists.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Of which collection; `None` for what is on one side only.
    pub collection: Option<CollectionUuid>,
    /// The document's.
    pub key: Option<DocumentKey>,
    /// In words.
    pub difference: PersistentDifference,
}

impl Parity {
    /// The differences that persist now, and how many more there are than are listed.
    pub fn show_differences(&self, listed: Vec<Listed>, unlisted: impl IntoIterator<Item = (CollectionUuid, u64)>) {
        let mut state = self.state();
        for (uuid, f) in &mut state.followed {
            let mut different = Bits::default();
            for key in listed.iter().filter(|l| l.collection == Some(*uuid)).filter_map(|l| l.key.as_ref()) {
                let range = (!f.collated).then(|| order::range_of(&f.bounds, key.id())).flatten();
                for n in range.map_or(0..f.sizes.len(), |n| n..n + 1) {
                    different.put(n, true);
                }
            }
            f.version += u64::from(f.different != different);
            f.different = different;
        }
        (state.listed, state.unlisted) = (listed, unlisted.into_iter().collect());
    }

    /// What differs in a way that says nothing against a cutover.
    pub fn show_warnings(&self, warnings: Vec<PersistentDifference>) {
        self.state().warnings = warnings;
    }

    /// The verifier cannot go on, or can again.
    pub fn show_failure(&self, why: Option<String>) {
        self.state().failure = why;
    }

    /// A snapshot. `living` are the collections to be verified, with their names on the source; `applied` is what the tail has
    /// brought to the target, as it was known before this is called.
    #[must_use]
    pub fn status(&self, living: &[(CollectionUuid, String)], applied: ClusterTime) -> VerificationStatus {
        let state = self.state();
        let mut status = VerificationStatus { state: "off".into(), ..VerificationStatus::default() };
        if state.limit == 0 {
            return status;
        }
        let mut oldest = applied;
        let mut unproved = false;
        for (uuid, ns) in living {
            let differences = state.listed.iter().filter(|l| l.collection == Some(*uuid)).count() as u64
                + state.unlisted.get(uuid).copied().unwrap_or_default();
            let mut one = state.followed.get(uuid).map_or_else(pending, |f| f.status(applied));
            one.ns.clone_from(ns);
            one.differences = differences;
            if differences > 0 {
                "different".clone_into(&mut one.state);
                one.proved_cluster_time = None;
            }
            match one.state.as_str() {
                "verified" => status.verified += 1,
                "stale" => status.stale += 1,
                "different" => status.different += 1,
                _ => status.pending += 1,
            }
            unproved |= one.proved_cluster_time.is_none();
            oldest = oldest.min(one.proved_cluster_time.unwrap_or(oldest));
            status.documents += one.documents;
            status.bytes += one.bytes;
            status.collections.push(one);
        }
        let apart = state.listed.iter().filter(|l| l.collection.is_none_or(|uuid| living.iter().all(|(known, _)| *known != uuid)));
        status.differences = apart.count() as u64 + status.collections.iter().map(|c| c.differences).sum::<u64>();
        status.listed_differences = state.listed.iter().take(MAX_LISTED).map(|l| l.difference.clone()).collect();
        status.proved_cluster_time = (!unproved && status.differences == 0).then_some(oldest);
        status.warnings = state.warnings.iter().take(MAX_LISTED).cloned().collect();
        status.failure.clone_from(&state.failure);
        status.state = match (&state.failure, status.differences, status.pending, status.stale) {
            (Some(_), ..) => "failed",
            (None, 1.., ..) => "different",
            (None, 0, 1.., _) => "pending",
            (None, 0, 0, 1..) => "stale",
            (None, 0, 0, 0) => "verified",
        }
        .into();
        status.collections.sort_by_key(|c| c.state == "verified");
        status.collections.truncate(MAX_LISTED);
        status
    }
}

fn pending() -> CollectionVerification {
    CollectionVerification { state: "pending".into(), ..CollectionVerification::default() }
}

impl Followed {
    fn status(&self, applied: ClusterTime) -> CollectionVerification {
        let ranges = self.sizes.len();
        let proved = (0..ranges).filter(|n| self.proved.has(*n)).count();
        let rescan = (0..ranges).any(|n| self.stale.has(n) || self.scanning.has(n));
        let outstanding = !self.keys.is_empty() || !self.taken.is_empty() || rescan;
        let state = match (proved == ranges, outstanding) {
            (false, _) => "pending",
            (true, true) => "stale",
            (true, false) => "verified",
        };
        let done = |of: fn(&(u64, u64)) -> u64| (0..ranges).filter(|n| self.proved.has(*n)).map(|n| of(&self.sizes[n])).sum();
        CollectionVerification {
            ns: String::new(),
            state: state.into(),
            documents: done(|s| s.0),
            bytes: done(|s| s.1),
            partitions: ranges as u64,
            partitions_proved: proved as u64,
            differences: 0,
            proved_cluster_time: match state {
                "pending" => None,
                "stale" => (self.proved_until != ClusterTime::default()).then_some(self.proved_until),
                _ => Some(applied),
            },
        }
    }
}
