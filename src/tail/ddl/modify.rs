//! Indexes and options.

use super::Change;
use crate::{
    catalog::{Collection, State},
    checkpoint::Store,
    error::Result,
    model::{CollectionUuid, IndexSpec, Namespace, raw},
    source::Source,
    target::{IndexChange, Target, park_options},
};
use bson::{RawDocument, RawDocumentBuf};
use std::time::Duration;
use tokio::sync::RwLockWriteGuard;

/// How often a build that is in the way is ended again.
const ABORT_EVERY: Duration = Duration::from_secs(1);

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    pub(super) async fn create_indexes(&self, ns: &Namespace, uuid: Option<CollectionUuid>, indexes: &[IndexSpec]) -> Result<()> {
        let Some(collection) = uuid.and_then(|uuid| self.tail.catalog.find(uuid)) else { return Ok(()) };
        if collection.entry().state == State::Dropped {
            return Ok(());
        }
        tracing::debug!(%ns, indexes = indexes.len(), "indexes wanted");
        indexes.iter().for_each(|spec| collection.entry_mut().want_index(spec.clone()));
        self.save(&collection).await
    }

    pub(super) async fn drop_indexes(&self, uuid: Option<CollectionUuid>, names: &[String]) -> Result<()> {
        let Some(collection) = uuid.and_then(|uuid| self.tail.catalog.find(uuid)) else { return Ok(()) };
        let Some(to) = collection.on_target() else { return Ok(()) };
        let _no_builds = self.without_builds(&collection).await?;
        for name in names {
            collection.entry_mut().forget_index(name);
            self.tail.target.drop_index(&to, name).await?;
        }
        self.save(&collection).await
    }

    pub(super) async fn modify(&self, id: CollectionUuid, options: &RawDocument) -> Result<()> {
        let Some(collection) = self.tail.catalog.find(id) else { return Ok(()) };
        if collection.entry().state == State::Dropped {
            return Ok(());
        }
        let _no_builds = self.without_builds(&collection).await?;
        if let Some(index) = raw::get(options, "index").and_then(|e| e.document()) {
            self.modify_index(&collection, index).await?;
        }
        let (target, target_uuid) = {
            let e = collection.entry();
            (e.target.clone(), e.target_uuid)
        };
        let (at_once, _) = park_options(options);
        let rest = without(&at_once, "index");
        match target.series() {
            Some(series) if !rest.is_empty() || options.is_empty() => {
                self.modify_series(&collection, &series, &rest).await?;
            }
            // The event tells a view's collation, which no `collMod` takes: it is for ever (RAN on 6.0.5).
            None if collection.entry().is_view() => self.tail.target.modify(&target, None, &without(&rest, "collation")).await?,
            None if !rest.is_empty() => self.tail.target.modify(&target, target_uuid, &rest).await?,
            Some(_) | None => {}
        }
        if !rest.is_empty() {
            let mut entry = collection.entry_mut();
            entry.options = replaced(&entry.options, &rest);
        }
        self.save(&collection).await
    }

    /// Only what is not parked changes on the target now; the rest at the seal.
    async fn modify_index(&self, collection: &Collection, change: &RawDocument) -> Result<()> {
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
        let hidden = raw::get(change, "hidden").and_then(|e| e.bool());
        if let (Some(hidden), true, Some(to)) = (hidden, built, collection.on_target()) {
            self.tail.target.change_index(&to, name, &IndexChange::Hidden(hidden)).await?;
        }
        Ok(())
    }

    /// Keeps builds of the collection's indexes out of the way until what it gives is dropped. Those under way are ended;
    /// a build that the server has yet to hear of cannot be, so it is tried again.
    pub(super) async fn without_builds<'c>(&self, collection: &'c Collection) -> Result<RwLockWriteGuard<'c, ()>> {
        let mut none = std::pin::pin!(collection.builds.none());
        let mut again = tokio::time::interval(ABORT_EVERY);
        let mut ended: Vec<String> = Vec::new();
        loop {
            tokio::select! {
                biased;
                alone = &mut none => {
                    // Perhaps it was done just before, or on some of the shards only: a build behind us must find none of it.
                    if let Some(to) = collection.on_target() {
                        for name in &ended {
                            self.tail.target.drop_index(&to, name).await?;
                        }
                    }
                    collection.entry_mut().built.retain(|name| !ended.contains(name));
                    return Ok(alone);
                }
                _ = again.tick() => {}
            }
            let Some(to) = collection.on_target() else { continue };
            for names in collection.builds.under_way() {
                tracing::info!(ns = %to.ns, indexes = names.len(), "a structural change ends an index build, which begins anew behind it");
                self.tail.target.abort_build(&to, &names).await?;
                ended.extend(names);
            }
        }
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

fn without(options: &RawDocument, name: &str) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    for e in raw::elements(options).filter(|e| e.name != name.as_bytes()) {
        b.element(e);
    }
    let rest = b.finish();
    if raw::elements(&rest).next().is_none() { RawDocumentBuf::new() } else { rest }
}
