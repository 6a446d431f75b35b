//! One `mongod`: its arguments, its port, its process.
//!
//! A node keeps its port over restarts. Ports are drawn from below the range that the system hands to outgoing
//! connections, so that none of those takes the port while the server is down.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use rand::Rng;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::process::{Process, dying_with_us};
use crate::{Binary, Error, Result};

/// How long a server may take to listen. Recovery after a kill on a loaded machine is the slow case.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);
/// `mongod`'s exit status when its address is in use.
const ADDRESS_IN_USE: i32 = 48;

/// What a server is started with, but for its port.
#[derive(Debug, Clone)]
pub struct Launch {
    pub binary: Binary,
    pub dbpath: PathBuf,
    pub arguments: Vec<String>,
}

#[derive(Debug)]
pub struct Node {
    launch: Launch,
    pub port: u16,
    process: Mutex<Option<Process>>,
}

impl Node {
    /// Starts a server on a free port and waits until it listens.
    pub async fn start(launch: Launch) -> Result<Node> {
        loop {
            let node = Node { launch: launch.clone(), port: free_port()?, process: Mutex::new(None) };
            match node.restart().await {
                Ok(()) => return Ok(node),
                // Somebody was faster between the choice of the port and its use.
                Err(Failure::AddressInUse) => continue,
                Err(Failure::Other(error)) => return Err(error),
            }
        }
    }

    /// Starts the server again after [`Node::kill`], on the same port and data; waits until it listens.
    pub async fn restart(&self) -> std::result::Result<(), Failure> {
        self.kill();
        let log = self.log();
        let seen = std::fs::metadata(&log).map_or(0, |file| file.len());
        self.spawn()?;
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        loop {
            let text = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(text.get(seen as usize..).unwrap_or_default()).into_owned();
            if text.contains("Waiting for connections") {
                return Ok(());
            }
            let ended = self.process.lock().unwrap().as_mut().and_then(Process::ended);
            let reason = match ended {
                // It aborts where another server had bound, and listened before it.
                Some(status) if status.code() == Some(ADDRESS_IN_USE) || text.contains("Address already in use") => {
                    return Err(Failure::AddressInUse);
                }
                Some(status) => format!("it ended with {status}"),
                None if Instant::now() > deadline => format!("silent for {} s", LISTEN_TIMEOUT.as_secs()),
                None => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            self.kill();
            return Err(Error::NotStarted { reason, log: self.last_words(&text) }.into());
        }
    }

    /// Kills the server at once (SIGKILL), without any clean shutdown. A dead one stays dead.
    pub fn kill(&self) {
        self.process.lock().unwrap().take();
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        match &*self.process.lock().unwrap() {
            Some(process) => process.signal(signal).map_err(Error::io("cannot signal mongod")),
            None => Ok(()),
        }
    }

    pub fn limit_files(&self, bytes: u64) -> Result<()> {
        match &*self.process.lock().unwrap() {
            Some(process) => process.limit_files(bytes).map_err(Error::io("cannot limit the files of mongod")),
            None => Ok(()),
        }
    }

    pub fn is_running(&self) -> bool {
        self.process.lock().unwrap().as_mut().is_some_and(|process| process.ended().is_none())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log(&self) -> PathBuf {
        self.launch.dbpath.join("mongod.log")
    }

    fn stdout(&self) -> PathBuf {
        self.launch.dbpath.join("stdout.log")
    }

    fn spawn(&self) -> Result<()> {
        let output = std::fs::File::create(self.stdout()).map_err(Error::io("cannot create a log"))?;
        let errors = output.try_clone().map_err(Error::io("cannot create a log"))?;
        let mut command = dying_with_us(&self.launch.binary.path);
        command.arg("--dbpath").arg(&self.launch.dbpath).arg("--logpath").arg(self.log()).arg("--logappend");
        command.args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--port", &self.port.to_string()]);
        command.args(&self.launch.arguments);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        if let Some(path) = &self.launch.binary.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        let what = format!("cannot run {}", self.launch.binary.path.display());
        *self.process.lock().unwrap() = Some(Process::start(command).map_err(Error::io(what))?);
        Ok(())
    }

    /// The end of the log, or what the server said before it had one.
    fn last_words(&self, log: &str) -> String {
        let stdout = std::fs::read_to_string(self.stdout()).unwrap_or_default();
        let text = if log.is_empty() { &stdout } else { log };
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Why a server does not listen.
pub enum Failure {
    AddressInUse,
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::AddressInUse => Error::NotStarted { reason: "its port is taken".into(), log: String::new() },
            Failure::Other(error) => error,
        }
    }
}

/// A loopback port that nobody listens on right now.
pub(crate) fn free_port() -> Result<u16> {
    let mut last = None;
    for _ in 0..200 {
        let port = rand::rng().random_range(20_000..32_000);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = Some(error),
        }
    }
    Err(Error::Io { what: "no free port".into(), source: last.expect("200 failures have a last one") })
}
