//! Progress of a run on stderr: live lines on a terminal, otherwise a line at a falling rate.

use super::{output, pace::Pace};
use crate::{
    config::{LogStyle, OutputOptions, Talk},
    model::Status,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{io::IsTerminal, sync::LazyLock, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Lines that are drawn over again.
    Live,
    /// A line from time to time.
    Lines,
    /// Not at all.
    Hidden,
}

impl Manner {
    /// What the options and the terminal allow.
    pub(super) fn of(options: OutputOptions) -> Self {
        Self::on(options, std::io::stderr().is_terminal())
    }

    fn on(options: OutputOptions, terminal: bool) -> Self {
        let hidden = !options.progress || options.log_format == LogStyle::Json;
        match options.talk {
            Talk::Quiet => Manner::Hidden,
            Talk::Normal | Talk::Verbose if hidden => Manner::Hidden,
            // Details scroll; lines drawn over again would be torn by them.
            Talk::Normal if terminal => Manner::Live,
            Talk::Normal | Talk::Verbose => Manner::Lines,
        }
    }
}

/// The live lines.
static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Takes the live lines away while something else is written, and draws them anew.
pub(super) fn aside(write: &mut dyn FnMut()) {
    SCREEN.suspend(write);
}

/// Shows what `watch` holds until `stop`.
pub(super) async fn show(watch: watch::Receiver<Status>, manner: Manner, stop: CancellationToken) {
    match manner {
        Manner::Live => live(watch, stop).await,
        Manner::Lines => lines(watch, stop).await,
        Manner::Hidden => {}
    }
}

async fn live(watch: watch::Receiver<Status>, stop: CancellationToken) {
    let line = || {
        let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        SCREEN.add(ProgressBar::no_length().with_style(style))
    };
    let (first, second, third) = (line(), line(), line());
    let (start, mut pace) = (Instant::now(), Pace::default());
    let mut ticks = interval(Duration::from_millis(500));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let status = watch.borrow().clone();
        if status.phase.is_empty() {
            first.set_message("connecting");
            continue;
        }
        pace.see(start.elapsed(), &status);
        first.set_message(output::scrubbed(&pace.headline(&status, true)));
        second.set_message(output::scrubbed(&pace.detail(&status)));
        third.set_message(output::scrubbed(&status.reason.map(|reason| format!("{}: {reason}", status.activity)).unwrap_or_default()));
    }
    for line in [first, second, third] {
        line.finish_and_clear();
    }
}

async fn lines(watch: watch::Receiver<Status>, stop: CancellationToken) {
    let (start, mut pace) = (Instant::now(), Pace::default());
    let (mut due, mut shown) = (Duration::ZERO, (String::new(), String::new()));
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let status = watch.borrow().clone();
        if status.phase.is_empty() {
            continue;
        }
        let now = start.elapsed();
        pace.see(now, &status);
        let state = (status.phase.clone(), status.activity.clone());
        // A change of state is told at once.
        if now >= due || state != shown {
            let reason = status.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            output::talk(&format!("{}{reason}; {}", pace.headline(&status, false), pace.detail(&status)));
            (due, shown) = (now + Pace::until_next_line(now), state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_lines_only_where_nothing_tears_them() {
        let options = OutputOptions { progress: true, ..OutputOptions::default() };
        assert_eq!(Manner::on(options, true), Manner::Live);
        assert_eq!(Manner::on(options, false), Manner::Lines);
        assert_eq!(Manner::on(OutputOptions { talk: Talk::Verbose, ..options }, true), Manner::Lines);
        assert_eq!(Manner::on(OutputOptions { talk: Talk::Quiet, ..options }, true), Manner::Hidden);
        assert_eq!(Manner::on(OutputOptions { log_format: LogStyle::Json, ..options }, true), Manner::Hidden);
        assert_eq!(Manner::on(OutputOptions { progress: false, ..options }, true), Manner::Hidden);
    }
}
