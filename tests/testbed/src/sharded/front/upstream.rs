//! The way to one replica set of the cluster: its primary, and connections to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mongodb::bson::raw::CString;
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, rawdoc};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::clock::Clock;
use super::failure::{Answer, Code, Failure, is_ok};
use super::metadata;
use super::scram::Key;
use super::wire::{self, Sequence};

/// How long a command waits for a primary, as a `mongos` does.
const PRIMARY_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// For a node of this machine to take a connection, and to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// `NotWritablePrimary`, `NotPrimaryNoSecondaryOk`, `NotPrimaryOrSecondary`: refused before anything was done.
const NOT_PRIMARY: [i32; 3] = [10107, 13435, 13436];
/// The node is going down or stepping down, and may have done what it was told.
const GOING: [i32; 4] = [91, 189, 11600, 11602];

#[derive(Debug)]
pub struct Upstream {
    /// The shard's name, or the config server's set's.
    pub name: String,
    pub hosts: Vec<String>,
    clock: Arc<Clock>,
    key: Option<Arc<Key>>,
    primary: Mutex<Option<Arc<Pool>>>,
}

/// Connections to one node.
#[derive(Debug)]
struct Pool {
    address: String,
    key: Option<Arc<Key>>,
    idle: Mutex<Vec<Connection>>,
}

pub type Connection = BufReader<TcpStream>;

impl Upstream {
    pub fn new(name: String, hosts: Vec<String>, clock: Arc<Clock>, key: Option<Arc<Key>>) -> Upstream {
        Upstream { name, hosts, clock, key, primary: Mutex::new(None) }
    }

    /// `name/host:port,host:port`, as servers write it.
    pub fn connection_string(&self) -> String {
        format!("{}/{}", self.name, self.hosts.join(","))
    }

    /// Whether a primary was known a moment ago.
    pub fn has_primary(&self) -> bool {
        self.primary.lock().expect("nothing panics with it").is_some()
    }

    /// Runs a command on the primary; a refusal is an error.
    pub async fn run(&self, body: RawDocumentBuf) -> Answer {
        self.send(body, &[]).await
    }

    /// Runs a command that this program has made.
    pub async fn command(&self, db: &str, command: &Document) -> Answer {
        let mut body = RawDocumentBuf::try_from(command)?;
        body.append(CString::try_from("$db")?, db);
        self.run(body).await
    }

    /// Sends a command with its sequences to the primary, waiting for one if need be. It is sent twice only when the
    /// first has surely done nothing. When the connection ends, nobody knows what was done: an error.
    pub async fn send(&self, mut body: RawDocumentBuf, sequences: &[Sequence]) -> Answer {
        self.clock.tell(&mut body);
        metadata::tell(&mut body);
        let bytes = wire::encode(1, 0, &body, sequences);
        let deadline = Instant::now() + PRIMARY_TIMEOUT;
        loop {
            let pool = self.pool(deadline).await?;
            let Ok(mut connection) = pool.connection().await else {
                self.forget(&pool);
                continue;
            };
            let Ok(reply) = exchange(&mut connection, &bytes).await else {
                self.forget(&pool);
                return Err(Failure::unreachable(format!("the connection to {} ended before its answer", self.name)));
            };
            pool.idle.lock().expect("nothing panics with it").push(connection);
            self.clock.hear(&reply);
            if is_ok(&reply) {
                return Ok(reply);
            }
            let code = reply.get_i32("code").unwrap_or_default();
            if NOT_PRIMARY.contains(&code) || GOING.contains(&code) {
                self.forget(&pool);
            }
            if !NOT_PRIMARY.contains(&code) || Instant::now() > deadline {
                return Err(Failure::Server(reply));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// A connection to the primary, on which somebody is to log in.
    pub async fn for_a_login(&self) -> Result<Connection, Failure> {
        for address in &self.hosts {
            if let Ok(Some(connection)) = timeout(HELLO_TIMEOUT, primary_for_a_login(address)).await {
                return Ok(connection);
            }
        }
        Err(Failure::unreachable(format!("{} has no primary", self.name)))
    }

    fn forget(&self, pool: &Arc<Pool>) {
        let mut primary = self.primary.lock().expect("nothing panics with it");
        if primary.as_ref().is_some_and(|known| Arc::ptr_eq(known, pool)) {
            *primary = None;
        }
    }

    async fn pool(&self, deadline: Instant) -> Result<Arc<Pool>, Failure> {
        loop {
            if let Some(pool) = self.primary.lock().expect("nothing panics with it").clone() {
                return Ok(pool);
            }
            for address in &self.hosts {
                if let Ok(Some(connection)) = timeout(HELLO_TIMEOUT, primary_at(address, self.key.as_deref())).await {
                    let pool = Arc::new(Pool { address: address.clone(), key: self.key.clone(), idle: Mutex::new(vec![connection]) });
                    return Ok(self.primary.lock().expect("nothing panics with it").get_or_insert(pool).clone());
                }
            }
            if Instant::now() > deadline {
                let message = format!("no primary of {} within {} s", self.name, PRIMARY_TIMEOUT.as_secs());
                let failure = Failure::new(Code::FailedToSatisfyReadPreference, message);
                return Err(failure.with_labels(&["ResumableChangeStreamError"]));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

impl Pool {
    async fn connection(&self) -> std::io::Result<Connection> {
        loop {
            let Some(connection) = self.idle.lock().expect("nothing panics with it").pop() else {
                return connect(&self.address, self.key.as_deref()).await;
            };
            // One whose other end has gone, as after a server's death, is of no use; nor is one with unasked-for bytes.
            let silent = connection.get_ref().try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            if silent {
                return Ok(connection);
            }
        }
    }
}

/// A connection to the node, as one of the cluster's own where there is access control.
async fn connect(address: &str, key: Option<&Key>) -> std::io::Result<Connection> {
    let mut connection = open(address).await?;
    if let Some(key) = key {
        key.log_in(&mut connection).await?;
    }
    Ok(connection)
}

async fn open(address: &str) -> std::io::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// A connection to the node, if it is a writable primary.
async fn primary_at(address: &str, key: Option<&Key>) -> Option<Connection> {
    let mut connection = primary_for_a_login(address).await?;
    if let Some(key) = key {
        key.log_in(&mut connection).await.ok()?;
    }
    Some(connection)
}

/// The same, as nobody yet.
async fn primary_for_a_login(address: &str) -> Option<Connection> {
    let mut connection = open(address).await.ok()?;
    let reply = exchange(&mut connection, &wire::encode(1, 0, &rawdoc! { "hello": 1, "$db": "admin" }, &[])).await.ok()?;
    matches!(reply.get_bool("isWritablePrimary"), Ok(true)).then_some(connection)
}

pub async fn exchange(connection: &mut Connection, bytes: &[u8]) -> std::io::Result<RawDocumentBuf> {
    connection.get_mut().write_all(bytes).await?;
    let reply = wire::read(connection).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(reply.body)
}

/// The documents in the first batch of a cursor that is known to have no second one.
pub fn first_batch(reply: &RawDocument) -> Result<Vec<&RawDocument>, Failure> {
    documents(reply.get_document("cursor")?.get_array("firstBatch")?)
}

pub fn documents(array: &mongodb::bson::raw::RawArray) -> Result<Vec<&RawDocument>, Failure> {
    array.into_iter().filter_map(|value| value.map(|value| value.as_document()).map_err(Failure::from).transpose()).collect()
}
