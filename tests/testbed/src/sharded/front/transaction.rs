//! Transactions over several shards.
//!
//! The shards' routing commands refuse to run in one (6.0.5: "do not hold a lock while refreshing the catalog cache"),
//! so here the front does a router's work: each statement goes to the shards that own its documents, with the
//! collection's version, and the first participant coordinates the two-phase commit. Reads that would have to be
//! merged from several shards are refused.

mod owner;
mod statement;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use mongodb::bson::raw::cstr;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use tokio::sync::Mutex as AsyncMutex;

use super::cluster::Cluster;
use super::command::{Command, copy_fields};
use super::dispatch::ok;
use super::failure::{Answer, Code, Failure};
pub use owner::wants_transaction;

/// By session: its newest transaction.
#[derive(Default)]
pub struct Transactions(Mutex<HashMap<Vec<u8>, Arc<AsyncMutex<Transaction>>>>);

/// A transaction as its router sees it.
pub struct Transaction {
    number: i64,
    /// Shards that have had a statement of it. The first coordinates its end.
    participants: Vec<String>,
    /// For the first statement on each participant.
    read_concern: Option<RawDocumentBuf>,
    aborted: bool,
}

impl Transactions {
    /// The transaction that a command belongs to.
    fn of(&self, command: &Command, cluster: &Cluster) -> Result<Arc<AsyncMutex<Transaction>>, Failure> {
        let (session, number) = command.session().ok_or_else(|| Failure::new(Code::BadValue, "a transaction needs a session"))?;
        let mut known = self.0.lock().expect("nothing panics with the transactions");
        if command.flag("startTransaction") {
            let transaction =
                Transaction { number, participants: Vec::new(), read_concern: read_concern(command, cluster)?, aborted: false };
            known.insert(session.as_bytes().to_vec(), Arc::new(AsyncMutex::new(transaction)));
        }
        known.get(session.as_bytes()).cloned().ok_or_else(gone)
    }

    pub fn forget(&self, session: &RawDocument) {
        self.0.lock().expect("nothing panics with the transactions").remove(session.as_bytes());
    }
}

/// All participants of a snapshot read the same one.
fn read_concern(command: &Command, cluster: &Cluster) -> Result<Option<RawDocumentBuf>, Failure> {
    let Ok(asked) = command.body.get_document("readConcern") else { return Ok(None) };
    match (asked.get_str("level"), cluster.clock.time()) {
        (Ok("snapshot"), Some(time)) => Ok(Some(rawdoc! { "level": "snapshot", "atClusterTime": time })),
        _ => Ok(Some(asked.to_owned())),
    }
}

fn gone() -> Failure {
    Failure::new(Code::NoSuchTransaction, "the front knows no such transaction").with_labels(&["TransientTransactionError"])
}

impl Cluster {
    pub async fn in_transaction(&self, client: usize, command: &Command) -> Answer {
        let transaction = self.transactions.of(command, self)?;
        let mut transaction = transaction.lock().await;
        if Some(transaction.number) != command.session().map(|(_, number)| number) {
            return Err(gone());
        }
        match command.name.as_str() {
            "commitTransaction" => self.commit(&transaction, command).await,
            "abortTransaction" => {
                self.abort(&mut transaction, command).await;
                Ok(ok())
            }
            _ if transaction.aborted => Err(gone()),
            _ => {
                let answer = self.statement(client, &mut transaction, command).await;
                let failed = match &answer {
                    Ok(reply) => matches!(reply.get("writeErrors"), Ok(Some(_))),
                    Err(_) => true,
                };
                if failed {
                    self.abort(&mut transaction, command).await;
                }
                answer.map_err(|failure| match failure.is_stale() || failure.code() == Code::HostUnreachable as i32 {
                    true => failure.with_labels(&["TransientTransactionError"]),
                    false => failure,
                })
            }
        }
    }

    async fn commit(&self, transaction: &Transaction, command: &Command) -> Answer {
        let (Some(first), false) = (transaction.participants.first(), transaction.aborted) else {
            return if transaction.aborted { Err(gone()) } else { Ok(ok()) };
        };
        let mut body = match transaction.participants.len() {
            1 => rawdoc! { "commitTransaction": 1 },
            _ => {
                let all: RawArrayBuf = transaction.participants.iter().map(|shard| rawdoc! { "shardId": shard.as_str() }).collect();
                rawdoc! { "coordinateCommitTransaction": 1, "participants": all }
            }
        };
        copy_fields(&command.body, &mut body, &["$db", "lsid", "txnNumber", "autocommit", "writeConcern", "maxTimeMS"])?;
        self.shard(first)?.run(body).await.map_err(|failure| failure.with_labels(&["UnknownTransactionCommitResult"]))
    }

    /// Participants that do not hear of it abort by themselves, in the end.
    async fn abort(&self, transaction: &mut Transaction, command: &Command) {
        transaction.aborted = true;
        let aborts = transaction.participants.iter().filter_map(|name| {
            let mut body = rawdoc! { "abortTransaction": 1, "$db": "admin" };
            copy_fields(&command.body, &mut body, &["lsid", "txnNumber", "autocommit"]).ok()?;
            let shard = self.shard(name).ok()?;
            Some(async move { shard.run(body).await })
        });
        join_all(aborts).await;
    }
}

impl Transaction {
    /// What a statement needs beside its own fields on one participant, which may be a new one.
    fn join(&mut self, shard: &str, command: &Command, body: &mut RawDocumentBuf) -> Result<(), Failure> {
        copy_fields(&command.body, body, &["lsid", "txnNumber", "autocommit"])?;
        if !self.participants.iter().any(|known| known == shard) {
            body.append(cstr!("startTransaction"), true);
            if let Some(concern) = &self.read_concern {
                body.append(cstr!("readConcern"), concern);
            }
            if self.participants.is_empty() {
                body.append(cstr!("coordinator"), true);
            }
            self.participants.push(shard.into());
        }
        Ok(())
    }
}
