//! What can be read: metrics, liveness, readiness, status.

use super::access::Trusted;
use super::server::Endpoint;
use crate::model::Status;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(endpoint): State<Endpoint>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], endpoint.metrics.render()).into_response()
}

/// That this was answered is the answer.
#[utoipa::path(get, path = "/live", tag = "probes", security(()), responses((status = 200, body = String)))]
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Whether the migration is at work, else why not: in full for those who know the token.
#[utoipa::path(get, path = "/ready", tag = "probes", security(()), responses((status = 200, body = String), (status = 503, body = String)))]
pub(super) async fn ready(State(endpoint): State<Endpoint>, trusted: Option<Extension<Trusted>>) -> (StatusCode, String) {
    match not_ready(&endpoint.status.borrow()) {
        None => (StatusCode::OK, "ready\n".into()),
        // A reason may name hosts and namespaces.
        Some(_) if trusted.is_none() => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Everything that is known of the migration.
#[utoipa::path(get, path = "/status", tag = "status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(endpoint): State<Endpoint>) -> Json<Status> {
    Json(endpoint.status.borrow().clone())
}

fn not_ready(status: &Status) -> Option<String> {
    if status.phase.is_empty() {
        return Some("starting: the clusters are not connected yet".into());
    }
    if status.activity == "running" {
        return None;
    }
    Some(match &status.reason {
        Some(reason) => format!("{}: {reason}", status.activity),
        None => status.activity.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_a_known_phase_at_work() {
        let mut status = Status::default();
        assert!(not_ready(&status).unwrap().starts_with("starting"));
        status.phase = "tailing".into();
        status.activity = "halted".into();
        status.reason = Some("the oplog is gone".into());
        assert_eq!(not_ready(&status).unwrap(), "halted: the oplog is gone");
        status.activity = "running".into();
        assert_eq!(not_ready(&status), None);
    }
}
