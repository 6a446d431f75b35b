//! What a migration *is*: the two clusters and the options that may not change on a resume.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the two clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Read from; the production cluster until the cutover.
    Source,
    /// Written to (mongosync says *destination*).
    Target,
}

impl Side {
    /// For metrics and messages.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Identity of a migration, stored with its checkpoint and compared when it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Replica-set or cluster id of the source (`replicaSetId` of its configuration), in hex.
    pub source: String,
    /// Same for the target.
    pub target: String,
    /// `--include`, sorted.
    pub include: Vec<String>,
    /// `--exclude`, sorted.
    pub exclude: Vec<String>,
    /// `--rename`, sorted.
    pub rename: Vec<String>,
    /// `--shard`, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shard: Vec<String>,
    /// Whether the filters are those of the way back: they name what the target is to have, not what the source has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inverse: bool,
}

impl Fingerprint {
    /// What differs, in words that name the flag; empty when nothing does.
    #[must_use]
    pub fn differences(&self, stored: &Fingerprint) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, ours: &[String], theirs: &[String]| {
            if ours != theirs {
                found.push(format!("{what} was [{}] and is now [{}]", theirs.join(", "), ours.join(", ")));
            }
        };
        compare("the source cluster", std::slice::from_ref(&self.source), std::slice::from_ref(&stored.source));
        compare("the target cluster", std::slice::from_ref(&self.target), std::slice::from_ref(&stored.target));
        compare("--include", &self.include, &stored.include);
        compare("--exclude", &self.exclude, &stored.exclude);
        compare("--rename", &self.rename, &stored.rename);
        compare("--shard", &self.shard, &stored.shard);
        if self.inverse != stored.inverse {
            found.push(format!("it was {}a way back", if stored.inverse { "" } else { "not " }));
        }
        found
    }
}
