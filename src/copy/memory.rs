//! The copy's bound on bytes: replies being read, and batches being inserted.
//!
//! A reply may be 16 MiB whatever was asked for, and its size is known only when it is here: so few are read
//! at once, each counted as the largest. A batch that is written is alive several times: here, in the
//! command, and in the driver's copies of it.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The largest reply, twice: the driver reads it, we keep a copy.
const LARGEST_READ: u64 = 34 << 20;
/// Copies of a batch that are alive while it is inserted.
const COPIES: u64 = 5;

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Memory {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    write_limit: u32,
}

impl Memory {
    /// For about so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let reads = usize::try_from(bytes / 2 / LARGEST_READ).unwrap_or(1).clamp(1, 64);
        let write_limit = u32::try_from(bytes / 2 / 1024).unwrap_or(u32::MAX).clamp(1_024, 1 << 28);
        Self { reads: Arc::new(Semaphore::new(reads)), writes: Arc::new(Semaphore::new(write_limit as usize)), write_limit }
    }

    /// Room for one reply; `None` when `stop` fires first.
    pub(super) async fn to_read(&self, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        stop.run_until_cancelled(self.reads.clone().acquire_owned()).await?.ok()
    }

    /// Room for inserting so many bytes; `None` when `stop` fires first.
    pub(super) async fn to_write(&self, bytes: usize, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        let cost = u32::try_from((bytes as u64 * COPIES).div_ceil(1024)).unwrap_or(u32::MAX).min(self.write_limit);
        stop.run_until_cancelled(self.writes.clone().acquire_many_owned(cost)).await?.ok()
    }
}
