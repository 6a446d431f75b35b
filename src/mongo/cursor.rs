//! A cursor that hands over whole replies, undecoded.

use super::{Cluster, classify};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, raw},
};
use bson::{RawDocument, RawDocumentBuf};
use futures_util::StreamExt;
use mongodb::{
    options::{CursorType, SelectionCriteria},
    raw_batch_cursor::RawBatchCursor,
};
use std::time::Duration;

/// A server-side cursor. After any error it is spent: open another one behind the last thing that is safe.
///
/// # Cancel safety
/// Calls are to be awaited to their end; the driver promises nothing for futures dropped half way.
pub struct RawCursor {
    cluster: Cluster,
    doing: String,
    cursor: RawBatchCursor,
    spent: bool,
}

/// How a cursor is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct CursorOptions {
    /// Documents of each `getMore`.
    pub batch_documents: Option<u32>,
    /// For a change stream: how long a `getMore` waits for news.
    pub await_time: Option<Duration>,
    /// Which members.
    pub on: Option<SelectionCriteria>,
}

/// One reply: `firstBatch` or `nextBatch`.
pub struct Reply(mongodb::raw_batch_cursor::RawBatch);

impl Reply {
    /// The documents, as the array they came in: a valid `documents` array of an insert.
    pub fn documents(&self) -> Result<&RawDocument> {
        let array = self.0.doc_slices().map_err(|_| Error::Bug("a cursor's reply without a batch".into()))?;
        RawDocument::from_bytes(array.as_bytes()).map_err(|_| Error::Bug("a cursor's batch is no array".into()))
    }

    /// `operationTime`: what the node had when it answered.
    pub fn operation_time(&self) -> Option<ClusterTime> {
        let (t, i) = raw::get(self.0.as_raw_document(), "operationTime")?.timestamp()?;
        Some(ClusterTime { t, i })
    }

    /// `postBatchResumeToken`, of change streams.
    pub fn post_batch_resume_token(&self) -> Option<RawDocumentBuf> {
        let cursor = raw::get(self.0.as_raw_document(), "cursor")?.document()?;
        Some(raw::owned(raw::get(cursor, "postBatchResumeToken")?.document()?))
    }
}

impl Cluster {
    /// Runs a command that answers with a cursor. Not repeated: what is safe is known by the caller.
    ///
    /// # Errors
    /// As classified.
    pub(crate) async fn open(&self, db: &str, doing: &str, command: RawDocumentBuf, options: CursorOptions) -> Result<RawCursor> {
        let database = self.client().database(db);
        let mut action = database.run_raw_cursor_command(command);
        if let Some(n) = options.batch_documents {
            action = action.batch_size(n);
        }
        if let Some(wait) = options.await_time {
            action = action.max_time(wait).cursor_type(CursorType::TailableAwait);
        }
        if let Some(on) = options.on {
            action = action.selection_criteria(on);
        }
        let cursor = action.batch().await.map_err(|e| classify(self.side(), doing, e))?;
        Ok(RawCursor { cluster: self.clone(), doing: doing.to_owned(), cursor, spent: false })
    }
}

impl RawCursor {
    /// The next reply, perhaps an empty one; `None` at the end.
    ///
    /// # Errors
    /// As classified; the cursor is spent then.
    pub async fn next(&mut self) -> Result<Option<Reply>> {
        if self.spent {
            return Err(Error::Bug("a cursor was read after its error".into()));
        }
        match self.cursor.next().await {
            None => Ok(None),
            Some(Ok(batch)) => Ok(Some(Reply(batch))),
            Some(Err(e)) => {
                self.spent = true;
                Err(classify(self.cluster.side(), &self.doing, e))
            }
        }
    }
}
