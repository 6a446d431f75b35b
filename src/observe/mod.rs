//! How a running migration is watched and spoken to: metrics, logs, the HTTP endpoint.
//!
//! The room knows nothing of replication. It is told by verbs and snapshots, and hands commands on; the
//! engine alone decides.

mod access;
mod commands;
mod control;
mod guard;
mod log;
mod metrics;
mod mongosync;
mod openapi;
mod probes;
mod renewed;
mod server;
mod tls;
mod token;

pub use access::Access;
pub use control::{Answer, Command, Examination, GiveUp, Handover, Request, StartOrder};
pub use log::{LOG_VARIABLE, LogFormat, Verbosity, set_log_level, start_logging};
pub use metrics::{AppliedOp, CATALOGUE, Entry, EventOp, GATES, IndexBuild, Kind, Metrics, MismatchKind, RetryCause, reference_table};
pub use openapi::openapi;
pub use renewed::Renewed;
pub use server::{Endpoint, Setup, serve};
pub use tls::Tls;
pub use token::{Token, private};
