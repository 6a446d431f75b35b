//! What downstream was told of structure, and what a look adds to it. Pure.

use super::{
    changes,
    eyes::{Look, Seen},
};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, CollectionInfo, CollectionKind, CollectionUuid, Ddl, IndexSpec, Namespace, Selection},
};
use bson::RawDocumentBuf;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the catalog has when a stream is opened: collections and views with their indexes.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What is replicated.
    pub selection: Selection,
    /// Everything that lives.
    pub living: Vec<Living>,
}

/// A collection or view of the catalog.
#[derive(Debug, Clone)]
pub struct Living {
    /// As the source had it.
    pub info: CollectionInfo,
    /// Its indexes.
    pub indexes: Vec<IndexSpec>,
    /// Creation and renames up to this time are reflected. A replay may tell of older ones.
    pub known_at: ClusterTime,
}

#[derive(Debug)]
struct Held {
    ns: Namespace,
    /// Since when it has that name.
    known_at: ClusterTime,
    options: RawDocumentBuf,
    indexes: BTreeMap<String, IndexSpec>,
    /// The stream told of it when so many looks had begun; earlier looks may be older than that.
    since: u64,
    /// Looks in a row that did not see it.
    missed: u32,
}

impl Held {
    fn new(ns: Namespace, known_at: ClusterTime, options: RawDocumentBuf) -> Self {
        Self { ns, known_at, options, indexes: BTreeMap::new(), since: 0, missed: 0 }
    }
}

/// See the module. `u64`s are numbers of looks.
#[derive(Debug, Default)]
pub(super) struct Told {
    held: HashMap<CollectionUuid, Held>,
    /// With the time since when they are known.
    views: BTreeMap<Namespace, (RawDocumentBuf, ClusterTime)>,
    /// Gone for ever, and since when: kept until no look and no event can show them.
    gone: HashMap<CollectionUuid, u64>,
    /// Names that collections took or views lost, and since when.
    names: HashMap<Namespace, u64>,
    looks: u64,
    /// Whether the look that is being believed could not tell all: what it left out, the next will tell.
    left_out: bool,
}

impl Told {
    pub(super) fn new(known: &Known) -> Self {
        let mut told = Self::default();
        for Living { info, indexes, known_at } in &known.living {
            match info.uuid {
                Some(uuid) if info.kind == CollectionKind::Collection => {
                    let held = Held::new(info.ns.clone(), *known_at, info.options.clone());
                    told.held.insert(uuid, Held { indexes: by_name(indexes), ..held });
                }
                _ => drop(told.views.insert(info.ns.clone(), (info.options.clone(), *known_at))),
            }
        }
        told
    }

    /// A look begins; gives its number.
    pub(super) fn begin_look(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }

    /// A look was believed: what the stream told before it began cannot contradict the next. Says whether it told all.
    pub(super) fn end_look(&mut self, number: u64) -> bool {
        self.gone.retain(|_, since| *since >= number);
        self.names.retain(|_, since| *since >= number);
        !std::mem::take(&mut self.left_out)
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

    /// Whether the stream told of a name since a look began.
    fn newer(&self, ns: &Namespace, look: &Look) -> bool {
        self.names.get(ns).is_some_and(|since| *since >= look.number)
    }

    fn named(&self, ns: &Namespace) -> bool {
        self.held.values().any(|held| held.ns == *ns)
    }

    /// Who had a name before something happened to it. One that is known to have lived later does not count.
    pub(super) fn had(&self, ns: &Namespace, time: ClusterTime) -> Option<CollectionUuid> {
        self.held.iter().find(|(_, held)| held.ns == *ns && held.known_at < time).map(|(uuid, _)| *uuid)
    }

    /// It is dropped, or no longer selected.
    pub(super) fn gone(&mut self, uuid: CollectionUuid) {
        self.held.remove(&uuid);
        self.gone.insert(uuid, self.looks);
    }

    /// It was created. Its indexes come with the next look.
    pub(super) fn hold(&mut self, uuid: CollectionUuid, ns: Namespace, at: ClusterTime, options: RawDocumentBuf) {
        self.gone.remove(&uuid);
        self.held.insert(uuid, Held { since: self.looks, ..Held::new(ns, at, options) });
    }

    /// It has another name; `None`: one that is not selected. Also for one that came into the selection by its new name.
    pub(super) fn rename(&mut self, uuid: CollectionUuid, to: Option<&Namespace>, at: ClusterTime) {
        match (self.held.get_mut(&uuid), to) {
            (Some(held), _) if held.known_at >= at => {}
            (Some(held), Some(to)) => (held.ns, held.known_at) = (to.clone(), at),
            (None, Some(to)) => self.hold(uuid, to.clone(), at, RawDocumentBuf::new()),
            (_, None) => self.gone(uuid),
        }
    }

    /// A collection took a name. What had it may never have been told.
    pub(super) fn taken(&mut self, ns: &Namespace) {
        self.names.insert(ns.clone(), self.looks);
    }

    /// Downstream is told that a name is no view's at this time; whether it takes it for one. It does not listen where it
    /// knows of a later one: a replay.
    pub(super) fn forget_view(&mut self, ns: &Namespace, at: ClusterTime) -> bool {
        let told = self.views.get(ns).is_some_and(|(_, known_at)| *known_at <= at);
        if told {
            self.views.remove(ns);
        }
        self.taken(ns);
        told
    }

    /// A database was dropped, and its views with it.
    pub(super) fn forget_views_of(&mut self, db: &str, at: ClusterTime) {
        let of_db: Vec<Namespace> = self.views.keys().filter(|ns| ns.db() == db).cloned().collect();
        for ns in of_db {
            self.forget_view(&ns, at);
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
    /// [`Error::Unsupported`] for a new collection with documents that no event told of, unless it is capped.
    pub(super) fn collections(&mut self, look: &Look, news: &mut Vec<Ddl>) -> Result<()> {
        // What a command makes for its own length has its events, or its rename.
        let lasting = |s: &&Seen| s.info.kind == CollectionKind::Collection && !s.info.ns.is_temporary();
        for seen in look.seen.iter().filter(lasting) {
            let Some(uuid) = seen.info.uuid.filter(|uuid| !self.gone.contains_key(uuid)) else { continue };
            if !self.held.contains_key(&uuid) {
                // Somebody else has or had the name since; the next look will see it.
                if self.newer(&seen.info.ns, look) || self.named(&seen.info.ns) || self.views.contains_key(&seen.info.ns) {
                    self.left_out = true;
                    continue;
                }
                // A capped one is filled from the source by whoever hears of its creation.
                if seen.documents && !seen.info.is_capped() {
                    return Err(hidden(&seen.info.ns));
                }
                let options = seen.info.options.clone();
                news.push(Ddl::Create { ns: seen.info.ns.clone(), uuid: Some(uuid), options: options.clone() });
                self.held.insert(uuid, Held::new(seen.info.ns.clone(), look.until, options));
            }
            let Some(held) = self.held.get_mut(&uuid).filter(|held| held.since < look.number) else {
                self.left_out = true;
                continue;
            };
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
            match self.views.get(ns).map(|(told, _)| changes::view(told, options)) {
                // A collection took the name behind the look, or the stream told of the name since.
                None if self.newer(ns, look) || self.named(ns) => {
                    self.left_out = true;
                    continue;
                }
                None => news.push(Ddl::Create { ns: ns.clone(), uuid: None, options: options.clone() }),
                Some(Ok(None)) => continue,
                Some(Ok(Some(change))) => news.push(Ddl::Modify { ns: ns.clone(), uuid: None, options: change }),
                // Another one: it is made by the next look, behind the drop.
                Some(Err(())) => {
                    self.views.remove(ns);
                    news.push(Ddl::Drop { ns: ns.clone(), uuid: None });
                    self.left_out = true;
                    continue;
                }
            }
            self.views.insert(ns.clone(), (options.clone(), look.until));
        }
    }
}

fn by_name(specs: &[IndexSpec]) -> BTreeMap<String, IndexSpec> {
    specs.iter().filter(|s| !s.is_id()).map(|s| (s.name().to_owned(), s.clone())).collect()
}

fn hidden(ns: &Namespace) -> Error {
    Error::Unsupported {
        what: "a collection whose documents came without events".into(),
        ns: Some(ns.to_string()),
        hint: "exclude the collection, or copy again: `mongoferry run --restart-from-scratch --drop-target-namespaces`".into(),
    }
}
