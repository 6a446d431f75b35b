//! Going slower: by an operator's limit, by an operator's word, or because a cluster is under strain.
//!
//! Copy and tail ask their [`Pace`] where they take a batch, and nowhere else; without any limit that is one atomic
//! load. The rest of the room is pure: [`decide`] turns samples into a reason, [`Governor`] reasons into shares. Who
//! collects the samples is the engine's business.

mod decide;
mod governor;
mod pace;

pub use decide::{Latency, Limits, Samples, decide};
pub use governor::{Governor, Shares};
pub use pace::{Pace, Turn};

/// The paces of a migration. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    /// Of the initial copy.
    pub copy: Pace,
    /// Of the tail.
    pub tail: Pace,
}
