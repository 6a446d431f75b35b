//! The builder: compares what is wanted with what is there, and builds the rest.

use super::{park, same_when_parked};
use crate::{
    catalog::{Build, Catalog, Collection, State},
    error::{Error, Remedy, Result},
    model::{IndexSpec, Namespace},
    observe::Metrics,
    target::{IndexChange, Target, TargetCollection},
    tasks::{first_error, panicked},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// IndexOptionsConflict: the same keys and options under another name, which a unique and a plain index become
/// when parked. It is built at the seal, in its own form.
const OPTIONS_CONFLICT: i32 = 85;
/// IndexBuildAborted: by a structural change, ours or somebody's.
const BUILD_ABORTED: i32 = 276;

/// How often a build is asked how far it is.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Builds wanted indexes beside copy and tail.
#[derive(Debug, Clone)]
pub struct Builder<T> {
    /// Written to.
    pub target: T,
    /// What is wanted.
    pub catalog: Catalog,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Rung when something changed.
    pub changed: Arc<Notify>,
    /// Builds at the same time.
    pub builds: Arc<Semaphore>,
    /// Whether indexes come before the data.
    pub before_data: bool,
}

impl<T: Target> Builder<T> {
    /// Finds out what is there already: after a start nothing is known.
    ///
    /// # Errors
    /// As classified.
    pub async fn look(&self) -> Result<()> {
        for collection in self.catalog.living().into_iter().filter(|c| !c.entry().indexes.is_empty()) {
            // No structural change meanwhile.
            let _look = collection.builds.begin(Vec::new()).await;
            let Some(to) = collection.on_target() else { continue };
            let there = self.target.indexes(&to.ns).await?;
            {
                let mut entry = collection.entry_mut();
                entry.built.clear();
                entry.failed.clear();
            }
            for spec in there.into_iter().filter(|spec| collection.entry().indexes.contains_key(spec.name())) {
                self.note_built(&collection, &to, spec).await?;
            }
        }
        Ok(())
    }

    /// Builds until `stop` fires. Builds under way are waited for.
    ///
    /// # Errors
    /// Only such as concern the whole cluster; an index that cannot be built is noted in the catalog.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        self.look().await?;
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        let mut busy: BTreeSet<_> = BTreeSet::new();
        let (finished, mut endings) = tokio::sync::mpsc::unbounded_channel();
        while !stop.is_cancelled() {
            for collection in self.catalog.living() {
                let uuid = collection.uuid();
                if busy.contains(&uuid) || self.wanted(&collection).is_empty() {
                    continue;
                }
                busy.insert(uuid);
                let (builder, finished) = (self.clone(), finished.clone());
                tasks.spawn(async move {
                    let built = builder.build(&collection).await;
                    // Nobody listens any more when the builder is stopping.
                    let _ = finished.send(uuid);
                    built
                });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(uuid) = endings.recv() => { busy.remove(&uuid); }
                Some(ended) = tasks.join_next() => ended.unwrap_or_else(|panic| Err(panicked(&panic)))?,
                () = self.changed.notified() => {}
            }
        }
        first_error(tasks, &stop).await
    }

    /// Builds one collection's indexes and waits for them, as before its data comes.
    ///
    /// # Errors
    /// As [`Builder::run`].
    pub async fn build(&self, collection: &Arc<Collection>) -> Result<()> {
        let Ok(_place) = self.builds.acquire().await else { return Ok(()) };
        let mut specs = self.wanted(collection);
        let Some(to) = collection.on_target() else { return Ok(()) };
        self.leave_out(collection, &to, &mut specs).await?;
        if specs.is_empty() {
            return Ok(());
        }
        tracing::info!(ns = %to.ns, indexes = specs.len(), "building indexes");
        match self.attempt(collection, &specs).await? {
            // One of them is in the way of all: each for itself.
            Some(_) if specs.len() > 1 => {
                for spec in &specs {
                    if let Some(why) = self.attempt(collection, std::slice::from_ref(spec)).await? {
                        note_failed(collection, spec, &why);
                    }
                }
            }
            Some(why) => note_failed(collection, &specs[0], &why),
            None => {}
        }
        Ok(())
    }

    /// Builds these, or tells why that cannot be.
    async fn attempt(&self, collection: &Collection, specs: &[IndexSpec]) -> Result<Option<Error>> {
        match self.create(collection, specs).await {
            Ok(()) => Ok(None),
            // What is still wanted is built when the builder looks again.
            Err(error) if error.code() == Some(BUILD_ABORTED) => Ok(None),
            Err(error) if transient(&error) => Err(error),
            Err(error) => {
                // A structural change under way may have dropped the collection, and be about to say so.
                let _gate = collection.gate.read().await;
                Ok((collection.entry().state != State::Dropped).then_some(error))
            }
        }
    }

    /// What could not become unique at the seal is told now, not then.
    async fn leave_out(&self, collection: &Collection, to: &TargetCollection, specs: &mut Vec<IndexSpec>) -> Result<()> {
        let mut possible = Vec::with_capacity(specs.len());
        for spec in specs.drain(..) {
            if !spec.is("unique") || self.target.may_be_unique(to, &spec).await? {
                possible.push(spec);
                continue;
            }
            let error = Error::Unsupported {
                what: format!("a unique index (`{}`) whose keys do not begin with the shard key", spec.name()),
                ns: Some(to.ns.to_string()),
                hint: "hand over without it by `--waive-index`, or begin anew with another shard key".into(),
            };
            note_failed(collection, &spec, &error);
        }
        *specs = possible;
        Ok(())
    }

    /// Under the name that the collection has once no structural change is under way.
    async fn create(&self, collection: &Collection, specs: &[IndexSpec]) -> Result<()> {
        let build = collection.builds.begin(specs.iter().map(|spec| spec.name().to_owned()).collect()).await;
        let _counted = self.metrics.index_build();
        let Some(to) = collection.on_target() else { return Ok(()) };
        let parked: Vec<IndexSpec> = specs.iter().map(park).collect();
        tokio::select! {
            biased;
            built = self.target.create_indexes(&to, &parked) => built?,
            () = self.watch(&build, &to.ns) => {}
        }
        for spec in specs {
            self.note_built(collection, &to, spec.clone()).await?;
        }
        Ok(())
    }

    /// Asks how far a build is, for as long as it is waited for. No answer is no failure: the build itself will tell.
    async fn watch(&self, build: &Build<'_>, ns: &Namespace) {
        let mut tick = tokio::time::interval(WATCH_EVERY);
        loop {
            tick.tick().await;
            if let Ok(Some(progress)) = self.target.build_progress(ns).await {
                build.progress(progress);
            }
        }
    }

    /// Takes note of an index that is on the target as `made`. One that was dropped meanwhile, perhaps to be made
    /// otherwise, goes: its drop may have come before it. One that was hidden or shown meanwhile is changed: to build it
    /// again is no answer, since the server takes both for the same index (RAN on 6.0.5).
    ///
    /// While the build still counts as under way: no structural change comes between, and who ended the build finds that it is
    /// no longer built.
    async fn note_built(&self, collection: &Collection, to: &TargetCollection, mut made: IndexSpec) -> Result<()> {
        loop {
            let wanted = {
                let mut entry = collection.entry_mut();
                let wanted = entry.indexes.get(made.name()).filter(|wanted| same_but_hidden(wanted, &made)).cloned();
                if wanted.as_ref().is_some_and(|wanted| wanted.is("hidden") == made.is("hidden")) {
                    entry.built.insert(made.name().to_owned());
                    return Ok(());
                }
                wanted
            };
            let Some(wanted) = wanted else { return self.target.drop_index(to, made.name()).await };
            self.target.change_index(to, wanted.name(), &IndexChange::Hidden(wanted.is("hidden"))).await?;
            made = wanted;
        }
    }

    fn wanted(&self, collection: &Collection) -> Vec<IndexSpec> {
        let entry = collection.entry();
        let ready = entry.state == State::Complete || (self.before_data && entry.state == State::Copying);
        if !ready || entry.target_uuid.is_none() {
            return Vec::new();
        }
        entry.missing_indexes().into_iter().filter(|spec| !entry.failed.contains_key(spec.name())).collect()
    }
}

fn transient(error: &Error) -> bool {
    matches!(error.remedy(), Remedy::Retry | Remedy::Nothing)
}

fn same_but_hidden(a: &IndexSpec, b: &IndexSpec) -> bool {
    same_when_parked(&a.without(&["hidden"]), &b.without(&["hidden"]))
}

fn note_failed(collection: &Collection, spec: &IndexSpec, error: &Error) {
    let mut entry = collection.entry_mut();
    if entry.indexes.get(spec.name()) != Some(spec) {
        return;
    }
    if error.code() == Some(OPTIONS_CONFLICT) {
        entry.built.insert(spec.name().to_owned());
        return;
    }
    tracing::warn!(ns = %entry.ns, index = spec.name(), error = error.story(), "an index cannot be built");
    entry.failed.insert(spec.name().to_owned(), error.story());
}
