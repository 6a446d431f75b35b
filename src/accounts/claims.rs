//! Which users and roles of the target are ours: `accounts` in the metadata database.

use super::account::Name;
use crate::{
    error::Result,
    model::raw,
    mongo::{Cluster, listing},
};
use bson::{Document, doc, rawdoc};
use std::collections::BTreeSet;

const COLLECTION: &str = "accounts";
/// Names of one command.
const AT_ONCE: usize = 1_000;

/// The claims of a migration.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    cluster: Cluster,
    database: String,
}

impl Claims {
    pub fn new(cluster: Cluster, database: &str) -> Self {
        Self { cluster, database: database.to_owned() }
    }

    pub fn with(&self, cluster: Cluster) -> Self {
        Self { cluster, ..self.clone() }
    }

    pub async fn all(&self) -> Result<BTreeSet<Name>> {
        let command = rawdoc! {"find": COLLECTION, "readConcern": {"level": "majority"}};
        let found = listing::found(&self.cluster, &self.database, "reading which users and roles are ours", &command).await?;
        Ok(found.iter().filter_map(|doc| Name::parse(raw::get(doc, "_id")?.str()?)).collect())
    }

    pub async fn add(&self, names: impl Iterator<Item = &Name>) -> Result<()> {
        let statement = |name: &Name| doc! {"q": {"_id": name.to_string()}, "u": {"$setOnInsert": {}}, "upsert": true};
        self.write("update", "updates", names.map(statement).collect()).await
    }

    pub async fn remove(&self, names: impl Iterator<Item = &Name>) -> Result<()> {
        self.write("delete", "deletes", names.map(|name| doc! {"q": {"_id": name.to_string()}, "limit": 1}).collect()).await
    }

    async fn write(&self, verb: &str, statements_of: &str, statements: Vec<Document>) -> Result<()> {
        for some in statements.chunks(AT_ONCE) {
            let mut command = doc! {"writeConcern": {"w": "majority"}};
            command.insert(statements_of, some);
            let mut whole = doc! {verb: COLLECTION};
            whole.extend(command);
            self.cluster.run(&self.database, "noting which users and roles are ours", &whole).await?;
        }
        Ok(())
    }
}
