//! The user's own `mongos`, where there is one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::folder::Folder;
use crate::node::free_port;
use crate::process::{Process, dying_with_us};
use crate::{Error, Result};

/// How long it may take to find the config server and to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);

/// A running `mongos`; killed on drop.
#[derive(Debug)]
pub struct Mongos {
    port: u16,
    // Declared before the folder, so that it is dead when that is removed.
    _process: Process,
    _folder: Folder,
}

/// `$MONGOS`, then `mongos` on the search path.
pub fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("MONGOS").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| {
        let search = std::env::var_os("PATH")?;
        std::env::split_paths(&search).map(|folder| folder.join("mongos")).find(|path| path.is_file())
    })
}

impl Mongos {
    /// Starts it and waits until it listens.
    pub async fn start(binary: &Path, config_server: &str, port: Option<u16>, key: Option<&str>) -> Result<Mongos> {
        let folder = Folder::create()?;
        let log = folder.path().join("mongos.log");
        let port = match port {
            Some(port) => port,
            None => free_port()?,
        };
        let mut command = dying_with_us(binary);
        command.args(["--configdb", config_server, "--bind_ip", "127.0.0.1", "--nounixsocket", "--port", &port.to_string()]);
        command.args(["--setParameter", "enableTestCommands=1", "--logpath"]).arg(&log);
        if let Some(key) = key {
            command.arg("--keyFile").arg(folder.secret("key", key)?);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(command).map_err(Error::io(format!("cannot run {}", binary.display())))?;
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains("Waiting for connections") {
                return Ok(Mongos { port, _process: process, _folder: folder });
            }
            let ended = process.ended();
            if ended.is_some() || Instant::now() > deadline {
                let reason = ended.map_or("mongos is silent".into(), |status| format!("mongos ended with {status}"));
                return Err(Error::NotStarted { reason, log: text.lines().last().unwrap_or_default().into() });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}
