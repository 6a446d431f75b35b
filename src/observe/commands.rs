//! The verbs: from a request to a [`Command`], to the engine, and its [`Answer`] back.
//!
//! An answer of the engine is always 200, a "no" included: its exit code tells. Other codes mean that the
//! engine was not asked (4xx) or is not there (503).

use super::control::{Answer, Command, Request};
use super::server::{Endpoint, refuse};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PauseBody {
    by: String,
}

impl Default for PauseBody {
    fn default() -> Self {
        Self { by: "http".into() }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct NoBody {}

pub(super) async fn pause(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(|PauseBody { by }| Command::Pause { by })).await
}

pub(super) async fn resume(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(|NoBody {}| Command::Resume)).await
}

pub(super) async fn verify(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(Command::Verify)).await
}

pub(super) async fn cutover(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(Command::Cutover)).await
}

pub(super) async fn abort(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(Command::Abort)).await
}

/// Why the engine was not asked.
type NotAsked = (StatusCode, String);

/// A body, or the defaults where there is none.
fn body_of<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &[u8]) -> Result<T, NotAsked> {
    let media = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("unreadable"));
    let is_json = |media: &str| media.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    match media {
        Some(media) if !is_json(media) => {
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body has to be application/json, or empty".into()));
        }
        None if !body.is_empty() => {
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body needs `content-type: application/json`".into()));
        }
        Some(_) | None => {}
    }
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// Hands the command to the engine and waits for as long as it takes: a verification may take hours. If
/// the asker leaves, the command is carried out all the same.
async fn ask(endpoint: &Endpoint, command: Result<Command, NotAsked>) -> Response {
    let command = match command {
        Ok(command) => command,
        Err((code, why)) => return refuse(code, why),
    };
    let (answer, answered) = oneshot::channel::<Answer>();
    if endpoint.requests.send(Request { command, answer }).await.is_err() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the engine has ended");
    }
    match answered.await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the engine ended before it answered"),
    }
}
