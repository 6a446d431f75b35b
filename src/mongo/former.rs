//! Ends what a former process of the same migration left running on a cluster.
//!
//! A process that was killed leaves commands behind that the server goes on with, or has yet to begin: an index build goes on until
//! something interrupts it, a `drop` waits for it (RAN on 6.0.5: `createIndexes` of a process killed by SIGKILL ran on for as long
//! as it was let). Carried out behind our back, a late insert could bring a deleted document back, and a late `dropIndexes` take an
//! index away that was found. So each process connects under a name of its own, and before its first look at the target it ends
//! the operations of its predecessors and waits until their connections are closed.

use super::Cluster;
use crate::error::{Error, Result, Trouble};
use bson::{Bson, Document, doc};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For how long idle connections are waited for: those of a host that vanished stay for hours, and bring nothing any more.
const CONNECTIONS: Duration = Duration::from_secs(5);
/// For how long operations may take to end, once told to.
const OPERATIONS: Duration = Duration::from_secs(60);
/// What the driver's monitors have under way all the time.
const MONITOR: [&str; 3] = ["hello", "isMaster", "ismaster"];
/// How a process names itself to a cluster: `mongoferry METADATA-DATABASE/NONCE`, as what wraps the driver. The name of the
/// application stays what the connection string says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessName {
    migration: String,
    nonce: String,
}

impl ProcessName {
    /// For a process that works on the migration of this metadata database.
    #[must_use]
    pub fn new(metadata_database: &str) -> Self {
        Self { migration: format!("mongoferry {metadata_database}"), nonce: format!("{:08x}", rand::random::<u32>()) }
    }

    /// As the server is told.
    pub(super) fn text(&self) -> String {
        format!("{}/{}", self.migration, self.nonce)
    }

    /// Whether another process of the same migration names itself so. The server shows the driver's own name in front of it.
    fn is_of_former(&self, driver: &str) -> bool {
        driver
            .rsplit_once('/')
            .is_some_and(|(before, nonce)| before.rsplit('|').next() == Some(self.migration.as_str()) && nonce != self.nonce)
    }
}

impl Cluster {
    /// See the module. Asks for operations of our own user only, which needs no privilege on a replica set (RAN on 6.0.5 with access
    /// control). Through a router they are nobody's own: to see them takes `inprog`, to end them `killop`, and without that they are
    /// waited for; a router ends by itself what a client that has gone had asked for. Call it when the lease is ours.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where operations do not end; as classified.
    pub async fn end_former(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let theirs = self.of_former().await?;
            let active: Vec<&Document> = theirs.iter().filter(|op| is_command(op)).collect();
            for op in active.iter().filter_map(|op| op.get("opid")) {
                tracing::info!(side = self.side().label(), "ending what a former process asked for");
                match self.kill(op).await {
                    Err(Error::Forbidden { .. }) => tracing::debug!("it is waited for, since we may not end it"),
                    other => other?,
                }
            }
            let waited = started.elapsed();
            if theirs.is_empty() || (active.is_empty() && waited > CONNECTIONS) {
                return Ok(());
            }
            if waited > OPERATIONS {
                return Err(Error::Unreachable {
                    side: self.side(),
                    doing: "ending the operations of a process that died".into(),
                    why: Trouble::Timeout,
                    source: "they do not end".into(),
                });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn of_former(&self) -> Result<Vec<Document>> {
        let Some(us) = self.name() else { return Ok(Vec::new()) };
        let named = doc! {"clientMetadata.driver.name": {"$regex": "mongoferry .*/"}};
        let shown = doc! {"driver": "$clientMetadata.driver.name", "opid": 1, "active": 1, "command": {"$objectToArray": "$command"}};
        let shown = [doc! {"$match": named}, doc! {"$project": shown}, doc! {"$project": {"command.v": 0}}];
        let mut pipeline = vec![doc! {"$currentOp": {"allUsers": false, "idleConnections": true}}];
        pipeline.extend(shown);
        let command = doc! {"aggregate": 1, "pipeline": pipeline, "cursor": {"batchSize": 10_000}};
        let reply = self.run("admin", "looking for operations of a process that died", &command).await?;
        let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
        let former = |op: &&Document| op.get_str("driver").is_ok_and(|name| us.is_of_former(name));
        Ok(batch.iter().filter_map(Bson::as_document).filter(former).cloned().collect())
    }

    /// An operation that has ended meanwhile is no error (RAN on 6.0.5).
    async fn kill(&self, op: &Bson) -> Result<()> {
        self.run("admin", "ending an operation of a process that died", &doc! {"killOp": 1, "op": op.clone()}).await.map(drop)
    }
}

fn is_command(op: &Document) -> bool {
    let first = op.get_array("command").ok().and_then(|c| c.first()).and_then(Bson::as_document);
    let verb = first.and_then(|field| field.get_str("k").ok()).unwrap_or_default();
    op.get_bool("active").unwrap_or_default() && !MONITOR.contains(&verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_process_is_told_from_ourselves_and_from_other_migrations() {
        let (ours, former, other) = (ProcessName::new("meta"), ProcessName::new("meta"), ProcessName::new("meta2"));
        let shown = |name: &ProcessName| format!("mongo-rust-driver|{}", name.text());
        assert!(ours.is_of_former(&shown(&former)));
        assert!(!ours.is_of_former(&shown(&ours)) && !ours.is_of_former(&shown(&other)));
        assert!(!ours.is_of_former("mongo-rust-driver") && !ours.is_of_former("nodejs|mongosh") && !ours.is_of_former("a/b"));
    }
}
