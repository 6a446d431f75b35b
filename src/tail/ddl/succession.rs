//! On a sharded source a collection may get another identity without having been dropped by anybody.
//!
//! `movePrimary` makes every collection that is not sharded anew on another shard, under a UUID of its own, fills it unseen,
//! and drops the old one in the end (RAN on 6.0.5: `create` and `createIndexes` of the new UUID while the old one lives, no
//! inserts, then `drop` of the old one). `reshardCollection` does so to a sharded one, and tells nothing at all (RAN on
//! 6.0.5); the source's stream notices it and tells of a drop. Either way what counts is what the source has under the name
//! now: it is copied anew, as a collection is that was renamed into the selection. So a document that the server lost or
//! changed on its way is as the source has it.
//!
//! So a collection may have a name here before the stream comes to that: of several that are dropped and made again under one
//! name while nobody follows, the last one is taken in when the first is dropped.
//!
//! One of which nothing is known when it is created again on another shard, because its name was another when we looked, is made
//! like any new one. That it was filled unseen is told by the drop of the old one, which comes behind: two were there under one
//! name, as only `movePrimary` makes it.

use super::{Brought, Change};
use crate::{
    catalog::{Collection, State},
    checkpoint::Store,
    error::Result,
    model::{CollectionUuid, Namespace},
    source::Source,
    target::Target,
};

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    /// A collection was dropped; if another one that nothing was told of has its name on the source, it takes its place here.
    pub(super) async fn succeeded(&self, ns: &Namespace) -> Result<Brought> {
        if !self.tail.selection.takes(ns) {
            return Ok(Brought::Nothing);
        }
        if let Some(holder) = self.holder(ns) {
            return if self.was_filled_unseen(&holder) { self.copy_behind(&holder).await } else { Ok(Brought::Nothing) };
        }
        let listed = self.tail.source.collections().await?;
        match listed.iter().find(|c| c.ns == *ns).and_then(|c| c.uuid) {
            Some(uuid) if self.tail.catalog.find(uuid).is_none() => self.take_in(ns, uuid).await,
            Some(_) | None => Ok(Brought::Nothing),
        }
    }

    /// Whether it was made from its creation alone, and that while the one was there that is dropped now. A capped one is filled when
    /// it is made; and what was planned, taken in, or has another name since was not made so.
    fn was_filled_unseen(&self, holder: &Collection) -> bool {
        let e = holder.entry();
        let made_as_told = e.read_from == e.known_at && e.known_at > self.tail.catalog.listed_until();
        e.state == State::Complete && made_as_told && e.known_at < self.time && !e.capped && !e.is_view()
    }

    /// Has documents copied into a collection that is followed already.
    async fn copy_behind(&self, collection: &Collection) -> Result<Brought> {
        let (tail, uuid) = (self.tail, collection.uuid());
        let read_from = tail.source.operation_time().await?;
        tracing::info!(ns = %collection.entry().ns, "copying what the change stream did not tell");
        tail.race.begin(uuid);
        {
            let mut entry = collection.entry_mut();
            (entry.state, entry.read_from) = (State::Wanted, read_from);
        }
        tail.parity.forget(uuid);
        // What was proved of it is void. After a crash before the entry is saved, the drop is told again.
        tail.store.forget(&[uuid]).await?;
        self.save(collection).await?;
        Ok(Brought::Documents)
    }

    /// A collection that the catalog does not know has a name now, as a write or a rename tells. It has the place of the one that
    /// is known under it; where that one is somewhere on the source, it got the name early, and this one had it for a while
    /// only: what is told of it means nothing, until it is perhaps renamed.
    pub(in crate::tail) async fn appeared(&self, ns: &Namespace, uuid: CollectionUuid) -> Result<Brought> {
        self.superseded(ns).await?;
        if self.holder(ns).is_none() {
            return self.take_in(ns, uuid).await;
        }
        tracing::info!(%ns, "has lost its name to a collection that is known already");
        self.note_gone(ns, uuid).await?;
        Ok(Brought::Nothing)
    }

    /// Drops what is known under a name if it is nowhere on the source, which the stream did not tell.
    pub(super) async fn superseded(&self, ns: &Namespace) -> Result<()> {
        let Some(other) = self.holder(ns) else { return Ok(()) };
        let listed = self.tail.source.collections().await?;
        if other.entry().is_view() || listed.iter().any(|c| c.uuid == Some(other.uuid())) {
            return Ok(());
        }
        tracing::info!(%ns, "is nowhere on the source any more");
        self.remove(&other).await
    }
}
