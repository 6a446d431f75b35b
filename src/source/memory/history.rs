//! What the source went through: its state after each moment, and the events that led there.

use crate::model::{
    Change, ClusterTime, CollectionUuid, Ddl, DocumentKey, Namespace, Write, WriteOp,
    raw::{self, Element},
    shelf::Shelf,
};
use bson::{RawDocument, RawDocumentBuf, rawdoc};
use std::{collections::BTreeMap, sync::Arc};

/// A collection at one moment.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its name.
    pub ns: Namespace,
    /// As it was created.
    pub options: RawDocumentBuf,
    /// Shared with the moments before, until it changes.
    pub documents: Arc<Shelf>,
}

/// All collections at one moment, by identity.
pub type Snapshot = BTreeMap<CollectionUuid, Standing>;

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    /// By time; the first is empty and of time 0.
    pub snapshots: Vec<Snapshot>,
    /// In stream order, each with the number of its moment.
    pub events: Vec<(usize, Change)>,
    made: u128,
}

impl Default for History {
    fn default() -> Self {
        Self { snapshots: vec![Snapshot::new()], events: Vec::new(), made: 0 }
    }
}

impl History {
    pub fn now(&self) -> usize {
        self.snapshots.len() - 1
    }

    /// Adds a moment; several changes in it are a transaction.
    pub fn moment<R>(&mut self, change: impl FnOnce(&mut Moment<'_>) -> R) -> R {
        let mut moment = Moment { state: self.snapshots[self.now()].clone(), changes: Vec::new(), made: &mut self.made };
        let given = change(&mut moment);
        let Moment { state, changes, .. } = moment;
        self.snapshots.push(state);
        let now = self.now();
        self.events.extend(changes.into_iter().map(|change| (now, change)));
        given
    }
}

/// The time of a moment.
pub(super) fn time(moment: usize) -> ClusterTime {
    ClusterTime { t: u32::try_from(moment).unwrap_or(u32::MAX), i: 1 }
}

/// The last moment at or before a time.
pub(super) fn moment(time: ClusterTime) -> usize {
    time.t as usize
}

/// Changes that happen at one time. What makes no sense (an insert of what is there, a change of what is not) does nothing.
#[derive(Debug)]
pub struct Moment<'a> {
    state: Snapshot,
    changes: Vec<Change>,
    made: &'a mut u128,
}

impl Moment<'_> {
    /// What there is now.
    #[must_use]
    pub fn state(&self) -> &Snapshot {
        &self.state
    }

    /// The collection of that name.
    #[must_use]
    pub fn named(&self, ns: &Namespace) -> Option<CollectionUuid> {
        self.state.iter().find(|(_, c)| c.ns == *ns).map(|(uuid, _)| *uuid)
    }

    /// Makes a collection.
    pub fn create(&mut self, ns: &Namespace, options: RawDocumentBuf) -> Option<CollectionUuid> {
        if self.named(ns).is_some() {
            return None;
        }
        *self.made += 1;
        let uuid = CollectionUuid(self.made.to_be_bytes());
        self.state.insert(uuid, Standing { ns: ns.clone(), options: options.clone(), documents: Arc::default() });
        self.changes.push(Change::Ddl(Ddl::Create { ns: ns.clone(), uuid: Some(uuid), options }));
        Some(uuid)
    }

    /// Drops a collection.
    pub fn drop_collection(&mut self, ns: &Namespace) {
        if let Some(uuid) = self.named(ns) {
            self.state.remove(&uuid);
            self.changes.push(Change::Ddl(Ddl::Drop { ns: ns.clone(), uuid: Some(uuid) }));
        }
    }

    /// Renames a collection within its database, with `dropTarget`.
    pub fn rename(&mut self, from: &Namespace, to: &Namespace) {
        let Some(uuid) = self.named(from) else { return };
        if from == to || from.db() != to.db() {
            return;
        }
        let dropped = self.named(to);
        if let Some(dropped) = dropped {
            self.state.remove(&dropped);
        }
        if let Some(standing) = self.state.get_mut(&uuid) {
            standing.ns = to.clone();
        }
        self.changes.push(Change::Ddl(Ddl::Rename { from: from.clone(), to: to.clone(), uuid: Some(uuid), dropped }));
    }

    /// Inserts a document, or puts it in place of the one of its key.
    pub fn put(&mut self, ns: &Namespace, document: RawDocumentBuf) {
        let Some(key) = DocumentKey::of(&document) else { return };
        let Some(there) = self.shelf(ns).map(|shelf| shelf.put(document.clone())) else { return };
        let op = if there { WriteOp::Replace(document) } else { WriteOp::Insert(document) };
        self.wrote(ns, key, op);
    }

    /// Applies a raw diff, `{d: …, u: …, i: …}`.
    pub fn diff(&mut self, ns: &Namespace, id: Element<'_>, diff: &RawDocument) {
        let diff = rawdoc! {"$v": 2, "diff": raw::owned(diff)};
        let Some((key, shelf)) = self.shelf(ns).and_then(|shelf| Some((DocumentKey::of(shelf.get(id)?)?, shelf))) else { return };
        shelf.diff(id, &diff);
        self.wrote(ns, key, WriteOp::Diff(diff));
    }

    /// Removes a document.
    pub fn delete(&mut self, ns: &Namespace, id: Element<'_>) {
        let Some((key, shelf)) = self.shelf(ns).and_then(|shelf| Some((DocumentKey::of(shelf.get(id)?)?, shelf))) else { return };
        shelf.remove(id);
        self.wrote(ns, key, WriteOp::Delete);
    }

    fn shelf(&mut self, ns: &Namespace) -> Option<&mut Shelf> {
        let uuid = self.named(ns)?;
        Some(Arc::make_mut(&mut self.state.get_mut(&uuid)?.documents))
    }

    fn wrote(&mut self, ns: &Namespace, key: DocumentKey, op: WriteOp) {
        self.changes.push(Change::Write(Write { ns: ns.clone(), uuid: self.named(ns), key, twins: false, op }));
    }
}
