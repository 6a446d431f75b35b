//! `mongodump | mongorestore`, where they are on the search path.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::time::Instant;

use crate::failure::{Failure, Result};
use crate::meter::{Cpu, Meter, used_by_children};

/// The two programs.
#[derive(Debug, Clone)]
pub struct Tools {
    dump: PathBuf,
    restore: PathBuf,
}

impl Tools {
    pub fn find() -> Option<Tools> {
        let search = std::env::var_os("PATH")?;
        let find = |name| std::env::split_paths(&search).map(|folder| folder.join(name)).find(|path| path.is_file());
        Some(Tools { dump: find("mongodump")?, restore: find("mongorestore")? })
    }

    pub fn version(&self) -> String {
        let output = Command::new(&self.dump).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_string()
    }

    /// Without indexes: those are another measurement. Answers the seconds.
    pub fn run(
        &self,
        from: &str,
        to: &str,
        database: &str,
        (partitions, writers): (usize, usize),
        log: &Path,
        meter: Meter,
    ) -> Result<(f64, Cpu)> {
        let log = std::fs::File::create(log)?;
        let (user, system) = used_by_children();
        let (started, before) = (Instant::now(), meter.read());
        let mut dump = Command::new(&self.dump)
            .args([&format!("--uri={from}"), "--archive", &format!("--db={database}")])
            .arg(format!("--numParallelCollections={partitions}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()?;
        let archive = dump.stdout.take().ok_or_else(|| Failure::new("mongodump has no output"))?;
        let restored = Command::new(&self.restore)
            .args([&format!("--uri={to}"), "--archive", "--noIndexRestore"])
            .arg(format!("--numParallelCollections={partitions}"))
            .arg(format!("--numInsertionWorkersPerCollection={}", writers.div_ceil(partitions)))
            .stdin(archive)
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()?;
        let dumped = dump.wait()?;
        let (seconds, mut cpu) = (started.elapsed().as_secs_f64(), meter.since(before));
        if !dumped.success() || !restored.success() {
            return Err(Failure::new(format!("mongodump ended with {dumped}, mongorestore with {restored}")));
        }
        let (user_after, system_after) = used_by_children();
        (cpu.client_user, cpu.client_system) = (user_after - user, system_after - system);
        cpu.others -= cpu.client();
        Ok((seconds, cpu))
    }
}
