//! What comes in over the control endpoint, and what goes back.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use utoipa::ToSchema;

/// A verb with its arguments. The engine alone decides whether and how it is carried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Command {
    /// Begin what `run --hold` holds back.
    Start(StartOrder),
    /// Stop at a safe place, keep it.
    Pause {
        /// Who asks, for `status`.
        by: String,
        /// Finish only what the clusters are at, instead of everything that was read.
        immediate: bool,
    },
    /// Go on.
    Resume,
    /// Compare both sides while the tail goes on.
    Verify(Examination),
    /// Hand over.
    Cutover(Handover),
    /// Give up the migration: lift the fence, drop the metadata, end the process.
    Abort(GiveUp),
    /// Let the old source follow the new primary, behind the commit.
    Reverse,
    /// Change settings, all or none.
    Set {
        /// By name.
        settings: BTreeMap<String, String>,
    },
    /// Hold the copy back; the tail goes on.
    Throttle {
        /// Why, for `status`.
        reason: String,
    },
    /// Let the copy go on.
    Unthrottle,
}

/// How to give up.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GiveUp {
    /// Whether what was copied is dropped from the target.
    pub drop_target_namespaces: bool,
}

/// How to compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Examination {
    /// Mend the differences that persist.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
    /// Documents whose fields differ in nothing but their order are equal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_field_order: bool,
    /// Shard keys and zones are not compared.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_sharding: bool,
}

/// How to start what is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartOrder {
    /// Instead of what `--indexes-before-data` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexes_before_data: Option<bool>,
    /// Whether to compare both sides all the while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<bool>,
}

/// How to hand over.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Handover {
    /// The operator's word that nobody writes to the source any more: it is not fenced by us.
    pub writes_stopped: bool,
    /// Seconds within which it completes or is undone.
    pub timeout_seconds: u64,
    /// Only look at the gates.
    pub dry_run: bool,
    /// Hand over although documents are not all proved equal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub accept_unproved_documents: bool,
    /// Indexes that the target may do without, as `db.collection:index`.
    pub waive_indexes: Vec<String>,
    /// Whether the old source follows the new primary as soon as it is committed.
    pub then_reverse: bool,
}

impl Default for Handover {
    fn default() -> Self {
        Self {
            writes_stopped: false,
            timeout_seconds: 60,
            dry_run: false,
            accept_unproved_documents: false,
            waive_indexes: Vec::new(),
            then_reverse: false,
        }
    }
}

/// A command and the way back.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Where the answer goes; the asker may have left.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of a command.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// The exit code for the verb that asked: 0 done, 1 an honest "no", otherwise as documented.
    pub exit_code: u8,
    /// One sentence for people.
    pub message: String,
    /// What to do, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// The details: a verify report, a gate report; `null` where there are none.
    #[serde(default)]
    pub details: serde_json::Value,
}

impl Answer {
    /// Done.
    #[must_use]
    pub fn done(message: impl Into<String>) -> Self {
        Self { exit_code: 0, message: message.into(), hint: None, details: serde_json::Value::Null }
    }

    /// An honest "no".
    #[must_use]
    pub fn no(message: impl Into<String>) -> Self {
        Self { exit_code: 1, ..Self::done(message) }
    }

    /// With details.
    #[must_use]
    pub fn with(mut self, details: serde_json::Value) -> Self {
        self.details = details;
        self
    }
}

impl From<&crate::error::Error> for Answer {
    fn from(error: &crate::error::Error) -> Self {
        Self { exit_code: error.exit_code(), message: error.story(), hint: error.hint(), details: serde_json::Value::Null }
    }
}
