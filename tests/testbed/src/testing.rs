//! What the tests of this crate share.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Two tests at a time may run servers: the tests' machine is small, and elections have time limits.
pub async fn server_slot() -> SemaphorePermit<'static> {
    static SLOTS: Semaphore = Semaphore::const_new(2);
    SLOTS.acquire().await.expect("never closed")
}
