//! The real target: a replica set through the driver.

mod bulk;
mod ddl;
mod probe;

pub use probe::Features;

use super::{Applied, IndexChange, Inserted, Statement, Target, TargetCollection};
use crate::{
    error::Result,
    model::{CollectionInfo, CollectionUuid, IndexSpec, Namespace},
    mongo::{Cluster, listing},
};
use bson::RawDocument;
use std::time::Duration;

/// A target behind the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MongoTarget {
    cluster: Cluster,
}

impl MongoTarget {
    /// A target.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// The cluster beneath.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What its server can do, tried without writing anything.
    ///
    /// # Errors
    /// As classified.
    pub async fn probe(&self, database: &str) -> Result<Features> {
        probe::probe(&self.cluster, database).await
    }
}

impl Target for MongoTarget {
    fn within(&self, deadline: Duration) -> Self {
        Self::new(self.cluster.within(deadline))
    }
    async fn insert(&self, to: &TargetCollection, documents: &RawDocument) -> Result<Inserted> {
        bulk::insert(&self.cluster, to, documents).await
    }
    async fn clear(&self, to: &TargetCollection) -> Result<()> {
        bulk::clear(&self.cluster, to).await
    }
    async fn apply(&self, to: &TargetCollection, statements: &[Statement<'_>]) -> Result<Applied> {
        bulk::apply(&self.cluster, to, statements).await
    }
    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        listing::collections(&self.cluster).await
    }
    async fn locate(&self, db: &str, uuid: CollectionUuid) -> Result<Option<Namespace>> {
        Ok(listing::collections_of(&self.cluster, db).await?.into_iter().find(|c| c.uuid == Some(uuid)).map(|c| c.ns))
    }
    async fn lookup(&self, ns: &Namespace) -> Result<Option<CollectionInfo>> {
        Ok(listing::collections_of(&self.cluster, ns.db()).await?.into_iter().find(|c| c.ns == *ns))
    }
    async fn holds_documents(&self, ns: &Namespace) -> Result<bool> {
        ddl::holds_documents(&self.cluster, ns).await
    }
    async fn create(&self, ns: &Namespace, options: &RawDocument) -> Result<Option<CollectionUuid>> {
        ddl::create(&self.cluster, ns, options).await?;
        Ok(self.lookup(ns).await?.and_then(|c| c.uuid))
    }
    async fn drop_collection(&self, ns: &Namespace, uuid: Option<CollectionUuid>) -> Result<()> {
        ddl::drop_collection(&self.cluster, ns, uuid).await
    }
    async fn rename(&self, from: &TargetCollection, to: &Namespace) -> Result<()> {
        ddl::rename(&self.cluster, &from.ns, Some(from.uuid), to, false).await
    }
    async fn modify(&self, ns: &Namespace, uuid: Option<CollectionUuid>, options: &RawDocument) -> Result<()> {
        ddl::modify(&self.cluster, ns, uuid, options).await
    }
    async fn indexes(&self, ns: &Namespace) -> Result<Vec<IndexSpec>> {
        Ok(listing::indexes(&self.cluster, ns).await?.unwrap_or_default())
    }
    async fn create_indexes(&self, of: &TargetCollection, specs: &[IndexSpec]) -> Result<()> {
        ddl::create_indexes(&self.cluster, of, specs).await
    }
    async fn drop_index(&self, of: &TargetCollection, name: &str) -> Result<()> {
        ddl::drop_indexes(&self.cluster, of, name).await
    }
    async fn build_progress(&self, ns: &Namespace) -> Result<Option<f64>> {
        ddl::build_progress(&self.cluster, ns).await
    }
    /// The build is ended only by all of its names together (RAN on 6.0.5: one of two is refused as unfinished).
    async fn abort_build(&self, of: &TargetCollection, names: &[String]) -> Result<()> {
        ddl::drop_indexes(&self.cluster, of, names).await
    }
    async fn change_index(&self, of: &TargetCollection, name: &str, change: &IndexChange) -> Result<()> {
        ddl::change_index(&self.cluster, of, name, change).await
    }
}
