//! The log: to stderr, so that stdout stays the answer of a verb.
//!
//! Fields are always spelt alike (`ns`, `phase`, `cluster_time`, `error`), messages are lower case without
//! a full stop, and no document's content is ever in either.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// The way to another filter while the process runs, and the filter it was started with.
static LEVEL: OnceLock<(reload::Handle<EnvFilter, Registry>, String)> = OnceLock::new();

/// Logs at this level of ours from now on; `default` is what the process was started with. The driver stays at
/// warnings. Nothing happens before [`start_logging`].
pub fn set_log_level(level: &str) {
    let Some((handle, usual)) = LEVEL.get() else { return };
    let wanted = if level == "default" { usual.clone() } else { format!("mongodb=warn,warn,mongoferry={level}") };
    // Fails only where there is no subscriber any more.
    drop(handle.reload(EnvFilter::new(wanted)));
}

/// The variable that chooses what is logged, as in `mongoferry=debug` or `mongoferry::tail=trace,warn`.
pub const LOG_VARIABLE: &str = "MONGOFERRY_LOG";

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is told unless [`LOG_VARIABLE`] says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// The story of a run.
    #[default]
    Normal,
    /// A line per partition and batch.
    Verbose,
}

/// Calls what writes a line, with whatever else is on the terminal out of the way.
pub type Aside = fn(&mut dyn FnMut());

/// Stderr, a line at a time.
#[derive(Clone, Copy)]
struct Lines(Aside);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut written = Ok(());
        (self.0)(&mut || written = std::io::stderr().write_all(line));
        written.map(|()| line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start_logging(format: LogFormat, verbosity: Verbosity, aside: Aside) {
    let lines = move || Lines(aside);
    let asked = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let (filter, complaint) = filter(asked.as_deref(), verbosity);
    let usual = filter.to_string();
    let (filter, handle) = reload::Layer::new(filter);
    let started = match format {
        LogFormat::Text => {
            let layer = fmt::layer().with_writer(lines).with_ansi(colours()).with_target(false);
            tracing_subscriber::registry().with(filter).with(layer).try_init()
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false).with_writer(lines);
            tracing_subscriber::registry().with(filter).with(layer).try_init()
        }
    };
    if started.is_ok() {
        drop(LEVEL.set((handle, usual)));
    }
    if let (Ok(()), Some(error)) = (started, complaint) {
        tracing::warn!(variable = LOG_VARIABLE, error, "the filter for the log is not understood and is ignored");
    }
}

/// The filter, and what is wrong with the one asked for. The driver stays at warnings unless it is named:
/// it knows documents that must not be in a log.
fn filter(asked: Option<&str>, verbosity: Verbosity) -> (EnvFilter, Option<String>) {
    let usual = match verbosity {
        Verbosity::Quiet => "warn",
        Verbosity::Normal => "warn,mongoferry=info",
        Verbosity::Verbose => "warn,mongoferry=debug",
    };
    let (chosen, complaint) = match asked.map(|text| (text, EnvFilter::try_new(text))) {
        Some((text, Ok(_))) => (text, None),
        Some((_, Err(error))) => (usual, Some(error.to_string())),
        None => (usual, None),
    };
    // The later directive for the same target wins, so a filter that names the driver still can.
    (EnvFilter::new(format!("mongodb=warn,{chosen}")), complaint)
}

/// Only on a terminal, and not if `NO_COLOR` is set to something.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directives, sorted: the filter shows them in an order of its own.
    fn directives(asked: Option<&str>, verbosity: Verbosity) -> String {
        let text = filter(asked, verbosity).0.to_string();
        let mut parts: Vec<&str> = text.split(',').collect();
        parts.sort_unstable();
        parts.join(",")
    }

    #[test]
    fn verbosity_chooses_and_the_driver_stays_at_warnings() {
        assert_eq!(directives(None, Verbosity::Quiet), "mongodb=warn,warn");
        assert_eq!(directives(None, Verbosity::Normal), "mongodb=warn,mongoferry=info,warn");
        assert_eq!(directives(None, Verbosity::Verbose), "mongodb=warn,mongoferry=debug,warn");
        assert_eq!(directives(Some("trace"), Verbosity::Quiet), "mongodb=warn,trace");
        assert_eq!(directives(Some("info,mongodb=error"), Verbosity::Quiet), "info,mongodb=error");
    }

    #[test]
    fn a_bad_filter_is_told_and_the_usual_one_taken() {
        let (taken, complaint) = filter(Some("mongoferry=loud"), Verbosity::Normal);
        assert!(complaint.is_some());
        assert!(taken.to_string().contains("mongoferry=info"));
    }

    #[test]
    fn starting_twice_is_harmless() {
        start_logging(LogFormat::Json, Verbosity::Quiet, |write| write());
        start_logging(LogFormat::Text, Verbosity::Verbose, |write| write());
    }
}
