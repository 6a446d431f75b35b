//! How a running migration is watched and spoken to: metrics, logs, the HTTP endpoint.

mod control;

pub use control::{Answer, Command, Request};
