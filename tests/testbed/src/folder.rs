//! The folders the servers live in: `<target>/testbed/<pid>-<n>`, gone when the process is.
//!
//! A process that was killed cannot clean up, so each start removes the folders of processes that are no more.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, test_kill_process};

use crate::{Error, Result};

/// A fresh folder that is removed on drop.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the next folder of this process and sweeps what dead processes left.
    pub fn create() -> Result<Folder> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = root();
        sweep(&root);
        let path = root.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        // The same pid may have been used before, and that process cannot be alive.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).map_err(Error::io(format!("cannot create {}", path.display())))?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a folder inside.
    pub(crate) fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).map_err(Error::io(format!("cannot create {}", path.display())))?;
        Ok(path)
    }

    /// Writes a file that only its owner may read: servers refuse key files that others can.
    pub(crate) fn secret(&self, name: &str, text: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)))
            .map_err(Error::io(format!("cannot write {}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `$TESTBED_DIR`, else `testbed` in cargo's target folder.
fn root() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TESTBED_DIR").unwrap_or_else(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let workspace = workspace.canonicalize().unwrap_or(workspace);
        // Cargo reads a relative CARGO_TARGET_DIR as relative to where it runs, mostly the workspace.
        workspace.join(set("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("testbed")
    })
}

fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split_once('-')).and_then(|(pid, _)| pid.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
