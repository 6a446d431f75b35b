//! A front to a sharded cluster, in place of a `mongos`: a driver sees the topology *Sharded*.
//!
//! Storage, chunks, migrations and routing are MongoDB's: a shard server carries the routing code behind internal
//! commands (`clusterFind`, `_shardsvrDropCollection`, …), and the front sends a client's commands there under these
//! names. What it does itself is little: change streams (merged by their tokens), transactions (statements sent to the
//! owning shards), `findAndModify`, and the merging of a few lists.
//!
//! What is different from a `mongos`: retryable writes survive the client's connection but not a shard's (a write may
//! then be done twice); documents that `updateLookup` adds are looked up on the event's own shard; no reads over several
//! shards in a transaction; no TLS. What a user may do is decided here, by the rules of a `mongos`: see `privileges`.

mod access;
mod chunks;
mod clock;
mod cluster;
mod command;
mod connection;
mod cursors;
mod ddl;
mod dispatch;
mod failure;
mod find_and_modify;
mod keys;
mod metadata;
mod operations;
mod placement;
mod privileges;
mod reads;
mod retried;
mod scram;
mod stream;
mod transaction;
mod upstream;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::node::free_port;
use crate::{Error, Result};
use cluster::Cluster;
use scram::Key;

/// The wire protocol's version that servers of 6.0 speak.
const SERVERS_6_0: i32 = 17;

/// A running front, on a thread of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Front {
    port: u16,
    ended: oneshot::Receiver<()>,
    stopping: DropGuard,
}

impl Front {
    /// Serves the cluster of the config server (`name/host:port,…`), on the port that is given or on a free one. With the key of
    /// its servers it asks clients for a login.
    pub async fn start(config_server: &str, port: Option<u16>, key: Option<&str>) -> Result<Front> {
        let key = key.map(|key| Arc::new(Key::new(key)));
        let cluster = Cluster::new(config_server, key).ok_or_else(|| Error::BadReply(format!("no config server: {config_server}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("cannot start the front"))?;
        let stopping = CancellationToken::new();
        let (end, ended) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let stop = stopping.clone();
        let work = async move || match ready(&cluster, port).await {
            Ok((listener, port)) => {
                let _ = tell.send(Ok(port));
                connection::serve(listener, Rc::new(cluster), stop).await;
            }
            Err(error) => _ = tell.send(Err(error)),
        };
        let thread = std::thread::Builder::new().name("front".into()).spawn(move || {
            LocalSet::new().block_on(&runtime, work());
            drop(runtime);
            let _ = end.send(());
        });
        thread.map_err(Error::io("cannot start the front"))?;
        let port = told.await.unwrap_or_else(|_| Err(Error::BadReply("the front ended at once".into())))?;
        Ok(Front { port, ended, stopping: stopping.drop_guard() })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection, and returns when nobody listens any more.
    pub async fn stop(self) {
        let Front { ended, stopping, .. } = self;
        drop(stopping);
        let _ = ended.await;
    }
}

async fn ready(cluster: &Cluster, port: Option<u16>) -> Result<(TcpListener, u16)> {
    let learnt = cluster.learn().await;
    learnt.map_err(|failure| Error::BadReply(format!("the config server: {:?}", failure.into_reply())))?;
    if cluster.wire_version.load(Ordering::Relaxed) < SERVERS_6_0 {
        return Err(Error::BadReply("servers before 6.0 have no routing commands for the front; set $MONGOS to a mongos".into()));
    }
    listen(port).await
}

async fn listen(port: Option<u16>) -> Result<(TcpListener, u16)> {
    loop {
        let at = match port {
            Some(port) => port,
            None => free_port()?,
        };
        match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, at))).await {
            Ok(listener) => return Ok((listener, at)),
            // Somebody was faster between the choice of the port and its use.
            Err(error) if port.is_none() && error.kind() == std::io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(Error::Io { what: format!("the front cannot listen on port {at}"), source: error }),
        }
    }
}
