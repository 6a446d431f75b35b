//! mongoferry: continuous MongoDB cluster-to-cluster replication.
#![forbid(unsafe_code)]
pub mod config;
pub mod error;
pub mod model;
pub mod observe;
