//! `run --hold`: nothing is written before a start is asked for, and after the commit the endpoint stays, as
//! mongosync's does.

use super::{
    board::START_DEADLINE,
    connect::Clusters,
    preflight::inspect,
    reverse::{Newest, newest},
};
use crate::{
    config::Config,
    error::{Error, Result},
    model::{Settings, Status},
    observe::{Answer, Command, Request, StartOrder},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Waits for a start, and gives the order; an empty one where the migration has begun in an earlier run, and none where it
/// was given up instead.
///
/// # Errors
/// What the preflight finds. [`Error::Interrupted`] where `stop` fires.
pub(super) async fn hold(
    config: &Config,
    clusters: &Clusters,
    requests: &mut mpsc::Receiver<Request>,
    status: &watch::Sender<Status>,
    stop: &CancellationToken,
) -> Result<Option<StartOrder>> {
    let mut inspected = inspect(config, &clusters.hasty(START_DEADLINE), false).await;
    if stop.is_cancelled() {
        return Err(Error::Interrupted);
    }
    if !inspected.errors.is_empty() {
        return Err(inspected.errors.swap_remove(0));
    }
    if inspected.record.is_some() {
        return Ok(Some(StartOrder::default()));
    }
    tracing::info!("held: waits for `mongoferry start`, or POST /api/v1/start");
    status.send_replace(held(&config.settings));
    loop {
        let request = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Error::Interrupted),
            request = requests.recv() => request.ok_or(Error::Interrupted)?,
        };
        let told = match request.command {
            Command::Start(order) => {
                status.send_modify(|s| {
                    s.activity = "running".into();
                    (s.reason, s.remedy, s.permitted) = (None, None, Vec::new());
                });
                let _ = request.answer.send(Answer::done("started"));
                return Ok(Some(order));
            }
            Command::Abort(_) => {
                let _ = request.answer.send(Answer::done("given up; nothing was written"));
                return Ok(None);
            }
            _ => Answer { hint: Some("`mongoferry start` begins".into()), ..Answer::no("it is held: nothing has begun yet") },
        };
        let _ = request.answer.send(told);
    }
}

/// After the commit: answers until told to stop, or to reverse; then it gives what to go on with. `first`: the configuration of
/// the first migration.
pub(super) async fn linger(first: &Config, requests: &mut mpsc::Receiver<Request>, stop: &CancellationToken) -> Option<Newest> {
    tracing::info!("committed; the endpoint stays until the process is stopped");
    while let Some(Some(request)) = stop.run_until_cancelled(requests.recv()).await {
        let (answer, next) = match request.command {
            Command::Reverse => match newest(first).await {
                Ok(newest) => (Answer::done("the old source follows the new primary"), Some(newest)),
                Err(error) => (Answer::from(&error), None),
            },
            _ => (Answer::no("it is committed"), None),
        };
        let _ = request.answer.send(answer);
        if next.is_some() {
            return next;
        }
    }
    None
}

fn held(settings: &Settings) -> Status {
    Status {
        format: 1,
        version: env!("CARGO_PKG_VERSION").into(),
        phase: "planned".into(),
        activity: "held".into(),
        reason: Some("waits for a start; nothing has been written".into()),
        remedy: Some("`mongoferry start` begins".into()),
        settings: settings.clone(),
        permitted: vec!["start".into(), "abort".into()],
        ..Status::default()
    }
}
