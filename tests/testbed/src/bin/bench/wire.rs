//! Raw commands: what a server sent is sent on without being decoded.

use futures_util::StreamExt;
use mongodb::Client;
use mongodb::bson::raw::RawArray;
use mongodb::bson::{Document, RawDocumentBuf, rawdoc};

use crate::failure::{Failure, Result};

/// A command that is ready to be sent.
pub struct Command {
    pub database: String,
    pub body: RawDocumentBuf,
    /// Statements that it holds.
    pub statements: u64,
}

/// Reads up to `most` documents in the order of `_id` and makes them `insert` commands into another namespace.
pub async fn inserts(client: &Client, from: (&str, &str), to: (&str, &str), batch: u32, most: u64) -> Result<Vec<Command>> {
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let size = i32::try_from(batch).unwrap_or(i32::MAX);
    let find = rawdoc! { "find": from.1, "hint": { "_id": 1 }, "limit": limit, "batchSize": size };
    let mut cursor = client.database(from.0).run_raw_cursor_command(find).batch_size(batch).batch().await?;
    let mut commands = Vec::new();
    while let Some(reply) = cursor.next().await {
        let reply = reply?;
        let documents = reply.doc_slices()?;
        let statements = documents.into_iter().count() as u64;
        if statements > 0 {
            commands.push(Command { database: to.0.into(), body: insert(to.1, documents)?, statements });
        }
    }
    Ok(commands)
}

/// The array as it came, within a command.
fn insert(collection: &str, documents: &RawArray) -> Result<RawDocumentBuf> {
    let head = rawdoc! {
        "insert": collection,
        "ordered": false,
        "bypassDocumentValidation": true,
        "writeConcern": { "w": "majority" },
    };
    let (head, documents) = (head.as_bytes(), documents.as_bytes());
    let mut bytes = Vec::with_capacity(head.len() + documents.len() + 16);
    bytes.extend_from_slice(&head[..head.len() - 1]);
    bytes.extend_from_slice(b"\x04documents\0");
    bytes.extend_from_slice(documents);
    bytes.push(0);
    let length = i32::try_from(bytes.len()).map_err(|_| Failure::new("a batch is too large"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(RawDocumentBuf::from_bytes(bytes)?)
}

/// Sends a command and sees that each of its statements was done.
pub async fn send(client: &Client, command: Command) -> Result<()> {
    let reply = client.database(&command.database).run_raw_command(command.body).await?;
    all_done(&reply, command.statements)
}

fn all_done(reply: &Document, statements: u64) -> Result<()> {
    let done = reply.get("n").and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from))).unwrap_or(0);
    if reply.contains_key("writeErrors") || reply.contains_key("writeConcernError") || u64::try_from(done) != Ok(statements) {
        let mut text = reply.to_string();
        text.truncate(text.char_indices().nth(500).map_or(text.len(), |(n, _)| n));
        return Err(Failure::new(format!("a server did {done} of {statements} statements: {text}")));
    }
    Ok(())
}
