//! The verbs: from a request to a [`Command`], to the engine, and its [`Answer`] back.
//!
//! An answer of the engine is always 200, a "no" included: its exit code tells. Other codes mean that the
//! engine was not asked (4xx) or is not there (503).

use super::control::{Answer, Command, Examination, GiveUp, Handover, Request, StartOrder};
use super::server::{Endpoint, Refusal, refuse};
use crate::model::Settings;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use utoipa::ToSchema;

/// How to pause.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PauseBody {
    /// Who asks, for `status`.
    by: String,
    /// Finish only what the clusters are at.
    immediate: bool,
}

impl Default for PauseBody {
    fn default() -> Self {
        Self { by: "http".into(), immediate: false }
    }
}

/// Why the copy is held back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ThrottleBody {
    /// For `status`.
    reason: String,
}

impl Default for ThrottleBody {
    fn default() -> Self {
        Self { reason: "by an operator".into() }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct NoBody {}

/// Begins what `run --hold` holds back.
#[utoipa::path(post, path = "/start", tag = "verbs", request_body = Option<StartOrder>, responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn start(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(Command::Start)).await
}

/// Stops copying and following at a safe place, and keeps it.
#[utoipa::path(post, path = "/pause", tag = "verbs", request_body = Option<PauseBody>, responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn pause(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(|PauseBody { by, immediate }| Command::Pause { by, immediate })).await
}

/// Goes on after a pause or a halt.
#[utoipa::path(post, path = "/resume", tag = "verbs", responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn resume(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(|NoBody {}| Command::Resume)).await
}

/// Compares both sides; answers when it is done.
#[utoipa::path(post, path = "/verify", tag = "verbs", request_body = Option<Examination>, responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn verify(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(Command::Verify)).await
}

/// Hands over to the target; answers when it is committed or undone.
#[utoipa::path(post, path = "/cutover", tag = "verbs", request_body = Option<Handover>, responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn cutover(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(Command::Cutover)).await
}

/// Gives the migration up.
#[utoipa::path(post, path = "/abort", tag = "verbs", request_body = Option<GiveUp>, responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn abort(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(Command::Abort)).await
}

/// Holds the copy back; the tail goes on.
#[utoipa::path(post, path = "/throttle", tag = "verbs", request_body = Option<ThrottleBody>, responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn throttle(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(|ThrottleBody { reason }| Command::Throttle { reason })).await
}

/// Lets the copy go on.
#[utoipa::path(post, path = "/unthrottle", tag = "verbs", responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn unthrottle(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    ask(&endpoint, body_of(&headers, &body).map(|NoBody {}| Command::Unthrottle)).await
}

/// The settings as they are now.
#[utoipa::path(get, path = "/settings", tag = "settings", responses((status = 200, body = Settings)))]
pub(super) async fn settings(State(endpoint): State<Endpoint>) -> Json<Settings> {
    Json(endpoint.status.borrow().settings.clone())
}

/// Changes settings, all or none: an object of names and values, as in `{"copy-rate": "50MB/s", "verification": false}`.
#[utoipa::path(patch, path = "/settings", tag = "settings", request_body = Object, responses((status = 200, body = Answer), (status = "4XX", body = Refusal), (status = 503, body = Refusal)))]
pub(super) async fn change_settings(State(endpoint): State<Endpoint>, headers: HeaderMap, body: Bytes) -> Response {
    let texts = |given: Map<String, Value>| {
        let text = |(name, value): (String, Value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        Command::Set { settings: given.into_iter().map(text).collect() }
    };
    ask(&endpoint, body_of(&headers, &body).map(texts)).await
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
    let Some(answered) = send(endpoint, command).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the engine has ended");
    };
    match answered.await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the engine ended before it answered"),
    }
}

/// Hands a command to the engine; `None` where there is none any more.
pub(super) async fn send(endpoint: &Endpoint, command: Command) -> Option<oneshot::Receiver<Answer>> {
    let (answer, answered) = oneshot::channel::<Answer>();
    endpoint.requests.send(Request { command, answer }).await.ok().map(|()| answered)
}
