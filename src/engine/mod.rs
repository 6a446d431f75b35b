//! Stub of the engine room, for building the command line alone.

use crate::{config::Config, error::Error, model::Status};
use tokio_util::sync::CancellationToken;

/// What a preflight found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CheckReport {
    /// All findings.
    pub findings: Vec<Finding>,
    /// Namespace, documents, bytes.
    pub collections: Vec<(String, u64, u64)>,
}

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Fine.
    Ok,
    /// Worth knowing.
    Warning,
    /// In the way.
    Error,
}

/// One finding.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
    /// Exit code that goes with an error.
    pub exit_code: u8,
}

/// Stub.
pub async fn run(_config: Config, _watch: tokio::sync::watch::Sender<Status>, stop: CancellationToken) -> Result<(), Error> {
    stop.cancelled().await;
    Err(Error::Interrupted)
}

/// Stub.
pub async fn check(_config: &Config) -> Result<CheckReport, Error> {
    Err(Error::Bug("no engine".to_owned()))
}

/// Stub.
pub async fn verify_clusters(_config: &Config) -> Result<serde_json::Value, Error> {
    Err(Error::Bug("no engine".to_owned()))
}
