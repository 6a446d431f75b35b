//! Why the work is slower than it could be.

use serde::{Deserialize, Serialize};

/// A reason to go slower. A closed set: it is a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlowReason {
    /// An operator holds the copy back.
    Operator,
    /// The copy is at its rate limit.
    CopyRate,
    /// The tail is at its rate limit.
    TailRate,
    /// A secondary of the target is behind.
    TargetLag,
    /// A secondary of the source is behind.
    SourceLag,
    /// The target answers late.
    TargetLatency,
    /// The source answers late.
    SourceLatency,
    /// The target's flow control holds writers back.
    FlowControl,
    /// Operations wait in line on either cluster.
    Queue,
}

impl SlowReason {
    /// All, in the order of the labels.
    pub const ALL: [SlowReason; 9] = [
        SlowReason::Operator,
        SlowReason::CopyRate,
        SlowReason::TailRate,
        SlowReason::TargetLag,
        SlowReason::SourceLag,
        SlowReason::TargetLatency,
        SlowReason::SourceLatency,
        SlowReason::FlowControl,
        SlowReason::Queue,
    ];

    /// All labels, in the same order.
    pub const LABELS: [&'static str; 9] =
        ["operator", "copy_rate", "tail_rate", "target_lag", "source_lag", "target_latency", "source_latency", "flow_control", "queue"];

    /// For status and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// A reason in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Slowed {
    /// One of [`SlowReason::LABELS`].
    pub reason: String,
    /// What was seen, for people.
    pub detail: String,
}

/// How much the work is held back, and what that is judged by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ThrottleStatus {
    /// What holds it back; nothing while it runs freely.
    pub reasons: Vec<Slowed>,
    /// Share of its own speed that the copy is allowed, from 0 to 1; `null` while it is not known.
    pub copy_share: Option<f64>,
    /// The same of the tail.
    pub tail_share: Option<f64>,
    /// Milliseconds of a ping to the source's primary.
    pub source_latency_ms: Option<f64>,
    /// Milliseconds of a ping to the target's primary.
    pub target_latency_ms: Option<f64>,
    /// Facts that cannot be seen, and why.
    pub blind: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_at_the_index_of_their_reason() {
        assert_eq!(SlowReason::ALL.map(SlowReason::label), SlowReason::LABELS);
        assert_eq!(SlowReason::Queue.label(), "queue");
        assert_eq!(SlowReason::Operator.label(), "operator");
    }
}
