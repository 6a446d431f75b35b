//! Updates of a shard key that hand the document to another shard: a delete here and an insert there, in one
//! transaction, as a `mongos` does it. The shard refuses the update itself, and says what the document would become.

use mongodb::bson::raw::{CString, cstr};
use mongodb::bson::uuid::Uuid;
use mongodb::bson::{Binary, RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};

use super::Transaction;
use crate::sharded::front::cluster::Cluster;
use crate::sharded::front::command::{Command, append_majority, copy_fields};
use crate::sharded::front::failure::{Answer, Failure};
use crate::sharded::front::keys;

/// `WouldChangeOwningShard`.
pub const WOULD_CHANGE_OWNER: i32 = 283;
/// `IllegalOperation`: what the routing code says of such an update that comes without a transaction number.
const NOT_RETRYABLE: i32 = 20;
/// A document that somebody else changes meanwhile, or a chunk that moves, makes the transaction abort.
const ATTEMPTS: u32 = 20;

impl Cluster {
    /// Does in the update's own transaction what the shard refused.
    pub(super) async fn change_owner(
        &self,
        transaction: &mut Transaction,
        command: &Command,
        key: &RawDocument,
        refused: &RawDocument,
    ) -> Answer {
        let (before, after) = (refused.get_document("preImage"), refused.get_document("postImage")?);
        let upsert = matches!(refused.get_bool("shouldUpsert"), Ok(true));
        if !upsert {
            let mut query = RawDocumentBuf::new();
            let before = before?;
            copy_fields(before, &mut query, &["_id"])?;
            for (field, value) in key.iter().flatten().zip(keys::of_document(key, before)) {
                if field.0.as_str() != "_id" {
                    query.append(field.0, value);
                }
            }
            let statement = rawdoc! { "q": query, "limit": 1 };
            Box::pin(self.write(transaction, &part(command, "delete", "deletes", statement)?, "deletes")).await?;
        }
        Box::pin(self.write(transaction, &part(command, "insert", "documents", after.to_owned())?, "documents")).await?;
        let mut reply = rawdoc! { "n": 1, "nModified": i32::from(!upsert) };
        if upsert {
            let mut upserted = rawdoc! { "index": 0 };
            copy_fields(after, &mut upserted, &["_id"])?;
            reply.append(cstr!("upserted"), RawArrayBuf::from_iter([upserted]));
        }
        reply.append(cstr!("ok"), 1.0);
        Ok(reply)
    }

    /// Runs a retryable update of one document in a transaction of the front's own.
    pub async fn in_own_transaction(&self, client: usize, command: &Command) -> Answer {
        let session = rawdoc! { "id": Binary::from(Uuid::new()) };
        let mut attempt = 1;
        let answer = loop {
            let answer = self.attempt(client, command, &session, i64::from(attempt)).await;
            if answer.is_ok() || attempt == ATTEMPTS || !answer.as_ref().is_err_and(is_transient) {
                break answer;
            }
            attempt += 1;
        };
        self.transactions.forget(&session);
        answer
    }

    async fn attempt(&self, client: usize, command: &Command, session: &RawDocument, number: i64) -> Answer {
        let name = CString::try_from(command.name.as_str())?;
        let mut body = command.rewritten(&name, command.value()?, &["writeConcern", "readConcern"])?;
        append_session(&mut body, session, number);
        body.append(cstr!("startTransaction"), true);
        let update = Command { name: command.name.clone(), db: command.db.clone(), body, sequences: command.sequences.clone() };
        let reply = Box::pin(self.in_transaction(client, &update)).await?;

        let mut body = rawdoc! { "commitTransaction": 1, "$db": "admin" };
        append_session(&mut body, session, number);
        append_majority(&mut body);
        let commit = Command { name: "commitTransaction".into(), db: "admin".into(), body, sequences: Vec::new() };
        Box::pin(self.in_transaction(client, &commit)).await?;
        Ok(reply)
    }
}

/// Whether an answer of the routing code means that the update must run in a transaction.
pub fn wants_transaction(reply: &RawDocument) -> bool {
    let first = reply.get_array("writeErrors").ok().and_then(|errors| errors.into_iter().next()?.ok()?.as_document());
    first.is_some_and(|error| {
        let text = error.get_str("errmsg").unwrap_or_default();
        error.get_i32("code").is_ok_and(|code| code == NOT_RETRYABLE) && text.contains("shard key")
    })
}

/// One half of the update, in its transaction.
fn part(command: &Command, name: &str, batch: &str, entry: RawDocumentBuf) -> Result<Command, Failure> {
    let mut body = RawDocumentBuf::new();
    body.append(CString::try_from(name)?, command.text()?);
    body.append(CString::try_from(batch)?, RawArrayBuf::from_iter([entry]));
    copy_fields(&command.body, &mut body, &["$db", "lsid", "txnNumber", "autocommit"])?;
    Ok(Command { name: name.into(), db: command.db.clone(), body, sequences: Vec::new() })
}

fn append_session(body: &mut RawDocumentBuf, session: &RawDocument, number: i64) {
    body.append(cstr!("lsid"), session);
    body.append(cstr!("txnNumber"), number);
    body.append(cstr!("autocommit"), false);
}

fn is_transient(failure: &Failure) -> bool {
    let labels = match failure {
        Failure::Server(reply) => reply.get_array("errorLabels").ok(),
        Failure::Front { labels, .. } => return labels.contains(&"TransientTransactionError"),
    };
    labels.into_iter().flatten().flatten().any(|label| label.as_str() == Some("TransientTransactionError"))
}
