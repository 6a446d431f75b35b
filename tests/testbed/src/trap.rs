//! A TCP proxy that reads the messages of clients, and stops, refuses or repeats those that a test has chosen: so a
//! process can be killed while exactly this command is on its way, without any test code in it.
//!
//! Clients reach a server through it by a direct connection, as with [`Proxy`](crate::Proxy). Not for TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use mongodb::bson::doc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{Error, Result};

/// What becomes of a message that is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catch {
    /// The server does not get it before [`Trap::let_go`], and never where [`Trap::release`] comes first: that breaks the
    /// connection.
    Request,
    /// The server carries it out; the client does not hear of it before [`Trap::release`].
    Answer,
    /// The server does not get it; the client hears of an error of this code. As often as it comes.
    Refuse(i32),
    /// The server carries it out; the connection breaks before the client hears of it. Once.
    Lose,
}

#[derive(Debug, Clone)]
struct Rule {
    words: Vec<Vec<u8>>,
    catch: Catch,
}

impl Rule {
    fn matches(&self, message: &[u8]) -> bool {
        self.words.iter().all(|word| message.windows(word.len()).any(|part| part == word))
    }
}

#[derive(Debug, Clone)]
struct Shared {
    rules: Arc<Mutex<Vec<Rule>>>,
    /// How many messages were caught.
    caught: watch::Sender<u64>,
    /// Whether what was held went on or was dropped, at each release.
    released: watch::Sender<bool>,
}

impl Shared {
    /// What is to become of a message.
    fn judge(&self, message: &[u8]) -> Option<Catch> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let at = rules.iter().position(|rule| rule.matches(message))?;
        let catch = rules[at].catch;
        if catch == Catch::Lose {
            rules.remove(at);
        }
        Some(catch)
    }

    /// Waits for the release, and tells whether it is to go on.
    async fn hold(&self) -> bool {
        let mut released = self.released.subscribe();
        self.caught.send_modify(|n| *n += 1);
        // Ends as well when the trap is gone.
        released.changed().await.is_ok() && *released.borrow()
    }
}

/// A running trap. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Trap {
    address: SocketAddr,
    shared: Shared,
    // Aborts the task, and with it every connection's, when the trap is dropped.
    _task: JoinSet<()>,
}

impl Trap {
    /// Forwards to `upstream` (`host:port`), on a port of its own.
    pub async fn start(upstream: impl Into<String>) -> Result<Trap> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::io("cannot listen"))?;
        let address = listener.local_addr().map_err(Error::io("a listener without address"))?;
        let shared = Shared { rules: Arc::default(), caught: watch::Sender::new(0), released: watch::Sender::new(false) };
        let (upstream, for_all) = (upstream.into(), shared.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, upstream.clone(), for_all.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Trap { address, shared, _task: task })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// From now on messages that hold all these words are caught so. Rules add up until [`Trap::release`].
    pub fn set(&self, words: &[&[u8]], catch: Catch) {
        let rule = Rule { words: words.iter().map(|word| word.to_vec()).collect(), catch };
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// Waits until a message is held; counted from the last release.
    pub async fn caught(&self) {
        let mut caught = self.shared.caught.subscribe();
        let _ = caught.wait_for(|n| *n > 0).await;
    }

    /// How many rules are still waiting for their message.
    pub fn waiting(&self) -> usize {
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Drops all rules.
    pub fn forget(&self) {
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Drops all rules; what is held goes on its way.
    pub fn let_go(&self) {
        self.forget();
        self.shared.caught.send_replace(0);
        self.shared.released.send_replace(true);
    }

    /// Drops all rules, and what is held with its connection.
    pub fn release(&self) {
        self.forget();
        self.shared.caught.send_replace(0);
        self.shared.released.send_replace(false);
    }
}

/// What the answer on its way has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Pass,
    Hold,
    Break,
}

/// Ends when one side closes.
async fn connection(client: TcpStream, upstream: String, shared: Shared) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let to_client = tokio::sync::Mutex::new(to_client);
    let next = watch::Sender::new(Next::Pass);
    tokio::select! {
        () = requests(from_client, to_server, &to_client, &next, &shared) => {}
        () = answers(from_server, &to_client, &next, &shared) => {}
    }
}

async fn requests(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    back: &tokio::sync::Mutex<tcp::OwnedWriteHalf>,
    next: &watch::Sender<Next>,
    shared: &Shared,
) {
    loop {
        let mut message = vec![0; 16];
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        let length = u32::from_le_bytes([message[0], message[1], message[2], message[3]]) as usize;
        message.resize(length.max(16), 0);
        if from.read_exact(&mut message[16..]).await.is_err() {
            return;
        }
        match shared.judge(&message) {
            None => {}
            Some(Catch::Request) => {
                let goes_on = shared.hold().await;
                if !goes_on {
                    return;
                }
            }
            Some(Catch::Answer) => drop(next.send_replace(Next::Hold)),
            Some(Catch::Lose) => drop(next.send_replace(Next::Break)),
            Some(Catch::Refuse(code)) => {
                if back.lock().await.write_all(&refusal(&message, code)).await.is_err() {
                    return;
                }
                continue;
            }
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: tcp::OwnedReadHalf, to: &tokio::sync::Mutex<tcp::OwnedWriteHalf>, next: &watch::Sender<Next>, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        match next.send_replace(Next::Pass) {
            Next::Pass => {}
            Next::Hold => {
                let goes_on = shared.hold().await;
                if !goes_on {
                    return;
                }
            }
            Next::Break => return,
        }
        if to.lock().await.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// An `OP_MSG` in answer to `request`.
fn refusal(request: &[u8], code: i32) -> Vec<u8> {
    let body = doc! {"ok": 0.0, "code": code, "codeName": "Refused", "errmsg": "refused by the test"};
    let body = mongodb::bson::serialize_to_vec(&body).unwrap_or_default();
    let mut message = Vec::with_capacity(21 + body.len());
    message.extend(u32::try_from(21 + body.len()).unwrap_or(0).to_le_bytes());
    message.extend([0; 4]);
    message.extend(&request[4..8]);
    message.extend(2013_u32.to_le_bytes());
    message.extend([0; 5]);
    message.extend(body);
    message
}
