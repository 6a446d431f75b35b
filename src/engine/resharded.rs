//! Collections of a sharded target that somebody else reshards while nothing is written to them: a write notices it by itself, an
//! idle collection would be looked for in vain by the comparison and the cutover.

use crate::{
    catalog::Catalog,
    error::Result,
    race::Race,
    source::mongo::MongoSource,
    target::{Target, mongo::MongoTarget},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// As often as the source's are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks at the identities of the target's sharded collections until told to stop, and takes over those that have changed by
/// resharding. Whatever else became of them is for a write to find out.
///
/// # Errors
/// As the clusters'.
pub(super) async fn follow(source: MongoSource, target: MongoTarget, catalog: Catalog, race: Race, stop: CancellationToken) -> Result<()> {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let identities = target.identities().await?;
        for collection in catalog.living() {
            let Some(to) = collection.on_target() else { continue };
            let another = identities.get(&to.ns).is_some_and(|uuid| *uuid != to.uuid);
            if another && target.successor(&to).await?.is_some() {
                race.read(collection.relocate(&source, &target).await?);
            }
        }
    }
    Ok(())
}
