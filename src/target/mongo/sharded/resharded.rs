//! Resharding by somebody else.
//!
//! While it is under way, an update that changes a value of either shard key is refused outside of transactions (IllegalOperation, RAN
//! on 6.0.5), so the fields of both count. Afterwards the name is another collection's, with the same documents and every write to the former.
//!
//! What tells it apart from a collection that was dropped and made anew is the cluster's own log (`config.changelog`), where the
//! coordinator notes both identities at each of its states. Behind "committing" it cannot fail any more (RAN on 6.0.5).

use super::super::super::TargetCollection;
use crate::{
    error::{Error, Result, Trouble},
    model::{CollectionUuid, Namespace, ShardKey, raw},
    mongo::{Cluster, listing, sharding},
};
use bson::rawdoc;
use std::collections::BTreeMap;

/// By which fields a collection is distributed now, and those by which it will be, where it is being resharded; `None` where it lies
/// on one shard.
pub(super) async fn key_of(cluster: &Cluster, uuid: CollectionUuid) -> Result<Option<ShardKey>> {
    let row = sharding::collection(cluster, uuid).await?;
    Ok(row.map(|row| match &row.later {
        Some(later) => row.key.and(later),
        None => row.key,
    }))
}

/// Which collection each sharded name stands for.
pub(super) async fn identities(cluster: &Cluster) -> Result<BTreeMap<Namespace, CollectionUuid>> {
    Ok(sharding::collections(cluster).await?.into_iter().map(|row| (row.ns, row.uuid)).collect())
}

/// The collection in the place of another one, once the cluster lists it; `None` where nothing tells that there is one.
pub(crate) async fn successor(cluster: &Cluster, of: &TargetCollection) -> Result<Option<CollectionUuid>> {
    let mut last = None;
    while let Some(next) = next(cluster, last.unwrap_or(of.uuid)).await? {
        last = Some(next);
    }
    let Some(last) = last else { return Ok(None) };
    let mut patience = cluster.retry().patience();
    while !listing::collections_of(cluster, of.ns.db()).await?.iter().any(|c| c.ns == of.ns && c.uuid == Some(last)) {
        patience.after(unsettled(cluster, of)).await?;
    }
    tracing::info!(ns = %of.ns, "somebody else resharded it");
    Ok(Some(last))
}

async fn next(cluster: &Cluster, uuid: CollectionUuid) -> Result<Option<CollectionUuid>> {
    let noted = rawdoc! {
        "find": "changelog",
        "filter": {
            "what": "resharding.coordinator.transition",
            "details.newState": "committing",
            "details.collectionUUID": bson::Uuid::from_bytes(uuid.0).to_string(),
        },
        "limit": 1,
    };
    let found = listing::found(cluster, "config", "reading the cluster's log of changes", &noted).await?;
    let details = found.first().and_then(|noted| raw::get(noted, "details")).and_then(|e| e.document());
    let text = details.and_then(|details| raw::get(details, "reshardingUUID")).and_then(|e| e.str());
    Ok(text.and_then(|text| bson::Uuid::parse_str(text).ok()).map(|uuid| CollectionUuid(uuid.bytes())))
}

fn unsettled(cluster: &Cluster, of: &TargetCollection) -> Error {
    Error::Unreachable {
        side: cluster.side(),
        doing: format!("waiting for the end of the resharding of `{}`", of.ns),
        why: Trouble::Other,
        source: "the cluster does not list the collection that it has become".into(),
    }
}
