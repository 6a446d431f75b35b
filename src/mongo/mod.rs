//! The driver's threshold: connecting, running commands, turning its errors into ours. Knows nothing of
//! replication. Outside this room only `source::mongo`, `target::mongo` and `checkpoint::mongo` name the driver.

mod classify;
mod cluster;
mod cursor;
mod former;
mod health;
pub(crate) mod listing;
mod reply;
pub(crate) mod sharding;

pub use classify::{classify, refused_by_code};
pub use cluster::{Cluster, Topology};
pub(crate) use cursor::CursorOptions;
pub use cursor::{RawCursor, Reply};
pub use former::ProcessName;
pub use health::Health;
pub(crate) use reply::DUPLICATE_KEY;
pub use reply::{WriteError, WriteReply};
