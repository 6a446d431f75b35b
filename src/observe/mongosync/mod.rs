//! mongosync's API, so that runbooks and dashboards made for it work unchanged: `/api/v1/start`, `progress`, `pause`,
//! `resume`, `commit`, `reverse`. Bodies are read as JSON whatever `curl --data` calls them.

mod progress;
mod start;

use super::{
    commands::send,
    control::{Answer, Command, Handover},
    server::Endpoint,
};
use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use progress::{Besides, Progress};
use serde::Serialize;
use start::StartBody;
use std::sync::atomic::Ordering;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The answer to everything but `progress`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Reply {
    success: bool,
    /// Name of the error; left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_description: Option<String>,
}

/// The answer to `progress`.
#[derive(Debug, Serialize, ToSchema)]
struct ProgressReply {
    progress: Progress,
    #[serde(flatten)]
    reply: Reply,
}

const DONE: Reply = Reply { success: true, error: None, error_description: None };

/// Why not. mongosync's reference gives the body and not the code: it is 400.
struct No(&'static str, String);

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let reply = Reply { success: false, error: Some(self.0), error_description: Some(self.1) };
        (StatusCode::BAD_REQUEST, Json(reply)).into_response()
    }
}

type Told = Result<Json<Reply>, No>;

pub(super) fn router() -> OpenApiRouter<Endpoint> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(progress))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(commit))
        .routes(routes!(reverse))
}

/// Begins what `run --hold` holds back.
#[utoipa::path(post, path = "/start", tag = "mongosync", operation_id = "mongosync_start", request_body = StartBody, responses((status = 200, body = Reply), (status = 400, body = Reply)))]
async fn start(State(endpoint): State<Endpoint>, body: Bytes) -> Told {
    let body: StartBody =
        serde_json::from_slice(&body).map_err(|why| No("InvalidRequest", format!("the body is no start request: {why}")))?;
    let start = body.read(&endpoint.migration.include, &endpoint.migration.exclude).map_err(|why| No("InvalidOption", why))?;
    let told = ask(&endpoint, Command::Start(start.order)).await?;
    endpoint.mongosync.writes_stopped.store(start.writes_stopped, Ordering::Relaxed);
    endpoint.mongosync.warnings.send_replace(start.warnings);
    Ok(told)
}

/// Where it stands. While the migration is halted, the error tells why.
#[utoipa::path(get, path = "/progress", tag = "mongosync", operation_id = "mongosync_progress", responses((status = 200, body = ProgressReply)))]
async fn progress(State(endpoint): State<Endpoint>) -> Json<ProgressReply> {
    let status = endpoint.status.borrow().clone();
    let besides = Besides {
        hosts: [endpoint.migration.source.clone(), endpoint.migration.target.clone()],
        verified_documents: endpoint.metrics.verified_documents(),
        parity_age_seconds: endpoint.metrics.parity_age_seconds(),
        warnings: endpoint.mongosync.warnings.borrow().clone(),
    };
    let reply = match status.activity.as_str() {
        "halted" => Reply { success: false, error: Some("Halted"), error_description: status.reason.clone() },
        _ => DONE,
    };
    Json(ProgressReply { progress: Progress::of(&status, &besides), reply })
}

/// Stops at a safe place, and keeps it.
#[utoipa::path(post, path = "/pause", tag = "mongosync", operation_id = "mongosync_pause", responses((status = 200, body = Reply), (status = 400, body = Reply)))]
async fn pause(State(endpoint): State<Endpoint>, body: Bytes) -> Told {
    nothing_in(&body)?;
    ask(&endpoint, Command::Pause { by: "mongosync API".into(), immediate: false }).await
}

/// Goes on after a pause or a halt.
#[utoipa::path(post, path = "/resume", tag = "mongosync", operation_id = "mongosync_resume", responses((status = 200, body = Reply), (status = 400, body = Reply)))]
async fn resume(State(endpoint): State<Endpoint>, body: Bytes) -> Told {
    nothing_in(&body)?;
    ask(&endpoint, Command::Resume).await
}

/// Begins the cutover, and answers as soon as it is under way: `progress` tells how it ends.
#[utoipa::path(post, path = "/commit", tag = "mongosync", operation_id = "mongosync_commit", responses((status = 200, body = Reply), (status = 400, body = Reply)))]
async fn commit(State(endpoint): State<Endpoint>, body: Bytes) -> Told {
    nothing_in(&body)?;
    let mut status = endpoint.status.clone();
    let state = Progress::of(&status.borrow(), &Besides::default()).state;
    if state != "RUNNING" {
        return Err(No("InvalidState", format!("commit needs the state RUNNING, and it is {state}")));
    }
    let writes_stopped = endpoint.mongosync.writes_stopped.load(Ordering::Relaxed);
    let order = Handover { writes_stopped, ..Handover::default() };
    let answered = send(&endpoint, Command::Cutover(order)).await.ok_or_else(gone)?;
    tokio::select! {
        biased;
        answer = answered => told(answer.map_err(|_| gone())?),
        _ = status.wait_for(|s| matches!(s.phase.as_str(), "cutting_over" | "committed")) => Ok(Json(DONE)),
    }
}

/// Swaps the direction after the commit.
#[utoipa::path(post, path = "/reverse", tag = "mongosync", operation_id = "mongosync_reverse", responses((status = 200, body = Reply), (status = 400, body = Reply)))]
async fn reverse(State(endpoint): State<Endpoint>, body: Bytes) -> Told {
    nothing_in(&body)?;
    let phase = endpoint.status.borrow().phase.clone();
    if phase == "committed" {
        return ask(&endpoint, Command::Reverse).await;
    }
    let state = Progress::of(&endpoint.status.borrow(), &Besides::default()).state;
    Err(No("InvalidState", format!("reverse needs the state COMMITTED, and it is {state}")))
}

/// `{}`, or nothing: these take no parameters.
fn nothing_in(body: &[u8]) -> Result<(), No> {
    match serde_json::from_slice::<serde_json::Value>(body) {
        _ if body.trim_ascii().is_empty() => Ok(()),
        Ok(serde_json::Value::Object(fields)) if fields.is_empty() => Ok(()),
        _ => Err(No("InvalidRequest", "the body has to be an empty object, `{}`".into())),
    }
}

async fn ask(endpoint: &Endpoint, command: Command) -> Told {
    let answered = send(endpoint, command).await.ok_or_else(gone)?;
    told(answered.await.map_err(|_| gone())?)
}

fn told(answer: Answer) -> Told {
    if answer.exit_code == 0 { Ok(Json(DONE)) } else { Err(No("InvalidState", answer.message)) }
}

fn gone() -> No {
    No("Unavailable", "the engine has ended, or is not there yet".into())
}
