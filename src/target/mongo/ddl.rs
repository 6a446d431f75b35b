//! Structure on the target. Every call may be repeated: what is there already, or gone already, is fine.

use super::super::IndexChange;
use crate::{
    error::{Error, Result},
    model::{IndexSpec, Namespace, raw},
    mongo::Cluster,
};
use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};

/// NamespaceNotFound.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// IndexNotFound.
const INDEX_NOT_FOUND: i32 = 27;
/// CannotDropShardKeyIndex: the only index of a shard key stays, whoever made it (RAN on 6.0.5).
const LAST_OF_SHARD_KEY: i32 = 370;
/// NamespaceExists.
const NAMESPACE_EXISTS: i32 = 48;

/// `create` with the options spliced in. A name that is taken is no error here: the caller looks what it is.
pub(crate) async fn create(cluster: &Cluster, ns: &Namespace, options: &RawDocument) -> Result<()> {
    let command = command("create", ns, options);
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
pub(crate) async fn drop_collection(cluster: &Cluster, ns: &Namespace) -> Result<()> {
    if !ns.is_functions() {
        return drop_by_name(cluster, ns).await;
    }
    // The server refuses to drop `system.js`, but not to rename it (RAN on 6.0.5 and 6.0.27).
    let aside = Namespace::new(ns.db(), "mongoferry.dropped_functions");
    match rename(cluster, ns, &aside, true).await {
        Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => {}
        other => other?,
    }
    drop_by_name(cluster, &aside).await
}

pub(crate) async fn rename(cluster: &Cluster, from: &Namespace, to: &Namespace, over: bool) -> Result<()> {
    let command = doc! {"renameCollection": from.as_str(), "to": to.as_str(), "dropTarget": over, "writeConcern": {"w": "majority"}};
    cluster.run("admin", &format!("renaming `{from}` to `{to}`"), &command).await.map(drop)
}

async fn drop_by_name(cluster: &Cluster, ns: &Namespace) -> Result<()> {
    let command = doc! {"drop": ns.coll(), "writeConcern": {"w": "majority"}};
    match cluster.run(ns.db(), &format!("dropping `{ns}`"), &command).await {
        Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => Ok(()),
        other => other.map(drop),
    }
}

pub(crate) async fn modify(cluster: &Cluster, ns: &Namespace, options: &RawDocument) -> Result<()> {
    cluster.run_raw(ns.db(), &format!("changing the options of `{ns}`"), &command("collMod", ns, options)).await.map(drop)
}

fn command(verb: &str, ns: &Namespace, options: &RawDocument) -> RawDocumentBuf {
    let mut b = raw::Builder::with_capacity(options.as_bytes().len() + 128);
    b.str(verb, ns.coll());
    for e in raw::elements(options) {
        b.element(e);
    }
    b.begin("writeConcern").str("w", "majority").end();
    b.finish()
}

/// One command for all of them, so that the collection is read once.
pub(crate) async fn create_indexes(cluster: &Cluster, ns: &Namespace, specs: &[IndexSpec]) -> Result<()> {
    let mut b = raw::Builder::default();
    b.str("createIndexes", ns.coll()).begin_array("indexes");
    for (n, spec) in specs.iter().enumerate() {
        // Servers before 4.4 list `ns` within an index; `createIndexes` no longer takes it.
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

pub(crate) async fn drop_index(cluster: &Cluster, ns: &Namespace, name: &str) -> Result<()> {
    drop_indexes(cluster, ns, name).await
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

/// The build is ended only by all of its names together (RAN on 6.0.5: one of two is refused as unfinished).
pub(crate) async fn abort_build(cluster: &Cluster, ns: &Namespace, names: &[String]) -> Result<()> {
    drop_indexes(cluster, ns, names).await
}

async fn drop_indexes(cluster: &Cluster, ns: &Namespace, names: impl Into<Bson>) -> Result<()> {
    let command = doc! {"dropIndexes": ns.coll(), "index": names, "writeConcern": {"w": "majority"}};
    match cluster.run(ns.db(), &format!("dropping an index of `{ns}`"), &command).await {
        Err(error) if matches!(error.code(), Some(NAMESPACE_NOT_FOUND | INDEX_NOT_FOUND | LAST_OF_SHARD_KEY)) => Ok(()),
        other => other.map(drop),
    }
}

/// `collMod` of one index. `forceNonUnique` is what the server's own tools use; RAN on 6.0.5.
pub(crate) async fn change_index(cluster: &Cluster, ns: &Namespace, name: &str, change: &IndexChange) -> Result<()> {
    let index: Document = match change {
        IndexChange::PrepareUnique(on) => doc! {"name": name, "prepareUnique": on},
        IndexChange::Unique => doc! {"name": name, "unique": true},
        IndexChange::NotUnique => doc! {"name": name, "forceNonUnique": true},
        IndexChange::ExpireAfterSeconds(seconds) => doc! {"name": name, "expireAfterSeconds": seconds},
        IndexChange::Hidden(hidden) => doc! {"name": name, "hidden": hidden},
    };
    let command = doc! {"collMod": ns.coll(), "index": index, "writeConcern": {"w": "majority"}};
    let doing = format!("changing the index `{name}` of `{ns}`");
    match cluster.run(ns.db(), &doing, &command).await {
        Err(Error::Refused { code: NAMESPACE_NOT_FOUND, .. }) => Ok(()),
        other => other.map(drop),
    }
}
