//! A gauge of seconds that goes on growing by itself.
//!
//! An age that only changes when somebody sets it stands still exactly when it matters: when that somebody
//! hangs. So the moment is kept, and the gauge is brought up to date whenever it is looked at.

use prometheus::Gauge;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

pub(super) struct Age {
    gauge: Gauge,
    /// Seconds it was, and when.
    known: Mutex<Option<(f64, Instant)>>,
}

impl Age {
    pub(super) fn new(gauge: Gauge) -> Self {
        let age = Self { gauge, known: Mutex::new(None) };
        age.refresh();
        age
    }

    /// It is this many seconds now; `None` where there is nothing whose age it could be.
    pub(super) fn set(&self, seconds: Option<f64>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = seconds.map(|s| (s, Instant::now()));
        self.refresh();
    }

    /// Seconds by now.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.seconds_at(Instant::now())
    }

    fn seconds_at(&self, now: Instant) -> Option<f64> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.map(|(seconds, at)| seconds + now.duration_since(at).as_secs_f64())
    }

    /// Brings the gauge up to date.
    pub(super) fn refresh(&self) {
        self.gauge.set(self.seconds().unwrap_or(f64::NAN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_grows_while_nobody_sets_it() {
        let age = Age::new(Gauge::new("age", "test").unwrap());
        assert_eq!(age.seconds(), None);
        age.set(Some(5.0));
        let later = age.seconds_at(Instant::now() + Duration::from_secs(30)).unwrap();
        assert!((35.0..36.0).contains(&later), "{later}");
        age.set(None);
        assert_eq!(age.seconds(), None);
    }
}
