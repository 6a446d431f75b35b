//! Reading a cursor to its true end.

use futures_util::StreamExt;
use mongodb::Client;
use mongodb::bson::RawDocumentBuf;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};

use crate::{Error, Result};

/// A cursor that knows whether the server said that it was finished.
pub struct Reader {
    namespace: String,
    cursor: RawBatchCursor,
    finished: bool,
}

impl Reader {
    /// Opens a cursor; later batches are limited to 16 MiB by the server alone.
    pub async fn open(client: &Client, database: &str, what: &str, command: RawDocumentBuf) -> Result<Reader> {
        let cursor = client.database(database).run_raw_cursor_command(command).batch_size(5000).batch().await?;
        Ok(Reader { namespace: format!("{database}.{what}"), cursor, finished: false })
    }

    /// The next batch, or `None` when the server has said that there are no more. The driver would go on after an
    /// error and skip a batch, so an error must end the reading.
    pub async fn next(&mut self) -> Result<Option<RawBatch>> {
        match self.cursor.next().await {
            Some(batch) => {
                let batch = batch?;
                let id = batch.as_raw_document().get_document("cursor").and_then(|cursor| cursor.get_i64("id"));
                self.finished = id.map_err(|error| Error::BadReply(error.to_string()))? == 0;
                Ok(Some(batch))
            }
            None if self.finished => Ok(None),
            None => Err(Error::ShortRead {
                namespace: self.namespace.clone(),
                reason: "the cursor ended and the server had not said so".into(),
            }),
        }
    }

    /// All documents. For catalogs, not for data.
    pub async fn all(mut self) -> Result<Vec<RawDocumentBuf>> {
        let mut documents = Vec::new();
        while let Some(batch) = self.next().await? {
            for value in batch.doc_slices()? {
                let document = value.ok().and_then(|value| value.as_document().map(ToOwned::to_owned));
                documents.push(document.ok_or_else(|| Error::BadReply("a cursor's item is no document".into()))?);
            }
        }
        Ok(documents)
    }
}
