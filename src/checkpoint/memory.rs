//! Checkpoints in memory, in their saved forms, with faults. For simulation.
//!
//! Looks after what it is told: a resume point that moves back, or a partition that loses progress, is a bug.

use super::{
    Handover, SavedParity, Store,
    record::{from_entry, from_partition, to_entry, to_partition},
};
use crate::{
    catalog::{Entry, State},
    error::{Error, Result},
    model::{Activity, ClusterTime, CollectionUuid, Partition, PartitionId, Phase, Position, Side, shelf::Place},
    parity::Marks,
};
use bson::RawDocumentBuf;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What goes wrong, each with its chance for one call.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StoreFaults {
    /// Not saved.
    pub refuse: f64,
    /// Saved, but the answer was lost.
    pub answer_lost: f64,
    /// Turns that any call waits, at most.
    pub slow: u32,
}

#[derive(Debug)]
struct Saved {
    phase: Option<(Phase, Activity)>,
    resume: Option<Position>,
    entries: BTreeMap<CollectionUuid, RawDocumentBuf>,
    partitions: BTreeMap<PartitionId, RawDocumentBuf>,
    ranges: BTreeMap<PartitionId, Partition>,
    marks: BTreeMap<CollectionUuid, Marks>,
    marked_until: Option<ClusterTime>,
    rng: StdRng,
    faults: StoreFaults,
}

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct MemoryStore(Arc<Mutex<Saved>>);

impl MemoryStore {
    /// Empty.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (entries, partitions) = (BTreeMap::new(), BTreeMap::new());
        let rng = StdRng::seed_from_u64(seed);
        let (ranges, marks, faults) = (BTreeMap::new(), BTreeMap::new(), StoreFaults::default());
        let saved = Saved { phase: None, resume: None, entries, partitions, ranges, marks, marked_until: None, rng, faults };
        Self(Arc::new(Mutex::new(saved)))
    }

    fn with<R>(&self, f: impl FnOnce(&mut Saved) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on.
    pub fn set_faults(&self, faults: StoreFaults) {
        self.with(|s| s.faults = faults);
    }

    /// The saved resume point.
    #[must_use]
    pub fn resume_point(&self) -> Option<Position> {
        self.with(|s| s.resume.clone())
    }

    /// The saved phase.
    #[must_use]
    pub fn phase(&self) -> Option<(Phase, Activity)> {
        self.with(|s| s.phase.clone())
    }

    async fn save(&self, change: impl FnOnce(&mut Saved) -> Result<()>) -> Result<()> {
        let turns = self.with(|s| s.rng.random_range(0..=s.faults.slow));
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let fault = || Error::Unreachable {
            side: Side::Target,
            doing: "saving progress".into(),
            why: crate::error::Trouble::Network,
            source: "a fault of the simulation".into(),
        };
        self.with(|s| {
            if s.rng.random_bool(s.faults.refuse) {
                return Err(fault());
            }
            change(s)?;
            if s.rng.random_bool(s.faults.answer_lost) { Err(fault()) } else { Ok(()) }
        })
    }
}

/// Why a partition may not be saved so.
fn lost(before: &Partition, now: &Partition) -> Option<&'static str> {
    let place = |p: &Partition| p.after.as_ref().and_then(|after| Place::of_document(after));
    if before.done && !now.done {
        return Some("is no longer done");
    }
    if now.documents < before.documents {
        return Some("has fewer documents");
    }
    (place(now) < place(before)).then_some("goes back to an earlier key")
}

impl Store for MemoryStore {
    async fn save_phase(&self, phase: &Phase, activity: &Activity) -> Result<()> {
        self.save(|s| {
            s.phase = Some((phase.clone(), activity.clone()));
            Ok(())
        })
        .await
    }

    async fn save_fenced(&self, _fenced: bool) -> Result<()> {
        self.save(|_| Ok(())).await
    }

    async fn save_step(&self, _step: &str) -> Result<()> {
        self.save(|_| Ok(())).await
    }

    async fn save_commit(&self, _step: &str, phase: &Phase, _handover: Handover) -> Result<()> {
        self.save_phase(phase, &Activity::Running).await
    }

    async fn standing(&self) -> Result<(Phase, bool)> {
        Ok((self.phase().map_or(Phase::Planned, |(phase, _)| phase), false))
    }

    async fn save_resume_point(&self, position: &Position) -> Result<()> {
        self.save(|s| {
            if let Some(before) = s.resume.as_ref().filter(|before| before.time > position.time) {
                return Err(Error::Bug(format!("the resume point moves back from {} to {}", before.time, position.time)));
            }
            s.resume = Some(position.clone());
            Ok(())
        })
        .await
    }

    async fn save_entries(&self, entries: &[Entry]) -> Result<()> {
        self.save(|s| {
            s.entries.extend(entries.iter().map(|e| (e.uuid, from_entry(e))));
            Ok(())
        })
        .await
    }

    async fn forget(&self, collections: &[CollectionUuid]) -> Result<()> {
        self.save(|s| {
            let dropped = |saved: &RawDocumentBuf| to_entry(saved).is_none_or(|entry| entry.state == State::Dropped);
            s.entries.retain(|uuid, saved| !collections.contains(uuid) || !dropped(saved));
            s.partitions.retain(|id, _| !collections.contains(&id.collection));
            s.ranges.retain(|id, _| !collections.contains(&id.collection));
            s.marks.retain(|uuid, _| !collections.contains(uuid));
            Ok(())
        })
        .await
    }

    async fn save_partitions(&self, partitions: &[Partition]) -> Result<()> {
        self.save(|s| {
            for p in partitions {
                let before = s.partitions.get(&p.id).and_then(|saved| to_partition(saved));
                if let Some(why) = before.and_then(|before| lost(&before, p)) {
                    return Err(Error::Bug(format!("partition {} of {} {why}", p.id.number, p.id.collection)));
                }
                s.partitions.insert(p.id, from_partition(p));
            }
            Ok(())
        })
        .await
    }

    async fn entries(&self) -> Result<Vec<Entry>> {
        let unreadable = || Error::Bug("a saved collection cannot be read".into());
        self.with(|s| s.entries.values().map(|e| to_entry(e).ok_or_else(unreadable)).collect())
    }

    async fn partitions(&self) -> Result<Vec<Partition>> {
        let unreadable = || Error::Bug("a saved partition cannot be read".into());
        self.with(|s| s.partitions.values().map(|p| to_partition(p).ok_or_else(unreadable)).collect())
    }

    async fn save_marks(&self, marks: &[Marks], time: ClusterTime) -> Result<()> {
        self.save(|s| {
            s.marks.extend(marks.iter().map(|m| (m.collection, m.clone())));
            s.marked_until = Some(time);
            Ok(())
        })
        .await
    }

    async fn save_ranges(&self, ranges: &[Partition]) -> Result<()> {
        self.save(|s| {
            s.ranges.extend(ranges.iter().map(|r| (r.id, r.clone())));
            Ok(())
        })
        .await
    }

    async fn parity(&self) -> Result<SavedParity> {
        Ok(self.with(|s| SavedParity {
            ranges: s.ranges.values().cloned().collect(),
            marks: s.marks.values().cloned().collect(),
            time: s.marked_until,
        }))
    }
}
