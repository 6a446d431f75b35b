//! Retryable writes, which the shards' routing commands know nothing of: transaction numbers are not sent on to them.
//!
//! A client that lost its connection to the front and sends its write again gets the first answer. A write that a
//! shard lost with its primary is sent again, as a `mongos` does: here if it is a single statement, else by the client.
//! What nobody knows then is whether it had been done before; such a write may be done twice, which a `mongos` prevents.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use mongodb::bson::{RawDocument, RawDocumentBuf};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::command::Command;
use super::failure::{Answer, Failure};
use super::transaction::wants_transaction;
use super::upstream::documents;
use super::wire;

/// How long a single statement is sent again.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
/// The codes on which drivers send a write again: connections and primaries lost.
const RETRYABLE: [i32; 13] = [6, 7, 89, 91, 133, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436];

/// By session: the newest transaction number and its answer.
#[derive(Default)]
pub struct Retried(Mutex<HashMap<Vec<u8>, (i64, RawDocumentBuf)>>);

impl Retried {
    fn answer(&self, (session, number): (&RawDocument, i64)) -> Option<RawDocumentBuf> {
        let sessions = self.0.lock().expect("nothing panics with the sessions");
        sessions.get(session.as_bytes()).filter(|(newest, _)| *newest == number).map(|(_, answer)| answer.clone())
    }

    fn remember(&self, (session, number): (&RawDocument, i64), answer: &RawDocument) {
        self.0.lock().expect("nothing panics with the sessions").insert(session.as_bytes().to_vec(), (number, answer.to_owned()));
    }

    pub fn forget(&self, session: &RawDocument) {
        self.0.lock().expect("nothing panics with the sessions").remove(session.as_bytes());
    }
}

impl Cluster {
    pub(super) async fn retryable(&self, client: usize, command: &Command, body: RawDocumentBuf, write: (&RawDocument, i64)) -> Answer {
        if let Some(answer) = self.retried.answer(write) {
            return Ok(answer);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.router(client)?.send(body.clone(), &command.sequences).await;
            if is_retryable(&answer) && is_single(command) && Instant::now() < deadline {
                sleep(PAUSE).await;
                continue;
            }
            let answer = match answer {
                Ok(reply) if is_single(command) && wants_transaction(&reply) => self.in_own_transaction(client, command).await,
                answer => answer,
            };
            if let Ok(reply) = &answer {
                self.retried.remember(write, reply);
            }
            return answer.map_err(|failure| match RETRYABLE.contains(&failure.code()) {
                true => failure.with_labels(&["RetryableWriteError"]),
                false => failure,
            });
        }
    }
}

/// The loss of a primary may also be told per statement, in an answer that is otherwise a success.
fn is_retryable(answer: &Answer) -> bool {
    let listed = |code: i32| RETRYABLE.contains(&code);
    match answer {
        Err(failure) => listed(failure.code()),
        Ok(reply) => {
            let errors = reply.get_array("writeErrors").map_err(Failure::from).and_then(documents).unwrap_or_default();
            errors.iter().any(|error| error.get_i32("code").is_ok_and(listed))
        }
    }
}

fn is_single(command: &Command) -> bool {
    let name = match command.name.as_str() {
        "insert" => "documents",
        "update" => "updates",
        _ => "deletes",
    };
    match command.sequences.first() {
        Some(sequence) => wire::documents(&sequence.documents).count() == 1,
        None => command.body.get_array(name).is_ok_and(|statements| statements.into_iter().count() == 1),
    }
}
