//! Index builds of ours on one collection of the target, and how a structural change gets them out of its way.
//!
//! While an index is built the server refuses to rename or modify the collection (code 12587), and to drop one of several
//! indexes of a build (code 27); dropping all that one command builds ends the build with code 276 (RAN on 6.0.5).
//! A build may take hours. So a change has the builds under way ended, and they begin anew behind it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Builds under way.
#[derive(Debug, Default)]
pub struct Builds {
    /// Shared by builds; held alone by a structural change.
    gate: RwLock<()>,
    /// The indexes of each command under way.
    names: Mutex<Vec<Vec<String>>>,
}

/// A build under way; it is none any more when this is dropped.
#[derive(Debug)]
pub struct Build<'a> {
    builds: &'a Builds,
    names: Vec<String>,
    _gate: RwLockReadGuard<'a, ()>,
}

impl Builds {
    fn names(&self) -> MutexGuard<'_, Vec<Vec<String>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a build of these is asked for, or with none to look at what is there; waits for a structural change under way.
    pub async fn begin(&self, names: Vec<String>) -> Build<'_> {
        let gate = self.gate.read().await;
        self.names().push(names.clone());
        Build { builds: self, names, _gate: gate }
    }

    /// What is being built: the indexes of each command.
    #[must_use]
    pub fn under_way(&self) -> Vec<Vec<String>> {
        self.names().iter().filter(|names| !names.is_empty()).cloned().collect()
    }

    /// Waits until none is under way, and keeps new ones from beginning.
    pub async fn none(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }
}

impl Drop for Build<'_> {
    fn drop(&mut self) {
        let mut names = self.builds.names();
        if let Some(n) = names.iter().position(|names| *names == self.names) {
            names.swap_remove(n);
        }
    }
}
