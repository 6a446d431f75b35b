//! What the target's server can do, found by trying it rather than by its version number, and without
//! writing: each command is one that a server which knows it refuses only *after* having understood it
//! (RAN on 6.0.5).

use crate::{
    error::{Error, Result},
    mongo::Cluster,
};
use bson::{Document, doc};

/// Abilities that the migration builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// `$_internalApplyOplogUpdate`: raw diffs are applied as they are.
    pub raw_diffs: bool,
    /// `collMod` with `prepareUnique` and `unique`: unique indexes are converted at the seal.
    pub convert_unique: bool,
    /// `collectionUUID` on writes: nobody else's collection is written by mistake.
    pub collection_uuid: bool,
}

/// NamespaceNotFound: the answer of a server that understood.
const NAMESPACE_NOT_FOUND: i32 = 26;

/// Tries each on a collection that is not there.
pub(crate) async fn probe(cluster: &Cluster, database: &str) -> Result<Features> {
    let none = format!("none_{:016x}", rand::random::<u64>());
    let diff = doc! {"$_internalApplyOplogUpdate": {"oplogUpdate": {"$v": 2, "diff": {"u": {"a": 1}}}}};
    let update = doc! {"update": &none, "updates": [{"q": {"_id": 1}, "u": [diff]}]};
    // The wrong UUID is an error of the statement; a server that does not know the field refuses the command.
    let insert = doc! {"insert": &none, "documents": [{"_id": 1}], "collectionUUID": bson::Uuid::new()};
    Ok(Features {
        raw_diffs: understood(cluster, database, doc! {"explain": update, "verbosity": "queryPlanner"}).await?,
        convert_unique: understood(cluster, database, doc! {"collMod": &none, "index": {"name": "a", "prepareUnique": true}}).await?,
        collection_uuid: understood(cluster, database, insert).await?,
    })
}

async fn understood(cluster: &Cluster, database: &str, command: Document) -> Result<bool> {
    match cluster.run(database, "trying what the server can do", &command).await {
        Ok(_) => Ok(true),
        Err(Error::Refused { code, .. }) => Ok(code == NAMESPACE_NOT_FOUND),
        Err(error) => Err(error),
    }
}
