//! Who must know that structure is as new as documents asks here, and the watch answers.

use crate::model::ClusterTime;
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::watch;

/// Shared by all clones of a source.
#[derive(Debug, Default)]
pub struct Asked {
    watching: AtomicBool,
    asked: Mutex<ClusterTime>,
    /// Everything that happened to structure up to this time was put into the stream.
    answered: watch::Sender<ClusterTime>,
}

impl Asked {
    /// A watch is at work from now on: where none is, nobody need be asked.
    pub(in super::super) fn begin(&self) {
        self.watching.store(true, Ordering::Relaxed);
    }

    /// Whether structure comes by looking.
    #[must_use]
    pub fn watching(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }

    fn asked(&self) -> MutexGuard<'_, ClusterTime> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for everything up to this time. The stream's position does not pass it before.
    pub fn ask(&self, time: ClusterTime) {
        let mut asked = self.asked();
        *asked = asked.max(time);
    }

    /// Waits until it was put into the stream.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn answered(&self, time: ClusterTime) {
        // The sender lives as long as we do.
        let _ = self.answered.subscribe().wait_for(|answered| *answered >= time).await;
    }

    /// What was asked for and is not yet answered.
    pub(in super::super) fn open(&self) -> Option<ClusterTime> {
        let asked = *self.asked();
        (asked > *self.answered.borrow()).then_some(asked)
    }

    /// A look that began at this time was put into the stream.
    pub(in super::super) fn answer(&self, time: ClusterTime) {
        self.answered.send_if_modified(|answered| {
            let newer = time > *answered;
            *answered = (*answered).max(time);
            newer
        });
    }
}
