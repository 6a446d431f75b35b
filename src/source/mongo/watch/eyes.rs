//! Looking at the source's catalog.

use super::super::{super::CollectionRef, identity::Identity};
use crate::{
    error::Result,
    model::{ClusterTime, CollectionInfo, CollectionKind, CollectionUuid, IndexSpec, Selection, raw},
    mongo::{Cluster, CursorOptions, listing},
};
use bson::{Binary, RawDocumentBuf, rawdoc, spec::BinarySubtype};
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;

/// How long one look may spend on indexes; the next goes on with the collections behind.
const INDEX_TIME: Duration = Duration::from_millis(200);

/// NamespaceNotFound.
const NAMESPACE_NOT_FOUND: i32 = 26;

/// What a look saw. Each part of it was true at some time between `from` and `until`.
#[derive(Debug, Default)]
pub struct Look {
    /// Looks are numbered, in the order in which they began.
    pub number: u64,
    /// Operation time of the source before anything was asked for.
    pub from: ClusterTime,
    /// Operation time of the source when everything was answered.
    pub until: ClusterTime,
    /// Whether the indexes of all collections were looked at.
    pub whole: bool,
    /// Everything that is selected.
    pub seen: Vec<Seen>,
}

/// One collection or view.
#[derive(Debug)]
pub struct Seen {
    /// As it was listed.
    pub info: CollectionInfo,
    /// `None` where they were not looked at this time.
    pub indexes: Option<Vec<IndexSpec>>,
    /// Whether it held a document; only looked at where it was not known before.
    pub documents: bool,
}

/// Looking, as the watch needs it.
pub trait Sight: Send {
    /// Where a collection is by now; `None` once it is gone.
    fn find(&self, db: &str, uuid: CollectionUuid) -> impl Future<Output = Result<Option<CollectionInfo>>> + Send;
    /// Looks at everything that is selected; `whole`: at the indexes of all of it, however long that takes. What is not
    /// `known` is looked at for documents.
    fn look(
        &mut self,
        number: u64,
        selection: &Selection,
        known: &HashSet<CollectionUuid>,
        whole: bool,
    ) -> impl Future<Output = Result<Look>> + Send;
}

/// Looks at a cluster. The collections asked for indexes move on from look to look.
#[derive(Debug)]
pub struct Eyes {
    cluster: Cluster,
    /// The last collection whose indexes were looked at; the next look begins behind it.
    after: Option<CollectionUuid>,
}

impl Eyes {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, after: None }
    }

    /// Says whether it came round to all.
    async fn indexes(&mut self, seen: &mut [Seen], whole: bool) -> Result<bool> {
        let mut turn: Vec<&mut Seen> = seen.iter_mut().filter(|s| s.info.kind == CollectionKind::Collection).collect();
        turn.sort_by_key(|s| s.info.uuid);
        let first = turn.iter().position(|s| s.info.uuid > self.after).unwrap_or(0);
        turn.rotate_left(first);
        let started = Instant::now();
        for one in turn {
            if !whole && started.elapsed() > INDEX_TIME {
                return Ok(false);
            }
            one.indexes = self.listed(&one.info, "listIndexes", "listing the indexes").await?.map(listing::built);
            self.after = one.info.uuid;
        }
        Ok(true)
    }

    async fn holds_documents(&self, info: &CollectionInfo) -> Result<bool> {
        Ok(self.listed(info, "find", "looking for documents").await?.is_some_and(|documents| !documents.is_empty()))
    }

    /// What a command on a collection answers, by its identity; `None` where it is gone.
    async fn listed(&self, info: &CollectionInfo, verb: &str, doing: &str) -> Result<Option<Vec<RawDocumentBuf>>> {
        let Some(uuid) = info.uuid else { return Ok(None) };
        let mut b = raw::Builder::default();
        Identity::Direct.begin(&mut b, verb, &CollectionRef { ns: info.ns.clone(), uuid });
        match verb {
            "find" => b.i32("limit", 1).begin("projection").i32("_id", 1).end(),
            _ => b.bool("includeBuildUUIDs", true),
        };
        let (command, doing) = (b.finish(), format!("{doing} of `{}`", info.ns));
        let open = || self.cluster.open(info.ns.db(), &doing, command.clone(), CursorOptions::default());
        match self.cluster.retry().run(|| async { listing::all(open().await?).await }).await {
            Ok(all) => Ok(Some(all)),
            Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Sight for Eyes {
    async fn find(&self, db: &str, uuid: CollectionUuid) -> Result<Option<CollectionInfo>> {
        let id = Binary { subtype: BinarySubtype::Uuid, bytes: uuid.0.to_vec() };
        Ok(listing::matching(&self.cluster, db, rawdoc! {"info.uuid": id}).await?.into_iter().next())
    }

    async fn look(&mut self, number: u64, selection: &Selection, known: &HashSet<CollectionUuid>, whole: bool) -> Result<Look> {
        let from = self.cluster.operation_time().await?;
        let listed = listing::collections(&self.cluster).await?.into_iter().filter(|info| selection.takes(&info.ns));
        let mut seen: Vec<Seen> = listed.map(|info| Seen { info, indexes: None, documents: false }).collect();
        for one in seen.iter_mut().filter(|s| s.info.kind == CollectionKind::Collection) {
            if one.info.uuid.is_some_and(|uuid| !known.contains(&uuid)) {
                one.documents = self.holds_documents(&one.info).await?;
            }
        }
        let whole = self.indexes(&mut seen, whole).await?;
        let until = self.cluster.operation_time().await?;
        Ok(Look { number, from, until, whole, seen })
    }
}
