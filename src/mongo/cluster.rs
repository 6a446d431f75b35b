//! One connected cluster: its client, its topology, and commands with retries.

use super::{ProcessName, classify, reply::WriteReply};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, Side},
    retry::Retry,
};
use bson::{Document, RawDocumentBuf, doc};
use mongodb::{
    Client,
    error::ErrorKind,
    options::{ClientOptions, DriverInfo, SelectionCriteria, ServerAddress},
};
use secrecy::{ExposeSecret, SecretString};
use std::{sync::Arc, time::Duration};

/// To a shard that is asked directly: now and then, and by one task.
const SHARD_CONNECTIONS: u32 = 2;

/// What answers behind a connection string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One `mongod` without an oplog.
    Standalone,
    /// A replica set.
    ReplicaSet,
    /// `mongos`.
    Sharded,
}

/// A connected cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    side: Side,
    client: Client,
    /// What the client was made with, for [`Cluster::shard`]. Holds the password: never shown.
    options: Hidden,
    retry: Retry,
    name: Option<ProcessName>,
    bypass: bool,
}

#[derive(Clone)]
struct Hidden(Arc<ClientOptions>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientOptions")
    }
}

impl Cluster {
    /// Parses the connection string and prepares the client; the first command connects. A process that writes has a `name`.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for a connection string that makes no sense.
    pub async fn connect(side: Side, uri: &SecretString, connections: u32, retry: Retry, name: Option<ProcessName>) -> Result<Self> {
        let mut options =
            ClientOptions::parse(uri.expose_secret()).await.map_err(|e| classify(side, "reading the connection string", e))?;
        options.app_name.get_or_insert_with(|| "mongoferry".to_owned());
        if let Some(name) = &name {
            options.driver_info = Some(DriverInfo::builder().name(name.text()).build());
        }
        // The driver's defaults (10 connections, 2 at a time) starve parallel readers and writers.
        options.max_pool_size = Some(options.max_pool_size.unwrap_or(connections).max(connections));
        options.max_connecting.get_or_insert(8);
        // Our own retries have a deadline, so one wait for a primary may be short.
        options.server_selection_timeout.get_or_insert(Duration::from_secs(10));
        // A node that went silent is noticed by its monitor: there is no socket time-out in the driver.
        options.heartbeat_freq.get_or_insert(Duration::from_secs(5));
        options.connect_timeout.get_or_insert(Duration::from_secs(5));
        let client = Client::with_options(options.clone()).map_err(|e| classify(side, "reading the connection string", e))?;
        Ok(Self { side, client, options: Hidden(Arc::new(options)), retry, name, bypass: false })
    }

    /// One shard of a sharded cluster, asked directly, as the same user. `host` is what `config.shards` says:
    /// `NAME/HOST:PORT,HOST:PORT`. To be [closed](Self::close) like any other.
    ///
    /// # Errors
    /// [`Error::UnfitCluster`] for a host that makes no sense.
    pub fn shard(&self, host: &str) -> Result<Self> {
        let unfit = || Error::UnfitCluster {
            side: self.side,
            problem: format!("lists the shard `{host}`, which is no replica set"),
            hint: "look at `listShards` in mongosh".into(),
        };
        let (name, members) = host.split_once('/').ok_or_else(unfit)?;
        let hosts: std::result::Result<Vec<_>, _> = members.split(',').map(ServerAddress::parse).collect();
        let mut options = ClientOptions::clone(&self.options.0);
        options.hosts = hosts.map_err(|_| unfit())?;
        options.repl_set_name = Some(name.to_owned());
        (options.direct_connection, options.load_balanced, options.srv_max_hosts) = (None, None, None);
        options.max_pool_size = Some(SHARD_CONNECTIONS);
        let client = Client::with_options(options.clone()).map_err(|e| classify(self.side, "connecting to a shard", e))?;
        Ok(Self { client, options: Hidden(Arc::new(options)), ..self.clone() })
    }

    /// Which side it is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// How this process names itself there.
    pub(super) fn name(&self) -> Option<&ProcessName> {
        self.name.as_ref()
    }

    /// The driver's client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The policy of its commands.
    #[must_use]
    pub fn retry(&self) -> &Retry {
        &self.retry
    }

    /// The same, whose commands pass the user write block of a server without access control: the servers of a cluster say so
    /// to each other (RAN on 6.0.5: without access control everybody may say it; with it, a user needs
    /// `bypassWriteBlockingMode` and need not say anything).
    #[must_use]
    pub fn bypassing(&self) -> Self {
        Self { bypass: true, ..self.clone() }
    }

    /// The same client under another policy.
    #[must_use]
    pub fn with_retry(&self, retry: Retry) -> Self {
        Self { retry, ..self.clone() }
    }

    /// The same, whose calls are not repeated for longer than `deadline`.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Self {
        self.with_retry(self.retry.within(deadline.min(self.retry.deadline())))
    }

    /// Closes all connections at once; the last call before the runtime ends, else the driver may panic.
    pub async fn close(self) {
        // Seen once to wait for ever, just after an election (driver 3.9.1): the process must end all the same.
        if tokio::time::timeout(Duration::from_secs(3), self.client.shutdown().immediate(true)).await.is_err() {
            tracing::debug!(side = self.side.label(), "the driver did not shut down in time");
        }
    }

    /// Runs a command once, on the primary unless told otherwise.
    ///
    /// # Errors
    /// As classified. A reply that holds `writeErrors` is `Ok`: see [`Cluster::write`].
    pub async fn run_once(&self, db: &str, doing: &str, command: RawDocumentBuf, on: Option<&SelectionCriteria>) -> Result<Document> {
        self.send(db, command, on).await.map_err(|e| classify(self.side, doing, e))
    }

    /// The one place where commands leave.
    async fn send(
        &self,
        db: &str,
        mut command: RawDocumentBuf,
        on: Option<&SelectionCriteria>,
    ) -> std::result::Result<Document, mongodb::error::Error> {
        if self.bypass {
            command.append(bson::cstr!("mayBypassWriteBlocking"), true);
        }
        let db = self.client.database(db);
        let mut action = db.run_raw_command(command);
        if let Some(criteria) = on {
            action = action.selection_criteria(criteria.clone());
        }
        action.await
    }

    /// Runs a command that is safe to repeat, with retries.
    ///
    /// # Errors
    /// As classified; transient ones only after the deadline.
    pub async fn run(&self, db: &str, doing: &str, command: &Document) -> Result<Document> {
        let raw = RawDocumentBuf::try_from(command).map_err(|e| Error::Bug(format!("a command of ours is no BSON: {e}")))?;
        self.run_raw(db, doing, &raw).await
    }

    /// As [`Cluster::run`], for a command built from raw parts.
    ///
    /// # Errors
    /// As classified; transient ones only after the deadline.
    pub async fn run_raw(&self, db: &str, doing: &str, command: &RawDocumentBuf) -> Result<Document> {
        self.retry
            .run(|| async {
                let reply = self.run_once(db, doing, command.clone(), None).await?;
                WriteReply::parse(self.side, doing, &reply)?.settled(self.side, doing)?;
                Ok(reply)
            })
            .await
    }

    /// Runs a write command with retries and looks inside its reply. A failed write concern is repeated like
    /// a lost answer: our writes are absolute.
    ///
    /// # Errors
    /// As classified, but not for errors of single statements.
    pub async fn write(&self, db: &str, doing: &str, command: &RawDocumentBuf) -> Result<WriteReply> {
        self.retry
            .run(|| async {
                let reply = WriteReply::parse(self.side, doing, &self.run_once(db, doing, command.clone(), None).await?)?;
                reply.settled(self.side, doing)
            })
            .await
    }

    /// As [`Cluster::write`]; `None` where the command went well but its reply cannot be read: the server names an `_id`
    /// of invalid UTF-8 in it, in an upsert's or in a duplicate's part, and the driver decodes replies (3.9.1).
    ///
    /// # Errors
    /// As [`Cluster::write`].
    pub async fn write_perhaps(&self, db: &str, doing: &str, command: &RawDocumentBuf) -> Result<Option<WriteReply>> {
        self.retry
            .run(|| async {
                match self.send(db, command.clone(), None).await {
                    Ok(reply) => WriteReply::parse(self.side, doing, &reply)?.settled(self.side, doing).map(Some),
                    Err(e) if matches!(*e.kind, ErrorKind::Bson(_)) => Ok(None),
                    Err(e) => Err(classify(self.side, doing, e)),
                }
            })
            .await
    }

    /// What answers there.
    ///
    /// # Errors
    /// As classified.
    pub async fn topology(&self) -> Result<Topology> {
        let hello = self.run("admin", "saying hello", &doc! {"hello": 1}).await?;
        Ok(if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
            Topology::Sharded
        } else if hello.contains_key("setName") {
            Topology::ReplicaSet
        } else {
            Topology::Standalone
        })
    }

    /// The newest cluster time that the primary knows: `operationTime` of a ping.
    ///
    /// # Errors
    /// As classified.
    pub async fn operation_time(&self) -> Result<ClusterTime> {
        let reply = self.run("admin", "asking for the operation time", &doc! {"ping": 1}).await?;
        reply.get_timestamp("operationTime").map(ClusterTime::from).map_err(|_| Error::UnfitCluster {
            side: self.side,
            problem: "reports no operation time".into(),
            hint: "it must be a replica set or a sharded cluster".into(),
        })
    }
}
