//! The test bed: real MongoDB servers, data, load, faults and an independent comparison.
//!
//! It knows nothing of mongoferry. What it says about two clusters it has read from them itself, so that a fault in
//! mongoferry's own reading or hashing cannot hide behind the same fault here.

pub mod client;
pub mod dataset;
pub mod error;
pub mod folder;
pub mod load;
pub mod parity;
pub mod proxy;
pub mod replica_set;
pub mod server;
pub mod sharded;
pub mod tls;
pub mod trap;

mod node;
mod process;
mod text;

pub use client::{connect, end};
pub use dataset::{DataSet, Filled, fill};
pub use error::{Error, Result};
pub use load::{Counts, Load, LoadOptions};
pub use parity::{Difference, Report, compare};
pub use proxy::Proxy;
pub use replica_set::{Options, ReplicaSet};
pub use server::{Binary, Version};
pub use sharded::{Balancer, ShardedCluster};
pub use trap::{Catch, Trap};

#[cfg(test)]
mod testing;
