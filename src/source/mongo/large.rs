//! Change events that are larger than a reply may be.
//!
//! A key of a few MiB is enough: an event has it as key, in hex within the token, within the document, and once more in
//! the reply's own token if nothing smaller comes behind (RAN on 6.0.5: an `_id` of 5 MiB fails with code 10334). Then
//! events are read without their documents, which are read by key.

use super::{
    fence,
    stream::{Shows, closed, open},
    token,
};
use crate::{
    error::{Error, Result},
    model::raw,
    mongo::{Cluster, Reply},
    source::StartAt,
};
use bson::{RawDocument, RawDocumentBuf, Timestamp, rawdoc};

/// BSONObjectTooLarge.
const TOO_LARGE: i32 = 10334;
/// Replies without an event after which we look again from the start.
const PATIENCE: u32 = 20;
/// Events that are read without their documents at one time, and the token that ends it: behind it, a reply has room again.
const MAX_EVENTS: usize = 1_000;
const LARGE_TOKEN: usize = 64 << 10;

/// Whether a reply failed because of its size.
pub(super) fn is_too_large(error: &Error) -> bool {
    error.code() == Some(TOO_LARGE)
}

/// Some events behind a position, without their documents; the last of them is the first with a large key, if there is one.
///
/// # Errors
/// As classified; [`Error::Unsupported`] where not even that fits, which takes an `_id` above 4 MiB; above 3 MiB from
/// a sharded cluster, where a shard's reply to its router holds the token twice.
pub(super) async fn without_documents(cluster: &Cluster, from: &StartAt, shows: Shows) -> Result<Vec<RawDocumentBuf>> {
    // Then there is something small behind them, and a reply that reaches the end has a small token of its own.
    fence::note(cluster, "behind a large event").await?;
    let until = last_token(cluster, from, shows).await?;
    let time = token::time(&until).ok_or_else(|| Error::Bug("a change event whose token tells no time".into()))?;
    let light = rawdoc! {"$project": {"fullDocument": 0, "rawUpdateDescription": 0, "updateDescription": 0}};
    // By a range: the event that we resume behind must pass it, too (RAN: code 280 otherwise).
    let up_to = rawdoc! {"$match": {"clusterTime": {"$lte": Timestamp::from(time)}}};
    let mut cursor = open(cluster, from, shows, &[light, up_to], None).await?;
    let mut events = Vec::new();
    for _ in 0..PATIENCE {
        let reply = fitting(cursor.next().await)?.ok_or_else(|| closed(cluster))?;
        for event in raw::elements(reply.documents()?).filter_map(|e| e.document()) {
            events.push(raw::owned(event));
            if token_of(event) == Some(&*until) {
                return Ok(events);
            }
        }
    }
    Err(closed(cluster))
}

/// Reads tokens alone, one at a time: with a large one there is just room for the reply's own.
async fn last_token(cluster: &Cluster, from: &StartAt, shows: Shows) -> Result<RawDocumentBuf> {
    let mut cursor = open(cluster, from, shows, &[rawdoc! {"$project": {"_id": 1}}], Some(1)).await?;
    let (mut last, mut empty) = (None, 0);
    for _ in 0..MAX_EVENTS {
        let reply = fitting(cursor.next().await)?.ok_or_else(|| closed(cluster))?;
        match raw::elements(reply.documents()?).find_map(|e| e.document()).and_then(token_of) {
            Some(token) => {
                let large = token.as_bytes().len() > LARGE_TOKEN;
                last = Some(raw::owned(token));
                if large {
                    break;
                }
            }
            None if last.is_some() => break,
            None => empty += 1,
        }
        if empty == PATIENCE {
            break;
        }
    }
    last.ok_or_else(|| closed(cluster))
}

fn token_of(event: &RawDocument) -> Option<&RawDocument> {
    raw::get(event, "_id")?.document()
}

fn fitting(reply: Result<Option<Reply>>) -> Result<Option<Reply>> {
    match reply {
        Err(error) if is_too_large(&error) => Err(Error::Unsupported {
            what: "a change event that does not fit into a reply, even without its document,".into(),
            ns: None,
            hint: "an `_id` above 4 MiB does this, or above 3 MiB from a sharded cluster: exclude its collection with `--exclude`, and copy again".into(),
        }),
        other => other,
    }
}
