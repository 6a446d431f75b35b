//! Structure on the target. Every call may be repeated: what is there already, or gone already, is fine.

use super::super::{ANOTHER_COLLECTION, IndexChange, TargetCollection};
use crate::{
    error::{Error, Result},
    model::{CollectionUuid, IndexSpec, Namespace, raw},
    mongo::Cluster,
};
use bson::{Binary, Bson, Document, RawDocument, RawDocumentBuf, doc, rawdoc, spec::BinarySubtype};

/// NamespaceNotFound.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// IndexNotFound.
const INDEX_NOT_FOUND: i32 = 27;
/// CannotDropShardKeyIndex: the only index of a shard key stays, whoever made it (RAN on 6.0.5).
const LAST_OF_SHARD_KEY: i32 = 370;
/// NamespaceExists.
const NAMESPACE_EXISTS: i32 = 48;

/// What `create` takes of no clustered collection.
const CAPPED: [&[u8]; 3] = [b"capped", b"size", b"max"];

/// `create` with the options spliced in. A name that is taken is no error here: the caller looks what it is.
pub(crate) async fn create(cluster: &Cluster, ns: &Namespace, options: &RawDocument) -> Result<()> {
    let size = raw::get(options, "size").and_then(|e| e.integer());
    match size.filter(|_| raw::get(options, "clusteredIndex").is_some()) {
        None => create_as_told(cluster, ns, options).await,
        Some(size) => create_clustered_and_capped(cluster, ns, options, size).await,
    }
}

/// Only `convertToCapped` makes such a collection (RAN on 6.0.5; `create` refuses it with code 6049200).
async fn create_clustered_and_capped(cluster: &Cluster, ns: &Namespace, options: &RawDocument, size: i64) -> Result<()> {
    let mut uncapped = raw::Builder::default();
    for e in raw::elements(options).filter(|e| !CAPPED.contains(&e.name)) {
        uncapped.element(e);
    }
    create_as_told(cluster, ns, &uncapped.finish()).await?;
    let convert = doc! {"convertToCapped": ns.coll(), "size": size, "writeConcern": {"w": "majority"}};
    cluster.run(ns.db(), &format!("making `{ns}` capped"), &convert).await?;
    let max = raw::get(options, "max").and_then(|e| e.integer());
    if let Some(max) = max {
        modify(cluster, ns, None, &rawdoc! {"cappedMax": max}).await?;
    }
    Ok(())
}

async fn create_as_told(cluster: &Cluster, ns: &Namespace, options: &RawDocument) -> Result<()> {
    let command = command("create", ns, None, options);
    match cluster.run_raw(ns.db(), &format!("creating `{ns}`"), &command).await {
        Err(error) if error.code() == Some(NAMESPACE_EXISTS) => Ok(()),
        other => other.map(drop),
    }
}

pub(crate) async fn holds_documents(cluster: &Cluster, ns: &Namespace) -> Result<bool> {
    let command = doc! {"find": ns.coll(), "limit": 1, "projection": {"_id": 1}};
    let reply = cluster.run(ns.db(), &format!("looking whether `{ns}` is empty"), &command).await?;
    Ok(reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).is_ok_and(|batch| !batch.is_empty()))
}

/// Drops a collection or view; with the buckets of a time series goes its view.
pub(crate) async fn drop_collection(cluster: &Cluster, ns: &Namespace, uuid: Option<CollectionUuid>) -> Result<()> {
    if ns.is_functions() {
        // The server refuses to drop `system.js`, but not to rename it (RAN on 6.0.5 and 6.0.27).
        let aside = Namespace::new(ns.db(), "mongoferry.dropped_functions");
        or_gone(rename(cluster, ns, uuid, &aside, true).await)?;
        return drop_named(cluster, &aside, None).await;
    }
    // The server takes no identity with buckets (code 72, RAN on 6.0.5 and 6.0.27).
    drop_named(cluster, ns, uuid.filter(|_| ns.series().is_none())).await
}

pub(crate) async fn rename(cluster: &Cluster, from: &Namespace, uuid: Option<CollectionUuid>, to: &Namespace, over: bool) -> Result<()> {
    let mut command = doc! {"renameCollection": from.as_str(), "to": to.as_str(), "dropTarget": over, "writeConcern": {"w": "majority"}};
    // Across databases, where the server copies, it takes no identity (code 72, RAN on 6.0.5 and 6.0.27).
    identify(&mut command, uuid.filter(|_| from.db() == to.db()));
    cluster.run("admin", &format!("renaming `{from}` to `{to}`"), &command).await.map(drop)
}

async fn drop_named(cluster: &Cluster, ns: &Namespace, uuid: Option<CollectionUuid>) -> Result<()> {
    let mut command = doc! {"drop": ns.coll(), "writeConcern": {"w": "majority"}};
    identify(&mut command, uuid);
    or_gone(cluster.run(ns.db(), &format!("dropping `{ns}`"), &command).await.map(drop))
}

/// What is gone needs no drop, and what a shard key needs stays.
fn or_gone(dropped: Result<()>) -> Result<()> {
    match dropped {
        Err(error) if matches!(error.code(), Some(NAMESPACE_NOT_FOUND | INDEX_NOT_FOUND | ANOTHER_COLLECTION | LAST_OF_SHARD_KEY)) => {
            Ok(())
        }
        other => other,
    }
}

fn identify(command: &mut Document, uuid: Option<CollectionUuid>) {
    if let Some(CollectionUuid(bytes)) = uuid {
        command.insert("collectionUUID", Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() });
    }
}

pub(crate) async fn modify(cluster: &Cluster, ns: &Namespace, uuid: Option<CollectionUuid>, options: &RawDocument) -> Result<()> {
    cluster.run_raw(ns.db(), &format!("changing the options of `{ns}`"), &command("collMod", ns, uuid, options)).await.map(drop)
}

fn command(verb: &str, ns: &Namespace, uuid: Option<CollectionUuid>, options: &RawDocument) -> RawDocumentBuf {
    let mut b = raw::Builder::with_capacity(options.as_bytes().len() + 128);
    b.str(verb, ns.coll());
    if let Some(uuid) = uuid {
        b.uuid("collectionUUID", uuid);
    }
    for e in raw::elements(options) {
        b.element(e);
    }
    b.begin("writeConcern").str("w", "majority").end();
    b.finish()
}

/// One command for all of them, so that the collection is read once.
/// By identity: for a name that stands for nothing the server would make a collection.
pub(crate) async fn create_indexes(cluster: &Cluster, of: &TargetCollection, specs: &[IndexSpec]) -> Result<()> {
    let ns = &of.ns;
    let mut b = raw::Builder::default();
    b.str("createIndexes", ns.coll()).uuid("collectionUUID", of.uuid).begin_array("indexes");
    for (n, spec) in specs.iter().enumerate() {
        b.begin(&n.to_string());
        // Servers before 4.4 list `ns` within an index; `createIndexes` no longer takes it.
        for e in raw::elements(&spec.0).filter(|e| e.name != b"ns") {
            b.element(e);
        }
        // The simple collation is listed by leaving it out, and left out it means the collection's own (RAN on 6.0.5).
        // Indexes of version 1 know of none.
        if !spec.has("collation") && raw::get(&spec.0, "v").and_then(|e| e.integer()) != Some(1) {
            b.begin("collation").str("locale", "simple").end();
        }
        b.end();
    }
    b.end().begin("writeConcern").str("w", "majority").end();
    cluster.run_raw(ns.db(), &format!("building indexes on `{ns}`"), &b.finish()).await.map(drop)
}

/// From `$currentOp`: the server's own thread builds, so all users' operations are asked for, which `clusterMonitor` allows.
pub(crate) async fn build_progress(cluster: &Cluster, ns: &Namespace) -> Result<Option<f64>> {
    let ours = doc! {"command.createIndexes": ns.coll(), "command.$db": ns.db(), "progress.total": {"$gt": 0}};
    let share = doc! {"$divide": ["$progress.done", "$progress.total"]};
    let pipeline = vec![doc! {"$currentOp": {"allUsers": true}}, doc! {"$match": ours}, doc! {"$project": {"share": share}}];
    let command = doc! {"aggregate": 1, "pipeline": pipeline, "cursor": {}};
    let reply = match cluster.run("admin", &format!("asking how far the index builds of `{ns}` are"), &command).await {
        Err(Error::Forbidden { .. }) => return Ok(None),
        other => other?,
    };
    let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
    Ok(batch.iter().filter_map(|op| op.as_document()?.get_f64("share").ok()).reduce(f64::min))
}

pub(crate) async fn drop_indexes(cluster: &Cluster, of: &TargetCollection, names: impl Into<Bson>) -> Result<()> {
    let mut command = doc! {"dropIndexes": of.ns.coll(), "index": names, "writeConcern": {"w": "majority"}};
    identify(&mut command, Some(of.uuid));
    or_gone(cluster.run(of.ns.db(), &format!("dropping an index of `{}`", of.ns), &command).await.map(drop))
}

/// `collMod` of one index. `forceNonUnique` is what the server's own tools use; RAN on 6.0.5.
pub(crate) async fn change_index(cluster: &Cluster, of: &TargetCollection, name: &str, change: &IndexChange) -> Result<()> {
    let index: Document = match change {
        IndexChange::PrepareUnique(on) => doc! {"name": name, "prepareUnique": on},
        IndexChange::Unique => doc! {"name": name, "unique": true},
        IndexChange::NotUnique => doc! {"name": name, "forceNonUnique": true},
        IndexChange::ExpireAfterSeconds(seconds) => doc! {"name": name, "expireAfterSeconds": seconds},
        IndexChange::Hidden(hidden) => doc! {"name": name, "hidden": hidden},
    };
    let mut command = doc! {"collMod": of.ns.coll(), "index": index, "writeConcern": {"w": "majority"}};
    identify(&mut command, Some(of.uuid));
    cluster.run(of.ns.db(), &format!("changing the index `{name}` of `{}`", of.ns), &command).await.map(drop)
}
