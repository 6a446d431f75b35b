//! How fast it goes: rates out of successive snapshots. Pure; the caller brings the time.

use super::{human, render};
use crate::model::Status;
use std::time::Duration;

/// Part of a new measurement in a smoothed rate, for one second.
const FRESH: f64 = 0.2;

/// Rates per second, smoothed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    last: Option<(Duration, u64, u64)>,
    first: Option<(Duration, u64)>,
    bytes: f64,
    events: f64,
}

impl Pace {
    /// Takes a snapshot seen this long after the start.
    #[expect(clippy::cast_precision_loss, reason = "rates are for display")]
    pub(super) fn see(&mut self, at: Duration, status: &Status) {
        let (bytes, events) = (status.copy.bytes, status.events.applied);
        let Some((before, old_bytes, old_events)) = self.last.replace((at, bytes, events)) else {
            self.first = Some((at, bytes));
            return;
        };
        let passed = at.saturating_sub(before).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        let weight = (FRESH * passed).min(1.0);
        let smooth = |rate: &mut f64, delta: u64| *rate += (delta as f64 / passed - *rate) * weight;
        smooth(&mut self.bytes, bytes.saturating_sub(old_bytes));
        smooth(&mut self.events, events.saturating_sub(old_events));
    }

    /// Seconds until the copy is complete; nothing before 1 % is done, since it would mean nothing.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn seconds_left(&self, status: &Status) -> Option<f64> {
        let ((at, bytes, _), (first_at, first_bytes)) = (self.last?, self.first?);
        let passed = at.saturating_sub(first_at).as_secs_f64();
        let fetched = bytes.saturating_sub(first_bytes) as f64;
        let meaningful = human::share(bytes, status.copy.estimated_bytes)? >= 0.01 && passed >= 1.0 && fetched > 0.0;
        meaningful.then(|| status.copy.estimated_bytes.saturating_sub(bytes) as f64 * passed / fetched)
    }

    /// How long until the next line where lines are not live: the longer it runs, the rarer.
    pub(super) fn until_next_line(running_for: Duration) -> Duration {
        Duration::from_secs(match running_for.as_secs() {
            0..10 => 1,
            10..70 => 5,
            _ => 60,
        })
    }

    /// The first live line, and the whole of a line that is not live: phase and copy or tail.
    pub(super) fn headline(&self, status: &Status, with_bar: bool) -> String {
        let phase = status.phase.replace('_', " ");
        let mut text =
            if status.activity == "running" || status.activity.is_empty() { phase } else { format!("{phase}, {}", status.activity) };
        if status.phase == "copying" {
            if let Some(share) = human::share(status.copy.bytes, status.copy.estimated_bytes) {
                let bar = if with_bar { human::bar(share, 24) } else { String::new() };
                text.push_str(&format!(" {bar}{:>3.0} %", (share * 100.0).floor()));
            }
            text.push_str(&format!(": {}, {}/s", render::copied(status), human::bytes(human::rate(self.bytes))));
            if let Some(left) = self.seconds_left(status) {
                text.push_str(&format!(", about {} left", human::seconds(left)));
            }
        }
        text
    }

    /// The second live line: lag, headroom, rate.
    pub(super) fn detail(&self, status: &Status) -> String {
        let rate = human::count(human::rate(self.events));
        let (lag, headroom) = (human::maybe_seconds(status.lag_seconds), human::maybe_seconds(status.headroom_seconds));
        let slowed: String = status.throttle.reasons.iter().map(|slowed| format!(", throttled ({})", slowed.reason)).collect();
        format!("lag {lag}, headroom {headroom}, {rate} events/s, in flight {}{slowed}", human::bytes(status.in_flight.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CopyStatus;

    fn copied(bytes: u64) -> Status {
        let copy = CopyStatus { bytes, estimated_bytes: 10_000, estimated_documents: 10, ..CopyStatus::default() };
        Status { phase: "copying".into(), activity: "running".into(), copy, ..Status::default() }
    }

    #[test]
    fn no_guess_before_one_percent() {
        let mut pace = Pace::default();
        pace.see(Duration::ZERO, &copied(0));
        pace.see(Duration::from_secs(2), &copied(50));
        assert_eq!(pace.seconds_left(&copied(50)), None);
        pace.see(Duration::from_secs(10), &copied(1000));
        assert_eq!(pace.seconds_left(&copied(1000)), Some(90.0));
        assert!(
            pace.headline(&copied(1000), true).starts_with("copying [##......................] 10 %: "),
            "{}",
            pace.headline(&copied(1000), true)
        );
    }

    #[test]
    fn a_resumed_copy_is_not_credited_with_what_was_there() {
        let mut pace = Pace::default();
        pace.see(Duration::ZERO, &copied(5000));
        pace.see(Duration::from_secs(10), &copied(6000));
        assert_eq!(pace.seconds_left(&copied(6000)), Some(40.0));
    }

    #[test]
    fn lines_become_rare() {
        let at = |seconds| Pace::until_next_line(Duration::from_secs(seconds)).as_secs();
        assert_eq!([at(0), at(9), at(10), at(69), at(70), at(9999)], [1, 1, 5, 5, 60, 60]);
    }
}
