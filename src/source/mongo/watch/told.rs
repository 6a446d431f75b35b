//! What downstream was told of structure, and what a look adds to it. Pure.

use super::{
    changes,
    eyes::{Look, Seen},
};
use crate::{
    error::{Error, Result},
    model::{CollectionInfo, CollectionKind, CollectionUuid, Ddl, IndexSpec, Namespace, Selection},
};
use bson::RawDocumentBuf;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the catalog has when a stream is opened: collections and views with their indexes.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What is replicated.
    pub selection: Selection,
    /// Everything that lives.
    pub living: Vec<(CollectionInfo, Vec<IndexSpec>)>,
}

#[derive(Debug)]
struct Held {
    ns: Namespace,
    options: RawDocumentBuf,
    indexes: BTreeMap<String, IndexSpec>,
    /// The stream told of it when so many looks had begun; earlier looks may be older than that.
    since: u64,
    /// Looks in a row that did not see it.
    missed: u32,
}

/// See the module. `u64`s are numbers of looks.
#[derive(Debug, Default)]
pub(super) struct Told {
    held: HashMap<CollectionUuid, Held>,
    views: BTreeMap<Namespace, RawDocumentBuf>,
    /// Gone for ever, and since when: kept until no look and no event can show them.
    gone: HashMap<CollectionUuid, u64>,
    /// Names whose view is gone, and since when.
    names: HashMap<Namespace, u64>,
    looks: u64,
}

impl Told {
    pub(super) fn new(known: &Known) -> Self {
        let mut told = Self::default();
        for (info, indexes) in &known.living {
            match info.uuid {
                Some(uuid) if info.kind == CollectionKind::Collection => {
                    let indexes = by_name(indexes);
                    told.held.insert(uuid, Held { ns: info.ns.clone(), options: info.options.clone(), indexes, since: 0, missed: 0 });
                }
                _ => drop(told.views.insert(info.ns.clone(), info.options.clone())),
            }
        }
        told
    }

    /// A look begins; gives its number.
    pub(super) fn begin_look(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }

    /// A look was believed: what the stream told before it began cannot contradict the next.
    pub(super) fn end_look(&mut self, number: u64) {
        self.gone.retain(|_, since| *since >= number);
        self.names.retain(|_, since| *since >= number);
    }

    pub(super) fn identities(&self) -> HashSet<CollectionUuid> {
        self.held.keys().copied().collect()
    }

    pub(super) fn holds(&self, uuid: CollectionUuid) -> bool {
        self.held.contains_key(&uuid)
    }

    pub(super) fn is_gone(&self, uuid: CollectionUuid) -> bool {
        self.gone.contains_key(&uuid)
    }

    /// Who has a name at the stream's position.
    pub(super) fn named(&self, ns: &Namespace) -> Option<CollectionUuid> {
        self.held.iter().find(|(_, held)| held.ns == *ns).map(|(uuid, _)| *uuid)
    }

    /// It is dropped, or no longer selected.
    pub(super) fn gone(&mut self, uuid: CollectionUuid) {
        self.held.remove(&uuid);
        self.gone.insert(uuid, self.looks);
    }

    /// It was created. Its indexes come with the next look.
    pub(super) fn hold(&mut self, uuid: CollectionUuid, ns: Namespace, options: RawDocumentBuf) {
        self.gone.remove(&uuid);
        self.held.insert(uuid, Held { ns, options, indexes: BTreeMap::new(), since: self.looks, missed: 0 });
    }

    /// It has another name. Also for one that came into the selection by its new name.
    pub(super) fn rename(&mut self, uuid: CollectionUuid, to: &Namespace) {
        match self.held.get_mut(&uuid) {
            Some(held) => held.ns = to.clone(),
            None => self.hold(uuid, to.clone(), RawDocumentBuf::new()),
        }
    }

    /// A name is no longer a view's; whether it was.
    pub(super) fn forget_view(&mut self, ns: &Namespace) -> bool {
        self.names.insert(ns.clone(), self.looks);
        self.views.remove(ns).is_some()
    }

    /// A database was dropped, and its views with it.
    pub(super) fn forget_views_of(&mut self, db: &str) {
        let of_db: Vec<Namespace> = self.views.keys().filter(|ns| ns.db() == db).cloned().collect();
        for ns in of_db {
            self.forget_view(&ns);
        }
    }

    /// Collections that two looks in a row did not see.
    pub(super) fn missed(&mut self, look: &Look) -> Vec<(CollectionUuid, Namespace)> {
        let seen: HashSet<CollectionUuid> = look.seen.iter().filter_map(|s| s.info.uuid).collect();
        let mut missed = Vec::new();
        for (uuid, held) in self.held.iter_mut().filter(|(_, held)| held.since < look.number) {
            held.missed = if seen.contains(uuid) { 0 } else { held.missed + 1 };
            if held.missed >= 2 {
                missed.push((*uuid, held.ns.clone()));
            }
        }
        missed
    }

    /// Views that are no more.
    pub(super) fn views_gone(&mut self, look: &Look, news: &mut Vec<Ddl>) {
        let seen: HashSet<&Namespace> = look.seen.iter().filter(|s| s.info.kind == CollectionKind::View).map(|s| &s.info.ns).collect();
        let gone: Vec<Namespace> = self.views.keys().filter(|ns| !seen.contains(ns)).cloned().collect();
        for ns in gone {
            self.views.remove(&ns);
            news.push(Ddl::Drop { ns, uuid: None });
        }
    }

    /// New collections, changed options, changed indexes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a new collection with documents that no event told of.
    pub(super) fn collections(&mut self, look: &Look, news: &mut Vec<Ddl>) -> Result<()> {
        // What a command makes for its own length has its events, or its rename.
        let lasting = |s: &&Seen| s.info.kind == CollectionKind::Collection && !s.info.ns.is_temporary();
        for seen in look.seen.iter().filter(lasting) {
            let Some(uuid) = seen.info.uuid.filter(|uuid| !self.gone.contains_key(uuid)) else { continue };
            if !self.held.contains_key(&uuid) {
                // Somebody else has the name by now, and the next look will see it.
                if self.named(&seen.info.ns).is_some() || self.views.contains_key(&seen.info.ns) {
                    continue;
                }
                if seen.documents {
                    return Err(hidden(&seen.info.ns));
                }
                let options = seen.info.options.clone();
                news.push(Ddl::Create { ns: seen.info.ns.clone(), uuid: Some(uuid), options: options.clone() });
                self.held.insert(uuid, Held { ns: seen.info.ns.clone(), options, indexes: BTreeMap::new(), since: 0, missed: 0 });
            }
            let Some(held) = self.held.get_mut(&uuid).filter(|held| held.since < look.number) else { continue };
            if let Some(options) = changes::options(&held.options, &seen.info.options) {
                news.push(Ddl::Modify { ns: held.ns.clone(), uuid: Some(uuid), options });
            }
            held.options.clone_from(&seen.info.options);
            if let Some(indexes) = &seen.indexes {
                news.extend(changes::indexes(&held.ns, uuid, &held.indexes, indexes));
                held.indexes = by_name(indexes);
            }
        }
        Ok(())
    }

    /// New and changed views.
    pub(super) fn views(&mut self, look: &Look, news: &mut Vec<Ddl>) {
        for seen in look.seen.iter().filter(|s| s.info.kind == CollectionKind::View) {
            let (ns, options) = (&seen.info.ns, &seen.info.options);
            match self.views.get(ns).map(|told| changes::view(told, options)) {
                // A collection took the name behind the look, or the stream told of the name since.
                None if self.names.get(ns).is_some_and(|since| *since >= look.number) || self.named(ns).is_some() => continue,
                None => news.push(Ddl::Create { ns: ns.clone(), uuid: None, options: options.clone() }),
                Some(Ok(None)) => continue,
                Some(Ok(Some(change))) => news.push(Ddl::Modify { ns: ns.clone(), uuid: None, options: change }),
                // Another one: it is made by the next look, behind the drop.
                Some(Err(())) => {
                    self.views.remove(ns);
                    news.push(Ddl::Drop { ns: ns.clone(), uuid: None });
                    continue;
                }
            }
            self.views.insert(ns.clone(), options.clone());
        }
    }
}

fn by_name(specs: &[IndexSpec]) -> BTreeMap<String, IndexSpec> {
    specs.iter().filter(|s| !s.is_id()).map(|s| (s.name().to_owned(), s.clone())).collect()
}

fn hidden(ns: &Namespace) -> Error {
    Error::Unsupported {
        what: "documents that the change stream does not show, as those of `cloneCollectionAsCapped`,".into(),
        ns: Some(ns.to_string()),
        hint: "exclude the collection, or copy again: `mongoferry run --restart-from-scratch --drop-target-namespaces`".into(),
    }
}
