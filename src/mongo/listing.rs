//! What there is on a cluster: databases, collections, indexes.

use super::{Cluster, CursorOptions, RawCursor};
use crate::{
    error::Result,
    model::{CollectionInfo, CollectionKind, CollectionUuid, IndexSpec, Namespace, raw},
};
use bson::{Bson, RawDocument, RawDocumentBuf, doc, rawdoc};

/// NamespaceNotFound.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// CommandNotSupportedOnView: the name is a view's by now.
pub(crate) const IS_A_VIEW: i32 = 166;
/// `v` of an index for which no other was asked.
const DEFAULT_INDEX_VERSION: i64 = 2;

/// Every collection and view of every database but the server's own, `system.*` left out save `system.js`
/// and buckets.
pub(crate) async fn collections(cluster: &Cluster) -> Result<Vec<CollectionInfo>> {
    let reply = cluster.run("admin", "listing databases", &doc! {"listDatabases": 1, "nameOnly": true}).await?;
    let mut found = Vec::new();
    for db in reply.get_array("databases").map(Vec::as_slice).unwrap_or_default() {
        let Some(db) = db.as_document().and_then(|d| d.get_str("name").ok()) else { continue };
        if !matches!(db, "admin" | "local" | "config") && !db.starts_with("__mdb_internal") {
            found.extend(collections_of(cluster, db).await?);
        }
    }
    found.sort_by(|a: &CollectionInfo, b| a.ns.cmp(&b.ns));
    Ok(found)
}

/// The collections and views of one database.
pub(crate) async fn collections_of(cluster: &Cluster, db: &str) -> Result<Vec<CollectionInfo>> {
    matching(cluster, db, rawdoc! {}).await
}

/// Those of one database that a filter of `listCollections` lets through.
pub(crate) async fn matching(cluster: &Cluster, db: &str, filter: RawDocumentBuf) -> Result<Vec<CollectionInfo>> {
    let doing = format!("listing the collections of `{db}`");
    let command = rawdoc! {"listCollections": 1, "filter": filter, "cursor": {}};
    let listed =
        cluster.retry().run(|| async { all(cluster.open(db, &doing, command.clone(), CursorOptions::default()).await?).await }).await?;
    Ok(listed.iter().filter_map(|doc| collection(db, doc)).filter(|info| !info.ns.is_internal()).collect())
}

fn collection(db: &str, listed: &RawDocumentBuf) -> Option<CollectionInfo> {
    let kind = match raw::get(listed, "type")?.str()? {
        "view" => CollectionKind::View,
        "timeseries" => CollectionKind::TimeSeries,
        _ => CollectionKind::Collection,
    };
    let uuid = raw::get(listed, "info").and_then(|e| e.document()).and_then(|info| raw::get(info, "uuid")).and_then(|e| e.value.get(5..21));
    Some(CollectionInfo {
        ns: Namespace::new(db, raw::get(listed, "name")?.str()?),
        uuid: uuid.and_then(|bytes| bytes.try_into().ok()).map(CollectionUuid),
        kind,
        options: options(listed),
    })
}

/// `options` as `create` takes them. The index on `_id` is listed beside them, and is among them where it is not the
/// one that the server makes by itself (of version 1, RAN on 6.0.5).
fn options(listed: &RawDocument) -> RawDocumentBuf {
    let options = raw::get(listed, "options").and_then(|e| e.document());
    let id = raw::get(listed, "idIndex").and_then(|e| e.document());
    let Some(id) = id.filter(|id| raw::get(id, "v").and_then(|e| e.integer()).is_some_and(|v| v != DEFAULT_INDEX_VERSION)) else {
        return options.map_or_else(RawDocumentBuf::new, raw::owned);
    };
    let mut b = raw::Builder::default();
    for e in options.into_iter().flat_map(raw::elements) {
        b.element(e);
    }
    b.doc("idIndex", &IndexSpec(raw::owned(id)).without(&["ns"]).0);
    b.finish()
}

/// Everything that a command with a cursor finds. Repeated from its beginning.
///
/// # Errors
/// As classified.
pub(crate) async fn found(cluster: &Cluster, db: &str, doing: &str, command: &RawDocument) -> Result<Vec<RawDocumentBuf>> {
    let open = || async { all(cluster.open(db, doing, raw::owned(command), CursorOptions::default()).await?).await };
    cluster.retry().run(open).await
}

/// Reads a cursor to its end.
pub(crate) async fn all(mut cursor: RawCursor) -> Result<Vec<RawDocumentBuf>> {
    let mut found = Vec::new();
    while let Some(reply) = cursor.next().await? {
        found.extend(raw::elements(reply.documents()?).filter_map(|e| e.document()).map(raw::owned));
    }
    Ok(found)
}

/// The indexes of a collection that are built; `None` where the name stands for nothing. One that is still being built is listed
/// like the others unless builds are asked for (RAN on 4.4.2 to 6.0.27), and may yet come to nothing: that of a process that was
/// killed is ended by the server.
pub(crate) async fn indexes(cluster: &Cluster, ns: &Namespace) -> Result<Option<Vec<IndexSpec>>> {
    let doing = format!("listing the indexes of `{ns}`");
    let command = rawdoc! {"listIndexes": ns.coll(), "includeBuildUUIDs": true, "cursor": {}};
    match found(cluster, ns.db(), &doing, &command).await {
        Ok(listed) => Ok(Some(built(listed))),
        Err(error) if matches!(error.code(), Some(NAMESPACE_NOT_FOUND | IS_A_VIEW)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Of indexes listed with `includeBuildUUIDs`, those that are no longer being built. A clustered collection itself is listed, too, by
/// servers newer than 6.0.5 with its own `expireAfterSeconds` (RAN on 6.0.27); that is no index, and is among the options of the
/// collection.
pub(crate) fn built(listed: Vec<RawDocumentBuf>) -> Vec<IndexSpec> {
    listed.into_iter().filter(|spec| raw::get(spec, "buildUUID").is_none()).map(IndexSpec).filter(|spec| !spec.is("clustered")).collect()
}

/// A count, whatever number type the server chose.
pub(crate) fn count(value: &Bson) -> Option<u64> {
    match value {
        Bson::Int32(n) => u64::try_from(*n).ok(),
        Bson::Int64(n) => u64::try_from(*n).ok(),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and positive: a count")]
        Bson::Double(n) => Some(*n as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_built_and_a_clustered_collection_are_no_indexes() {
        let listed = vec![
            rawdoc! {"v": 2, "key": {"a": 1}, "name": "a"},
            rawdoc! {"spec": {"key": {"b": 1}, "name": "b"}, "buildUUID": 1},
            rawdoc! {"v": 2, "key": {"_id": 1}, "name": "own", "unique": true, "expireAfterSeconds": 9, "clustered": true},
        ];
        assert_eq!(built(listed).iter().map(IndexSpec::name).collect::<Vec<_>>(), ["a"]);
    }
}
