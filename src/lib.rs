//! mongoferry: continuous MongoDB cluster-to-cluster replication.
#![forbid(unsafe_code)]
pub mod catalog;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod model;
pub mod mongo;
pub mod observe;
pub mod race;
pub mod retry;
pub mod source;
pub mod target;
