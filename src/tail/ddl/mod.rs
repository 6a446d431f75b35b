//! Structural changes, applied alone and by UUID.
//!
//! Each is idempotent: after a crash the stream replays it, perhaps on a target that is further on. What an
//! entry of the catalog already reflects (`known_at`) is nothing to do. The plan was made from a listing that
//! took a while, so events up to `listed_until` may be reflected in it or not: where names contradict, the
//! listing is the later truth, and the events that lead there are still to come.

mod make;
mod modify;
mod rename;
mod series;
mod succession;
mod views;

use super::Tail;
use crate::{
    capped::Span,
    catalog::{Collection, State, view_uuid},
    checkpoint::Store,
    error::Result,
    model::{ClusterTime, CollectionUuid, Ddl, Namespace},
    source::Source,
    target::{ANOTHER_COLLECTION, Target, TargetCollection},
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One structural change and what it needs.
pub(super) struct Change<'a, S, T, C> {
    pub tail: &'a Tail<S, T, C>,
    pub stop: &'a CancellationToken,
    /// Cluster time of the event.
    pub time: ClusterTime,
    /// Whether the source is sharded.
    pub sharded: bool,
}

/// What a structural change brought along that the change stream does not tell.
pub(super) enum Brought {
    Nothing,
    /// A capped collection's documents, and when they were read.
    Capped(CollectionUuid, Span),
    /// Documents that are to be copied.
    Documents,
}

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    pub async fn apply(&self, ddl: &Ddl) -> Result<Brought> {
        tracing::info!(ddl = ddl.label(), cluster_time = %self.time, "structural change");
        match self.change(ddl).await {
            Err(error) if error.code() == Some(ANOTHER_COLLECTION) => {
                let (source, target) = (&self.tail.source, &self.tail.target);
                let Some(collection) = ddl.uuid().and_then(|uuid| self.tail.catalog.find(uuid)) else { return Err(error) };
                collection.relocate(source, target).await?;
                self.change(ddl).await
            }
            other => other,
        }
    }

    async fn change(&self, ddl: &Ddl) -> Result<Brought> {
        match ddl {
            Ddl::Create { ns, uuid, options } => return self.create(ns, *uuid, options).await,
            Ddl::Rename { from, to, uuid, dropped } => return self.rename(from, to, *uuid, *dropped).await,
            Ddl::Drop { ns, uuid } => {
                self.drop_collection(uuid.unwrap_or_else(|| view_uuid(ns))).await?;
                if self.sharded && uuid.is_some() {
                    self.superseded(ns).await?;
                    return self.succeeded(ns).await;
                }
            }
            Ddl::DropDatabase { db } => self.drop_views(db).await?,
            Ddl::CreateIndexes { ns, uuid, indexes } => self.create_indexes(ns, *uuid, indexes).await?,
            Ddl::DropIndexes { uuid, names, .. } => self.drop_indexes(*uuid, names).await?,
            Ddl::Modify { ns, uuid, options } => self.modify(uuid.unwrap_or_else(|| view_uuid(ns)), options).await?,
        }
        Ok(Brought::Nothing)
    }

    /// Whether the listing that the plan was made from may be newer than the event.
    fn listed_later(&self) -> bool {
        self.time <= self.tail.catalog.listed_until()
    }

    /// The drops of a database's collections came before its own, those of its views did not (RAN on 6.0.5).
    async fn drop_views(&self, db: &str) -> Result<()> {
        for view in self.tail.catalog.living().iter().filter(|c| c.entry().is_view() && c.entry().ns.db() == db) {
            self.drop_collection(view.uuid()).await?;
        }
        Ok(())
    }

    async fn drop_collection(&self, id: CollectionUuid) -> Result<()> {
        let Some(collection) = self.tail.catalog.find(id) else { return Ok(()) };
        let (state, known_at) = (collection.entry().state, collection.entry().known_at);
        match state {
            // Perhaps found so by a lane, and not saved.
            State::Dropped => self.save(&collection).await,
            State::Wanted | State::Copying | State::Complete if known_at > self.time => Ok(()),
            State::Wanted | State::Copying | State::Complete => self.remove(&collection).await,
        }
    }

    /// Drops it on the target and ends its copy.
    async fn remove(&self, collection: &Arc<Collection>) -> Result<()> {
        let _alone = collection.gate.write().await;
        let (target, target_uuid) = {
            let e = collection.entry();
            (e.target.clone(), e.target_uuid)
        };
        // A replay may find that something newer has the name.
        if let Some(there) = self.tail.target.lookup(&target).await?
            && (there.uuid == target_uuid || self.is_successor(&target, target_uuid, there.uuid).await?)
        {
            self.tail.target.drop_collection(&target, there.uuid).await?;
        }
        {
            let mut entry = collection.entry_mut();
            entry.state = State::Dropped;
            entry.known_at = entry.known_at.max(self.time);
        }
        self.tail.race.end(collection.uuid());
        self.save(collection).await
    }

    /// Whether it is what the target itself has made of a collection.
    async fn is_successor(&self, ns: &Namespace, of: Option<CollectionUuid>, there: Option<CollectionUuid>) -> Result<bool> {
        let Some(uuid) = of.filter(|_| there.is_some()) else { return Ok(false) };
        Ok(self.tail.target.successor(&TargetCollection { ns: ns.clone(), uuid }).await? == there)
    }

    async fn save(&self, collection: &Collection) -> Result<()> {
        let _one_at_a_time = collection.saving.lock().await;
        let entry = collection.entry().clone();
        self.tail.store.save_entries(&[entry]).await
    }
}
