//! The target in memory, with faults. For simulation.
//!
//! As strict as the server: a write to a name that stands for another collection is refused.

use super::{Applied, IndexChange, Inserted, Statement, Target, TargetCollection};
use crate::{
    error::{Error, Result},
    model::{CollectionInfo, CollectionKind, CollectionUuid, DocumentKey, IndexSpec, Namespace, Side, raw, shelf::Shelf},
};
use bson::{RawDocument, RawDocumentBuf};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What goes wrong, each with its chance for one call.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TargetFaults {
    /// The call fails, and nothing was done.
    pub refuse: f64,
    /// Some of it, or all, was done; then it fails.
    pub write_then_fail: f64,
    /// As `write_then_fail`, for inserts of the copy.
    pub insert_then_fail: f64,
    /// A diff is refused for its shape.
    pub shape: f64,
    /// Turns that any call waits, at most.
    pub slow: u32,
}

/// A collection as it stands on the target.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its identity.
    pub uuid: CollectionUuid,
    /// As it was created.
    pub options: RawDocumentBuf,
    /// Its documents.
    pub documents: Shelf,
    /// Its indexes, `_id_` left out.
    pub indexes: Vec<IndexSpec>,
}

#[derive(Debug)]
struct World {
    collections: BTreeMap<Namespace, Stored>,
    made: u128,
    rng: StdRng,
    faults: TargetFaults,
}

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct MemoryTarget(Arc<Mutex<World>>);

impl MemoryTarget {
    /// Empty.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (collections, rng) = (BTreeMap::new(), StdRng::seed_from_u64(seed));
        Self(Arc::new(Mutex::new(World { collections, made: 1 << 64, rng, faults: TargetFaults::default() })))
    }

    fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on.
    pub fn set_faults(&self, faults: TargetFaults) {
        self.with(|w| w.faults = faults);
    }

    /// All there is.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Namespace, Stored> {
        self.with(|w| w.collections.clone())
    }

    async fn slow(&self) {
        let turns = self.with(|w| w.rng.random_range(0..=w.faults.slow));
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Does the steps of a call one by one, and fails where the faults say so.
    async fn steps<T>(
        &self,
        doing: &str,
        steps: impl IntoIterator<Item = T>,
        mut step: impl FnMut(&mut World, T) -> Result<()>,
    ) -> Result<()> {
        let steps: Vec<T> = steps.into_iter().collect();
        self.slow().await;
        let fails_after = self.with(|w| {
            if w.rng.random_bool(w.faults.refuse) {
                Some(0)
            } else {
                w.rng.random_bool(w.faults.write_then_fail).then(|| w.rng.random_range(0..=steps.len()))
            }
        });
        let count = steps.len();
        for (n, each) in steps.into_iter().enumerate() {
            if fails_after == Some(n) {
                return Err(fault(doing));
            }
            self.with(|w| step(w, each))?;
            if n % 4 == 3 {
                self.slow().await;
            }
        }
        if fails_after == Some(count) { Err(fault(doing)) } else { Ok(()) }
    }

    /// One step.
    async fn step<R>(&self, doing: &str, step: impl FnOnce(&mut World) -> R) -> Result<R> {
        let (mut step, mut given) = (Some(step), None);
        self.steps(doing, [()], |w, ()| {
            given = step.take().map(|step| step(w));
            Ok(())
        })
        .await?;
        given.ok_or_else(|| Error::Bug("a step was not taken".into()))
    }
}

fn fault(doing: &str) -> Error {
    Error::Unreachable {
        side: Side::Target,
        doing: doing.to_owned(),
        why: crate::error::Trouble::Network,
        source: "a fault of the simulation".into(),
    }
}

impl World {
    fn shelf(&mut self, to: &TargetCollection) -> Result<&mut Shelf> {
        match self.collections.get_mut(&to.ns) {
            Some(there) if there.uuid == to.uuid => Ok(&mut there.documents),
            _ => Err(Error::Refused {
                side: Side::Target,
                doing: format!("writing to `{}`", to.ns),
                code: 361,
                source: "the collection is not the one that mongoferry made".into(),
            }),
        }
    }

    fn info(ns: &Namespace, stored: &Stored) -> CollectionInfo {
        CollectionInfo { ns: ns.clone(), uuid: Some(stored.uuid), kind: CollectionKind::Collection, options: stored.options.clone() }
    }
}

fn key(doc: &RawDocument) -> Result<DocumentKey> {
    DocumentKey::of(doc).ok_or_else(|| Error::Bug("a document without `_id`".into()))
}

impl Target for MemoryTarget {
    fn within(&self, _deadline: std::time::Duration) -> Self {
        self.clone()
    }

    async fn insert(&self, to: &TargetCollection, documents: &RawDocument) -> Result<Inserted> {
        let mut total = Inserted::default();
        let documents: Vec<_> = raw::elements(documents).filter_map(|e| e.document()).collect();
        let fails = self.with(|w| w.rng.random_bool(w.faults.insert_then_fail));
        self.steps("inserting", documents, |w, doc| {
            let shelf = w.shelf(to)?;
            if shelf.get(key(doc)?.id()).is_some() {
                total.already_there += 1;
            } else {
                shelf.put(raw::owned(doc));
                total.inserted += 1;
            }
            Ok(())
        })
        .await?;
        if fails { Err(fault("inserting")) } else { Ok(total) }
    }

    async fn clear(&self, to: &TargetCollection) -> Result<()> {
        self.step("emptying", |w| w.shelf(to).map(|shelf| *shelf = Shelf::default())).await?
    }

    async fn apply(&self, to: &TargetCollection, statements: &[Statement<'_>]) -> Result<Applied> {
        let mut applied = Applied::default();
        let mut there = Vec::new();
        let numbered = || statements.iter().enumerate();
        self.steps("applying", statements.iter().filter(|s| matches!(s, Statement::Delete(_))), |w, statement| {
            w.shelf(to)?.remove(statement.key().id());
            Ok(())
        })
        .await?;
        self.steps("applying", numbered().filter(|(_, s)| matches!(s, Statement::Insert(..))), |w, (n, statement)| {
            if let Statement::Insert(key, doc) = statement {
                let shelf = w.shelf(to)?;
                if shelf.get(key.id()).is_some() {
                    there.push(n);
                } else {
                    shelf.put(raw::owned(doc));
                }
            }
            Ok(())
        })
        .await?;
        let updates = numbered().filter(|(_, s)| matches!(s, Statement::Put(..) | Statement::Diff(..)));
        let updates: Vec<_> = there.into_iter().map(|n| (n, &statements[n])).chain(updates).collect();
        self.steps("applying", updates, |w, (n, statement)| {
            let odd = matches!(statement, Statement::Diff(..)) && w.rng.random_bool(w.faults.shape);
            let shelf = w.shelf(to)?;
            match statement {
                Statement::Insert(_, doc) | Statement::Put(_, doc) => drop(shelf.put(raw::owned(doc))),
                Statement::Diff(..) if odd => applied.refused.push(n),
                Statement::Diff(key, diff) => applied.diff_missed |= !shelf.diff(key.id(), diff),
                Statement::Delete(_) => return Err(Error::Bug("a delete among updates".into())),
            }
            Ok(())
        })
        .await?;
        Ok(applied)
    }

    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        self.slow().await;
        Ok(self.with(|w| w.collections.iter().map(|(ns, stored)| World::info(ns, stored)).collect()))
    }

    async fn locate(&self, db: &str, uuid: CollectionUuid) -> Result<Option<Namespace>> {
        Ok(self.collections().await?.into_iter().find(|c| c.uuid == Some(uuid) && c.ns.db() == db).map(|c| c.ns))
    }

    async fn lookup(&self, ns: &Namespace) -> Result<Option<CollectionInfo>> {
        Ok(self.collections().await?.into_iter().find(|c| c.ns == *ns))
    }

    async fn holds_documents(&self, ns: &Namespace) -> Result<bool> {
        Ok(self.with(|w| w.collections.get(ns).is_some_and(|stored| !stored.documents.is_empty())))
    }

    async fn create(&self, ns: &Namespace, options: &RawDocument) -> Result<Option<CollectionUuid>> {
        let uuid = self.step("creating", |w| {
            w.made += 1;
            let fresh = Stored {
                uuid: CollectionUuid(w.made.to_be_bytes()),
                options: raw::owned(options),
                documents: Shelf::default(),
                indexes: Vec::new(),
            };
            w.collections.entry(ns.clone()).or_insert(fresh).uuid
        });
        uuid.await.map(Some)
    }

    async fn drop_collection(&self, ns: &Namespace) -> Result<()> {
        self.step("dropping", |w| drop(w.collections.remove(ns))).await
    }

    async fn rename(&self, from: &Namespace, to: &Namespace, over: bool) -> Result<()> {
        self.steps("renaming", [()], |w, ()| {
            let refused =
                |why: &str| Err(Error::Refused { side: Side::Target, doing: format!("renaming `{from}`"), code: 0, source: why.into() });
            if w.collections.contains_key(to) && !over {
                return refused("the new name is taken");
            }
            let Some(mut stored) = w.collections.remove(from) else { return refused("there is no such collection") };
            if from.db() != to.db() {
                w.made += 1;
                stored.uuid = CollectionUuid(w.made.to_be_bytes());
            }
            w.collections.insert(to.clone(), stored);
            Ok(())
        })
        .await
    }

    /// Options are kept as they were.
    async fn modify(&self, _ns: &Namespace, _options: &RawDocument) -> Result<()> {
        self.step("changing options", |_| ()).await
    }

    async fn indexes(&self, ns: &Namespace) -> Result<Vec<IndexSpec>> {
        self.slow().await;
        Ok(self.with(|w| w.collections.get(ns).map(|c| c.indexes.clone()).unwrap_or_default()))
    }

    async fn create_indexes(&self, ns: &Namespace, specs: &[IndexSpec]) -> Result<()> {
        self.steps("building indexes", specs, |w, spec| {
            if let Some(stored) = w.collections.get_mut(ns) {
                stored.indexes.retain(|there| there.name() != spec.name());
                stored.indexes.push(spec.clone());
            }
            Ok(())
        })
        .await
    }

    async fn drop_index(&self, ns: &Namespace, name: &str) -> Result<()> {
        self.step("dropping an index", |w| {
            if let Some(stored) = w.collections.get_mut(ns) {
                stored.indexes.retain(|there| there.name() != name);
            }
        })
        .await
    }

    /// Indexes are kept as they were built.
    async fn build_progress(&self, _ns: &Namespace) -> Result<Option<f64>> {
        Ok(None)
    }

    async fn abort_build(&self, _ns: &Namespace, _names: &[String]) -> Result<()> {
        Ok(())
    }

    async fn change_index(&self, _ns: &Namespace, _name: &str, _change: &IndexChange) -> Result<()> {
        self.step("changing an index", |_| ()).await
    }
}
