//! `findAndModify`: straight to the shard that owns the document, with the collection's version. As there is no
//! routing code in between, its transaction number is sent on, too.

use super::cluster::Cluster;
use super::command::{Command, copy_fields};
use super::failure::{Answer, Code, Failure};
use super::keys;
use super::placement::{Placement, send_versioned, while_stale};

impl Cluster {
    pub async fn find_and_modify(&self, command: &Command) -> Answer {
        let namespace = command.namespace()?;
        if command.flag("upsert") {
            self.make_database(&command.db, None).await?;
        }
        while_stale(async || {
            let missing = || Failure::new(Code::NamespaceNotFound, format!("the database of {namespace} was not found"));
            let placement = self.placement(&namespace).await?.ok_or_else(missing)?;
            let shard = self.shard(&self.one_shard(&placement, command).await?)?;
            let mut body = command.plain()?;
            copy_fields(&command.body, &mut body, &["lsid", "txnNumber"])?;
            send_versioned(&shard, &placement, body).await
        })
        .await
    }

    /// The shard of a query that must name the whole shard key.
    pub async fn one_shard(&self, placement: &Placement, command: &Command) -> Result<String, Failure> {
        let Some(sharded) = &placement.sharded else { return Ok(placement.database.primary.clone()) };
        let query = command.body.get_document("query")?;
        let unknown = || Failure::new(Code::ShardKeyNotFound, "the query of a findAndModify must name the whole shard key");
        let key = keys::of_query(&sharded.key, query).ok_or_else(unknown)?;
        self.owners(sharded, vec![key]).await?.pop().ok_or_else(|| Failure::new(Code::ShardKeyNotFound, "no shard"))
    }
}
