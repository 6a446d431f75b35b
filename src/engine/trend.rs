//! How fast the lag falls. Pure but for the instants it is given.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// What is looked back at.
const WINDOW: Duration = Duration::from_secs(60);
/// Below so many seconds of lag there is nothing to catch up with.
const CAUGHT_UP: f64 = 2.0;

/// The lag of the last minute.
#[derive(Debug, Default)]
pub(super) struct Trend(VecDeque<(Instant, f64)>);

impl Trend {
    pub(super) fn see(&mut self, now: Instant, lag: f64) {
        self.0.push_back((now, lag));
        while self.0.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.0.pop_front();
        }
    }

    /// Seconds until the lag is gone at the rate of the last minute; `None` where it does not fall.
    pub(super) fn catch_up_seconds(&self) -> Option<f64> {
        let ((first, then), (last, now)) = (self.0.front()?, self.0.back()?);
        let (passed, fallen) = ((*last - *first).as_secs_f64(), then - now);
        (*now > CAUGHT_UP && passed >= 5.0 && fallen > 0.0).then(|| now * passed / fallen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_lag_has_an_end() {
        let (mut trend, start) = (Trend::default(), Instant::now());
        assert_eq!(trend.catch_up_seconds(), None);
        for n in 0..=120_u32 {
            trend.see(start + Duration::from_secs(n.into()), 1000.0 - 2.0 * f64::from(n));
        }
        assert!((trend.catch_up_seconds().unwrap() - 380.0).abs() < 1.0);
        trend.see(start + Duration::from_secs(121), 2000.0);
        assert_eq!(trend.catch_up_seconds(), None, "it rises");
    }
}
