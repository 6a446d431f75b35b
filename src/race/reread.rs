//! A document to be read again: from the copy, through the tail's router, to the lane of its key.

use crate::{
    catalog::Collection,
    model::{ClusterTime, DocumentKey},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Travels like any change, so that it keeps its order with those of its key.
#[derive(Debug)]
pub struct Reread {
    /// Whose document.
    pub collection: Arc<Collection>,
    /// Which.
    pub key: DocumentKey,
    /// The event that raced the batch: the source is read at or after it.
    pub at_least: ClusterTime,
    /// Told once the target durably has what was read. Closed without a word when the tail ends first.
    pub done: mpsc::Sender<()>,
}
