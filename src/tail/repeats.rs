//! Before a document with a field name twice goes to the target, that is known for ever: see [`crate::model::repeats_a_name`].

use crate::{catalog::Collection, checkpoint::Store, error::Result};

/// Notes that a collection has such documents, once no diff is under way.
pub(super) async fn note<C: Store>(store: &C, collection: &Collection) -> Result<()> {
    if !collection.note_repeats().await {
        return Ok(());
    }
    let _one_at_a_time = collection.saving.lock().await;
    let entry = collection.entry().clone();
    store.save_entries(&[entry]).await
}
