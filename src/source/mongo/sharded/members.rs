//! The shards, asked directly: what a router does not tell.

use crate::{error::Result, mongo::Cluster, source::OplogWindow};
use bson::{Bson, doc};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long a shard may take to answer: nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connections to the shards, by what `config.shards` calls them.
#[derive(Debug, Default)]
pub(crate) struct Members {
    known: Mutex<BTreeMap<String, Cluster>>,
    told: AtomicBool,
}

impl Members {
    /// The shards of now, under the names that the cluster knows them by.
    async fn all(&self, router: &Cluster) -> Result<BTreeMap<String, Cluster>> {
        let command = doc! {"find": "shards", "batchSize": 10_000};
        let reply = router.run("config", "listing the shards", &command).await?;
        let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
        let hosts = batch.iter().filter_map(Bson::as_document).filter_map(|s| Some((s.get_str("_id").ok()?, s.get_str("host").ok()?)));
        let mut found = BTreeMap::new();
        for (name, host) in hosts {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned();
            let shard = match known {
                Some(shard) => shard,
                None => {
                    let shard = router.shard(host)?;
                    self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), shard.clone());
                    shard
                }
            };
            found.insert(name.to_owned(), shard.with_retry(router.retry().within(PATIENCE)));
        }
        Ok(found)
    }

    /// The window of the shard whose oplog holds the shortest time; `None` where one of them cannot be asked: a shard has its
    /// own users, and ours may be unknown to it, or it is out of reach from here.
    pub(crate) async fn oplog_window(&self, router: &Cluster) -> Result<Option<OplogWindow>> {
        let mut shortest: Option<OplogWindow> = None;
        for (name, shard) in self.all(router).await? {
            match super::super::catalog::oplog_window(&shard).await {
                Ok(Some(window)) if shortest.is_none_or(|s| window.seconds() < s.seconds()) => shortest = Some(window),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    if !self.told.swap(true, Ordering::Relaxed) {
                        tracing::warn!(shard = name, "a shard of the source cannot be asked directly: headroom is not watched");
                    }
                    return Ok(None);
                }
            }
        }
        Ok(shortest)
    }

    /// Closes what was opened.
    pub(crate) async fn close(&self) {
        let known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        for shard in known.into_values() {
            shard.close().await;
        }
    }
}
