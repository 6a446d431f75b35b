//! One migration: opens it, keeps its phase, starts and stops the work that the phase asks for.

mod board;
mod commands;
mod connect;
mod job;
mod lease;
mod open;
mod preflight;
mod privileges;
mod sample;
mod topology;
mod work;

pub use preflight::{CheckReport, Finding, Level, check};

use crate::{
    config::Config,
    error::{Error, Result},
    model::{Selection, Status},
    observe::{Endpoint, Metrics, serve},
    verify,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Requests waiting for the engine: few people ask, and each waits for its answer.
const REQUEST_QUEUE: usize = 16;

/// Starts or resumes a migration, and returns once it is committed, aborted, or told to stop.
///
/// # Errors
/// What ended it. [`Error::Interrupted`] where `stop` fired.
pub async fn run(config: Config, status: watch::Sender<Status>, stop: CancellationToken) -> Result<()> {
    let metrics = Arc::new(Metrics::new());
    // Before anything is written: two processes on one machine are told apart at once.
    let listener = TcpListener::bind(config.listen).await.map_err(|e| Error::BadConfig {
        field: "--listen".into(),
        problem: format!("cannot be bound to {}: {e}", config.listen),
        hint: Some("another process listens there: stop it, or choose another address".into()),
    })?;
    let closing = CancellationToken::new();
    let (requests, asked) = mpsc::channel(REQUEST_QUEUE);
    let mut server: JoinSet<Result<()>> = JoinSet::new();
    let endpoint = Endpoint { metrics: metrics.clone(), status: status.subscribe(), requests };
    server.spawn(serve(listener, endpoint, closing.clone()));
    let outcome = async {
        let clusters = connect::Clusters::connect(&config, &metrics, &stop).await?;
        let ended = async { open::open(&config, &clusters, metrics.clone(), status, &stop).await?.run(asked, &stop).await }.await;
        clusters.close().await;
        ended
    }
    .await;
    // Answers on their way are still sent.
    closing.cancel();
    let served = crate::tasks::first_error(server, &closing).await;
    outcome.and(served)
}

/// Compares two clusters without a migration.
///
/// # Errors
/// As classified; a reading cut short is an error and no verdict.
pub async fn verify_clusters(config: &Config) -> Result<serde_json::Value> {
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let clusters = connect::Clusters::connect(config, &metrics, &stop).await?;
    let report = compare_alone(&clusters, &config.selection, &metrics, &stop).await;
    clusters.close().await;
    serde_json::to_value(report?).map_err(|e| Error::Bug(format!("a report is no JSON: {e}")))
}

async fn compare_alone(
    clusters: &connect::Clusters,
    selection: &Selection,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<verify::Report> {
    let settings = verify::Settings::new(clusters.retry());
    // Nothing to wait for but the writers of either side.
    let settle = verify::growing_pause(Duration::from_millis(200));
    verify::verify(&clusters.source, &clusters.reader, selection, &settings, metrics, settle, stop).await
}
