//! How a cluster is doing, as far as we may ask. Asked once, never repeated: a fact that is late is no fact.
//!
//! The three commands and their fields are there on 4.4.2 and 6.0.5, and the role clusterMonitor is enough (RAN). A
//! router has no replSetGetStatus: then the lag is not known.

use super::Cluster;
use crate::error::{Error, Result};
use bson::{Bson, Document, RawDocumentBuf, doc};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// What was seen; `None` where it does not exist, or may not be asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// How far the slowest secondary is behind, delayed ones left out.
    pub lag: Option<Duration>,
    /// Whether flow control holds writers back.
    pub flow_control: Option<bool>,
    /// Operations that wait for a lock or a ticket.
    pub queue: Option<u64>,
    /// What the user may not ask.
    pub forbidden: Vec<&'static str>,
}

impl Cluster {
    /// How long the primary takes to answer a ping.
    ///
    /// # Errors
    /// As classified, at the first failure.
    pub async fn ping(&self) -> Result<Duration> {
        let started = Instant::now();
        self.ask_once("ping", doc! {"ping": 1}).await?;
        Ok(started.elapsed())
    }

    /// What the primary knows of itself and its secondaries.
    pub async fn health(&self) -> Health {
        let mut health = Health::default();
        let status = self.ask_once("replSetGetStatus", doc! {"replSetGetStatus": 1}).await;
        let delayed = match self.ask_once("replSetGetConfig", doc! {"replSetGetConfig": 1}).await {
            Ok(reply) => delayed(&reply),
            Err(_) => BTreeSet::new(),
        };
        // Sections that cost the server something and that nobody reads here are left out.
        let server =
            doc! {"serverStatus": 1, "metrics": 0, "locks": 0, "wiredTiger": 0, "tcmalloc": 0, "repl": 0, "transactions": 0, "sharding": 0};
        let server = self.ask_once("serverStatus", server).await;
        for (name, answer) in [("replSetGetStatus", &status), ("serverStatus", &server)] {
            if let Err(Error::Forbidden { .. }) = answer {
                health.forbidden.push(name);
            }
        }
        health.lag = status.ok().and_then(|reply| slowest(&reply, &delayed));
        if let Ok(reply) = server {
            let flow = reply.get_document("flowControl").ok();
            health.flow_control = flow.map(|f| f.get_bool("enabled").unwrap_or(false) && f.get_bool("isLagged").unwrap_or(false));
            let queue = reply.get_document("globalLock").and_then(|lock| lock.get_document("currentQueue"));
            health.queue = queue.ok().and_then(|queue| number(queue, "total"));
        }
        health
    }

    async fn ask_once(&self, doing: &str, command: Document) -> Result<Document> {
        let raw = RawDocumentBuf::try_from(&command).map_err(|e| Error::Bug(format!("a command of ours is no BSON: {e}")))?;
        self.run_once("admin", doing, raw, None).await
    }
}

fn number(doc: &Document, name: &str) -> Option<u64> {
    match doc.get(name)? {
        Bson::Int32(n) => u64::try_from(*n).ok(),
        Bson::Int64(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}

fn members<'a>(reply: &'a Document, name: &str) -> impl Iterator<Item = &'a Document> {
    let members = reply.get_array(name).map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(Bson::as_document)
}

/// Members that are behind because they are meant to be.
fn delayed(config: &Document) -> BTreeSet<String> {
    let Ok(config) = config.get_document("config") else { return BTreeSet::new() };
    let meant = |m: &&Document| ["secondaryDelaySecs", "slaveDelay"].iter().any(|name| number(m, name).is_some_and(|s| s > 0));
    members(config, "members").filter(meant).filter_map(|m| m.get_str("host").ok().map(str::to_owned)).collect()
}

/// How far the slowest living secondary is behind the primary.
fn slowest(status: &Document, delayed: &BTreeSet<String>) -> Option<Duration> {
    let optime = |m: &Document| m.get_datetime("optimeDate").ok().map(|at| at.timestamp_millis());
    let in_state = |wanted: u64| members(status, "members").filter(move |m| number(m, "state") == Some(wanted));
    let primary = in_state(1).find_map(optime)?;
    let alive = |m: &&Document| !delayed.contains(m.get_str("name").unwrap_or_default());
    let behind = in_state(2).filter(alive).filter_map(optime).map(|at| primary.saturating_sub(at)).max()?;
    Some(Duration::from_millis(u64::try_from(behind).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::DateTime;

    #[test]
    fn the_slowest_secondary_counts_unless_it_is_meant_to_be_slow() {
        let member = |name: &str, state: i32, at: i64| doc! {"name": name, "state": state, "optimeDate": DateTime::from_millis(at)};
        let status = doc! {"members": [
            member("a", 1, 100_000), member("b", 2, 98_000), member("c", 2, 40_000), member("d", 8, 0), member("e", 7, 0),
        ]};
        let config = doc! {"config": {"members": [{"host": "b"}, {"host": "c", "secondaryDelaySecs": 60_i64}]}};
        assert_eq!(slowest(&status, &delayed(&config)), Some(Duration::from_secs(2)));
        assert_eq!(slowest(&status, &BTreeSet::new()), Some(Duration::from_secs(60)));
        assert_eq!(slowest(&doc! {"members": [member("a", 1, 5)]}, &BTreeSet::new()), None);
        assert_eq!(delayed(&doc! {"config": {"members": [{"host": "x", "slaveDelay": 3_i32}]}}).len(), 1);
    }
}
