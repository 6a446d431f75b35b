//! The real source: a replica set through the driver.

mod catalog;
mod fence;
mod fetch;
mod scan;
mod stream;

pub use scan::MongoScan;
pub use stream::MongoStream;
pub(crate) use stream::probe as probe_stream;

use super::{CollectionRef, Estimate, Fetched, Found, OplogWindow, ScanRange, Source, StartAt};
use crate::{
    error::Result,
    model::{Bound, ClusterTime, CollectionInfo, DocumentKey, IndexSpec},
    mongo::{Cluster, listing},
};
use mongodb::options::{ReadPreference, SelectionCriteria};
use std::time::Duration;

/// A source behind the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MongoSource {
    cluster: Cluster,
    read_preference: SelectionCriteria,
    /// Whether updates are asked for as raw diffs; otherwise updated documents are read again.
    raw_diffs: bool,
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
        Ok(Self { cluster, read_preference: SelectionCriteria::ReadPreference(preference), raw_diffs: true })
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

    /// The cluster beneath.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Source for MongoSource {
    type Stream = MongoStream;
    type Scan = MongoScan;

    async fn operation_time(&self) -> Result<ClusterTime> {
        self.cluster.operation_time().await
    }
    async fn oplog_window(&self) -> Result<Option<OplogWindow>> {
        catalog::oplog_window(&self.cluster).await
    }
    async fn stream(&self, from: StartAt) -> Result<MongoStream> {
        MongoStream::open(self.cluster.clone(), from, self.raw_diffs).await
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
    async fn scan(&self, of: &CollectionRef, range: ScanRange) -> Result<Found<MongoScan>> {
        MongoScan::open(&self.cluster, self.read_preference.clone(), of, range).await
    }
    async fn fetch(&self, of: &CollectionRef, keys: &[DocumentKey], after: ClusterTime) -> Result<Found<Fetched>> {
        fetch::fetch(&self.cluster, of, keys, after).await
    }
    async fn count(&self, of: &CollectionRef) -> Result<Found<u64>> {
        fetch::count(&self.cluster, of).await
    }
    async fn note(&self, text: &str) -> Result<ClusterTime> {
        fence::note(&self.cluster, text).await
    }
    async fn block_writes(&self, within: Duration) -> Result<()> {
        fence::block_writes(&self.cluster, within).await
    }
    async fn allow_writes(&self) -> Result<()> {
        fence::allow_writes(&self.cluster).await
    }
    async fn writes_blocked(&self) -> Result<Option<bool>> {
        fence::writes_blocked(&self.cluster).await
    }
}
