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
    under_way: Mutex<Vec<Command>>,
}

/// One command under way.
#[derive(Debug, Clone, PartialEq)]
struct Command {
    names: Vec<String>,
    /// How much of the collection it has read, from 0 to 1.
    progress: Option<f64>,
}

/// A build under way; it is none any more when this is dropped.
#[derive(Debug)]
pub struct Build<'a> {
    builds: &'a Builds,
    names: Vec<String>,
    _gate: RwLockReadGuard<'a, ()>,
}

impl Builds {
    fn commands(&self) -> MutexGuard<'_, Vec<Command>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a build of these is asked for, or with none to look at what is there; waits for a structural change under way.
    pub async fn begin(&self, names: Vec<String>) -> Build<'_> {
        let gate = self.gate.read().await;
        self.commands().push(Command { names: names.clone(), progress: None });
        Build { builds: self, names, _gate: gate }
    }

    /// What is being built: the indexes of each command.
    #[must_use]
    pub fn under_way(&self) -> Vec<Vec<String>> {
        self.commands().iter().filter(|c| !c.names.is_empty()).map(|c| c.names.clone()).collect()
    }

    /// Whether an index is being built, and how far that is.
    #[must_use]
    pub fn progress_of(&self, name: &str) -> Option<Option<f64>> {
        self.commands().iter().find(|c| c.names.iter().any(|n| n == name)).map(|c| c.progress)
    }

    /// Waits until none is under way, and keeps new ones from beginning.
    pub async fn none(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }
}

impl Build<'_> {
    /// How much of the collection it has read, from 0 to 1.
    pub fn progress(&self, progress: f64) {
        let mut commands = self.builds.commands();
        commands.iter_mut().filter(|c| c.names == self.names).for_each(|c| c.progress = Some(progress));
    }
}

impl Drop for Build<'_> {
    fn drop(&mut self) {
        let mut commands = self.builds.commands();
        if let Some(n) = commands.iter().position(|c| c.names == self.names) {
            commands.swap_remove(n);
        }
    }
}
