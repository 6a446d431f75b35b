//! The control endpoint: one small HTTP server. Beyond loopback it has TLS and a token (see [`super::access`]), and
//! everywhere a guard against web pages (see [`super::guard`]).

use super::access::{self, Access};
use super::control::Request;
use super::metrics::Metrics;
use super::renewed::Renewed;
use super::token::Token;
use super::{guard, openapi, probes};
use crate::error::{Error, Result};
use crate::model::Status;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router, middleware};
use serde::Serialize;
use std::sync::{Arc, atomic::AtomicBool};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// Bytes of a body: ours have less than a hundred.
const LARGEST_BODY: usize = 16 * 1024;

/// How long answers on their way may take once we are told to stop. A client that keeps a connection open
/// must not keep the process.
const GRACE: Duration = Duration::from_secs(2);

/// What the endpoint shows and whom it speaks to.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/status` and `/ready`.
    pub status: watch::Receiver<Status>,
    /// To the engine. Once its receiver is gone, commands are answered with 503.
    pub requests: mpsc::Sender<Request>,
    /// What does not change.
    pub migration: Arc<Setup>,
    /// What was told to mongosync's API and is needed again.
    pub(super) mongosync: Arc<Told>,
}

/// What a migration was set up with.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// First host of the source.
    pub source: String,
    /// First host of the target.
    pub target: String,
    /// As in `--include`.
    pub include: Vec<String>,
    /// As in `--exclude`.
    pub exclude: Vec<String>,
}

/// See [`Endpoint`].
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The runbook stops the writers itself: the source is not fenced.
    pub writes_stopped: AtomicBool,
    /// What a start was told in vain.
    pub warnings: watch::Sender<Vec<String>>,
}

impl Endpoint {
    /// Of a process that has just begun.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, status: watch::Receiver<Status>, requests: mpsc::Sender<Request>) -> Self {
        Self { metrics, status, requests, migration: Arc::default(), mongosync: Arc::default() }
    }

    /// The same, of a migration with this set-up.
    #[must_use]
    pub fn of(self, setup: Setup) -> Self {
        Self { migration: Arc::new(setup), ..self }
    }
}

/// Serves until `stop`, and takes up files of `access` that change; then lets the answers on their way out for two seconds.
///
/// # Errors
/// [`Error::BadConfig`] where the listener is not usable.
pub async fn serve(listener: TcpListener, access: Access, state: Endpoint, stop: CancellationToken) -> Result<()> {
    let loopback_only = listener.local_addr().map_err(unusable)?.ip().is_loopback();
    let routes = routes(state, access.token.clone(), loopback_only);
    let served = async {
        match access.tls.clone() {
            None => serve_on(listener, routes, stop).await,
            Some(tls) => serve_on(tls.listen(listener), routes, stop).await,
        }
    };
    tokio::select! {
        served = served => served,
        never = access.follow() => match never {},
    }
}

fn unusable(error: std::io::Error) -> Error {
    Error::BadConfig { field: "listen".into(), problem: format!("cannot be served: {error}"), hint: None }
}

async fn serve_on<L: Listener<Addr: std::fmt::Debug>>(listener: L, routes: Router, stop: CancellationToken) -> Result<()> {
    let server = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned()).into_future();
    let out_of_time = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        // First the server: done in time is done.
        biased;
        served = server => served.map_err(unusable),
        () = out_of_time => Ok(()),
    }
}

fn routes(state: Endpoint, token: Option<Renewed<Token>>, loopback_only: bool) -> Router {
    let token = Arc::new(token);
    let (described, _) = openapi::described().split_for_parts();
    described
        .merge(Router::from(openapi::verbs()))
        .route("/", get(index))
        .route("/status", get(probes::status))
        .route("/v1/openapi.json", get(openapi::document))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "no such route; GET / lists them"))
        .method_not_allowed_fallback(async || refuse(StatusCode::METHOD_NOT_ALLOWED, "another method; GET / lists the routes"))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn(move |request, next| access::let_in(token.clone(), request, next)))
        .layer(middleware::from_fn(move |request, next| guard::keep_web_pages_out(loopback_only, request, next)))
        .with_state(state)
}

async fn index() -> &'static str {
    INDEX
}

const INDEX: &str = "\
mongoferry

GET   /metrics          Prometheus text
GET   /live             200 while the process turns
GET   /ready            200 while the migration runs, else 503 and why
GET   /status           as /v1/status

GET   /v1/openapi.json  this API, described
GET   /v1/status        the status as JSON
GET   /v1/settings      what may be changed while it runs
PATCH /v1/settings      {\"copy-rate\": \"50MB/s\"}

POST  /v1/start         {\"indexes_before_data\": null, \"verification\": null}
POST  /v1/pause         {\"by\": \"http\", \"immediate\": false}
POST  /v1/resume
POST  /v1/verify
POST  /v1/cutover       {\"writes_stopped\": false, \"timeout_seconds\": 60, \"dry_run\": false, \"waive_indexes\": []}
POST  /v1/abort
POST  /v1/throttle      {\"reason\": \"by an operator\"}
POST  /v1/unthrottle

GET   /api/v1/progress  as mongosync
POST  /api/v1/start
POST  /api/v1/pause
POST  /api/v1/resume
POST  /api/v1/commit
POST  /api/v1/reverse

Bodies of /v1 are JSON and optional; what is shown are the defaults.
";

/// A request that the engine was not asked: `{\"error\": …}`.
#[derive(Serialize, ToSchema)]
pub(super) struct Refusal {
    error: String,
}

/// Anything that is not an answer of the engine: `{\"error\": …}`.
pub(super) fn refuse(code: StatusCode, error: impl Into<String>) -> Response {
    (code, Json(Refusal { error: error.into() })).into_response()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
