//! Cluster time: the logical clock of a replica set or sharded cluster.

use bson::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Seconds since 1970 and a counter within the second. Orders operations, but is *not unique per
/// event*: all events of a transaction share one, so it measures lag and fences and never stands in
/// for a resume token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClusterTime {
    /// Seconds since 1970-01-01.
    pub t: u32,
    /// Counter within the second.
    pub i: u32,
}

impl ClusterTime {
    /// Seconds from `earlier` to `self` at the resolution of the clock (whole seconds), never negative.
    #[must_use]
    pub fn seconds_since(self, earlier: ClusterTime) -> u32 {
        self.t.saturating_sub(earlier.t)
    }
}

impl From<Timestamp> for ClusterTime {
    fn from(ts: Timestamp) -> Self {
        Self { t: ts.time, i: ts.increment }
    }
}

impl From<ClusterTime> for Timestamp {
    fn from(ct: ClusterTime) -> Self {
        Timestamp { time: ct.t, increment: ct.i }
    }
}

impl fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", self.t, self.i)
    }
}
