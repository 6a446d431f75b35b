//! Keeps the lease of the migration from the moment it is taken until the process lets go of it.

use crate::{
    checkpoint::{LEASE, MongoStore},
    error::{Error, Result},
    observe::Metrics,
    tasks::{first_error, panicked},
};
use std::{future::pending, sync::Arc};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Renews the lease beside everything else, long plans included.
#[derive(Debug)]
pub(super) struct Keeper {
    tasks: JoinSet<Result<()>>,
    sure: watch::Receiver<bool>,
    closing: CancellationToken,
}

impl Keeper {
    /// Begins to renew a lease that was just taken.
    pub(super) fn start(store: MongoStore, metrics: Arc<Metrics>) -> Self {
        let (told, sure) = watch::channel(true);
        let closing = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(store.hasty(LEASE / 5), metrics, told, closing.clone()));
        Self { tasks, sure, closing }
    }

    /// Waits for the loss of the lease, and says how it was lost.
    pub(super) async fn lost(&mut self) -> Error {
        match self.tasks.join_next().await {
            None => pending().await,
            Some(ended) => ended.unwrap_or_else(|panic| Err(panicked(&panic))).err().unwrap_or(Error::Interrupted),
        }
    }

    /// Waits until the lease is lost (an error) or it is in doubt whether we still hold it.
    pub(super) async fn trouble(&mut self) -> Result<()> {
        tokio::select! {
            biased;
            Some(ended) = self.tasks.join_next() => Err(ended.unwrap_or_else(|panic| Err(panicked(&panic))).err().unwrap_or(Error::Interrupted)),
            Ok(_) = self.sure.wait_for(|sure| !*sure) => Ok(()),
            else => pending().await,
        }
    }

    /// Waits for certainty, for as long as a lease holds: behind that, its loss is told elsewhere.
    pub(super) async fn certainty(&mut self) {
        // Either answer means that the caller looks again.
        let _ = tokio::time::timeout(LEASE, self.sure.wait_for(|sure| *sure)).await;
    }

    /// Stops renewing.
    pub(super) async fn end(self) {
        self.closing.cancel();
        // Its errors were heard while it worked; behind an abort there is no lease to renew.
        let _ = first_error(self.tasks, &self.closing).await;
    }
}

/// In doubt is a lease that was not renewed for two thirds of its term, before anybody else may take it.
async fn keep(store: MongoStore, metrics: Arc<Metrics>, told: watch::Sender<bool>, stop: CancellationToken) -> Result<()> {
    let mut tick = tokio::time::interval(LEASE / 5);
    let mut renewed = Instant::now();
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let asked = Instant::now();
        match store.renew().await {
            Ok(()) => {
                renewed = asked;
                metrics.lease_renewed();
            }
            Err(error @ Error::LeaseLost { .. }) => return Err(error),
            Err(error) => tracing::warn!(error = error.story(), "the lease could not be renewed"),
        }
        let sure = renewed.elapsed() < LEASE * 2 / 3;
        told.send_if_modified(|told| std::mem::replace(told, sure) != sure);
    }
    Ok(())
}
