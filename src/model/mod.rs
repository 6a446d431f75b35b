//! The words everything else is said in. Pure: no I/O, no clock, no tokio, no driver client.

mod accounts;
mod batch;
mod document;
mod event;
mod job;
mod namespace;
mod partition;
mod phase;
pub mod raw;
mod selection;
mod settings;
mod shard_key;
pub mod shelf;
mod status;
mod throttle;
mod time;

pub use accounts::UsersAndRoles;
pub use batch::Batch;
pub use document::{CanonicalKey, DocumentKey, odd_at_top, repeats_a_name, same_key, surely_one};
pub(crate) use event::collated;
pub use event::{
    Change, ChangeEvent, CollectionInfo, CollectionKind, CollectionUuid, Ddl, IndexSpec, Position, ResumeToken, Write, WriteOp,
};
pub use job::{Fingerprint, Side};
pub use namespace::Namespace;
pub(crate) use partition::bound_of;
pub use partition::{Bound, Partition, PartitionId, split_count};
pub use phase::{Activity, IllegalStep, Milestone, Phase, Verb, permits};
pub use selection::{Pattern, Selection, UnknownName};
pub use settings::{KeptSettings, LOG_LEVELS, Rate, Settings};
pub use shard_key::{Distributed, Distribution, ShardKey, Sharded, Zone, can_be_aimed_at};
pub use status::{
    CollectionVerification, CopyStatus, CutoverStatus, DirectionStatus, EventStatus, Gate, InFlightStatus, PersistentDifference, Status,
    UnfinishedIndex, VerificationStatus, index_title,
};
pub use throttle::{SlowReason, Slowed, ThrottleStatus};
pub use time::ClusterTime;
