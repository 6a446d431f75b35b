//! The real source through the driver: a replica set, or a sharded cluster behind its router.

mod catalog;
mod fence;
mod fetch;
mod identity;
mod large;
mod sample;
mod scan;
mod sharded;
mod stream;
mod swept;
mod token;
mod watch;

pub use scan::MongoScan;
pub use sharded::{ShardedStream, SnapshotScan};
pub use stream::MongoStream;
pub(crate) use stream::{Shows, probe as probe_stream};
pub use watch::{Asked, Known, Living, Watched};

use super::{CollectionRef, Estimate, EventBatch, EventStream, Fetched, Found, OplogWindow, Scan, ScanBatch, ScanRange, Source, StartAt};
use crate::{
    error::{Error, Result},
    model::{Bound, ClusterTime, CollectionInfo, CollectionUuid, Distributed, DocumentKey, IndexSpec, Namespace, Sharded},
    mongo::{Cluster, Topology, listing, sharding},
};
use fetch::ReadAt;
use identity::Identity;
use mongodb::options::{ReadPreference, SelectionCriteria};
use sharded::Members;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use swept::Swept;
use tokio::sync::OnceCell;

/// A source behind the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MongoSource {
    cluster: Cluster,
    read_preference: SelectionCriteria,
    /// Whether updates are asked for as raw diffs; otherwise updated documents are read again.
    raw_diffs: bool,
    /// Found at the first read.
    identity: Arc<OnceCell<Identity>>,
    /// Found at the first question that depends on it.
    topology: Arc<OnceCell<Topology>>,
    members: Arc<Members>,
    /// What a watch of the catalog begins with.
    known: Arc<Known>,
    asked: Arc<Asked>,
}

impl MongoSource {
    /// A source whose collections are read by `read_preference` (see [`crate::config::CopyConfig`]).
    ///
    /// # Errors
    /// The reason in words where it is none.
    pub fn new(cluster: Cluster, read_preference: &str) -> Result<Self, String> {
        let options = None;
        let preference = match read_preference {
            "primary" => ReadPreference::Primary,
            "primaryPreferred" => ReadPreference::PrimaryPreferred { options },
            "secondary" => ReadPreference::Secondary { options },
            "secondaryPreferred" => ReadPreference::SecondaryPreferred { options },
            "nearest" => ReadPreference::Nearest { options },
            _ => return Err("is none of primary, primaryPreferred, secondary, secondaryPreferred, nearest".into()),
        };
        Ok(Self {
            cluster,
            read_preference: SelectionCriteria::ReadPreference(preference),
            raw_diffs: true,
            identity: Arc::default(),
            topology: Arc::default(),
            members: Arc::default(),
            known: Arc::default(),
            asked: Arc::default(),
        })
    }

    /// The same through another connection or policy.
    #[must_use]
    pub fn with_cluster(&self, cluster: Cluster) -> Self {
        Self { cluster, ..self.clone() }
    }

    /// The same, with or without raw diffs.
    #[must_use]
    pub fn with_raw_diffs(self, raw_diffs: bool) -> Self {
        Self { raw_diffs, ..self }
    }

    /// The same, knowing what the catalog has: to be called before each [`Source::stream`], in case the server is older
    /// than 6.0 and its own catalog must be watched.
    #[must_use]
    pub fn knowing(self, known: Known) -> Self {
        Self { known: Arc::new(known), ..self }
    }

    /// Waits until every structural change up to `time` was put into the stream. At once where the stream shows them by
    /// itself.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn structure_at(&self, time: ClusterTime) {
        if self.asked.watching() {
            self.asked.ask(time);
            self.asked.answered(time).await;
        }
    }

    async fn identity(&self) -> Result<Identity> {
        self.identity.get_or_try_init(|| Identity::probe(&self.cluster)).await.copied()
    }

    /// At most `size` documents at random, with these fields only, in ascending order of the fields.
    ///
    /// # Errors
    /// As classified.
    pub async fn sample(&self, of: &CollectionRef, fields: &[&str], size: u32) -> Result<Vec<bson::RawDocumentBuf>> {
        sample::sample(&self.cluster, of, fields, size).await
    }

    /// How a sharded cluster distributes its collections, by their identity; nothing for a replica set.
    ///
    /// # Errors
    /// As classified.
    pub async fn layout(&self) -> Result<BTreeMap<CollectionUuid, Sharded>> {
        if self.sharded().await? { sharded::layout(&self.cluster).await } else { Ok(BTreeMap::new()) }
    }

    /// What answers there.
    ///
    /// # Errors
    /// As classified.
    pub async fn topology(&self) -> Result<Topology> {
        self.topology.get_or_try_init(|| self.cluster.topology()).await.copied()
    }

    async fn sharded(&self) -> Result<bool> {
        Ok(self.topology().await? == Topology::Sharded)
    }

    /// Closes the connections to shards that were asked directly; those of the cluster are its own.
    pub async fn close_members(&self) {
        self.members.close().await;
    }

    /// The cluster beneath.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// A stream that shows everything, by itself or by watching.
pub enum Followed {
    /// Of a server from 6.0 on.
    Expanded(Box<Swept<MongoStream>>),
    /// Of an older one.
    Watched(Box<Watched>),
    /// Of a router.
    Sharded(Box<Swept<ShardedStream>>),
}

/// A scan of what is on one replica set, or on several.
pub enum Read {
    /// Of one node's collection.
    Plain(Box<MongoScan>),
    /// At cluster times, through a router.
    Snapshot(Box<SnapshotScan>),
}

impl Scan for Read {
    async fn next(&mut self) -> Result<Option<ScanBatch>> {
        match self {
            Self::Plain(scan) => scan.next().await,
            Self::Snapshot(scan) => scan.next().await,
        }
    }
}

impl EventStream for Followed {
    async fn next(&mut self) -> Result<EventBatch> {
        match self {
            Self::Expanded(stream) => stream.next().await,
            Self::Watched(stream) => stream.next().await,
            Self::Sharded(stream) => stream.next().await,
        }
    }
}

impl Source for MongoSource {
    type Stream = Followed;
    type Scan = Read;

    async fn is_sharded(&self) -> Result<bool> {
        self.sharded().await
    }
    async fn distribution(&self) -> Result<Option<BTreeMap<Namespace, Distributed>>> {
        Ok(if self.sharded().await? { Some(sharding::distribution(&self.cluster).await?) } else { None })
    }
    async fn layout_of(&self, uuid: CollectionUuid) -> Result<Option<Sharded>> {
        if self.sharded().await? { sharded::layout_of(&self.cluster, uuid).await } else { Ok(None) }
    }
    async fn operation_time(&self) -> Result<ClusterTime> {
        if self.sharded().await? { sharded::operation_time(&self.cluster).await } else { self.cluster.operation_time().await }
    }
    async fn oplog_window(&self) -> Result<Option<OplogWindow>> {
        if self.sharded().await? { self.members.oplog_window(&self.cluster).await } else { catalog::oplog_window(&self.cluster).await }
    }
    async fn stream(&self, from: StartAt) -> Result<Followed> {
        let stream = MongoStream::open(self.cluster.clone(), from.clone(), self.raw_diffs).await?;
        let cluster = self.cluster.clone();
        Ok(match (stream.shows(), self.sharded().await?) {
            (Shows::Everything { .. }, false) => {
                Followed::Expanded(Box::new(Swept::over(stream, cluster, &self.known, None, self.asked.clone())))
            }
            (Shows::Everything { .. }, true) => {
                let stream = ShardedStream::over(stream, cluster.clone());
                let identities = Some(sharded::Identities::known(&self.known));
                Followed::Sharded(Box::new(Swept::over(stream, cluster, &self.known, identities, self.asked.clone())))
            }
            (Shows::Documents, false) => {
                Followed::Watched(Box::new(Watched::over(stream, cluster, &from, &self.known, self.asked.clone())))
            }
            (Shows::Documents, true) => {
                return Err(Error::UnfitCluster {
                    side: self.cluster.side(),
                    problem: "is sharded and older than 6.0: its change streams do not show changes of structure".into(),
                    hint: "upgrade it to MongoDB 6.0 or newer".into(),
                });
            }
        })
    }
    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        listing::collections(&self.cluster).await
    }
    async fn indexes(&self, of: &CollectionRef) -> Result<Found<Vec<IndexSpec>>> {
        catalog::indexes(&self.cluster, of).await
    }
    async fn estimate(&self, of: &CollectionRef) -> Result<Estimate> {
        catalog::estimate(&self.cluster, of).await
    }
    async fn split(&self, of: &CollectionRef, parts: u32) -> Result<Vec<Bound>> {
        scan::split(&self.cluster, of, parts).await
    }
    async fn scan(&self, of: &CollectionRef, range: ScanRange) -> Result<Found<Read>> {
        let (cluster, by, on) = (&self.cluster, self.identity().await?, self.read_preference.clone());
        // In insertion order there is one shard, one node, and no key to go on behind.
        Ok(if self.sharded().await? && !range.natural && !sharded::is_capped(cluster, of).await? {
            match SnapshotScan::open(cluster, by, on, of, range).await? {
                Found::Here(scan) => Found::Here(Read::Snapshot(Box::new(scan))),
                Found::Gone => Found::Gone,
            }
        } else {
            match MongoScan::open(cluster, by, on, of, range).await? {
                Found::Here(scan) => Found::Here(Read::Plain(Box::new(scan))),
                Found::Gone => Found::Gone,
            }
        })
    }
    async fn fetch(&self, of: &CollectionRef, keys: &[DocumentKey], after: ClusterTime) -> Result<Found<Fetched>> {
        let (cluster, by) = (&self.cluster, self.identity().await?);
        if self.sharded().await? {
            sharded::fetch(cluster, by, of, keys, after).await
        } else {
            fetch::fetch(cluster, by, of, keys, after, ReadAt::Majority).await
        }
    }
    async fn count(&self, of: &CollectionRef) -> Result<Found<u64>> {
        fetch::count(&self.cluster, of).await
    }
    async fn note(&self, text: &str) -> Result<ClusterTime> {
        // Asked for before the note is written, so that the stream cannot pass the note unseen.
        if self.asked.watching() {
            let before = self.operation_time().await?;
            self.asked.ask(ClusterTime { i: before.i + 1, ..before });
        }
        if self.sharded().await? { sharded::note(&self.cluster, text).await } else { fence::note(&self.cluster, text).await }
    }
    async fn block_writes(&self, within: Duration) -> Result<()> {
        if self.sharded().await? {
            sharded::block_writes(&self.cluster, within).await
        } else {
            fence::block_writes(&self.cluster, within).await
        }
    }
    async fn allow_writes(&self) -> Result<()> {
        if self.sharded().await? { sharded::allow_writes(&self.cluster).await } else { fence::allow_writes(&self.cluster).await }
    }
    async fn writes_blocked(&self) -> Result<Option<bool>> {
        if self.sharded().await? { sharded::writes_blocked(&self.cluster).await } else { fence::writes_blocked(&self.cluster).await }
    }
}
