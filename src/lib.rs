//! mongoferry: continuous replication of one MongoDB cluster into another, and a cutover in seconds.
//!
//! It reads the source's operation time, follows its change stream from there, copies every selected
//! collection meanwhile, compares, and hands over. Each room below is a folder (or one file); a room names only
//! the rooms beneath it, which `tests/layers.rs` checks.
//!
//! ```text
//! main → cli → engine → cutover → { copy | tail | verify | indexes } → { source | target | checkpoint } → mongo
//!                │                          │                                        │
//!                └→ config                  └→ catalog, race                         └→ retry, error, model
//!
//! source::stream ─▶ tail::reader ─▶ tail::router ─▶ tail::lane ─▶ target ─▶ tail::ledger ─▶ checkpoint
//!                                        ▲ re-reads
//! source::scan ───▶ copy::partition ─────┴───────────────────────▶ target
//! ```
//!
//! - [`model`]: the words. Pure, raw BSON included.
//! - [`error`], [`retry`], [`tasks`]: what somebody should do about a failure; the one place that tries again;
//!   every task has an owner.
//! - [`config`]: what the operator chose. [`cli`]: the verbs. [`observe`]: metrics, logs, the endpoint.
//! - [`mongo`]: the driver's threshold. [`source`] and [`target`]: the ports to both clusters.
//! - [`catalog`]: which collections there are, by UUID. [`race`]: where copy and tail meet. [`parity`]: what is proved equal.
//! - [`checkpoint`]: what survives a crash.
//! - [`throttle`]: going slower, by limit, by word or under strain.
//! - [`capped`]: collections that keep the order of insertion, copied whole.
//! - [`accounts`]: users and roles, which no change stream shows.
//! - [`copy`], [`tail`], [`indexes`], [`verify`]: the work. [`cutover`]: the saga. [`engine`]: one migration, and its way back.

pub mod accounts;
pub mod capped;
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
pub mod parity;
pub mod race;
pub mod retry;
pub mod source;
pub mod tail;
pub mod target;
pub mod tasks;
pub mod throttle;
pub mod verify;
