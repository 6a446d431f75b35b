//! The real target: a replica set, or a sharded cluster through its router.

mod bulk;
mod ddl;
mod probe;
mod sharded;

pub use probe::Features;
pub use sharded::{Members, Place, Shard, Sharding};

use super::{ANOTHER_COLLECTION, Applied, IndexChange, Inserted, Statement, Target, TargetCollection};
use crate::{
    error::{Error, Result},
    model::{Batch, CollectionInfo, CollectionUuid, IndexSpec, Namespace, ShardKey, Sharded},
    mongo::{Cluster, Topology, listing, refused_by_code, sharding},
};
use bson::RawDocument;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// MultipleErrorsOccurred: several shards have refused a statement.
const MULTIPLE_ERRORS: i32 = 65;

/// A target behind the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MongoTarget {
    cluster: Cluster,
    /// `None`: a replica set.
    sharding: Option<Sharding>,
}

impl MongoTarget {
    /// A target.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, sharding: None }
    }

    /// The same as a sharded cluster.
    #[must_use]
    pub fn sharded(self, sharding: Sharding) -> Self {
        Self { sharding: Some(sharding), ..self }
    }

    /// The same behind another policy of retries.
    #[must_use]
    pub fn with_cluster(&self, cluster: Cluster) -> Self {
        Self { cluster, ..self.clone() }
    }

    /// The shards of a sharded cluster that take data.
    ///
    /// # Errors
    /// As classified.
    pub async fn shards(&self) -> Result<Vec<Shard>> {
        sharded::shards(&self.cluster).await
    }

    /// The shards of a sharded cluster, and who is in which zone.
    ///
    /// # Errors
    /// As classified.
    pub async fn members(&self) -> Result<Members> {
        Members::of(&self.cluster).await
    }

    /// The shard keys of all sharded collections; none on a replica set.
    ///
    /// # Errors
    /// As classified.
    pub async fn shard_keys(&self) -> Result<Arc<BTreeMap<Namespace, ShardKey>>> {
        let sharded = self.cluster.topology().await? == Topology::Sharded;
        let rows = if sharded { sharding::collections(&self.cluster).await? } else { Vec::new() };
        Ok(Arc::new(rows.into_iter().map(|row| (row.ns, row.key)).collect()))
    }

    /// Whether it is a sharded cluster, as it was told.
    #[must_use]
    pub fn is_sharded(&self) -> bool {
        self.sharding.is_some()
    }

    /// The identities of all collections of a sharded cluster that somebody else may have changed: of those that are sharded, and of
    /// those in databases that were moved. Nothing on a replica set.
    ///
    /// # Errors
    /// As classified.
    pub async fn identities(&self) -> Result<BTreeMap<Namespace, CollectionUuid>> {
        match &self.sharding {
            Some(sharding) => sharding.identities(&self.cluster).await,
            None => Ok(BTreeMap::new()),
        }
    }

    /// Spreads databases that are not there yet over the shards, by the bytes that will come to each. Nothing on a replica set.
    ///
    /// # Errors
    /// As classified.
    pub async fn place(&self, databases: &[(String, u64)]) -> Result<()> {
        if self.sharding.is_some() { sharded::place(&self.cluster, databases).await } else { Ok(()) }
    }

    async fn apply_by(&self, to: &TargetCollection, by: Option<&ShardKey>, statements: &[Statement<'_>]) -> Result<Applied> {
        match by {
            Some(by) if !by.is_id() => sharded::apply(&self.cluster, to, by, statements).await,
            Some(_) | None => {
                let aimed: Vec<_> = statements.iter().map(|what| bulk::Aimed { what: *what, at: None }).collect();
                bulk::apply(&self.cluster, to, &aimed).await.map(Applied::from)
            }
        }
    }

    /// Behind a failure that the cluster's own replacement of the collection would explain: waits until it is done, and says that the
    /// collection is another one.
    async fn replaced(&self, to: &TargetCollection, code: Option<i32>) -> Result<()> {
        if self.sharding.is_some()
            && matches!(code, Some(ANOTHER_COLLECTION | MULTIPLE_ERRORS))
            && sharded::resharded(&self.cluster, to).await?.is_some()
        {
            let doing = format!("writing to `{}`", to.ns);
            return Err(refused_by_code(self.cluster.side(), &doing, ANOTHER_COLLECTION, "it was resharded"));
        }
        Ok(())
    }

    async fn key_of(&self, to: &TargetCollection) -> Result<Option<Arc<ShardKey>>> {
        match &self.sharding {
            Some(sharding) => sharding.key_of(&self.cluster, to.uuid).await,
            None => Ok(None),
        }
    }

    /// Whether an index is the last one by which a hashed shard key can be looked up. Chunks cannot be moved without; servers newer
    /// than 6.0.5 drop it all the same (RAN on 6.0.27), as none does where the key is ranged.
    async fn is_last_of_hashed_key(&self, of: &TargetCollection, name: &str) -> Result<bool> {
        let Some(key) = self.key_of(of).await?.filter(|key| key.is_hashed()) else { return Ok(false) };
        let there = self.indexes(&of.ns).await?;
        let supporting: Vec<&str> = there.iter().filter(|index| key.is_supported_by(index)).map(IndexSpec::name).collect();
        Ok(supporting == [name])
    }

    /// Distributes a collection that has just got its name, if it is to be.
    async fn distribute(&self, ns: &Namespace) -> Result<()> {
        let Some(sharding) = &self.sharding else { return Ok(()) };
        if let Some(how) = sharding.wanted(ns)
            && let Some(uuid) = self.lookup(ns).await?.and_then(|c| c.uuid)
        {
            sharded::shard(&self.cluster, &TargetCollection { ns: ns.clone(), uuid }, &how).await?;
        }
        sharding.forget();
        Ok(())
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
        self.with_cluster(self.cluster.within(deadline))
    }
    async fn insert(&self, to: &TargetCollection, batch: &Batch) -> Result<Inserted> {
        let by = self.key_of(to).await?;
        let inserted = bulk::insert(&self.cluster, to, batch, by.as_deref()).await;
        self.replaced(to, inserted.as_ref().err().and_then(Error::code)).await?;
        inserted
    }
    async fn clear(&self, to: &TargetCollection) -> Result<()> {
        bulk::clear(&self.cluster, to).await
    }
    async fn apply(&self, to: &TargetCollection, statements: &[Statement<'_>]) -> Result<Applied> {
        let Some(sharding) = &self.sharding else { return self.apply_by(to, None, statements).await };
        loop {
            let by = sharding.key_of(&self.cluster, to.uuid).await?;
            let applied = self.apply_by(to, by.as_deref(), statements).await;
            // A write without the whole shard key goes to several shards, which refuse it each.
            let code = match &applied {
                Ok(applied) => (!applied.refused.is_empty()).then_some(MULTIPLE_ERRORS),
                Err(error) => error.code(),
            };
            self.replaced(to, code).await?;
            if sharding.is_still(&self.cluster, to.uuid, by.as_deref()).await? {
                return applied;
            }
            tracing::info!(ns = %to.ns, "somebody else changed the shard key: applying the batch once more");
        }
    }
    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        let listed = listing::collections(&self.cluster).await?;
        if let Some(sharding) = &self.sharding {
            sharding.seen(listed.iter().filter_map(|c| c.uuid));
        }
        Ok(listed)
    }
    async fn locate(&self, db: &str, uuid: CollectionUuid) -> Result<Option<Namespace>> {
        Ok(listing::collections_of(&self.cluster, db).await?.into_iter().find(|c| c.uuid == Some(uuid)).map(|c| c.ns))
    }
    async fn successor(&self, of: &TargetCollection) -> Result<Option<CollectionUuid>> {
        match &self.sharding {
            Some(sharding) => sharding.successor(&self.cluster, of).await,
            None => Ok(None),
        }
    }
    async fn lookup(&self, ns: &Namespace) -> Result<Option<CollectionInfo>> {
        Ok(listing::collections_of(&self.cluster, ns.db()).await?.into_iter().find(|c| c.ns == *ns))
    }
    async fn holds_documents(&self, ns: &Namespace) -> Result<bool> {
        ddl::holds_documents(&self.cluster, ns).await
    }
    fn lay_out(&self, ns: &Namespace, how: Option<Sharded>) {
        if let Some(sharding) = &self.sharding {
            sharding.lay_out(ns, how);
        }
    }
    async fn create(&self, ns: &Namespace, options: &RawDocument) -> Result<Option<CollectionUuid>> {
        ddl::create(&self.cluster, ns, options).await?;
        if sharded::can_be(options) {
            self.distribute(ns).await?;
        }
        let made = self.lookup(ns).await?.and_then(|c| c.uuid);
        if let Some((sharding, uuid)) = self.sharding.as_ref().zip(made) {
            sharding.made(uuid);
        }
        Ok(made)
    }
    async fn drop_collection(&self, ns: &Namespace, mut uuid: Option<CollectionUuid>) -> Result<()> {
        if let (Some(sharding), Some(ours)) = (&self.sharding, uuid)
            && self.lookup(ns).await?.is_some_and(|there| there.uuid != uuid)
        {
            let of = TargetCollection { ns: ns.clone(), uuid: ours };
            uuid = sharding.successor(&self.cluster, &of).await?.or(uuid);
        }
        ddl::drop_collection(&self.cluster, ns, uuid).await
    }
    /// Never a sharded collection (code 125, RAN on 6.0.5), others only to a database of the same primary shard.
    fn renames_across_databases(&self) -> bool {
        self.sharding.is_none()
    }
    async fn rename(&self, from: &TargetCollection, to: &Namespace) -> Result<()> {
        ddl::rename(&self.cluster, &from.ns, Some(from.uuid), to, false).await?;
        // It stays distributed as it is, unless there is a key for the name.
        match &self.sharding {
            Some(sharding) if sharding.is_given(to) => self.distribute(to).await,
            Some(sharding) => {
                sharding.forget();
                Ok(())
            }
            None => Ok(()),
        }
    }
    async fn modify(&self, ns: &Namespace, uuid: Option<CollectionUuid>, options: &RawDocument) -> Result<()> {
        ddl::modify(&self.cluster, ns, uuid, options).await
    }
    async fn indexes(&self, ns: &Namespace) -> Result<Vec<IndexSpec>> {
        Ok(listing::indexes(&self.cluster, ns).await?.unwrap_or_default())
    }
    async fn may_be_unique(&self, to: &TargetCollection, spec: &IndexSpec) -> Result<bool> {
        Ok(self.key_of(to).await?.is_none_or(|by| by.allows_unique(spec)))
    }
    async fn create_indexes(&self, of: &TargetCollection, specs: &[IndexSpec]) -> Result<()> {
        ddl::create_indexes(&self.cluster, of, specs).await
    }
    async fn drop_index(&self, of: &TargetCollection, name: &str) -> Result<()> {
        if self.is_last_of_hashed_key(of, name).await? {
            return Ok(());
        }
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
