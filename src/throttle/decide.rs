//! From what was seen of the clusters to a reason for going slower. Pure.

use crate::model::SlowReason;
use std::time::Duration;

/// How long a cluster takes to answer us.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// Of late.
    pub now: Duration,
    /// When it was least busy.
    pub usual: Duration,
}

/// What was seen last; `None` where it cannot be seen, or not any more.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Samples {
    /// How far the target's slowest secondary is behind its primary.
    pub target_lag: Option<Duration>,
    /// The same of the source.
    pub source_lag: Option<Duration>,
    /// Of the target.
    pub target_latency: Option<Latency>,
    /// Of the source.
    pub source_latency: Option<Latency>,
    /// Whether the target's flow control holds writers back.
    pub flow_control: Option<bool>,
    /// Operations that wait in line on the target.
    pub target_queue: Option<u64>,
    /// And on the source.
    pub source_queue: Option<u64>,
}

/// Beyond which the work goes slower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Lag of a secondary.
    pub lag: Duration,
    /// Latency of a call, if it is also `MUCH_SLOWER` than usual.
    pub latency: Duration,
    /// Operations in line.
    pub queue: u64,
}

/// A cluster that is always slow is not under strain.
const MUCH_SLOWER: u32 = 5;
/// What made us slower has to fall this far below its limit before it does not any more.
const RELIEF: f64 = 0.7;

/// The first reason there is, gravest first. `standing` is the one in force, which is left later than it is entered.
#[must_use]
pub fn decide(samples: &Samples, limits: &Limits, standing: Option<SlowReason>) -> Option<(SlowReason, String)> {
    use SlowReason as R;
    let relief = |reason: R| if standing == Some(reason) { RELIEF } else { 1.0 };
    let lag = |reason: R, seen: Option<Duration>, side: &str| {
        let seen = seen.filter(|lag| *lag > limits.lag.mul_f64(relief(reason)))?;
        Some((reason, format!("a secondary of the {side} is {} s behind", seen.as_secs())))
    };
    let latency = |reason: R, seen: Option<Latency>, side: &str| {
        let Latency { now, usual } = seen?;
        let beyond = now > limits.latency.mul_f64(relief(reason)) && now > usual * MUCH_SLOWER;
        beyond.then(|| (reason, format!("the {side} answers in {} ms, {} ms when it is not busy", now.as_millis(), usual.as_millis())))
    };
    #[expect(clippy::cast_precision_loss, reason = "a queue is short")]
    let queue = |seen: Option<u64>, side: &str| {
        let seen = seen.filter(|n| *n as f64 > limits.queue as f64 * relief(R::Queue))?;
        Some((R::Queue, format!("{seen} operations wait in line on the {side}")))
    };
    let flow_control = || samples.flow_control?.then(|| (R::FlowControl, "the flow control of the target holds writers back".to_owned()));
    lag(R::TargetLag, samples.target_lag, "target")
        .or_else(|| lag(R::SourceLag, samples.source_lag, "source"))
        .or_else(flow_control)
        .or_else(|| queue(samples.target_queue, "target"))
        .or_else(|| queue(samples.source_queue, "source"))
        .or_else(|| latency(R::SourceLatency, samples.source_latency, "source"))
        .or_else(|| latency(R::TargetLatency, samples.target_latency, "target"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { lag: Duration::from_secs(30), latency: Duration::from_millis(500), queue: 100 };

    fn reason(samples: &Samples, standing: Option<SlowReason>) -> Option<SlowReason> {
        decide(samples, &LIMITS, standing).map(|(reason, _)| reason)
    }

    #[test]
    fn nothing_seen_is_no_reason() {
        assert_eq!(reason(&Samples::default(), None), None);
    }

    #[test]
    fn each_fact_has_its_reason_and_is_left_later_than_entered() {
        use SlowReason as R;
        let ms = |now, usual| Some(Latency { now: Duration::from_millis(now), usual: Duration::from_millis(usual) });
        let s = |n| Some(Duration::from_secs(n));
        let none = Samples::default;
        for (why, calm, between, beyond) in [
            (
                R::TargetLag,
                Samples { target_lag: s(20), ..none() },
                Samples { target_lag: s(25), ..none() },
                Samples { target_lag: s(31), ..none() },
            ),
            (
                R::SourceLag,
                Samples { source_lag: s(20), ..none() },
                Samples { source_lag: s(25), ..none() },
                Samples { source_lag: s(31), ..none() },
            ),
            (
                R::TargetLatency,
                Samples { target_latency: ms(300, 1), ..none() },
                Samples { target_latency: ms(400, 1), ..none() },
                Samples { target_latency: ms(501, 1), ..none() },
            ),
            (
                R::SourceLatency,
                Samples { source_latency: ms(300, 1), ..none() },
                Samples { source_latency: ms(400, 1), ..none() },
                Samples { source_latency: ms(501, 1), ..none() },
            ),
            (
                R::Queue,
                Samples { target_queue: Some(60), ..none() },
                Samples { target_queue: Some(90), ..none() },
                Samples { target_queue: Some(101), ..none() },
            ),
            (
                R::Queue,
                Samples { source_queue: Some(60), ..none() },
                Samples { source_queue: Some(90), ..none() },
                Samples { source_queue: Some(101), ..none() },
            ),
        ] {
            assert_eq!((reason(&calm, None), reason(&calm, Some(why))), (None, None), "{why:?}");
            assert_eq!((reason(&between, None), reason(&between, Some(why))), (None, Some(why)), "{why:?}");
            assert_eq!(reason(&beyond, None), Some(why));
        }
        let flow = Samples { flow_control: Some(true), ..none() };
        assert_eq!(reason(&flow, None), Some(R::FlowControl));
        assert_eq!(reason(&Samples { flow_control: Some(false), ..none() }, None), None);
    }

    #[test]
    fn a_cluster_that_is_always_slow_is_not_under_strain() {
        let far = Latency { now: Duration::from_millis(900), usual: Duration::from_millis(300) };
        assert_eq!(reason(&Samples { target_latency: Some(far), ..Samples::default() }, None), None);
    }
}
