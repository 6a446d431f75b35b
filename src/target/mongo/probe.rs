//! What the target's server can do, found by trying it rather than by its version number.

use crate::{
    error::{Error, Remedy, Result},
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

/// Tries each in a scratch collection, which is dropped again.
pub(crate) async fn probe(cluster: &Cluster, database: &str) -> Result<Features> {
    let scratch = format!("probe_{:016x}", rand::random::<u64>());
    let run = |command: Document| {
        let scratch = &scratch;
        async move { cluster.run(database, &format!("trying what the server can do in `{database}.{scratch}`"), &command).await }
    };
    let majority = doc! {"w": "majority"};
    run(doc! {"create": &scratch, "writeConcern": &majority}).await?;
    let found = async {
        run(doc! {"insert": &scratch, "documents": [{"_id": 1, "a": 1}], "writeConcern": &majority}).await?;
        run(doc! {"createIndexes": &scratch, "indexes": [{"key": {"a": 1}, "name": "a"}], "writeConcern": &majority}).await?;
        let diff = doc! {"$v": 2, "diff": {"u": {"a": 2}}};
        let update = doc! {"q": {"_id": 1}, "u": [{"$_internalApplyOplogUpdate": {"oplogUpdate": diff}}]};
        let other = bson::Uuid::new();
        Ok(Features {
            raw_diffs: known(run(doc! {"update": &scratch, "updates": [update], "writeConcern": &majority}).await)?,
            convert_unique: known(run(doc! {"collMod": &scratch, "index": {"name": "a", "prepareUnique": true}}).await)?,
            // The right answer to a wrong UUID is an error of the statement; a server that does not know the field refuses the command.
            collection_uuid: known(
                run(doc! {"insert": &scratch, "documents": [{"_id": 2}], "collectionUUID": other, "writeConcern": &majority}).await,
            )?,
        })
    }
    .await;
    run(doc! {"drop": &scratch, "writeConcern": &majority}).await?;
    found
}

/// Whether the command and its single statement went through; a refusal is the answer "no".
fn known(tried: Result<Document>) -> Result<bool> {
    const UUID_MISMATCH: i32 = 361;
    match tried {
        Ok(reply) => Ok(reply.get_array("writeErrors").map_or(true, |errors| {
            errors.iter().filter_map(|e| e.as_document()).all(|e| e.get_i32("code").is_ok_and(|code| code == UUID_MISMATCH))
        })),
        Err(error) if error.remedy() == Remedy::Operate && !matches!(error, Error::Forbidden { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
