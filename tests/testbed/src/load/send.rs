//! Sending one command until the server has taken it, whatever happens to the server meanwhile.
//!
//! It is sent again whole, so some of its statements may be done twice. A load may do that: whatever the source then
//! holds is what the target should hold.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::Document;
use mongodb::error::{Error, ErrorKind};
use tokio_util::sync::CancellationToken;

use super::counts::Tally;

/// The server blocks user writes.
const USER_WRITES_BLOCKED: i32 = 371;
const DUPLICATE_KEY: i32 = 11000;
/// Pause before a command is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// The codes of elections, shutdowns and lost connections.
const TRANSIENT: [i32; 16] = [6, 7, 89, 91, 112, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436, 50];

/// The number of operations the server took, or `None` if the load was stopped before it took any.
pub async fn send(
    client: &Client,
    database: &str,
    command: &Document,
    operations: usize,
    tally: &Tally,
    stopping: &CancellationToken,
) -> Option<u64> {
    let operations = operations as u64;
    loop {
        match client.database(database).run_command(command.clone()).await {
            Ok(reply) => {
                let refused = Refused::read(&reply);
                if refused.blocked {
                    tally.blocked.fetch_add(1, Relaxed);
                } else if refused.transient {
                    tally.retried.fetch_add(1, Relaxed);
                } else {
                    tally.duplicates.fetch_add(refused.duplicates, Relaxed);
                    if let Some(text) = refused.text {
                        tally.failed(refused.others, text);
                    }
                    return Some(operations.saturating_sub(refused.duplicates + refused.others));
                }
            }
            Err(error) if code(&error) == Some(USER_WRITES_BLOCKED) => {
                tally.blocked.fetch_add(1, Relaxed);
            }
            Err(error) if is_transient(&error) => {
                tally.retried.fetch_add(1, Relaxed);
            }
            Err(error) => {
                tally.failed(operations, short(&error));
                return Some(0);
            }
        }
        tokio::select! {
            biased; // a stop wins over the next attempt
            () = stopping.cancelled() => return None,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// What a reply says about statements that failed.
#[derive(Default)]
struct Refused {
    blocked: bool,
    /// An election in the middle of a batch is told per statement, in a reply that is otherwise a success.
    transient: bool,
    duplicates: u64,
    others: u64,
    text: Option<String>,
}

impl Refused {
    fn read(reply: &Document) -> Refused {
        let mut refused = Refused::default();
        for error in reply.get_array("writeErrors").into_iter().flatten().filter_map(|error| error.as_document()) {
            match error.get_i32("code") {
                Ok(USER_WRITES_BLOCKED) => refused.blocked = true,
                Ok(DUPLICATE_KEY) => refused.duplicates += 1,
                Ok(code) if TRANSIENT.contains(&code) => refused.transient = true,
                _ => {
                    refused.others += 1;
                    refused.text = Some(error.to_string());
                }
            }
        }
        refused
    }
}

pub fn is_transient(error: &Error) -> bool {
    let lost = matches!(*error.kind, ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::ServerSelection { .. });
    let labelled = ["RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult"];
    lost || labelled.iter().any(|label| error.contains_label(label)) || code(error).is_some_and(|code| TRANSIENT.contains(&code))
}

pub fn is_blocked(error: &Error) -> bool {
    code(error) == Some(USER_WRITES_BLOCKED)
}

fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// The error without the server's whole reply, which the driver's own text shows in hexadecimal.
pub fn short(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::Command(command) => format!("{} ({}): {}", command.code_name, command.code, command.message),
        other => other.to_string(),
    }
}
