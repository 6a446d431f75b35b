//! Collections of a sharded target that somebody else reshards, or whose database somebody moves to another shard, while nothing is
//! written to them: a write notices it by itself, an idle collection would be looked for in vain by the comparison and the cutover.

use crate::{
    catalog::Catalog,
    checkpoint::Store,
    error::Result,
    race::Race,
    source::mongo::MongoSource,
    target::{Target, mongo::MongoTarget},
};
use std::{collections::HashMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// As often as the source's are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks at the identities of these collections until told to stop, and takes over those that the target's cluster has changed
/// itself. Whatever else became of them is for a write to find out. Saves them, whoever found them: what the cluster has
/// noted of it is only kept for a while.
///
/// # Errors
/// As the clusters', and as the store's.
pub(super) async fn follow<C: Store>(
    source: MongoSource,
    target: MongoTarget,
    store: C,
    (catalog, race): (Catalog, Race),
    stop: CancellationToken,
) -> Result<()> {
    let mut saved: HashMap<_, _> = store.entries().await?.into_iter().map(|entry| (entry.uuid, entry.target_uuid)).collect();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let identities = target.identities().await?;
        for collection in catalog.living() {
            let Some(to) = collection.on_target() else { continue };
            let another = identities.get(&to.ns).is_some_and(|uuid| *uuid != to.uuid);
            if another && target.successor(&to).await?.is_some() {
                race.read(collection.relocate(&source, &target).await?);
            }
            let now = collection.entry().target_uuid;
            if saved.insert(collection.uuid(), now).is_some_and(|before| before != now) {
                let _one_at_a_time = collection.saving.lock().await;
                let entry = collection.entry().clone();
                store.save_entries(&[entry]).await?;
            }
        }
    }
    Ok(())
}
