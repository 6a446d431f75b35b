//! mongoferry: continuous MongoDB cluster-to-cluster replication.
#![forbid(unsafe_code)]
pub mod catalog;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod copy;
pub mod cutover;
pub mod engine;
pub mod error;
pub mod indexes;
pub mod model;
pub mod mongo;
pub mod observe;
pub mod race;
pub mod retry;
pub mod source;
pub mod tail;
pub mod target;
pub mod tasks;
pub mod verify;
