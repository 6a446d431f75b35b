//! After a crash: what is saved of a collection may be one structural change behind what the target already went through.

use super::{Collection, Entry, State};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, CollectionUuid, Namespace, Side},
    source::Source,
    target::{Target, TargetCollection},
};
use std::collections::{BTreeMap, BTreeSet};

/// Brings entries up to the target: a structural change is made there first and saved here afterwards, and a crash may come in
/// between. The stream will replay the change, but before it come writes to the collection, which must find where it is now.
///
/// `living`: the collections that the source has. `now`: a source time that is not before any change already applied. A collection
/// that is gone on both sides counts as dropped at that time, so that it is remembered until no replay can ask for it. One that the
/// target's cluster has replaced itself is what it became.
///
/// # Errors
/// As the target's; [`Error::UnfitCluster`] for a collection that only the target has lost: somebody else dropped it.
pub async fn reconcile<T: Target>(target: &T, entries: &mut [Entry], living: &BTreeSet<CollectionUuid>, now: ClusterTime) -> Result<()> {
    let there: BTreeMap<CollectionUuid, Namespace> =
        target.collections().await?.into_iter().filter_map(|c| Some((c.uuid?, c.ns))).collect();
    let known: BTreeSet<CollectionUuid> = entries.iter().filter_map(|e| e.target_uuid).collect();
    for entry in entries.iter_mut().filter(|e| e.state != State::Dropped) {
        // A view has no identity, and no writes.
        let Some(uuid) = entry.target_uuid else { continue };
        let mut now_there = there.get(&uuid).map(|ns| (uuid, ns.clone()));
        if now_there.is_none() {
            let lost = TargetCollection { ns: entry.target.clone(), uuid };
            let successor = target.successor(&lost).await?.filter(|uuid| !known.contains(uuid));
            now_there = successor.map(|uuid| (uuid, lost.ns));
        }
        match now_there {
            Some((uuid, ns)) => (entry.target_uuid, entry.target) = (Some(uuid), ns),
            None if living.contains(&entry.uuid) => {
                return Err(Error::UnfitCluster {
                    side: Side::Target,
                    problem: format!("has lost `{}`, which mongoferry made there", entry.target),
                    hint: "somebody else dropped it: copy again with `mongoferry run --restart-from-scratch --drop-target-namespaces`"
                        .into(),
                });
            }
            None => {
                entry.state = State::Dropped;
                entry.known_at = entry.known_at.max(now);
            }
        }
    }
    Ok(())
}

impl Collection {
    /// As [`reconcile`] for one collection, when the target says that it is not where it was. What a process asked for before it
    /// died may still be carried out: a `drop` that waits for an index build comes after the next process has looked (RAN on 6.0.5).
    /// Not saved: every start looks again. Gives a source time that is not before what the target shows by it.
    ///
    /// # Errors
    /// As [`reconcile`], and as the source's.
    pub async fn relocate<S: Source, T: Target>(&self, source: &S, target: &T) -> Result<ClusterTime> {
        let living = source.collections().await?.iter().filter_map(|c| c.uuid).collect();
        let now = source.operation_time().await?;
        let mut found = [self.entry().clone()];
        reconcile(target, &mut found, &living, now).await?;
        let [Entry { target, target_uuid, state, known_at, .. }] = found;
        tracing::info!(ns = %self.entry().target, now = %target, state = state.label(), "looked again where a collection is");
        let mut entry = self.entry_mut();
        (entry.target, entry.target_uuid) = (target, target_uuid);
        // The copy may have ended it meanwhile.
        if state == State::Dropped {
            (entry.state, entry.known_at) = (state, known_at);
        }
        Ok(now)
    }
}
