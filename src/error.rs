//! The one error type, sorted by what somebody should do about it.
//!
//! Outcomes are not errors: a mismatch found or a gate that is shut is a value in `Ok`. Messages name
//! clusters, namespaces, counts and times, never the content of a document.

use crate::model::{ClusterTime, Side};

/// What is attached below an [`Error`]. Boxed, so that this file need not name the driver.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What should be done about an error. Every error has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It may well succeed in a moment: back off and try again, within a deadline.
    Retry,
    /// The command line, the configuration or the choice of clusters is wrong.
    Reconfigure,
    /// Somebody has to change something on a cluster, then say `mongoferry resume`.
    Operate,
    /// The resume point, or part of the copy, is lost for good.
    Recopy,
    /// A fault of ours.
    Report,
    /// Nothing is wrong: we were told to stop.
    Nothing,
}

/// Why a cluster gave no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The connection broke or could not be made.
    Network,
    /// No primary, or another one now.
    Election,
    /// The server asked for less.
    Overload,
    /// No answer in time.
    Timeout,
    /// Another cause that may pass.
    Other,
}

/// Everything that can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Network, election, overload, time-out: the cluster did not give a usable answer.
    #[error("the {side} cluster did not answer while {doing}")]
    Unreachable {
        /// Which cluster.
        side: Side,
        /// What we were about, as in "listing collections".
        doing: String,
        /// Of what kind, for metrics.
        why: Trouble,
        /// The driver's error.
        #[source]
        source: Cause,
    },
    /// The oplog has been overwritten past the place we wanted to read from.
    #[error("the oplog of the source no longer reaches back to {wanted}{}", .oldest.map_or(String::new(), |t| format!(": its oldest entry is of {t}")))]
    PositionLost {
        /// Where we wanted to go on.
        wanted: ClusterTime,
        /// What the oplog still holds, where the server told.
        oldest: Option<ClusterTime>,
    },
    /// A shard was removed from the source, and with it changes that had not been read.
    #[error("the source lost the shard {} after {wanted}, and with it changes that had not been read", .shards.join(", "))]
    ShardsRemoved {
        /// By their names.
        shards: Vec<String>,
        /// Where we wanted to go on.
        wanted: ClusterTime,
    },
    /// The user may not do this.
    #[error("the {side} cluster refused {doing}: the user lacks a privilege")]
    Forbidden {
        /// Which cluster.
        side: Side,
        /// What was refused.
        doing: String,
        /// The driver's error.
        #[source]
        source: Cause,
    },
    /// Wrong user, password or mechanism.
    #[error("the {side} cluster did not accept the credentials of the connection string")]
    BadCredentials {
        /// Which cluster.
        side: Side,
        /// The driver's error.
        #[source]
        source: Cause,
    },
    /// The server said no, and would say no again.
    #[error("the {side} cluster refused {doing}")]
    Refused {
        /// Which cluster.
        side: Side,
        /// What was refused.
        doing: String,
        /// The server's code, for deciding; 0 where there is none.
        code: i32,
        /// The driver's error.
        #[source]
        source: Cause,
    },
    /// The cluster cannot take part as it is.
    #[error("the {side} cluster {problem}")]
    UnfitCluster {
        /// Which cluster.
        side: Side,
        /// Reads on after "the source cluster …".
        problem: String,
        /// What to do.
        hint: String,
    },
    /// The target already holds data where we would write.
    #[error("the target already holds {} of the selected namespaces: {}", .namespaces.len(), list(.namespaces))]
    TargetNotEmpty {
        /// Those which are there.
        namespaces: Vec<String>,
    },
    /// The metadata database holds something we must not touch.
    #[error("the metadata in `{database}` on the target {problem}")]
    ForeignMetadata {
        /// The metadata database.
        database: String,
        /// Reads on after "the metadata …".
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Another process is at work on the same migration.
    #[error("another process works on this migration: {holder}")]
    Leased {
        /// Host and process id of the other.
        holder: String,
    },
    /// This process was the writer and is no more.
    #[error("this process lost the lease of the migration to {holder}, and stops writing")]
    LeaseLost {
        /// Who holds it now, as far as known.
        holder: String,
    },
    /// Something on the source that this version does not replicate.
    #[error("{what} cannot be replicated{}", .ns.as_ref().map_or(String::new(), |ns| format!(" (`{ns}`)")))]
    Unsupported {
        /// What it is, as in "a time-series collection".
        what: String,
        /// Where.
        ns: Option<String>,
        /// What to do.
        hint: String,
    },
    /// The command line or configuration.
    #[error("`{field}` {problem}")]
    BadConfig {
        /// Flag or key.
        field: String,
        /// Reads on after its name.
        problem: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A verb found no running process at its endpoint.
    #[error("no mongoferry answers at {endpoint}")]
    NoEndpoint {
        /// URL asked.
        endpoint: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// We were told to stop, by a signal or by the first error of another task.
    #[error("interrupted")]
    Interrupted,
    /// An invariant does not hold.
    #[error("broken invariant: {0}")]
    Bug(String),
}

impl Error {
    /// What to do about it. No `_` arm on purpose: a new variant must say.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Error::Unreachable { .. } => Remedy::Retry,
            Error::PositionLost { .. } | Error::ShardsRemoved { .. } => Remedy::Recopy,
            Error::Forbidden { .. }
            | Error::BadCredentials { .. }
            | Error::Refused { .. }
            | Error::UnfitCluster { .. }
            | Error::TargetNotEmpty { .. }
            | Error::Leased { .. }
            | Error::LeaseLost { .. }
            | Error::Unsupported { .. } => Remedy::Operate,
            Error::ForeignMetadata { .. } | Error::BadConfig { .. } | Error::NoEndpoint { .. } => Remedy::Reconfigure,
            Error::Interrupted => Remedy::Nothing,
            Error::Bug(_) => Remedy::Report,
        }
    }

    /// The process's exit code: the README's table.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if let Error::NoEndpoint { .. } = self {
            return 3;
        }
        match self.remedy() {
            Remedy::Reconfigure => 2,
            Remedy::Retry => 3,
            Remedy::Operate => 4,
            Remedy::Recopy => 5,
            Remedy::Report => 70,
            Remedy::Nothing => 130,
        }
    }

    /// The sentence shown after `hint:`.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Unreachable { side, .. } => format!(
                "check that the hosts of the {side} connection string are reachable from here, that the set has a primary, and the TLS options"
            ),
            Error::PositionLost { .. } => {
                "start again with `mongoferry run --restart-from-scratch --drop-target-namespaces` and a larger oplog on the source (`replSetResizeOplog`)".into()
            }
            Error::ShardsRemoved { .. } => {
                "start again with `mongoferry run --restart-from-scratch --drop-target-namespaces`; the next time, remove a shard only while mongoferry follows with little lag".into()
            }
            Error::Forbidden { side, .. } => {
                format!("`mongoferry check` names each privilege missing on the {side} and the command that grants it")
            }
            Error::BadCredentials { side, .. } => {
                format!("check user, password and `authSource` of the {side} connection string")
            }
            Error::Refused { .. } => "the cause tells what the server objects to; mend it there, then `mongoferry resume`".into(),
            Error::TargetNotEmpty { .. } => {
                "choose other namespaces with `--include`, `--exclude` or `--rename`, empty them yourself, or permit their removal with `--drop-target-namespaces`".into()
            }
            Error::Leased { .. } => {
                "stop the other process first; if it died, its lease lapses within 15 seconds: try again then".into()
            }
            Error::LeaseLost { .. } => "let one process only work on a migration".into(),
            Error::UnfitCluster { hint, .. } | Error::ForeignMetadata { hint, .. } | Error::Unsupported { hint, .. } => hint.clone(),
            Error::BadConfig { hint, .. } => return hint.clone(),
            Error::NoEndpoint { .. } => "start `mongoferry run`, or name its address with `--endpoint`".into(),
            Error::Interrupted => "the same command goes on where this one stopped".into(),
            Error::Bug(_) => "please report this with the log; nothing was lost".into(),
        })
    }

    /// The whole story on one line: the message and its causes, for logs and `status`.
    #[must_use]
    pub fn story(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            text.push_str(": ");
            text.push_str(&next.to_string());
            cause = next.source();
        }
        text
    }

    /// The server's code where the server refused.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(5).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
}
