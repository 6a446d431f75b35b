//! Requests that change settings, whatever the migration is at.

use super::job::Job;
use crate::{
    error::{Error, Result},
    model::{KeptSettings, Settings},
    observe::{Answer, Command},
};
use bson::doc;

/// Carries out what needs neither phase nor activity; `None` for every other command.
pub(super) async fn aside(job: &Job, command: &Command) -> Option<Answer> {
    let mut settings = job.board.steering.settings.borrow().clone();
    let said = match command {
        Command::Start(_) => return Some(Answer::no("it was started already")),
        Command::Reverse => return Some(Answer::no("it is not committed: cut over first")),
        Command::Set { settings: wanted } => {
            settings = match settings.with(wanted) {
                Ok(changed) => changed,
                Err(why) => return Some(Answer { exit_code: 2, ..Answer::no(why) }),
            };
            if wanted.contains_key("verification") && settings.verification && !job.board.parity.is_on() {
                let no = Answer::no("what the change stream touches is not kept in this run, so nothing can be verified beside it");
                return Some(Answer { hint: Some("start again with `--verify-continuous on`".into()), ..no });
            }
            "the settings are in force".to_owned()
        }
        Command::Throttle { reason } => {
            settings.throttle = Some(reason.clone());
            "the copy is held back; the tail goes on".to_owned()
        }
        Command::Unthrottle => {
            if settings.throttle.take().is_none() {
                return Some(Answer::no("nobody holds the copy back"));
            }
            "the copy goes on".to_owned()
        }
        Command::Pause { .. } | Command::Resume | Command::Verify(_) | Command::Cutover(_) | Command::Abort(_) => return None,
    };
    Some(match change(job, settings).await {
        Ok(settings) => Answer::done(said).with(serde_json::to_value(&settings).unwrap_or_default()),
        Err(error) => Answer::from(&error),
    })
}

/// Saves first: what is answered survives a restart.
async fn change(job: &Job, settings: Settings) -> Result<Settings> {
    let steering = &job.board.steering;
    let before = steering.settings.borrow().clone();
    let kept = KeptSettings { set: settings.clone(), options: (*steering.options).clone() };
    let saved = bson::serialize_to_bson(&kept).map_err(|e| Error::Bug(format!("settings are no BSON: {e}")))?;
    job.store.set(doc! {"settings": saved}).await?;
    let shown = |settings: &Settings| serde_json::to_string(settings).unwrap_or_default();
    tracing::info!(before = shown(&before), now = shown(&settings), "settings changed");
    steering.change(settings.clone());
    job.board.publish();
    Ok(settings)
}
