//! The settings at work, and the throttle: collectors sample on their own clock, one pure decision, and the paces.

use super::board::Board;
use crate::{
    config::ThrottleConfig,
    error::Result,
    model::{Phase, Rate, Settings, Side, SlowReason, Slowed, ThrottleStatus},
    mongo::{Cluster, Health},
    observe::set_log_level,
    throttle::{Governor, Latency, Limits, Samples, Shares, Throttle, decide},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often is pinged and decided.
const EVERY: Duration = Duration::from_secs(1);
/// Every how many of them the servers are asked how they are.
const HEALTH_EVERY: u32 = 5;
/// What was seen longer ago tells nothing any more.
const STALE: Duration = Duration::from_secs(30);
/// Pings whose median is the latency of now.
const PINGS: usize = 5;
/// Headroom below which the tail is never held back.
const TAIL_HEADROOM: f64 = 3600.0;

/// Settings, paces and what the throttle sees. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Steering {
    /// As they are now. Whoever works by one of them watches it here.
    pub settings: watch::Sender<Settings>,
    /// As the options had them.
    pub options: Arc<Settings>,
    pub throttle: Throttle,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    source: Sight,
    target: Sight,
    governor: Governor,
    /// What was logged as in force.
    told: Vec<SlowReason>,
}

/// What is seen of one cluster.
#[derive(Debug, Default)]
struct Sight {
    meter: Meter,
    pinged: Option<Instant>,
    health: Option<(Health, Instant)>,
}

/// The latency of pings: of late, and when there was least to do.
#[derive(Debug, Default)]
struct Meter {
    last: VecDeque<Duration>,
    usual: Option<Duration>,
}

impl Meter {
    fn see(&mut self, ping: Duration) {
        self.last.push_back(ping);
        if self.last.len() > PINGS {
            self.last.pop_front();
        }
        // Falls at once and rises slowly: after some ten minutes it is that of another load. The fastest counts, so that a
        // start in the middle of a strain is not taken for the usual.
        let usual = self.usual.unwrap_or(ping).min(ping);
        let now = self.now().unwrap_or(usual).max(usual);
        self.usual = Some((usual + (now - usual) / 500).max(Duration::from_millis(1)));
    }

    fn now(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        (sorted.len() == PINGS).then(|| sorted[PINGS / 2])
    }
}

impl Sight {
    fn latency(&self) -> Option<Latency> {
        self.pinged.filter(|at| at.elapsed() < STALE)?;
        Some(Latency { now: self.meter.now()?, usual: self.meter.usual? })
    }

    fn health(&self) -> Option<&Health> {
        self.health.as_ref().filter(|(_, at)| at.elapsed() < STALE).map(|(health, _)| health)
    }

    fn ping_ms(&self) -> Option<f64> {
        self.meter.last.back().map(|ping| ping.as_secs_f64() * 1000.0)
    }
}

impl Steering {
    /// With the options of this start, and what was set in an earlier one.
    pub(super) fn new(options: Settings, now: Settings) -> Self {
        let steering =
            Self { settings: watch::Sender::new(now), options: Arc::new(options), throttle: Throttle::default(), seen: Arc::default() };
        steering.apply();
        steering
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes by these from now on.
    pub(super) fn change(&self, settings: Settings) {
        self.settings.send_replace(settings);
        self.apply();
        self.tell();
    }

    fn apply(&self) {
        let settings = self.settings.borrow();
        self.throttle.copy.set_rate(settings.copy_rate);
        self.throttle.copy.stand_still(settings.throttle.is_some());
        self.throttle.tail.set_rate(settings.tail_rate);
        set_log_level(&settings.log_level);
    }

    /// What holds the work back.
    pub(super) fn reasons(&self) -> Vec<(SlowReason, String)> {
        let (settings, seen) = (self.settings.borrow(), self.seen());
        let by_operator = settings.throttle.iter().map(|why| (SlowReason::Operator, format!("the copy is held back: {why}")));
        let at_rate = [
            (SlowReason::CopyRate, &self.throttle.copy, "copy-rate", settings.copy_rate),
            (SlowReason::TailRate, &self.throttle.tail, "tail-rate", settings.tail_rate),
        ];
        let by_rate = at_rate.into_iter().filter(|(_, pace, ..)| pace.is_at_its_rate());
        let by_rate = by_rate.map(|(reason, _, name, rate)| (reason, format!("`{name}` is {rate}")));
        by_operator.chain(by_rate).chain(seen.governor.reason().cloned()).collect()
    }

    /// Logs reasons that came and went since the last time.
    fn tell(&self) {
        let now = self.reasons();
        let mut seen = self.seen();
        let Shares { copy, tail } = seen.governor.shares();
        for (reason, detail) in now.iter().filter(|(reason, _)| !seen.told.contains(reason)) {
            tracing::info!(reason = reason.label(), detail, copy_share = copy, tail_share = tail, "throttled");
        }
        for reason in seen.told.iter().filter(|told| !now.iter().any(|(reason, _)| reason == *told)) {
            tracing::info!(reason = reason.label(), "no longer throttled");
        }
        seen.told = now.into_iter().map(|(reason, _)| reason).collect();
    }

    pub(super) fn status(&self) -> ThrottleStatus {
        let reasons = self.reasons().into_iter().map(|(reason, detail)| Slowed { reason: reason.label().to_owned(), detail }).collect();
        let seen = self.seen();
        let Shares { copy, tail } = seen.governor.shares();
        let blind = |side: Side, sight: &Sight| {
            let forbidden = sight.health().map(|health| health.forbidden.clone()).unwrap_or_default();
            forbidden.into_iter().map(move |name| format!("the user of the {side} may not run `{name}` (role clusterMonitor)"))
        };
        ThrottleStatus {
            reasons,
            copy_share: Some(copy),
            tail_share: Some(tail),
            source_latency_ms: seen.source.ping_ms(),
            target_latency_ms: seen.target.ping_ms(),
            blind: blind(Side::Source, &seen.source).chain(blind(Side::Target, &seen.target)).collect(),
        }
    }
}

/// Samples one cluster. Its silence is no failure here.
pub(super) async fn collect(cluster: Cluster, steering: Steering, stop: CancellationToken) -> Result<()> {
    let side = cluster.side();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rounds = 0_u32;
    let note = |change: &dyn Fn(&mut Sight)| {
        let mut seen = steering.seen();
        change(if side == Side::Source { &mut seen.source } else { &mut seen.target });
    };
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        // One that does not answer is not asked more: each question would hold up the end.
        let Ok(ping) = cluster.ping().await else { continue };
        note(&|sight| {
            sight.meter.see(ping);
            sight.pinged = Some(Instant::now());
        });
        if rounds.is_multiple_of(HEALTH_EVERY) {
            let health = cluster.health().await;
            note(&|sight| sight.health = Some((health.clone(), Instant::now())));
        }
        rounds += 1;
    }
    Ok(())
}

/// Decides once a second, moves the paces, and logs what changes.
pub(super) async fn govern(board: Board, config: ThrottleConfig, stop: CancellationToken) -> Result<()> {
    let limits = Limits { lag: config.lag, latency: config.latency, queue: config.queue };
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut spared = false;
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let phase = board.phase();
        let facts = board.facts();
        let (running, may_wait) = (facts.running, facts.headroom_seconds.is_none_or(|s| s > TAIL_HEADROOM));
        let steering = &board.steering;
        let settings = steering.settings.borrow().clone();
        // While writers wait for the cutover, nothing holds the tail back.
        let cutting_over = phase == Phase::CuttingOver;
        if cutting_over != spared {
            steering.throttle.tail.set_rate(if cutting_over { Rate::default() } else { settings.tail_rate });
            spared = cutting_over;
        }
        let shares = {
            let mut seen = steering.seen();
            if settings.adaptive_throttle && running {
                let standing = seen.governor.reason().map(|(reason, _)| *reason);
                let found = decide(&samples(&seen), &limits, standing);
                seen.governor.sample(found, matches!(phase, Phase::Copying { .. }), may_wait && !cutting_over);
            } else {
                seen.governor = Governor::default();
            }
            seen.governor.shares()
        };
        steering.throttle.copy.set_share(shares.copy);
        steering.throttle.tail.set_share(shares.tail);
        steering.tell();
    }
    Ok(())
}

fn samples(seen: &Seen) -> Samples {
    let (source, target) = (seen.source.health(), seen.target.health());
    Samples {
        target_lag: target.and_then(|h| h.lag),
        source_lag: source.and_then(|h| h.lag),
        target_latency: seen.target.latency(),
        source_latency: seen.source.latency(),
        flow_control: target.and_then(|h| h.flow_control),
        target_queue: target.and_then(|h| h.queue),
        source_queue: source.and_then(|h| h.queue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_latency_falls_at_once_and_rises_slowly() {
        let ms = Duration::from_millis;
        let mut meter = Meter::default();
        (0..4).for_each(|_| meter.see(ms(10)));
        assert_eq!(meter.now(), None, "too few");
        meter.see(ms(10));
        assert_eq!((meter.now(), meter.usual), (Some(ms(10)), Some(ms(10))));
        (0..10).for_each(|_| meter.see(ms(800)));
        assert_eq!(meter.now(), Some(ms(800)));
        assert!(meter.usual.unwrap() < ms(30), "{:?}", meter.usual);
        (0..10).for_each(|_| meter.see(ms(2)));
        assert_eq!(meter.usual, Some(ms(2)));
        meter.see(ms(900));
        assert_eq!(meter.now(), Some(ms(2)), "one alone is an accident");
    }
}
