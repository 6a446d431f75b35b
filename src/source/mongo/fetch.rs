//! Reading documents by key, and following a collection that has another name by now.

use super::{
    super::{CollectionRef, Fetched, Found},
    identity::Identity,
};
use crate::{
    error::{Error, Result, Trouble},
    model::{ClusterTime, DocumentKey, Namespace, raw},
    mongo::{Cluster, CursorOptions, listing},
};
use bson::{Bson, RawDocumentBuf, doc, rawdoc};

/// CollectionUUIDMismatch: the name stands for another collection, or for none (RAN on 6.0.5, on `find`).
const UUID_MISMATCH: i32 = 361;
/// NamespaceNotFound.
const NAMESPACE_NOT_FOUND: i32 = 26;

/// How often a collection is followed to another name in one call.
const RELOCATIONS: u32 = 3;

/// Does something with a collection under the name that it has by now; tells that one, too.
pub(crate) async fn wherever<T, F>(
    cluster: &Cluster,
    of: &CollectionRef,
    act: impl Fn(CollectionRef) -> F,
) -> Result<Found<(CollectionRef, T)>>
where
    F: Future<Output = Result<T>>,
{
    let mut of = of.clone();
    for _ in 0..RELOCATIONS {
        match act(of.clone()).await {
            Ok(done) => return Ok(Found::Here((of, done))),
            Err(error) if matches!(error.code(), Some(UUID_MISMATCH | NAMESPACE_NOT_FOUND)) => match locate(cluster, &of).await? {
                Some(there) => of = there,
                None => return Ok(Found::Gone),
            },
            Err(error) => return Err(error),
        }
    }
    // The nodes do not agree where it is: one lags behind a rename. It passes.
    Err(Error::Unreachable {
        side: cluster.side(),
        doing: format!("looking for `{}`", of.ns),
        why: Trouble::Other,
        source: "it was renamed meanwhile".into(),
    })
}

/// Under which name the collection is known now; `None` when it is gone.
pub(crate) async fn locate(cluster: &Cluster, of: &CollectionRef) -> Result<Option<CollectionRef>> {
    // The error document tells the name in use, but only within the database, where a rename keeps the UUID anyway.
    let command = doc! {"listCollections": 1, "filter": {"info.uuid": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: of.uuid.0.to_vec() }}, "nameOnly": false, "cursor": {}};
    let reply = cluster.run(of.ns.db(), &format!("looking for the collection that was `{}`", of.ns), &command).await?;
    let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
    let name = batch.first().and_then(Bson::as_document).and_then(|c| c.get_str("name").ok());
    Ok(name.map(|name| CollectionRef { ns: Namespace::new(of.ns.db(), name), uuid: of.uuid }))
}

/// As of when documents are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReadAt {
    /// Each as its node has it.
    Majority,
    /// All of them as of one cluster time, whatever shards they are on.
    OneTime,
}

/// Reads documents by `_id` on the primary, majority-committed, at or after a time.
pub(crate) async fn fetch(
    cluster: &Cluster,
    by: Identity,
    of: &CollectionRef,
    keys: &[DocumentKey],
    after: ClusterTime,
    at: ReadAt,
) -> Result<Found<Fetched>> {
    let read = |of: CollectionRef| async move {
        let command = find_keys(by, &of, keys, after, at);
        let doing = format!("reading documents of `{}` again", of.ns);
        let once = || async {
            let mut cursor = cluster.open(of.ns.db(), &doing, command.clone(), CursorOptions::default()).await?;
            let mut fetched = Fetched { documents: Vec::new(), read_at: after };
            while let Some(reply) = cursor.next().await? {
                fetched.documents.extend(raw::elements(reply.documents()?).filter_map(|e| e.document()).map(raw::owned));
                fetched.read_at = fetched.read_at.max(reply.operation_time().unwrap_or_default());
            }
            Ok(fetched)
        };
        cluster.retry().run(once).await
    };
    Ok(match wherever(cluster, of, read).await? {
        Found::Here((_, fetched)) => Found::Here(fetched),
        Found::Gone => Found::Gone,
    })
}

fn find_keys(by: Identity, of: &CollectionRef, keys: &[DocumentKey], after: ClusterTime, at: ReadAt) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    by.begin(&mut b, "find", of);
    b.begin("filter");
    if let [only] = keys {
        let id = only.id();
        b.value("_id", id.tag, id.value);
    } else {
        b.begin("_id").begin_array("$in");
        for (n, key) in keys.iter().enumerate() {
            b.value(&n.to_string(), key.id().tag, key.id().value);
        }
        b.end().end();
    }
    b.end();
    let level = match at {
        ReadAt::Majority => "majority",
        ReadAt::OneTime => "snapshot",
    };
    b.begin("readConcern").str("level", level).timestamp("afterClusterTime", after.t, after.i).end();
    b.finish()
}

/// Documents, counted one by one over the `_id` index: the fast count may be wrong after a crash of the server.
pub(crate) async fn count(cluster: &Cluster, of: &CollectionRef) -> Result<Found<u64>> {
    let command = rawdoc! {
        "aggregate": of.ns.coll(),
        "pipeline": [{"$group": {"_id": bson::RawBson::Null, "n": {"$sum": 1_i64}}}],
        "cursor": {},
        "readConcern": {"level": "majority"},
    };
    // To the end of the cursor: a router's first batch may be empty.
    let counted = match listing::found(cluster, of.ns.db(), &format!("counting `{}`", of.ns), &command).await {
        Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => return Ok(Found::Gone),
        other => other?,
    };
    let n = counted.first().and_then(|d| raw::get(d, "n")).and_then(|e| e.integer());
    Ok(Found::Here(n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)))
}
