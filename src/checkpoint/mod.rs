//! What survives a crash: the migration's record, its lease, the catalog and the partitions, in the metadata
//! database on the target. Everything is written with `w: majority`.

mod frontier;
mod lease;
mod memory;
mod mongo;
mod parity;
mod record;

pub use frontier::Frontier;
pub use lease::{LEASE, holder};
pub use memory::{MemoryStore, StoreFaults};
pub use mongo::MongoStore;
pub use record::{FORMAT, Handover, Record, WayBack};

use crate::{
    catalog::Entry,
    error::Result,
    model::{Activity, ClusterTime, CollectionUuid, Partition, Phase, Position},
    parity::Marks,
};

/// What was saved of parity.
#[derive(Debug, Default)]
pub struct SavedParity {
    /// In which collections are verified.
    pub ranges: Vec<Partition>,
    /// Which of them were touched.
    pub marks: Vec<Marks>,
    /// The source time up to which all touches are in the marks.
    pub time: Option<ClusterTime>,
}

/// Where checkpoints are kept. Every call fails with [`crate::error::Error::LeaseLost`] once another process has taken over.
pub trait Store: Clone + Send + Sync + 'static {
    /// Saves how far the data has come and whether we are at work.
    fn save_phase(&self, phase: &Phase, activity: &Activity) -> impl Future<Output = Result<()>> + Send;
    /// Saves whether the user write block of the source is ours to lift.
    fn save_fenced(&self, fenced: bool) -> impl Future<Output = Result<()>> + Send;
    /// Saves what a cutover is about to do, before it does it.
    fn save_step(&self, step: &str) -> impl Future<Output = Result<()>> + Send;
    /// Saves that a cutover is done, unless another step than `step` has been saved meanwhile: then a commit whose answer was
    /// lost cannot come into force any more.
    fn save_commit(&self, step: &str, phase: &Phase, handover: Handover) -> impl Future<Output = Result<()>> + Send;
    /// The phase as saved, and whether the source is fenced by us.
    fn standing(&self) -> impl Future<Output = Result<(Phase, bool)>> + Send;
    /// Saves the resume point.
    fn save_resume_point(&self, position: &Position) -> impl Future<Output = Result<()>> + Send;
    /// Saves what is known of collections.
    fn save_entries(&self, entries: &[Entry]) -> impl Future<Output = Result<()>> + Send;
    /// Forgets dropped collections and their partitions.
    fn forget(&self, collections: &[CollectionUuid]) -> impl Future<Output = Result<()>> + Send;
    /// Saves partitions and their progress.
    fn save_partitions(&self, partitions: &[Partition]) -> impl Future<Output = Result<()>> + Send;
    /// All collections.
    fn entries(&self) -> impl Future<Output = Result<Vec<Entry>>> + Send;
    /// All partitions.
    fn partitions(&self) -> impl Future<Output = Result<Vec<Partition>>> + Send;
    /// Saves which ranges were touched since they were proved equal; all touches up to `time` are in the marks then.
    fn save_marks(&self, marks: &[Marks], time: ClusterTime) -> impl Future<Output = Result<()>> + Send;
    /// Saves ranges in which collections are verified; those that are `done` are proved.
    fn save_ranges(&self, ranges: &[Partition]) -> impl Future<Output = Result<()>> + Send;
    /// All ranges, and marks with their time. No time where none were saved, or in a form that we do not know.
    fn parity(&self) -> impl Future<Output = Result<SavedParity>> + Send;
}
