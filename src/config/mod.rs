//! What the operator chose, checked. Nothing here is optional that is not a choice; how it was written
//! (flags, environment, file) is forgotten by the time this type exists.

mod control;
mod file;
mod knobs;
mod output;
mod problem;
mod raw;
mod resolve;
mod values;

pub use control::{ControlConfig, EndpointOptions, TlsFiles, endpoint_options};
pub use file::{parse, read};
pub use knobs::{Group, KNOBS, Kind, Knob, env_name};
pub use output::{Color, LogStyle, OutputOptions, Talk};
pub use problem::Problem;
pub use raw::{Origin, Raw, Written};
pub use resolve::{Resolved, Setting, resolve};
pub use values::duration;

use crate::model::{Namespace, Selection, Settings, ShardKey, Side, UsersAndRoles};
use secrecy::SecretString;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// Everything `run` and `check` need.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connection string of the source. Never printed; see [`redacted`].
    pub source: SecretString,
    /// Connection string of the target.
    pub target: SecretString,
    /// Where the control endpoint listens.
    pub listen: SocketAddr,
    /// What protects it.
    pub control: ControlConfig,
    /// Whether to wait for a start.
    pub hold: bool,
    /// What may be changed while it runs, as it is at the start.
    pub settings: Settings,
    /// What is strain.
    pub throttle: ThrottleConfig,
    /// Filters and renames.
    pub selection: Selection,
    /// Which users and roles are replicated.
    pub users_and_roles: UsersAndRoles,
    /// How collections of a sharded target are distributed, by their names there.
    pub shard: BTreeMap<Namespace, ShardKey>,
    /// The same of the other direction: a way back makes no collections, but the way after it leads to that target again.
    pub shard_reversed: BTreeMap<Namespace, ShardKey>,
    /// Database on the target that holds checkpoints.
    pub metadata_database: String,
    /// The initial copy.
    pub copy: CopyConfig,
    /// The change stream.
    pub tail: TailConfig,
    /// The verification.
    pub verify: VerifyConfig,
    /// Bytes that `run` may use for data in flight, copy and tail together.
    pub memory: u64,
    /// For how long a call is repeated before the migration halts.
    pub retry_deadline: Duration,
    /// Whether collections of ours on the target may be dropped before a first start.
    pub drop_target_namespaces: bool,
    /// Whether the metadata of an earlier run is thrown away.
    pub restart_from_scratch: bool,
    /// Whether the process ends when the migration halts, or waits for `resume`.
    pub exit_on_halt: bool,
}

/// Settings of the copy.
#[derive(Debug, Clone)]
pub struct CopyConfig {
    /// Partitions read at the same time.
    pub partitions: usize,
    /// Inserts under way at the same time, over all partitions.
    pub writers: usize,
    /// Bytes of one partition, about.
    pub partition_bytes: u64,
    /// Which members of the source are read: a read preference as in a connection string
    /// (`primary`, `primaryPreferred`, `secondary`, `secondaryPreferred`, `nearest`).
    pub read_preference: String,
    /// Whether indexes are built before the data arrives.
    pub indexes_before_data: bool,
    /// Index builds at the same time.
    pub index_builds: usize,
}

/// Settings of the tail.
#[derive(Debug, Clone)]
pub struct TailConfig {
    /// Ordered workers.
    pub lanes: usize,
    /// How often the resume point is saved.
    pub checkpoint_every: Duration,
}

/// Settings of the verification.
#[derive(Debug, Clone)]
pub struct VerifyConfig {
    /// Whether both sides are compared all the time.
    pub continuous: bool,
    /// Bytes of the source's documents compared in a second at most; 0: no limit.
    pub rate: u64,
    /// How often everything is compared anew.
    pub every: Duration,
}

/// Beyond which a cluster is under strain.
#[derive(Debug, Clone, Copy)]
pub struct ThrottleConfig {
    /// Lag of a secondary.
    pub lag: Duration,
    /// Latency of a ping.
    pub latency: Duration,
    /// Operations in line.
    pub queue: u64,
}

impl Config {
    /// The way back: the clusters change places, filters and renames are turned round, and nothing is dropped.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.target.clone(),
            target: self.source.clone(),
            selection: self.selection.inverse(),
            shard: self.shard_reversed.clone(),
            shard_reversed: self.shard.clone(),
            drop_target_namespaces: false,
            restart_from_scratch: false,
            ..self.clone()
        }
    }

    /// The connection string of a side.
    #[must_use]
    pub fn uri(&self, side: Side) -> &SecretString {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }
}

/// A connection string without user, password and options that may hold secrets: for people to read.
#[must_use]
pub fn redacted(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    let hosts = hosts.split_once('?').map_or(hosts, |(before, _)| before);
    format!("{scheme}://{hosts}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for uri in [
            "mongodb://user:s3cret@h1:1,h2:2/db?authSource=admin",
            "mongodb+srv://u:s3cret@h/?tlsCertificateKeyFilePassword=s3cret",
            "mongodb://u:s3cret%40@h1,h2",
        ] {
            assert!(!redacted(uri).contains("s3cret"), "{}", redacted(uri));
        }
        assert_eq!(redacted("mongodb://u:p@h1:1,h2:2/?x=1"), "mongodb://h1:1,h2:2/");
    }
}
