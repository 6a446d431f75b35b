//! One migration: opens it, keeps its phase, starts and stops the work that the phase asks for.

mod abort;
mod board;
mod commands;
mod connect;
mod examine;
mod hold;
mod identity;
mod job;
mod layout;
mod lease;
mod nudge;
mod open;
mod order;
mod preflight;
mod privileges;
mod repair;
mod resharded;
mod reverse;
mod sample;
mod settings;
mod throttle;
mod topology;
mod trend;
mod verifier;
mod work;

pub use abort::abort_clusters;
pub use preflight::{CheckReport, Finding, Level, check};

use crate::{
    checkpoint::MongoStore,
    config::{Config, ControlConfig, redacted},
    error::{Error, Result},
    model::Status,
    mongo::ProcessName,
    observe::{Access, Endpoint, Examination, Metrics, Setup, StartOrder, Tls, Token, serve},
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

/// Which way to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the source to the target; on from where the operator wanted a way back behind a commit.
    Forward,
    /// The way back of whatever was committed last between the two: see the module `reverse`.
    Back,
}

/// Starts or resumes a migration, and returns once it is committed and no way back is wanted, aborted, or told to stop.
///
/// # Errors
/// What ended it. [`Error::Interrupted`] where `stop` fired.
pub async fn run(config: Config, way: Way, status: watch::Sender<Status>, stop: CancellationToken) -> Result<()> {
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
        let first = config.clone();
        let (mut config, mut former) = match way {
            Way::Forward => (config, None),
            Way::Back => {
                let newest = reverse::newest(&config).await?;
                (newest.config, newest.former)
            }
        };
        let mut held = config.hold && former.is_none();
        loop {
            let name = ProcessName::new(&config.metadata_database);
            let clusters = connect::Clusters::connect(&config, &metrics, &stop, Some(name)).await?;
            let ended = async {
                if let open::Seen::Unfinished(there) = open::finished(&config, &clusters, former.as_ref(), &status).await? {
                    let mut order = StartOrder::default();
                    if std::mem::take(&mut held) {
                        match hold::hold(&config, &clusters, &mut asked, &status, &stop).await? {
                            Some(given) => order = given,
                            None => return Ok(None),
                        }
                    }
                    config.copy.indexes_before_data = order.indexes_before_data.unwrap_or(config.copy.indexes_before_data);
                    let stands = (former.as_ref(), there);
                    let job = open::open(&config, order, &clusters, stands, metrics.clone(), status.clone(), &stop).await?;
                    job.run(&mut asked, &stop).await?;
                }
                reverse::Former::wanted(&MongoStore::new(clusters.target.cluster().clone(), &config.metadata_database)).await
            }
            .await;
            clusters.close().await;
            former = ended?;
            if former.is_some() {
                config = config.reversed();
                continue;
            }
            if !config.hold || status.borrow().phase != "committed" {
                return Ok(());
            }
            let Some(next) = hold::linger(&first, &mut asked, &stop).await else { return Ok(()) };
            (config, former) = (next.config, next.former);
        }
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
    let token = control.token_file.as_ref().map(|path| Token::renewed(path, "--token-file")).transpose()?;
    let tls = control.tls.as_ref().map(|files| Tls::renewed(&files.certificate, &files.key, files.client_ca.as_deref())).transpose()?;
    Ok(Access { token, tls })
}

/// Compares two clusters without a migration.
///
/// # Errors
/// As classified; a reading cut short is an error and no verdict.
pub async fn verify_clusters(config: &Config, how: Examination) -> Result<serde_json::Value> {
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let clusters = connect::Clusters::connect(config, &metrics, &stop, None).await?;
    let report = compare_alone(&clusters, config, how, &metrics, &stop).await;
    clusters.close().await;
    serde_json::to_value(report?).map_err(|e| Error::Bug(format!("a report is no JSON: {e}")))
}

async fn compare_alone(
    clusters: &connect::Clusters,
    config: &Config,
    how: Examination,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<verify::Report> {
    let shard_keys = clusters.target.shard_keys().await?;
    let pace = verify::Pace::new(config.verify.rate);
    let settings = verify::Settings {
        shard_keys,
        ignore_field_order: how.ignore_field_order,
        ignore_sharding: how.ignore_sharding,
        pace,
        ..verify::Settings::new(clusters.retry())
    };
    // Nothing to wait for but the writers of either side.
    let settle = verify::growing_pause(Duration::from_millis(200));
    let report = verify::verify(&clusters.source, &clusters.reader, &config.selection, &settings, metrics, settle, stop).await?;
    let accounts = match clusters.accounts(config) {
        Some(accounts) => accounts.unequal().await?,
        None => Vec::new(),
    };
    Ok(report.with_accounts(&accounts))
}
