//! One migration: opens it, keeps its phase, starts and stops the work that the phase asks for.

mod board;
mod commands;
mod connect;
mod hold;
mod job;
mod lease;
mod open;
mod preflight;
mod privileges;
mod sample;
mod settings;
mod throttle;
mod trend;
mod work;

pub use preflight::{CheckReport, Finding, Level, check};

use crate::{
    config::{Config, ControlConfig, redacted},
    error::{Error, Result},
    model::{Selection, Status},
    observe::{Access, Endpoint, Metrics, Setup, StartOrder, Tls, Token, serve},
    verify,
};
use secrecy::{ExposeSecret, SecretString};
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
pub async fn run(mut config: Config, status: watch::Sender<Status>, stop: CancellationToken) -> Result<()> {
    let access = access(&config.control)?;
    let metrics = Arc::new(Metrics::new());
    // Before anything is written: two processes on one machine are told apart at once.
    let listener = TcpListener::bind(config.listen).await.map_err(|e| Error::BadConfig {
        field: "--listen".into(),
        problem: format!("cannot be bound to {}: {e}", config.listen),
        hint: Some("another process listens there: stop it, or choose another address".into()),
    })?;
    let closing = CancellationToken::new();
    let (requests, mut asked) = mpsc::channel(REQUEST_QUEUE);
    let mut server: JoinSet<Result<()>> = JoinSet::new();
    let endpoint = Endpoint::new(metrics.clone(), status.subscribe(), requests).of(setup(&config));
    server.spawn(serve(listener, access, endpoint, closing.clone()));
    let outcome = async {
        let clusters = connect::Clusters::connect(&config, &metrics, &stop).await?;
        let ended = async {
            let mut order = StartOrder::default();
            if config.hold {
                match hold::hold(&config, &clusters, &mut asked, &status, &stop).await? {
                    Some(given) => order = given,
                    None => return Ok(()),
                }
            }
            config.copy.indexes_before_data = order.indexes_before_data.unwrap_or(config.copy.indexes_before_data);
            open::open(&config, order, &clusters, metrics.clone(), status.clone(), &stop).await?.run(&mut asked, &stop).await?;
            if config.hold && status.borrow().phase == "committed" {
                hold::linger(&mut asked, &stop).await;
            }
            Ok(())
        }
        .await;
        clusters.close().await;
        ended
    }
    .await;
    // Answers on their way are still sent.
    closing.cancel();
    let served = crate::tasks::first_error(server, &closing).await;
    outcome.and(served)
}

fn setup(config: &Config) -> Setup {
    let host = |uri: &SecretString| {
        let shown = redacted(uri.expose_secret());
        let hosts = shown.split_once("://").map_or(shown.as_str(), |(_, rest)| rest);
        hosts.split([',', '/']).next().unwrap_or_default().to_owned()
    };
    let (include, exclude) = config.selection.patterns();
    Setup { source: host(&config.source), target: host(&config.target), include, exclude }
}

/// Reads what protects the endpoint.
///
/// # Errors
/// [`Error::BadConfig`] for files that cannot be used.
pub(crate) fn access(control: &ControlConfig) -> Result<Access> {
    let token = control.token_file.as_ref().map(|path| Token::read(path, "--token-file")).transpose()?;
    let tls = control.tls.as_ref().map(|files| Tls::read(&files.certificate, &files.key, files.client_ca.as_deref())).transpose()?;
    Ok(Access { token, tls })
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
