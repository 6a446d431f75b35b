//! Both clusters, connected.

use crate::{
    config::Config,
    error::{Error, Result, Trouble},
    model::Side,
    mongo::Cluster,
    observe::{Metrics, RetryCause},
    retry::Retry,
    source::mongo::MongoSource,
    target::mongo::MongoTarget,
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Connections besides those of partitions, writers and lanes: the stream, checkpoints, lease, samples, verbs.
const SPARE_CONNECTIONS: usize = 24;

/// Source and target, and the target as something to be read.
#[derive(Debug, Clone)]
pub(super) struct Clusters {
    pub source: MongoSource,
    pub target: MongoTarget,
    pub reader: MongoSource,
}

impl Clusters {
    /// Prepares both clients; the first command connects.
    pub(super) async fn connect(config: &Config, metrics: &Arc<Metrics>, stop: &CancellationToken) -> Result<Self> {
        let connections =
            u32::try_from(config.copy.partitions + config.copy.writers + config.tail.lanes + SPARE_CONNECTIONS).unwrap_or(u32::MAX);
        let retry = |side| {
            let metrics = metrics.clone();
            Retry::new(config.retry_deadline, stop.clone(), move |error| metrics.retried(side, cause(error)))
        };
        let source = Cluster::connect(Side::Source, config.uri(Side::Source), connections, retry(Side::Source)).await?;
        let target = Cluster::connect(Side::Target, config.uri(Side::Target), connections, retry(Side::Target)).await?;
        let read = |cluster: &Cluster, preference: &str| {
            let bad = |problem| Error::BadConfig { field: "--read-preference".into(), problem, hint: None };
            MongoSource::new(cluster.clone(), preference).map_err(bad)
        };
        Ok(Self {
            source: read(&source, &config.copy.read_preference)?,
            reader: read(&target, "primary")?,
            target: MongoTarget::new(target),
        })
    }

    /// The same, whose calls are no longer repeated once `stop` fires.
    pub(super) fn until(&self, stop: &CancellationToken) -> Self {
        self.with(|cluster| cluster.with_retry(cluster.retry().until(stop.clone())))
    }

    fn with(&self, other: impl Fn(&Cluster) -> Cluster) -> Self {
        Self {
            source: self.source.with_cluster(other(self.source.cluster())),
            reader: self.reader.with_cluster(other(self.reader.cluster())),
            target: MongoTarget::new(other(self.target.cluster())),
        }
    }

    /// The same, giving up soon: for the questions of the start, whose answer somebody is waiting for.
    pub(super) fn hasty(&self, deadline: std::time::Duration) -> Self {
        self.with(|cluster| cluster.within(deadline))
    }

    /// The policy of the source's calls, for readers that open themselves again.
    pub(super) fn retry(&self) -> Retry {
        self.source.cluster().retry().clone()
    }

    /// Closes all connections: the last thing before the runtime ends.
    pub(super) async fn close(self) {
        self.source.close_members().await;
        self.source.cluster().clone().close().await;
        self.target.cluster().clone().close().await;
    }
}

/// For the metric.
fn cause(error: &Error) -> RetryCause {
    let Error::Unreachable { why, .. } = error else { return RetryCause::Other };
    match why {
        Trouble::Network => RetryCause::Network,
        Trouble::Election => RetryCause::Election,
        Trouble::Overload => RetryCause::Overload,
        Trouble::Timeout => RetryCause::Timeout,
        Trouble::Other => RetryCause::Other,
    }
}
