//! Mends what a verification found: documents through the tail's own lanes, structure where it can be made anew. What cannot
//! be mended is told with its remedy.

use super::{board::Board, connect::Clusters};
use crate::{
    catalog::{Collection, State},
    error::{Error, Result},
    model::{CollectionInfo, CollectionKind, Namespace, UnfinishedIndex, index_title, raw},
    race::Reread,
    source::Source,
    target::{Target, make},
    verify::{Difference, DifferenceKind},
};
use bson::{RawDocument, RawDocumentBuf};
use serde::Serialize;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Documents on their way to the lanes at once.
const AT_ONCE: usize = 500;
/// How often an index build is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Options of a collection that a `collMod` changes.
const CHANGEABLE: [&str; 3] = ["validator", "validationLevel", "validationAction"];

/// The way to the work of the latest start.
#[derive(Debug, Clone)]
pub(super) struct Hands {
    pub rereads: mpsc::Sender<Reread>,
    pub indexes_changed: Arc<Notify>,
}

/// What was done about a difference.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Repair {
    #[serde(flatten)]
    pub difference: Difference,
    /// `attempted`, or `left`; by whom it is seen equal afterwards becomes `mended`.
    pub outcome: &'static str,
    /// What was done, or what somebody has to do.
    pub what: String,
    /// Whether it had been mended before: somebody else writes to the target.
    pub came_back: bool,
}

/// Everything that mending needs.
pub(super) struct Mending<'a> {
    pub board: &'a Board,
    pub clusters: &'a Clusters,
    pub hands: Hands,
    pub stop: &'a CancellationToken,
}

/// What is to be done about one.
enum Way {
    /// Read again in its lane.
    Document(Arc<Collection>),
    Index(Arc<Collection>),
    Options(Arc<Collection>),
    Leave(&'static str),
}

impl Mending<'_> {
    /// Mends what can be mended.
    ///
    /// # Errors
    /// As classified; [`Error::Interrupted`] where the tail ended meanwhile.
    pub(super) async fn mend(&self, differences: Vec<Difference>) -> Result<Vec<Repair>> {
        let mended = self.board.findings.mended();
        let mut repairs = Vec::with_capacity(differences.len());
        let (done, mut told) = mpsc::channel(AT_ONCE);
        let at_least = self.clusters.source.operation_time().await?;
        let (mut waiting, mut indexes) = (0, BTreeSet::new());
        for difference in differences {
            let came_back = mended.knows(&difference);
            let (outcome, what) = match self.way(&difference) {
                Way::Leave(remedy) => ("left", remedy.to_owned()),
                Way::Document(collection) => {
                    let Some(key) = difference.key.clone() else { continue };
                    while waiting >= AT_ONCE {
                        self.hear(&mut told, &mut waiting).await?;
                    }
                    let reread = Reread { collection, key, at_least, done: done.clone() };
                    self.hands.rereads.send(reread).await.map_err(|_| Error::Interrupted)?;
                    waiting += 1;
                    ("attempted", "read from the source again, in the document's lane".to_owned())
                }
                Way::Index(collection) => self.index(&collection, &difference, &mut indexes).await?,
                Way::Options(collection) => self.options(&collection, &difference).await?,
            };
            repairs.push(Repair { difference, outcome, what, came_back });
        }
        while waiting > 0 {
            self.hear(&mut told, &mut waiting).await?;
        }
        self.built(&indexes).await?;
        Ok(repairs)
    }

    async fn hear(&self, told: &mut mpsc::Receiver<()>, waiting: &mut usize) -> Result<()> {
        // We hold a sender ourselves: a tail that ends fires `stop`.
        self.stop.run_until_cancelled(told.recv()).await.flatten().ok_or(Error::Interrupted)?;
        *waiting -= 1;
        Ok(())
    }

    fn way(&self, d: &Difference) -> Way {
        let Some(collection) = self.board.catalog.named(&d.ns) else {
            return Way::Leave(match d.kind {
                DifferenceKind::CollectionExtra => "nobody replicates it: drop it on the target if nobody needs it",
                _ => "it is not known to the migration any more: verify again",
            });
        };
        let capped = collection.entry().capped;
        match d.kind {
            DifferenceKind::Missing if capped => Way::Leave(
                "a capped collection keeps the order of insertion, into which nothing can be put back: drop it on both sides, or copy anew",
            ),
            DifferenceKind::Missing | DifferenceKind::Extra | DifferenceKind::Different => Way::Document(collection),
            DifferenceKind::Index if d.part.as_deref() == Some("_id_") => {
                Way::Leave("the index of `_id` is made with its collection: copy anew with `--restart-from-scratch`")
            }
            DifferenceKind::Index => Way::Index(collection),
            DifferenceKind::Options => Way::Options(collection),
            DifferenceKind::CollectionMissing if collection.entry().is_view() => Way::Options(collection),
            DifferenceKind::CollectionMissing => Way::Leave("its documents are gone with it: copy anew with `--restart-from-scratch`"),
            DifferenceKind::Unsettled => Way::Leave("it changed at each look: verify again when it rests"),
            DifferenceKind::Sharding => Way::Leave("its detail tells the command"),
            DifferenceKind::CollectionExtra => Way::Leave("drop it on the target if nobody needs it"),
        }
    }

    /// Drops what is not as wanted, and lets the builder build what is wanted.
    async fn index(
        &self,
        collection: &Arc<Collection>,
        difference: &Difference,
        waited_for: &mut BTreeSet<String>,
    ) -> Result<(&'static str, String)> {
        let name = difference.part.clone().unwrap_or_default();
        // No build of it is under way, and none begins.
        let _no_builds = collection.builds.none().await;
        let Some(to) = collection.on_target() else { return Ok(("left", "the collection is gone".to_owned())) };
        self.clusters.target.drop_index(&to, &name).await?;
        let mut entry = collection.entry_mut();
        entry.built.remove(&name);
        entry.failed.remove(&name);
        if !entry.indexes.contains_key(&name) {
            return Ok(("attempted", "dropped on the target".to_owned()));
        }
        waited_for.insert(index_title(entry.ns.as_str(), &name));
        Ok(("attempted", "built anew".to_owned()))
    }

    /// Waits for the builder: until these are built, or cannot be.
    async fn built(&self, titles: &BTreeSet<String>) -> Result<()> {
        if titles.is_empty() {
            return Ok(());
        }
        self.hands.indexes_changed.notify_one();
        loop {
            let open = |index: &UnfinishedIndex| titles.contains(&index.title()) && index.state != "failed";
            if !self.board.catalog.unfinished_indexes().iter().any(open) {
                return Ok(());
            }
            let rest = self.stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
            rest.ok_or(Error::Interrupted)?;
        }
    }

    async fn options(&self, collection: &Arc<Collection>, difference: &Difference) -> Result<(&'static str, String)> {
        let (ns, target, target_uuid, state) = {
            let entry = collection.entry();
            (entry.ns.clone(), entry.target.clone(), entry.target_uuid, entry.state)
        };
        let listed = self.clusters.source.collections().await?.into_iter().find(|info| info.ns == ns);
        let Some(info) = listed.filter(|_| state != State::Dropped) else { return Ok(("left", "it is gone".to_owned())) };
        if info.kind == CollectionKind::View {
            return self.view(&info, &target).await;
        }
        let name = difference.part.as_deref().unwrap_or_default();
        if !CHANGEABLE.contains(&name) {
            return Ok(("left", "this option is set when a collection is made: copy anew with `--restart-from-scratch`".to_owned()));
        }
        self.clusters.target.modify(&target, target_uuid, &rules(&info.options)).await?;
        Ok(("attempted", "changed to what the source has".to_owned()))
    }

    /// A view holds no documents: it is made anew.
    async fn view(&self, info: &CollectionInfo, target: &Namespace) -> Result<(&'static str, String)> {
        if let Some(there) = self.clusters.target.lookup(target).await? {
            if there.kind != CollectionKind::View {
                return Ok(("left", "a collection has its name on the target: see whose it is".to_owned()));
            }
            self.clusters.target.drop_collection(target, None).await?;
        }
        make(&self.clusters.target, target, &info.options).await?;
        Ok(("attempted", "made anew".to_owned()))
    }
}

/// The rules for documents, with the defaults where there are none.
fn rules(options: &RawDocument) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    match raw::get(options, "validator") {
        Some(validator) => drop(b.element(validator)),
        None => drop(b.begin("validator").end()),
    }
    let text = |name, default| raw::get(options, name).and_then(|e| e.str()).unwrap_or(default).to_owned();
    b.str("validationLevel", &text("validationLevel", "strict")).str("validationAction", &text("validationAction", "error"));
    b.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn rules_are_given_whole() {
        let defaults = rawdoc! {"validator": {}, "validationLevel": "strict", "validationAction": "error"};
        assert_eq!(rules(&rawdoc! {"size": 1}), defaults);
        let own = rawdoc! {"validator": {"a": 1}, "validationLevel": "off", "validationAction": "warn"};
        assert_eq!(rules(&own), own);
    }
}
