//! The gauges that show the status: set together, from one snapshot, so that they never contradict it.

use super::age::Age;
use super::catalogue as c;
use super::labels::{ACTIVITIES, GATES, INDEX_STATES, SWITCHES, WORK};
use super::register::{gauge, gauges, unknown_gauge};
use crate::model::{LOG_LEVELS, Phase, SlowReason, Status};
use prometheus::{Gauge, Registry};

pub(super) struct Mirror {
    lag: Gauge,
    headroom: Gauge,
    window: Gauge,
    pub(super) checkpoint_age: Age,
    applied_time: Gauge,
    in_flight: Gauge,
    in_flight_limit: Gauge,
    phase: [Gauge; Phase::LABELS.len()],
    activity: [Gauge; ACTIVITIES.len()],
    can_cut_over: Gauge,
    gate_open: [Gauge; GATES.len()],
    writes_blocked: Gauge,
    copy_done_documents: Gauge,
    copy_done_bytes: Gauge,
    copy_estimated_documents: Gauge,
    copy_estimated_bytes: Gauge,
    unfinished_indexes: [Gauge; INDEX_STATES.len()],
    throttled: [Gauge; SlowReason::LABELS.len()],
    copy_share: Gauge,
    tail_share: Gauge,
    setting_on: [Gauge; SWITCHES.len()],
    rate_limit_bytes: [Gauge; WORK.len()],
    rate_limit_operations: [Gauge; WORK.len()],
    log_level: [Gauge; LOG_LEVELS.len()],
}

impl Mirror {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            lag: unknown_gauge(r, &c::LAG),
            headroom: unknown_gauge(r, &c::HEADROOM),
            window: unknown_gauge(r, &c::WINDOW),
            checkpoint_age: Age::new(gauge(r, &c::CHECKPOINT_AGE)),
            applied_time: unknown_gauge(r, &c::APPLIED_TIME),
            in_flight: gauge(r, &c::IN_FLIGHT),
            in_flight_limit: gauge(r, &c::IN_FLIGHT_LIMIT),
            phase: gauges(r, &c::PHASE, Phase::LABELS),
            activity: gauges(r, &c::ACTIVITY, ACTIVITIES),
            can_cut_over: gauge(r, &c::CAN_CUT_OVER),
            gate_open: gauges(r, &c::GATE_OPEN, GATES),
            writes_blocked: gauge(r, &c::WRITES_BLOCKED),
            copy_done_documents: gauge(r, &c::COPY_DONE_DOCUMENTS),
            copy_done_bytes: gauge(r, &c::COPY_DONE_BYTES),
            copy_estimated_documents: gauge(r, &c::COPY_ESTIMATED_DOCUMENTS),
            copy_estimated_bytes: gauge(r, &c::COPY_ESTIMATED_BYTES),
            unfinished_indexes: gauges(r, &c::UNFINISHED_INDEXES, INDEX_STATES),
            throttled: gauges(r, &c::THROTTLED, SlowReason::LABELS),
            copy_share: gauge(r, &c::COPY_SHARE),
            tail_share: gauge(r, &c::TAIL_SHARE),
            setting_on: gauges(r, &c::SETTING_ON, SWITCHES),
            rate_limit_bytes: gauges(r, &c::RATE_LIMIT_BYTES, WORK),
            rate_limit_operations: gauges(r, &c::RATE_LIMIT_OPERATIONS, WORK),
            log_level: gauges(r, &c::LOG_LEVEL, LOG_LEVELS),
        }
    }

    pub(super) fn show(&self, s: &Status) {
        self.lag.set(known(s.lag_seconds));
        self.headroom.set(known(s.headroom_seconds));
        self.window.set(known(s.oplog_window_seconds));
        self.checkpoint_age.set(s.checkpoint_age_seconds);
        self.applied_time.set(known(s.applied_cluster_time.map(|at| f64::from(at.t))));
        self.in_flight.set(s.in_flight.bytes as f64);
        self.in_flight_limit.set(s.in_flight.limit_bytes as f64);
        one_of(&self.phase, Phase::LABELS, &s.phase);
        one_of(&self.activity, ACTIVITIES, &s.activity);
        self.can_cut_over.set(one(s.can_cut_over));
        for (gauge, name) in self.gate_open.iter().zip(GATES) {
            gauge.set(one(s.gates.iter().any(|gate| gate.name == name && gate.open)));
        }
        self.writes_blocked.set(s.cutover.as_ref().and_then(|cutover| cutover.writes_blocked_seconds).unwrap_or(0.0));
        self.copy_done_documents.set(s.copy.documents as f64);
        self.copy_done_bytes.set(s.copy.bytes as f64);
        self.copy_estimated_documents.set(s.copy.estimated_documents as f64);
        self.copy_estimated_bytes.set(s.copy.estimated_bytes as f64);
        for (gauge, state) in self.unfinished_indexes.iter().zip(INDEX_STATES) {
            gauge.set(s.unfinished_indexes.iter().filter(|index| index.state == state).count() as f64);
        }
        for (gauge, reason) in self.throttled.iter().zip(SlowReason::LABELS) {
            gauge.set(one(s.throttle.reasons.iter().any(|slowed| slowed.reason == reason)));
        }
        self.copy_share.set(s.throttle.copy_share.unwrap_or(1.0));
        self.tail_share.set(s.throttle.tail_share.unwrap_or(1.0));
        let settings = &s.settings;
        for (gauge, on) in self.setting_on.iter().zip([settings.adaptive_throttle, settings.verification]) {
            gauge.set(one(on));
        }
        let rates = [settings.copy_rate, settings.tail_rate];
        for ((bytes, operations), rate) in self.rate_limit_bytes.iter().zip(&self.rate_limit_operations).zip(rates) {
            bytes.set(rate.bytes.unwrap_or_default() as f64);
            operations.set(rate.operations.unwrap_or_default() as f64);
        }
        one_of(&self.log_level, LOG_LEVELS, &settings.log_level);
    }
}

/// What is unknown is NaN: it compares false, so no alert fires on it, and a graph has a gap.
fn known(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

fn one(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

fn one_of<const N: usize>(gauges: &[Gauge; N], labels: [&str; N], now: &str) {
    for (gauge, label) in gauges.iter().zip(labels) {
        gauge.set(one(label == now));
    }
}
