//! A TCP proxy that can cut, delay and swallow, for tests of bad networks.
//!
//! Clients reach a server through it by a direct connection (a driver that looks for a replica set would go to the
//! members' own addresses): see [`ReplicaSet::uri_at`](crate::ReplicaSet::uri_at).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::node::free_port;
use crate::{Error, Result};

/// How the proxy treats what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Forwards, each piece later by this much.
    Fair(Duration),
    /// Closes all connections and refuses new ones.
    Cut,
    /// Takes connections and bytes and forwards nothing.
    BlackHole,
}

/// A running proxy. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    // Aborts the task, and with it every connection's, when the proxy is dropped.
    _task: JoinSet<()>,
}

impl Proxy {
    /// Forwards to `upstream` (`host:port`), on a port of its own.
    pub async fn start(upstream: impl Into<String>) -> Result<Proxy> {
        let listener = loop {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(Error::Io { what: "cannot listen".into(), source: error }),
            }
        };
        let address = listener.local_addr().map_err(Error::io("a listener without address"))?;
        let (weather, forecast) = watch::channel(Weather::Fair(Duration::ZERO));
        let mut task = JoinSet::new();
        task.spawn(listen(listener, address, upstream.into(), forecast));
        Ok(Proxy { address, weather, _task: task })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections and refuses new ones until [`Proxy::heal`].
    pub fn cut(&self) {
        self.weather.send_replace(Weather::Cut);
    }

    /// Forwards at once again, also on the connections that a black hole has kept.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
    }

    /// Forwards each piece this much later, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_replace(Weather::Fair(delay));
    }

    /// Keeps connections open, takes new ones, and loses every byte. After a [`Proxy::heal`] the bytes stay lost, so
    /// what a client waits for on an old connection never comes.
    pub fn black_hole(&self) {
        self.weather.send_replace(Weather::BlackHole);
    }
}

async fn listen(listener: TcpListener, address: SocketAddr, upstream: String, mut forecast: watch::Receiver<Weather>) {
    let mut open = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        if *forecast.borrow_and_update() == Weather::Cut {
            // The listener goes, too: then the system itself refuses.
            open = None;
            connections.shutdown().await;
            if forecast.changed().await.is_err() {
                return;
            }
            continue;
        }
        let listener = match open.take() {
            Some(listener) => listener,
            None => match TcpListener::bind(address).await {
                Ok(listener) => listener,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        tokio::select! {
            biased; // a change of weather wins over a new connection
            changed = forecast.changed() => if changed.is_err() { return },
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(connection(client, upstream.clone(), forecast.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
        open = Some(listener);
    }
}

/// Ends when one side closes.
async fn connection(client: TcpStream, upstream: String, forecast: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = forward(from_client, to_server, forecast.clone()) => {}
        () = forward(from_server, to_client, forecast) => {}
    }
}

async fn forward(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, forecast: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let weather = *forecast.borrow();
        match weather {
            Weather::Fair(Duration::ZERO) => {}
            Weather::Fair(delay) => tokio::time::sleep(delay).await,
            Weather::Cut => return,
            Weather::BlackHole => continue,
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::testing::server_slot;
    use crate::{Options, ReplicaSet, connect, end};

    #[tokio::test]
    async fn weather_reaches_the_client() {
        let _slot = server_slot().await;
        let set = ReplicaSet::start(Options::default()).await.unwrap();
        let proxy = Proxy::start(set.addresses().remove(0)).await.unwrap();
        let uri = format!("{}&serverSelectionTimeoutMS=300&connectTimeoutMS=300", set.uri_at(proxy.addr()));
        let client = connect(&uri).await.unwrap();
        let ping = async || client.database("admin").run_command(doc! { "ping": 1 }).await;
        ping().await.unwrap();

        proxy.delay(Duration::from_millis(60));
        let before = Instant::now();
        ping().await.unwrap();
        assert!(before.elapsed() >= Duration::from_millis(120), "there and back: {:?}", before.elapsed());

        proxy.cut();
        assert!(ping().await.is_err());
        assert!(TcpStream::connect(proxy.addr()).await.is_err());
        proxy.heal();
        timeout(Duration::from_secs(5), async { while ping().await.is_err() {} }).await.unwrap();

        proxy.black_hole();
        let lost = timeout(Duration::from_millis(500), ping()).await;
        assert!(!matches!(lost, Ok(Ok(_))), "{lost:?}");
        proxy.heal();
        timeout(Duration::from_secs(20), async { while ping().await.is_err() {} }).await.unwrap();
        end(client).await;
    }
}
