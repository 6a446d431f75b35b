//! Structural changes, applied alone and by UUID.
//!
//! Each is idempotent: after a crash the stream replays it, perhaps on a target that is further on. What an
//! entry of the catalog already reflects (`known_at`) is nothing to do. The plan was made from a listing that
//! took a while, so events up to `listed_until` may be reflected in it or not: where names contradict, the
//! listing is the later truth, and the events that lead there are still to come.

use super::series::is_view_of_series;
use crate::{
    catalog::{Catalog, Collection, Entry, State, view_uuid},
    checkpoint::Store,
    error::{Error, Result},
    model::{ClusterTime, CollectionInfo, CollectionKind, CollectionUuid, Ddl, IndexSpec, Namespace, Selection, raw},
    race::Race,
    source::Source,
    target::{self, IndexChange, Target, park_options},
};
use bson::{RawDocument, RawDocumentBuf};
use std::sync::Arc;

/// One structural change and what it needs.
pub(super) struct Change<'a, S, T, C> {
    pub source: &'a S,
    pub target: &'a T,
    pub store: &'a C,
    pub catalog: &'a Catalog,
    pub race: &'a Race,
    pub selection: &'a Selection,
    /// Cluster time of the event.
    pub time: ClusterTime,
}

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    pub async fn apply(&self, ddl: &Ddl) -> Result<()> {
        tracing::info!(ddl = ddl.label(), cluster_time = %self.time, "structural change");
        match ddl {
            Ddl::Create { ns, uuid, options } => self.create(ns, *uuid, options).await,
            Ddl::Drop { ns, uuid } => self.drop_collection(uuid.unwrap_or_else(|| view_uuid(ns))).await,
            Ddl::DropDatabase { db } => self.drop_views(db).await,
            Ddl::Rename { from, to, uuid, dropped } => self.rename(from, to, *uuid, *dropped).await,
            Ddl::CreateIndexes { ns, uuid, indexes } => self.create_indexes(ns, *uuid, indexes).await,
            Ddl::DropIndexes { uuid, names, .. } => self.drop_indexes(*uuid, names).await,
            Ddl::Modify { ns, uuid, options } => self.modify(uuid.unwrap_or_else(|| view_uuid(ns)), options).await,
        }
    }

    /// Whether the listing that the plan was made from may be newer than the event.
    fn listed_later(&self) -> bool {
        self.time <= self.catalog.listed_until()
    }

    async fn create(&self, ns: &Namespace, uuid: Option<CollectionUuid>, options: &RawDocumentBuf) -> Result<()> {
        let id = uuid.unwrap_or_else(|| view_uuid(ns));
        if !self.selection.takes(ns) || (uuid.is_none() && is_view_of_series(ns, options)) {
            return Ok(());
        }
        if let Some(known) = self.catalog.find(id) {
            let entry = known.entry();
            // A UUID is created once; the name of a view may be used again.
            if uuid.is_some() || entry.known_at >= self.time {
                return Ok(());
            }
        }
        let kind = if uuid.is_some() { CollectionKind::Collection } else { CollectionKind::View };
        let info = CollectionInfo { ns: ns.clone(), uuid, kind, options: options.clone() };
        let mut entry = Entry::new(&info, self.selection.target_of(ns), State::Complete, self.time);
        if let Some(other) = self.holder(ns) {
            if !self.listed_later() && other.entry().known_at < self.time {
                return Err(Error::Bug(format!("`{ns}` was created while another collection had that name")));
            }
            // It was dropped or renamed before the listing, or before a crash, and something newer has its name.
            entry.state = State::Dropped;
            return self.save(self.catalog.add(entry)).await;
        }
        self.make_room(&entry.target).await?;
        entry.target_uuid = target::make(self.target, &entry.target, options).await?;
        self.save(self.catalog.add(entry)).await
    }

    /// What has a name on the target and is not in the catalog is left from a creation that a crash cut short, and
    /// then nothing was written to it. Documents are somebody's, and are not ours to drop.
    async fn make_room(&self, ns: &Namespace) -> Result<()> {
        for ns in target::names(ns) {
            let Some(there) = self.target.lookup(&ns).await? else { continue };
            if there.kind != CollectionKind::View && self.target.holds_documents(&ns).await? {
                return Err(Error::TargetNotEmpty { namespaces: vec![ns.to_string()] });
            }
            self.target.drop_collection(&ns).await?;
        }
        Ok(())
    }

    /// The drops of a database's collections came before its own, those of its views did not (RAN on 6.0.5).
    async fn drop_views(&self, db: &str) -> Result<()> {
        for view in self.catalog.living().iter().filter(|c| c.entry().is_view() && c.entry().ns.db() == db) {
            self.drop_collection(view.uuid()).await?;
        }
        Ok(())
    }

    async fn drop_collection(&self, id: CollectionUuid) -> Result<()> {
        let Some(collection) = self.catalog.find(id) else { return Ok(()) };
        if collection.entry().state == State::Dropped || collection.entry().known_at > self.time {
            return Ok(());
        }
        self.remove(&collection).await
    }

    /// Drops it on the target and ends its copy.
    async fn remove(&self, collection: &Arc<Collection>) -> Result<()> {
        let _alone = collection.gate.write().await;
        let (target, target_uuid) = {
            let e = collection.entry();
            (e.target.clone(), e.target_uuid)
        };
        // By identity: a replay may find that something newer has the name.
        if self.target.lookup(&target).await?.is_some_and(|there| there.uuid == target_uuid) {
            self.target.drop_collection(&target).await?;
        }
        {
            let mut entry = collection.entry_mut();
            entry.state = State::Dropped;
            entry.known_at = entry.known_at.max(self.time);
        }
        self.race.end(collection.uuid());
        self.save(collection.clone()).await
    }

    async fn rename(&self, from: &Namespace, to: &Namespace, uuid: Option<CollectionUuid>, dropped: Option<CollectionUuid>) -> Result<()> {
        let uuid = uuid.ok_or_else(|| Error::Bug("a rename event without `collectionUUID`".into()))?;
        if from.coll().contains(".convertToCapped.") && self.selection.takes(to) {
            return Err(unsupported(
                "`convertToCapped`, whose documents the change stream does not show,",
                to,
                "exclude the collection, or copy again: `mongoferry run --restart-from-scratch --drop-target-namespaces`",
            ));
        }
        let Some(collection) = self.catalog.find(uuid) else {
            if let Some(old) = dropped {
                self.drop_collection(old).await?;
            }
            if !self.selection.takes(to) || self.listed_later() {
                return Ok(());
            }
            return Err(unsupported(
                "a rename of a collection into the selected namespaces",
                to,
                "select its former name too, or copy again: `mongoferry run --restart-from-scratch --drop-target-namespaces`",
            ));
        };
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
        if let Some(old) = dropped.and_then(|old| self.catalog.find(old))
            && old.entry().state != State::Dropped
        {
            self.remove(&old).await?;
        }
        if !self.selection.takes(to) {
            return self.remove(&collection).await;
        }
        if self.holder(to).is_some() {
            return if self.listed_later() {
                Ok(())
            } else {
                Err(Error::Bug(format!("a collection was renamed to `{to}`, which another one is")))
            };
        }
        self.move_on_target(&collection, to).await
    }

    async fn move_on_target(&self, collection: &Arc<Collection>, to: &Namespace) -> Result<()> {
        let _alone = collection.gate.write().await;
        let (now, target_uuid) = {
            let e = collection.entry();
            (e.target.clone(), e.target_uuid)
        };
        let then = self.selection.target_of(to);
        let there = self.target.lookup(&then).await?;
        // A replay finds it there already, if the crash came before the catalog was saved.
        if there.as_ref().is_none_or(|t| t.uuid != target_uuid) {
            self.make_room(&then).await?;
            self.target.rename(&now, &then, false).await?;
        }
        let renamed = self.target.lookup(&then).await?;
        {
            let mut entry = collection.entry_mut();
            entry.ns = to.clone();
            entry.target = then;
            // A rename across databases makes another collection of it.
            entry.target_uuid = renamed.and_then(|c| c.uuid).or(entry.target_uuid);
            entry.known_at = self.time;
        }
        self.save(collection.clone()).await
    }

    async fn create_indexes(&self, ns: &Namespace, uuid: Option<CollectionUuid>, indexes: &[IndexSpec]) -> Result<()> {
        let Some(collection) = uuid.and_then(|uuid| self.catalog.find(uuid)) else { return Ok(()) };
        if collection.entry().state == State::Dropped {
            return Ok(());
        }
        tracing::debug!(%ns, indexes = indexes.len(), "indexes wanted");
        indexes.iter().for_each(|spec| collection.entry_mut().want_index(spec.clone()));
        self.save(collection).await
    }

    async fn drop_indexes(&self, uuid: Option<CollectionUuid>, names: &[String]) -> Result<()> {
        let Some(collection) = uuid.and_then(|uuid| self.catalog.find(uuid)) else { return Ok(()) };
        let Some(to) = collection.on_target() else { return Ok(()) };
        for name in names {
            collection.entry_mut().forget_index(name);
            self.target.drop_index(&to.ns, name).await?;
        }
        self.save(collection).await
    }

    async fn modify(&self, id: CollectionUuid, options: &RawDocument) -> Result<()> {
        let Some(collection) = self.catalog.find(id) else { return Ok(()) };
        let target = {
            let e = collection.entry();
            if e.state == State::Dropped { return Ok(()) } else { e.target.clone() }
        };
        if let Some(index) = raw::get(options, "index").and_then(|e| e.document()) {
            self.modify_index(&collection, &target, index).await?;
        }
        let (at_once, _) = park_options(options);
        let rest = without_index(&at_once);
        match target.series() {
            Some(series) if !rest.is_empty() || options.is_empty() => {
                self.modify_series(&collection, &series, &rest).await?;
            }
            None if !rest.is_empty() => self.target.modify(&target, &rest).await?,
            Some(_) | None => {}
        }
        self.save(collection).await
    }

    /// Only what is not parked changes on the target now; the rest at the seal.
    async fn modify_index(&self, collection: &Collection, target: &Namespace, change: &RawDocument) -> Result<()> {
        let name = raw::get(change, "name").and_then(|e| e.str()).unwrap_or_default();
        let Some(spec) = collection.entry().indexes.get(name).cloned() else { return Ok(()) };
        let mut b = raw::Builder::default();
        for e in raw::elements(&spec.0).filter(|e| raw::elements(change).all(|c| c.name != e.name)) {
            b.element(e);
        }
        for e in raw::elements(change).filter(|e| e.name != b"name" && e.name != b"keyPattern") {
            // `hidden: false` and `prepareUnique: false` are not listed, and neither is `prepareUnique` of a unique index.
            if e.bool() != Some(false) {
                b.element(e);
            }
        }
        b.str("name", name);
        let built = collection.entry().built.contains(name);
        collection.entry_mut().indexes.insert(name.to_owned(), IndexSpec(b.finish()));
        if let (Some(hidden), true) = (raw::get(change, "hidden").and_then(|e| e.bool()), built) {
            self.target.change_index(target, name, &IndexChange::Hidden(hidden)).await?;
        }
        Ok(())
    }

    async fn save(&self, collection: Arc<Collection>) -> Result<()> {
        let _one_at_a_time = collection.saving.lock().await;
        let entry = collection.entry().clone();
        self.store.save_entries(&[entry]).await
    }
}

fn without_index(options: &RawDocument) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    for e in raw::elements(options).filter(|e| e.name != b"index") {
        b.element(e);
    }
    let rest = b.finish();
    if raw::elements(&rest).next().is_none() { RawDocumentBuf::new() } else { rest }
}

fn unsupported(what: &str, ns: &Namespace, hint: &str) -> Error {
    Error::Unsupported { what: what.to_owned(), ns: Some(ns.to_string()), hint: hint.to_owned() }
}
