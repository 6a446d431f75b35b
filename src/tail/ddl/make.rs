//! What comes into being, or into the selection.

use super::{Brought, Change, series::is_view_of_series};
use crate::{
    capped::{Span, Transfer},
    catalog::{Collection, Entry, State, view_uuid},
    checkpoint::Store,
    error::{Error, Result},
    model::{CollectionInfo, CollectionKind, CollectionUuid, Namespace},
    source::{CollectionRef, Found, Source},
    tail::Tail,
    target::{self, Target},
};
use bson::RawDocumentBuf;

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    pub(super) async fn create(&self, ns: &Namespace, uuid: Option<CollectionUuid>, options: &RawDocumentBuf) -> Result<Brought> {
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
            if self.sharded {
                // See `succession`: whichever of them is to stay will be told, or noticed.
                tracing::info!(%ns, "made on another shard while it is there");
                return Ok(Brought::Nothing);
            }
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
        if uuid.is_none() { self.make_view(entry).await } else { self.make(entry).await }
    }

    /// Makes a collection on the target, and has the documents copied that the stream does not tell.
    pub(super) async fn make(&self, mut entry: Entry) -> Result<Brought> {
        self.make_room(&entry.target).await?;
        if self.sharded {
            self.tail.target.lay_out(&entry.target, self.tail.source.layout_of(entry.uuid).await?);
        }
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
                let span = self.fill(&collection).await?;
                Ok(Brought::Capped(collection.uuid(), span))
            }
        }
    }

    /// A capped collection whose order is in doubt: copied anew.
    pub(in crate::tail) async fn fill_anew(&self, collection: &Collection) -> Result<Span> {
        let _alone = collection.gate.write().await;
        tracing::info!(ns = %collection.entry().ns, "a capped collection is copied anew: its order is in doubt");
        // Before its documents go: after a crash they are copied from the start.
        collection.entry_mut().state = State::Copying;
        self.save(collection).await?;
        self.fill(collection).await
    }

    async fn fill(&self, collection: &Collection) -> Result<Span> {
        // By the tail's pace, which waits for it.
        let Tail { source, target, race, metrics, pace, retry, .. } = self.tail;
        let span = Transfer { source, target, race, metrics, pace, retry, stop: self.stop }.run(collection).await?;
        collection.entry_mut().state = State::Complete;
        self.save(collection).await?;
        Ok(span)
    }

    /// A collection that the catalog does not know was renamed into the selection: it is made and copied as the source has it
    /// now. What changes it from here on comes through the stream.
    pub(super) async fn take_in(&self, ns: &Namespace, uuid: CollectionUuid) -> Result<Brought> {
        let tail = self.tail;
        let listed = tail.source.collections().await?.into_iter().find(|c| c.uuid == Some(uuid));
        let Some(info) = listed else {
            // Dropped since; the stream will tell.
            self.note_gone(ns, uuid).await?;
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
        tracing::info!(%ns, "copying what the change stream did not tell");
        self.make(entry).await
    }

    /// Takes note of a collection whose events mean nothing.
    pub(super) async fn note_gone(&self, ns: &Namespace, uuid: CollectionUuid) -> Result<()> {
        let tail = self.tail;
        let gone = CollectionInfo { ns: ns.clone(), uuid: Some(uuid), kind: CollectionKind::Collection, options: RawDocumentBuf::new() };
        self.save(&tail.catalog.add(Entry::new(&gone, tail.selection.target_of(ns), State::Dropped, self.time))).await
    }

    /// What has a name on the target and is not in the catalog is left from a creation that a crash cut short, and
    /// then nothing was written to it. Documents are somebody's, and are not ours to drop.
    pub(super) async fn make_room(&self, ns: &Namespace) -> Result<()> {
        let target = &self.tail.target;
        for ns in target::names(ns) {
            let Some(there) = target.lookup(&ns).await? else { continue };
            if there.kind != CollectionKind::View && target.holds_documents(&ns).await? {
                return Err(Error::TargetNotEmpty { namespaces: vec![ns.to_string()] });
            }
            target.drop_collection(&ns, there.uuid).await?;
        }
        Ok(())
    }
}
