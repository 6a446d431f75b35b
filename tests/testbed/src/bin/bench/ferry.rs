//! A running mongoferry, seen from outside: its process and its endpoint.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::failure::{Failure, Result};

/// How long it may take to end after a signal.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// Series of `/metrics` with their values.
pub struct Metrics(HashMap<String, f64>);

impl Metrics {
    /// 0 for what is not there.
    pub fn of(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// Whether the migration is in that phase.
    pub fn in_phase(&self, phase: &str) -> bool {
        self.of(&format!("mongoferry_phase{{phase=\"{phase}\"}}")) > 0.0
    }

    /// Whether it works: neither starting, nor paused, nor halted.
    pub fn halted(&self) -> bool {
        self.of("mongoferry_activity{activity=\"halted\"}") > 0.0
    }
}

/// Killed on drop.
pub struct Ferry {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    pub started: Instant,
}

impl Ferry {
    pub fn start(binary: &Path, source: &str, target: &str, log: PathBuf, more: &[String]) -> Result<Ferry> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let output = std::fs::File::create(&log)?;
        let mut command = dying_with_us(binary);
        command.args(["run", "--no-progress", "--listen", &address.to_string()]).args(more);
        command.env("MONGOFERRY_SOURCE", source).env("MONGOFERRY_TARGET", target);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let started = Instant::now();
        let child = command.spawn().map_err(|error| Failure::new(format!("cannot run {}: {error}", binary.display())))?;
        Ok(Ferry { child, address, log, started })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `None` while it does not listen yet.
    pub async fn metrics(&mut self) -> Result<Option<Metrics>> {
        if let Some(status) = self.child.try_wait()? {
            return Err(self.failure(&format!("mongoferry ended with {status}")));
        }
        let Some(text) = get(self.address, "/metrics").await else { return Ok(None) };
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        let metrics = Metrics(series.filter_map(|(name, value)| Some((name.to_string(), value.parse().ok()?))).collect());
        if metrics.halted() {
            return Err(self.failure("mongoferry halted"));
        }
        Ok(Some(metrics))
    }

    fn failure(&self, what: &str) -> Failure {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        Failure::new(format!("{what}:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n")))
    }

    /// Asks it to end, and waits for it.
    pub async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        let deadline = Instant::now() + END_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(self.failure("mongoferry did not end"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Ferry {
    fn drop(&mut self) {
        // It has ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Started by the main thread, which ends with the process and not before: the signal comes when that thread ends.
fn dying_with_us(program: &Path) -> Command {
    let probe = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_string())
}
