//! Structural changes, applied alone and by UUID.
//!
//! Each is idempotent: after a crash the stream replays it, perhaps on a target that is further on. What an
//! entry of the catalog already reflects (`known_at`) is nothing to do. The plan was made from a listing that
//! took a while, so events up to `listed_until` may be reflected in it or not: where names contradict, the
//! listing is the later truth, and the events that lead there are still to come.

use super::{Tail, series::is_view_of_series};
use crate::{
    capped::Transfer,
    catalog::{Collection, Entry, State, view_uuid},
    checkpoint::Store,
    error::{Error, Result},
    model::{ClusterTime, CollectionInfo, CollectionKind, CollectionUuid, Ddl, IndexSpec, Namespace, raw},
    source::{CollectionRef, Found, Source},
    target::{self, IndexChange, Target, park_options},
};
use bson::{RawDocument, RawDocumentBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::RwLockWriteGuard;
use tokio_util::sync::CancellationToken;

/// How often a build that is in the way is ended again.
const ABORT_EVERY: Duration = Duration::from_secs(1);

/// One structural change and what it needs.
pub(super) struct Change<'a, S, T, C> {
    pub tail: &'a Tail<S, T, C>,
    pub stop: &'a CancellationToken,
    /// Cluster time of the event.
    pub time: ClusterTime,
}

/// What a structural change brought along that the change stream does not tell.
pub(super) enum Brought {
    Nothing,
    /// A capped collection's documents, read up to this time.
    Capped(ClusterTime),
    /// Documents that are to be copied.
    Documents,
}

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    pub async fn apply(&self, ddl: &Ddl) -> Result<Brought> {
        tracing::info!(ddl = ddl.label(), cluster_time = %self.time, "structural change");
        match ddl {
            Ddl::Create { ns, uuid, options } => return self.create(ns, *uuid, options).await,
            Ddl::Rename { from, to, uuid, dropped } => return self.rename(from, to, *uuid, *dropped).await,
            Ddl::Drop { ns, uuid } => self.drop_collection(uuid.unwrap_or_else(|| view_uuid(ns))).await?,
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

    async fn create(&self, ns: &Namespace, uuid: Option<CollectionUuid>, options: &RawDocumentBuf) -> Result<Brought> {
        let id = uuid.unwrap_or_else(|| view_uuid(ns));
        if !self.tail.selection.takes(ns) || (uuid.is_none() && is_view_of_series(ns, options)) {
            return Ok(Brought::Nothing);
        }
        if let Some(known) = self.tail.catalog.find(id) {
            let (state, known_at) = (known.entry().state, known.entry().known_at);
            // A UUID is created once; the name of a view may be used again, also at the time at which it was dropped.
            let since = if state == State::Dropped { known_at > self.time } else { known_at >= self.time };
            if uuid.is_some() || since {
                return Ok(Brought::Nothing);
            }
            // A drop that was not told: of `system.views`, and so of all views of the database (RAN on 6.0.5).
            self.drop_collection(id).await?;
        }
        let kind = if uuid.is_some() { CollectionKind::Collection } else { CollectionKind::View };
        let info = CollectionInfo { ns: ns.clone(), uuid, kind, options: options.clone() };
        let mut entry = Entry::new(&info, self.tail.selection.target_of(ns), State::Complete, self.time);
        if let Some(other) = self.holder(ns) {
            if !self.listed_later() && other.entry().known_at < self.time {
                return Err(Error::Bug(format!("`{ns}` was created while another collection had that name")));
            }
            // It was dropped or renamed before the listing, or before a crash, and something newer has its name.
            entry.state = State::Dropped;
            self.save(&self.tail.catalog.add(entry)).await?;
            return Ok(Brought::Nothing);
        }
        if entry.capped {
            // `convertToCapped` and `cloneCollectionAsCapped` fill it unseen.
            entry.state = State::Copying;
        }
        self.make(entry).await
    }

    /// Makes a collection on the target, and has the documents copied that the stream does not tell.
    async fn make(&self, mut entry: Entry) -> Result<Brought> {
        self.make_room(&entry.target).await?;
        entry.target_uuid = target::make(&self.tail.target, &entry.target, &entry.options).await?;
        let (tail, state) = (self.tail, entry.state);
        let collection = tail.catalog.add(entry);
        if state == State::Wanted {
            tail.race.begin(collection.uuid());
        }
        // Before its documents: after a crash they are copied from the start.
        self.save(&collection).await?;
        match state {
            State::Wanted => Ok(Brought::Documents),
            State::Complete | State::Dropped => Ok(Brought::Nothing),
            State::Copying => {
                let Tail { source, target, race, metrics, retry, .. } = tail;
                let read_at = Transfer { source, target, race, metrics, retry, stop: self.stop }.run(&collection).await?;
                collection.entry_mut().state = State::Complete;
                self.save(&collection).await?;
                Ok(Brought::Capped(read_at))
            }
        }
    }

    /// A collection that the catalog does not know was renamed into the selection: it is made and copied as the source has it
    /// now. What changes it from here on comes through the stream.
    async fn take_in(&self, ns: &Namespace, uuid: CollectionUuid) -> Result<Brought> {
        let tail = self.tail;
        let listed = tail.source.collections().await?.into_iter().find(|c| c.uuid == Some(uuid));
        let Some(info) = listed else {
            // Dropped since; the stream will tell, and until then its events mean nothing.
            let gone =
                CollectionInfo { ns: ns.clone(), uuid: Some(uuid), kind: CollectionKind::Collection, options: RawDocumentBuf::new() };
            self.save(&tail.catalog.add(Entry::new(&gone, tail.selection.target_of(ns), State::Dropped, self.time))).await?;
            return Ok(Brought::Nothing);
        };
        let mut entry = Entry::new(&info, tail.selection.target_of(ns), State::Wanted, self.time);
        entry.ns = ns.clone();
        if let Found::Here(indexes) = tail.source.indexes(&CollectionRef { ns: info.ns, uuid }).await? {
            indexes.into_iter().for_each(|spec| entry.want_index(spec));
        }
        entry.read_from = tail.source.operation_time().await?;
        if entry.capped {
            entry.state = State::Copying;
        }
        tracing::info!(%ns, "renamed into the selection: copying it");
        self.make(entry).await
    }

    /// What has a name on the target and is not in the catalog is left from a creation that a crash cut short, and
    /// then nothing was written to it. Documents are somebody's, and are not ours to drop.
    async fn make_room(&self, ns: &Namespace) -> Result<()> {
        let target = &self.tail.target;
        for ns in target::names(ns) {
            let Some(there) = target.lookup(&ns).await? else { continue };
            if there.kind != CollectionKind::View && target.holds_documents(&ns).await? {
                return Err(Error::TargetNotEmpty { namespaces: vec![ns.to_string()] });
            }
            target.drop_collection(&ns).await?;
        }
        Ok(())
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
        if self.tail.target.lookup(&target).await?.is_some_and(|there| there.uuid == target_uuid) {
            self.tail.target.drop_collection(&target).await?;
        }
        {
            let mut entry = collection.entry_mut();
            entry.state = State::Dropped;
            entry.known_at = entry.known_at.max(self.time);
        }
        self.tail.race.end(collection.uuid());
        self.save(collection).await
    }

    async fn rename(
        &self,
        from: &Namespace,
        to: &Namespace,
        uuid: Option<CollectionUuid>,
        dropped: Option<CollectionUuid>,
    ) -> Result<Brought> {
        let uuid = uuid.ok_or_else(|| Error::Bug("a rename event without `collectionUUID`".into()))?;
        let Some(collection) = self.tail.catalog.find(uuid) else {
            if let Some(old) = dropped {
                self.drop_collection(old).await?;
            }
            if !self.tail.selection.takes(to) || self.listed_later() {
                return Ok(Brought::Nothing);
            }
            return self.take_in(to, uuid).await;
        };
        self.rename_known(&collection, from, to, dropped).await?;
        Ok(Brought::Nothing)
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
        if self.holder(to).is_some() {
            return if self.listed_later() {
                Ok(())
            } else {
                Err(Error::Bug(format!("a collection was renamed to `{to}`, which another one is")))
            };
        }
        self.move_on_target(collection, to).await
    }

    async fn move_on_target(&self, collection: &Arc<Collection>, to: &Namespace) -> Result<()> {
        let _alone = collection.gate.write().await;
        let _no_builds = self.without_builds(collection).await?;
        let (now, target_uuid) = {
            let e = collection.entry();
            (e.target.clone(), e.target_uuid)
        };
        let then = self.tail.selection.target_of(to);
        let there = self.tail.target.lookup(&then).await?;
        // A replay finds it there already, if the crash came before the catalog was saved.
        if there.as_ref().is_none_or(|t| t.uuid != target_uuid) {
            self.make_room(&then).await?;
            self.tail.target.rename(&now, &then, false).await?;
        }
        let renamed = self.tail.target.lookup(&then).await?;
        {
            let mut entry = collection.entry_mut();
            entry.ns = to.clone();
            entry.target = then;
            // A rename across databases makes another collection of it.
            entry.target_uuid = renamed.and_then(|c| c.uuid).or(entry.target_uuid);
            entry.known_at = self.time;
        }
        self.save(collection).await
    }

    async fn create_indexes(&self, ns: &Namespace, uuid: Option<CollectionUuid>, indexes: &[IndexSpec]) -> Result<()> {
        let Some(collection) = uuid.and_then(|uuid| self.tail.catalog.find(uuid)) else { return Ok(()) };
        if collection.entry().state == State::Dropped {
            return Ok(());
        }
        tracing::debug!(%ns, indexes = indexes.len(), "indexes wanted");
        indexes.iter().for_each(|spec| collection.entry_mut().want_index(spec.clone()));
        self.save(&collection).await
    }

    async fn drop_indexes(&self, uuid: Option<CollectionUuid>, names: &[String]) -> Result<()> {
        let Some(collection) = uuid.and_then(|uuid| self.tail.catalog.find(uuid)) else { return Ok(()) };
        let Some(to) = collection.on_target() else { return Ok(()) };
        let _no_builds = self.without_builds(&collection).await?;
        for name in names {
            collection.entry_mut().forget_index(name);
            self.tail.target.drop_index(&to.ns, name).await?;
        }
        self.save(&collection).await
    }

    async fn modify(&self, id: CollectionUuid, options: &RawDocument) -> Result<()> {
        let Some(collection) = self.tail.catalog.find(id) else { return Ok(()) };
        let target = {
            let e = collection.entry();
            if e.state == State::Dropped { return Ok(()) } else { e.target.clone() }
        };
        let _no_builds = self.without_builds(&collection).await?;
        if let Some(index) = raw::get(options, "index").and_then(|e| e.document()) {
            self.modify_index(&collection, &target, index).await?;
        }
        let (at_once, _) = park_options(options);
        let rest = without_index(&at_once);
        match target.series() {
            Some(series) if !rest.is_empty() || options.is_empty() => {
                self.modify_series(&collection, &series, &rest).await?;
            }
            None if !rest.is_empty() => self.tail.target.modify(&target, &rest).await?,
            Some(_) | None => {}
        }
        if !rest.is_empty() {
            let mut entry = collection.entry_mut();
            entry.options = replaced(&entry.options, &rest);
        }
        self.save(&collection).await
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
            self.tail.target.change_index(target, name, &IndexChange::Hidden(hidden)).await?;
        }
        Ok(())
    }

    /// Keeps builds of the collection's indexes out of the way until what it gives is dropped. Those under way are ended;
    /// a build that the server has yet to hear of cannot be, so it is tried again.
    async fn without_builds<'c>(&self, collection: &'c Collection) -> Result<RwLockWriteGuard<'c, ()>> {
        let mut none = std::pin::pin!(collection.builds.none());
        let mut again = tokio::time::interval(ABORT_EVERY);
        let mut ended: Vec<String> = Vec::new();
        loop {
            tokio::select! {
                biased;
                alone = &mut none => {
                    // One that was done just before was dropped.
                    collection.entry_mut().built.retain(|name| !ended.contains(name));
                    return Ok(alone);
                }
                _ = again.tick() => {}
            }
            let target = collection.entry().target.clone();
            for names in collection.builds.under_way() {
                tracing::info!(ns = %target, indexes = names.len(), "a structural change ends an index build, which begins anew behind it");
                self.tail.target.abort_build(&target, &names).await?;
                ended.extend(names);
            }
        }
    }

    async fn save(&self, collection: &Collection) -> Result<()> {
        let _one_at_a_time = collection.saving.lock().await;
        let entry = collection.entry().clone();
        self.tail.store.save_entries(&[entry]).await
    }
}

/// Options with others in place of those of their names.
fn replaced(options: &RawDocument, by: &RawDocument) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    for e in raw::elements(options).filter(|e| raw::elements(by).all(|new| new.name != e.name)).chain(raw::elements(by)) {
        b.element(e);
    }
    b.finish()
}

fn without_index(options: &RawDocument) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    for e in raw::elements(options).filter(|e| e.name != b"index") {
        b.element(e);
    }
    let rest = b.finish();
    if raw::elements(&rest).next().is_none() { RawDocumentBuf::new() } else { rest }
}
