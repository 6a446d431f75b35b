//! A replica set (or a standalone) of real servers on this machine, with the faults a test wants to cause.
//!
//! Promises: when `start` returns, there is a writable primary, and with three nodes every member is primary or
//! secondary. When the value is dropped, or its process dies however violently, the servers die; the folder goes with
//! the drop, or with the next start after a violent death.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use rand::Rng;
use rand::distr::Alphanumeric;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::client::{connect, run, run_within};
use crate::folder::Folder;
use crate::node::{Launch, Node};
use crate::tls::{Certificates, certificates};
use crate::{Error, Result, Version, server};

/// The name and password of the administrator of sets with `auth`.
pub const ROOT: (&str, &str) = ("root", "root-password");

/// How long to wait for elections and first syncs.
const STATE_TIMEOUT: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The replica set's name.
    pub name: String,
    /// Data-bearing members, 1 or 3.
    pub nodes: usize,
    pub version: Version,
    /// No replica set at all: a single server without an oplog.
    pub standalone: bool,
    /// `requireTLS`, with certificates made for the occasion. Clients need none.
    pub tls: bool,
    /// Access control, with [`ROOT`] as administrator.
    pub auth: bool,
    /// What the servers know each other by, with `auth`; otherwise one is made up. All sets of a sharded cluster have the same.
    pub key: Option<String>,
    /// MiB.
    pub oplog_mb: u32,
    /// GiB of WiredTiger cache per node.
    pub cache_gb: f64,
    /// Whether fail points and the like may be set. A server that lets them be set also checks its own replies (RAN: a tenth of
    /// what a scan costs it), so what is measured goes without.
    pub test_commands: bool,
    /// Further arguments for every `mongod`.
    pub extra_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "rs0".into(),
            nodes: 1,
            version: Version::default(),
            standalone: false,
            tls: false,
            auth: false,
            key: None,
            oplog_mb: 256,
            cache_gb: 0.25,
            test_commands: true,
            extra_args: Vec::new(),
        }
    }
}

/// Running servers.
#[derive(Debug)]
pub struct ReplicaSet {
    options: Options,
    certificates: Option<Certificates>,
    // Declared before the folder, so that the servers are dead when it is removed.
    nodes: Vec<Node>,
    folder: Folder,
}

impl ReplicaSet {
    /// Starts the servers and waits until they can be used.
    pub async fn start(options: Options) -> Result<ReplicaSet> {
        let binary = server::mongod(options.version).await?;
        let folder = Folder::create()?;
        let certificates = if options.tls { Some(certificates(&folder)?) } else { None };

        let arguments = arguments(&options, certificates.as_ref(), &folder)?;
        let count = if options.standalone { 1 } else { options.nodes };
        let launches = (0..count).map(|i| {
            let dbpath = folder.subfolder(&format!("node{i}"))?;
            Ok(Launch { binary: binary.clone(), dbpath, arguments: arguments.clone() })
        });
        let launches = launches.collect::<Result<Vec<_>>>()?;
        let nodes = try_join_all(launches.into_iter().map(Node::start)).await?;

        let set = ReplicaSet { options, certificates, nodes, folder };
        if !set.options.standalone {
            set.initiate().await?;
        }
        if set.options.auth {
            // The localhost exception lets the first user be made without one.
            let user = doc! { "createUser": ROOT.0, "pwd": ROOT.1, "roles": ["root"] };
            let primary = set.primary().await?;
            run(&set.direct_uri(&set.nodes[primary].address(), None), user).await?;
        }
        Ok(set)
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The authority's certificate when TLS is on.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.certificates.as_ref().map(|files| files.ca_file.clone())
    }

    /// The folder with the data and the logs (`node<i>/mongod.log`).
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A connection string for the whole set, as administrator when there is access control.
    pub fn uri(&self) -> String {
        self.set_uri(self.root())
    }

    /// A connection string for the whole set, as the given user (of the database `admin`).
    pub fn uri_for(&self, user: &str, password: &str) -> String {
        self.set_uri(Some((user, password)))
    }

    /// A direct connection to node `i`.
    pub fn node_uri(&self, i: usize) -> String {
        self.direct_uri(&self.nodes[i].address(), self.root())
    }

    /// A direct connection to another address, such as a proxy before a node.
    pub fn uri_at(&self, address: impl std::fmt::Display) -> String {
        self.direct_uri(&address.to_string(), self.root())
    }

    /// `host:port` of each node.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// A client of the whole set. See [`connect`].
    pub async fn client(&self) -> Result<Client> {
        connect(&self.uri()).await
    }

    /// Makes a user in the database `admin`; `roles` as `createUser` takes them.
    pub async fn create_user(&self, user: &str, password: &str, roles: Vec<mongodb::bson::Bson>) -> Result<()> {
        let primary = self.primary().await?;
        self.admin(primary, doc! { "createUser": user, "pwd": password, "roles": roles }).await?;
        Ok(())
    }

    /// Runs a command on the database `admin` of node `i`, over a direct connection.
    pub async fn admin(&self, i: usize, command: Document) -> Result<Document> {
        run(&self.node_uri(i), command).await
    }

    /// Waits for a writable primary; answers its index.
    pub async fn primary(&self) -> Result<usize> {
        self.wait_for("a writable primary", |states| states.iter().position(|state| *state == State::Primary)).await
    }

    /// Waits until every running node is primary or secondary, and one is primary.
    pub async fn all_members_ready(&self) -> Result<()> {
        self.wait_for("all members to be primary or secondary", |states| {
            let up = states.iter().zip(&self.nodes).all(|(state, node)| *state != State::Other || !node.is_running());
            (up && states.contains(&State::Primary)).then_some(())
        })
        .await
    }

    /// Makes the primary step down (forced, not to be elected again for 10 s) and waits for the next one; answers
    /// its index. The only node of a set is let back at once.
    pub async fn step_down(&self) -> Result<usize> {
        let primary = self.primary().await?;
        self.admin(primary, doc! { "replSetStepDown": 10, "force": true }).await?;
        if self.nodes.len() == 1 {
            self.admin(primary, doc! { "replSetFreeze": 0 }).await?;
        }
        self.primary().await
    }

    /// Kills node `i` (SIGKILL).
    pub fn kill(&self, i: usize) {
        self.nodes[i].kill();
    }

    /// Starts node `i` again on its data and port; waits until it listens (not until it is elected or synced).
    pub async fn restart(&self, i: usize) -> Result<()> {
        Ok(self.nodes[i].restart().await?)
    }

    /// Freezes node `i` (SIGSTOP): connections stay open and nothing is answered.
    pub fn pause(&self, i: usize) -> Result<()> {
        self.nodes[i].signal(Signal::STOP)
    }

    /// Lets node `i` go on.
    pub fn unpause(&self, i: usize) -> Result<()> {
        self.nodes[i].signal(Signal::CONT)
    }

    /// Lets no file of node `i` grow above so many bytes until it is started again. It then ends itself as one whose disk is full.
    pub fn limit_files(&self, i: usize, bytes: u64) -> Result<()> {
        self.nodes[i].limit_files(bytes)
    }

    /// Whether node `i` has not ended.
    pub fn is_running(&self, i: usize) -> bool {
        self.nodes[i].is_running()
    }

    /// Kills the servers and removes their folder, as the drop does.
    pub fn stop(self) {}

    fn root(&self) -> Option<(&'static str, &'static str)> {
        self.options.auth.then_some(ROOT)
    }

    fn set_uri(&self, user: Option<(&str, &str)>) -> String {
        if self.options.standalone {
            return self.direct_uri(&self.nodes[0].address(), user);
        }
        self.any_uri(&self.addresses().join(","), &format!("replicaSet={}", self.options.name), user)
    }

    fn direct_uri(&self, address: &str, user: Option<(&str, &str)>) -> String {
        self.any_uri(address, "directConnection=true", user)
    }

    fn any_uri(&self, hosts: &str, topology: &str, user: Option<(&str, &str)>) -> String {
        let login = user.map_or(String::new(), |(user, password)| format!("{user}:{password}@"));
        let source = if user.is_some() { "&authSource=admin" } else { "" };
        let tls = self.ca_file().map_or(String::new(), |file| format!("&tls=true&tlsCAFile={}", file.display()));
        format!("mongodb://{login}{hosts}/?{topology}{source}{tls}")
    }

    async fn initiate(&self) -> Result<()> {
        let members = self.nodes.iter().zip(0..);
        let members: Vec<_> = members.map(|(node, id)| doc! { "_id": id, "host": node.address() }).collect();
        let mut config = doc! { "_id": &self.options.name, "members": members };
        if self.options.extra_args.iter().any(|argument| argument == "--configsvr") {
            config.insert("configsvr", true);
        }
        if self.nodes.len() > 1 {
            config.insert("settings", doc! { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500 });
        }
        let first = self.direct_uri(&self.nodes[0].address(), None);
        run(&first, doc! { "replSetInitiate": config }).await?;
        self.all_members_ready().await
    }

    /// Asks all nodes for their state until `pick` is content.
    async fn wait_for<T>(&self, state: &str, pick: impl Fn(&[State]) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + STATE_TIMEOUT;
        loop {
            if let Some(picked) = pick(&join_all(self.nodes.iter().map(|node| self.state(node))).await) {
                return Ok(picked);
            }
            if Instant::now() > deadline {
                return Err(Error::TimedOut { state: state.into(), seconds: STATE_TIMEOUT.as_secs() });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `hello` needs no login, so this works before there are users.
    async fn state(&self, node: &Node) -> State {
        if !node.is_running() {
            return State::Other;
        }
        let uri = self.direct_uri(&node.address(), None);
        // Short, so that a frozen node does not hold up the answer about the others.
        let Ok(reply) = run_within(Duration::from_millis(500), &uri, doc! { "hello": 1 }).await else {
            return State::Other;
        };
        let is = |name| reply.get_bool(name).unwrap_or(false);
        match (is("isWritablePrimary"), is("secondary")) {
            (true, _) => State::Primary,
            (_, true) => State::Secondary,
            _ => State::Other,
        }
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Primary,
    Secondary,
    /// Not initiated, syncing, frozen or dead.
    Other,
}

fn arguments(options: &Options, certificates: Option<&Certificates>, folder: &Folder) -> Result<Vec<String>> {
    let mut arguments = vec!["--wiredTigerCacheSizeGB".to_string(), options.cache_gb.to_string()];
    if options.test_commands {
        arguments.extend(["--setParameter", "enableTestCommands=1"].map(String::from));
    }
    if !options.standalone {
        arguments.extend(["--replSet".into(), options.name.clone()]);
        arguments.extend(["--oplogSize".into(), options.oplog_mb.to_string()]);
    }
    if let Some(files) = certificates {
        arguments.extend(["--tlsMode".into(), "requireTLS".into()]);
        arguments.extend(["--tlsCertificateKeyFile".into(), files.server_file.display().to_string()]);
        arguments.extend(["--tlsCAFile".into(), files.ca_file.display().to_string()]);
        arguments.push("--tlsAllowConnectionsWithoutCertificates".into());
    }
    if options.auth && options.standalone {
        arguments.push("--auth".into());
    } else if options.auth {
        let key = options.key.clone().unwrap_or_else(made_up_key);
        arguments.extend(["--keyFile".into(), folder.secret("key", &key)?.display().to_string()]);
    }
    arguments.extend(options.extra_args.iter().cloned());
    Ok(arguments)
}

/// A key for the servers of one cluster.
pub fn made_up_key() -> String {
    rand::rng().sample_iter(Alphanumeric).take(64).map(char::from).collect()
}

#[cfg(test)]
mod tests;
