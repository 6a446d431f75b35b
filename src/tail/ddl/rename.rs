//! Renames: within the selection, into it, and out of it.

use super::{Brought, Change};
use crate::{
    catalog::{Collection, State},
    checkpoint::Store,
    error::{Error, Result},
    model::{CollectionUuid, Namespace},
    source::Source,
    target::Target,
};
use std::sync::Arc;

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    pub(super) async fn rename(
        &self,
        from: &Namespace,
        to: &Namespace,
        uuid: Option<CollectionUuid>,
        dropped: Option<CollectionUuid>,
    ) -> Result<Brought> {
        let uuid = uuid.ok_or_else(|| Error::Bug("a rename event without `collectionUUID`".into()))?;
        let known = self.tail.catalog.find(uuid);
        // One that had left the selection a moment ago, or was given up, may come back.
        let is_back = |known: &Collection| {
            let entry = known.entry();
            entry.state == State::Dropped && entry.known_at < self.time
        };
        let back = known.as_ref().filter(|known| is_back(known)).map(|known| known.entry().clone());
        let Some(collection) = known.filter(|_| back.is_none()) else {
            if let Some(old) = dropped {
                self.drop_collection(old).await?;
            }
            if !self.tail.selection.takes(to) || self.listed_later() {
                return Ok(Brought::Nothing);
            }
            if let Some(was) = back {
                // A crash may have come between the note that it is given up and the drop. What is known by the name is another one.
                if was.target_uuid.is_some() && self.tail.catalog.named_on_target(&was.target).is_none() {
                    self.tail.target.drop_collection(&was.target, was.target_uuid).await?;
                }
                self.tail.store.forget(&[uuid]).await?;
                self.tail.parity.forget(uuid);
            }
            if !self.sharded {
                return self.take_in(to, uuid).await;
            }
            self.superseded(from).await?;
            return self.appeared(to, uuid).await;
        };
        self.rename_known(&collection, from, to, dropped).await?;
        // What could not be renamed comes back under its new name.
        if is_back(&collection) { Box::pin(self.rename(from, to, Some(uuid), None)).await } else { Ok(Brought::Nothing) }
    }

    async fn rename_known(
        &self,
        collection: &Arc<Collection>,
        from: &Namespace,
        to: &Namespace,
        dropped: Option<CollectionUuid>,
    ) -> Result<()> {
        {
            let entry = collection.entry();
            if entry.state == State::Dropped || entry.known_at >= self.time || entry.ns == *to {
                return Ok(());
            }
            if entry.ns != *from {
                // The listing, or a run before a crash, saw a later name.
                return if self.listed_later() {
                    Ok(())
                } else {
                    Err(Error::Bug(format!("`{from}` was renamed, but is known as `{}`", entry.ns)))
                };
            }
        }
        if let Some(old) = dropped.and_then(|old| self.tail.catalog.find(old))
            && old.entry().state != State::Dropped
        {
            self.remove(&old).await?;
        }
        if !self.tail.selection.takes(to) {
            return self.remove(collection).await;
        }
        if self.sharded {
            // What was dropped for it was on other shards.
            self.superseded(to).await?;
        }
        if self.holder(to).is_some() {
            return if self.listed_later() {
                Ok(())
            } else if self.sharded {
                // See `succession`: it has the name for a while only, and is taken in again where it goes from there.
                self.remove(collection).await
            } else {
                Err(Error::Bug(format!("a collection was renamed to `{to}`, which another one is")))
            };
        }
        let (now, then) = (collection.entry().target.clone(), self.tail.selection.target_of(to));
        if now.db() != then.db() && !self.tail.target.renames_across_databases() {
            return self.give_up(collection).await;
        }
        self.move_on_target(collection, to).await
    }

    /// Drops a collection on the target that is to be copied again. Noted first, and without the time: a replay behind a crash is to
    /// find that it comes back.
    async fn give_up(&self, collection: &Collection) -> Result<()> {
        let _alone = collection.gate.write().await;
        let _no_builds = self.without_builds(collection).await?;
        let Some(now) = collection.on_target() else { return Ok(()) };
        collection.entry_mut().state = State::Dropped;
        self.save(collection).await?;
        self.tail.race.end(collection.uuid());
        self.tail.target.drop_collection(&now.ns, Some(now.uuid)).await
    }

    async fn move_on_target(&self, collection: &Arc<Collection>, to: &Namespace) -> Result<()> {
        let _alone = collection.gate.write().await;
        let _no_builds = self.without_builds(collection).await?;
        let Some(now) = collection.on_target() else { return Ok(()) };
        let then = self.tail.selection.target_of(to);
        let there = self.tail.target.lookup(&then).await?;
        // A replay finds it there already, if the crash came before the catalog was saved.
        if there.as_ref().is_none_or(|t| t.uuid != Some(now.uuid)) {
            self.make_room(&then).await?;
            self.tail.target.rename(&now, &then).await?;
        }
        let renamed = self.tail.target.lookup(&then).await?;
        {
            let mut entry = collection.entry_mut();
            entry.ns = to.clone();
            entry.target = then;
            // A rename across databases makes another collection of it.
            entry.target_uuid = renamed.and_then(|c| c.uuid).or(entry.target_uuid);
            entry.known_at = self.time;
            // Builds may have failed for looking under the former name.
            entry.failed.clear();
        }
        self.save(collection).await
    }
}
