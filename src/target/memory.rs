//! The target in memory, with faults. For simulation.
//!
//! As strict as the server: a write to a name that stands for another collection is refused.

use super::{ANOTHER_COLLECTION, Applied, IndexChange, Inserted, Statement, Target, TargetCollection};
use crate::{
    error::{Error, Result},
    model::{Batch, CollectionInfo, CollectionKind, CollectionUuid, DocumentKey, IndexSpec, Namespace, Side, raw, shelf::Shelf},
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
    /// A structural change is asked for and never answered, and is carried out at some later time: for runs that are killed.
    pub late: f64,
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
    /// See [`TargetFaults::late`].
    late: Vec<Late>,
}

/// A structural change to be carried out.
#[derive(Debug, Clone)]
enum Late {
    Drop(Namespace, Option<CollectionUuid>),
    Rename(TargetCollection, Namespace),
}

/// The chance that a call meets what is late.
const LATENESS: f64 = 0.1;

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct MemoryTarget(Arc<Mutex<World>>);

impl MemoryTarget {
    /// Empty.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (collections, rng) = (BTreeMap::new(), StdRng::seed_from_u64(seed));
        Self(Arc::new(Mutex::new(World { collections, made: 1 << 64, rng, faults: TargetFaults::default(), late: Vec::new() })))
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

    /// Leaves a structural change for later, and its caller without an answer, where the faults say so.
    async fn maybe_late(&self, change: impl FnOnce() -> Late) {
        let late = self.with(|w| {
            let late = w.rng.random_bool(w.faults.late);
            if late {
                w.late.push(change());
            }
            late
        });
        if late {
            std::future::pending::<()>().await;
        }
    }

    async fn slow(&self) {
        let turns = self.with(|w| {
            if !w.late.is_empty() && w.rng.random_bool(LATENESS) {
                w.catch_up();
            }
            w.rng.random_range(0..=w.faults.slow)
        });
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
                code: ANOTHER_COLLECTION,
                source: "the collection is not the one that mongoferry made".into(),
            }),
        }
    }

    fn drop_collection(&mut self, ns: &Namespace, uuid: Option<CollectionUuid>) {
        if self.collections.get(ns).is_some_and(|there| uuid.is_none_or(|uuid| there.uuid == uuid)) {
            self.collections.remove(ns);
        }
    }

    fn rename(&mut self, from: &TargetCollection, to: &Namespace) -> Result<()> {
        self.shelf(from)?;
        if self.collections.contains_key(to) {
            let doing = format!("renaming `{}`", from.ns);
            return Err(Error::Refused { side: Side::Target, doing, code: 0, source: "the new name is taken".into() });
        }
        let Some(mut stored) = self.collections.remove(&from.ns) else { return Ok(()) };
        if from.ns.db() != to.db() {
            self.made += 1;
            stored.uuid = CollectionUuid(self.made.to_be_bytes());
        }
        self.collections.insert(to.clone(), stored);
        Ok(())
    }

    /// Nobody waits for the answers.
    fn catch_up(&mut self) {
        for change in std::mem::take(&mut self.late) {
            match change {
                Late::Drop(ns, uuid) => self.drop_collection(&ns, uuid),
                Late::Rename(from, to) => drop(self.rename(&from, &to)),
            }
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

    async fn insert(&self, to: &TargetCollection, batch: &Batch) -> Result<Inserted> {
        let mut total = Inserted::default();
        let documents: Vec<_> = batch.documents().collect();
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

    async fn drop_collection(&self, ns: &Namespace, uuid: Option<CollectionUuid>) -> Result<()> {
        self.maybe_late(|| Late::Drop(ns.clone(), uuid)).await;
        self.step("dropping", |w| w.drop_collection(ns, uuid)).await
    }

    async fn rename(&self, from: &TargetCollection, to: &Namespace) -> Result<()> {
        self.maybe_late(|| Late::Rename(from.clone(), to.clone())).await;
        self.steps("renaming", [()], |w, ()| w.rename(from, to)).await
    }

    /// Options are kept as they were.
    async fn modify(&self, _ns: &Namespace, _uuid: Option<CollectionUuid>, _options: &RawDocument) -> Result<()> {
        self.step("changing options", |_| ()).await
    }

    async fn indexes(&self, ns: &Namespace) -> Result<Vec<IndexSpec>> {
        self.slow().await;
        Ok(self.with(|w| w.collections.get(ns).map(|c| c.indexes.clone()).unwrap_or_default()))
    }

    async fn create_indexes(&self, of: &TargetCollection, specs: &[IndexSpec]) -> Result<()> {
        self.steps("building indexes", specs, |w, spec| {
            w.shelf(of)?;
            if let Some(stored) = w.collections.get_mut(&of.ns) {
                stored.indexes.retain(|there| there.name() != spec.name());
                stored.indexes.push(spec.clone());
            }
            Ok(())
        })
        .await
    }

    async fn drop_index(&self, of: &TargetCollection, name: &str) -> Result<()> {
        self.step("dropping an index", |w| {
            if let Some(stored) = w.collections.get_mut(&of.ns).filter(|there| there.uuid == of.uuid) {
                stored.indexes.retain(|there| there.name() != name);
            }
        })
        .await
    }

    /// Indexes are kept as they were built.
    async fn build_progress(&self, _ns: &Namespace) -> Result<Option<f64>> {
        Ok(None)
    }

    async fn abort_build(&self, _of: &TargetCollection, _names: &[String]) -> Result<()> {
        Ok(())
    }

    async fn change_index(&self, _of: &TargetCollection, _name: &str, _change: &IndexChange) -> Result<()> {
        self.step("changing an index", |_| ()).await
    }
}
