//! Resharding by somebody else.
//!
//! While it is under way, an update that changes a value of either shard key is refused outside of transactions (IllegalOperation, RAN
//! on 6.0.5), so the fields of both count. Afterwards the name is another collection's, with the same documents and every write to the former.
//!
//! What tells it apart from a collection that was dropped and made anew is the cluster's own log (`config.changelog`), where the
//! coordinator notes both identities at each of its states. Behind "committing" it cannot fail any more (RAN on 6.0.5).

use super::{super::super::TargetCollection, layout::rows};
use crate::{
    error::{Error, Result, Trouble},
    model::{CollectionUuid, Namespace, ShardKey, raw},
    mongo::{Cluster, listing},
};
use bson::{Binary, RawDocument, RawDocumentBuf, rawdoc, spec::BinarySubtype};
use std::collections::BTreeMap;

/// By which fields a collection is distributed now, and those by which it will be, where it is being resharded; `None` where it lies
/// on one shard.
pub(super) async fn key_of(cluster: &Cluster, uuid: CollectionUuid) -> Result<Option<ShardKey>> {
    let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: uuid.0.to_vec() };
    let command = rawdoc! {"find": "collections", "filter": {"uuid": uuid}, "readConcern": {"level": "majority"}};
    Ok(rows(cluster, "shard keys", command).await?.first().and_then(|found| both_keys(found)))
}

fn both_keys(collection: &RawDocument) -> Option<ShardKey> {
    // An unsharded collection may stand there, too, from 8.0 on.
    if raw::get(collection, "unsplittable").and_then(|e| e.bool()) == Some(true) {
        return None;
    }
    let within = |doc: &RawDocument, name: &str| -> Option<RawDocumentBuf> { Some(raw::owned(raw::get(doc, name)?.document()?)) };
    let now = ShardKey::of(&within(collection, "key")?)?;
    let donor = within(collection, "reshardingFields").and_then(|fields| within(&fields, "donorFields"));
    let later = donor.and_then(|donor| ShardKey::of(&within(&donor, "reshardingKey")?));
    Some(match later {
        Some(later) => now.and(&later),
        None => now,
    })
}

/// Which collection each sharded name stands for.
pub(crate) async fn identities(cluster: &Cluster) -> Result<BTreeMap<Namespace, CollectionUuid>> {
    let command = rawdoc! {"find": "collections", "projection": {"uuid": 1}, "readConcern": {"level": "majority"}};
    let identity = |found: &RawDocumentBuf| {
        let uuid = raw::get(found, "uuid")?.value.get(5..21)?.try_into().ok().map(CollectionUuid)?;
        Some((Namespace::parse(raw::get(found, "_id")?.str()?)?, uuid))
    };
    Ok(rows(cluster, "sharded collections", command).await?.iter().filter_map(identity).collect())
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
    let found = rows(cluster, "log of changes", noted).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_both_keys_count_while_a_collection_is_resharded() {
        let key = |doc: &RawDocument| both_keys(doc).map(|key| key.pattern());
        let plain = rawdoc! {"_id": "a.b", "key": {"n": 1}};
        assert_eq!(key(&plain), Some(rawdoc! {"n": 1}));
        let donor =
            rawdoc! {"_id": "a.b", "key": {"n": 1}, "reshardingFields": {"donorFields": {"reshardingKey": {"z": "hashed", "n": 1}}}};
        assert_eq!(key(&donor), Some(rawdoc! {"n": 1, "z": "hashed"}));
        assert_eq!(key(&rawdoc! {"_id": "a.b", "key": {"_id": 1}, "unsplittable": true}), None);
    }
}
