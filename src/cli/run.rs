//! `mongoferry run`: starts or resumes a migration, and stays until it is committed or told to stop.

use super::{
    args,
    exit::Failure,
    output::{self, Paint},
    progress::{self, Manner},
    render, signals,
};
use crate::{
    config::{Config, Group, LogStyle, OutputOptions, Talk, resolve},
    engine::Way,
    error::Error,
    model::Status,
    observe::{LogFormat, Verbosity, start_logging},
};
use clap::{ArgMatches, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) fn command() -> Command {
    let about = "Start or resume a migration: copy, then follow the source until the cutover";
    let long = "Start or resume a migration: copy the selected namespaces, then follow the source until the cutover.\n\n\
                The same command goes on where an earlier one stopped. It ends with exit code 0 once a cutover has committed.";
    args::with_knobs(Command::new("run").about(about).long_about(long), |knob| knob.group != Group::Endpoint)
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    start(matches, Way::Forward)
}

/// Starts, or goes on, in that direction.
pub(super) fn start(matches: &ArgMatches, way: Way) -> Result<u8, Failure> {
    let resolved = resolve(&args::gather(matches)?)?;
    log(resolved.output);
    Ok(run(resolved.config, way, resolved.output)?)
}

/// Starts the log as the options say.
pub(super) fn log(options: OutputOptions) {
    let format = match options.log_format {
        LogStyle::Text => LogFormat::Text,
        LogStyle::Json => LogFormat::Json,
    };
    let verbosity = match (options.talk, Manner::of(options)) {
        (Talk::Quiet, _) => Verbosity::Quiet,
        (Talk::Verbose, _) => Verbosity::Verbose,
        // Live lines tell the story themselves, and log lines would tear them.
        (Talk::Normal, Manner::Live) => Verbosity::Quiet,
        (Talk::Normal, Manner::Lines | Manner::Hidden) => Verbosity::Normal,
    };
    start_logging(format, verbosity, progress::aside);
}

/// Runs the migration, shows its progress, and gives back the exit code.
///
/// # Errors
/// What ended the migration before its commit.
pub(crate) fn run(config: Config, way: Way, options: OutputOptions) -> Result<u8, Error> {
    let (publish, watch) = watch::channel(Status::default());
    let stop = CancellationToken::new();
    let ended = signals::run_until_done(&stop, || async {
        let shown = CancellationToken::new();
        let work = async {
            let result = Box::pin(crate::engine::run(config, way, publish, stop.clone())).await;
            shown.cancel();
            result
        };
        let (result, ()) = tokio::join!(work, progress::show(watch.clone(), Manner::of(options), shown.clone()));
        result
    })?;
    let last = watch.borrow().clone();
    let paint = Paint::talk(options.color);
    match (ended.result, ended.signal) {
        (Some(Ok(())), _) if last.phase == "committed" => {}
        // What a signal brought about is no failure.
        (Some(Ok(()) | Err(Error::Interrupted)) | None, Some(code)) => {
            output::talk("stopped; the same command goes on from the saved resume point");
            return Ok(code);
        }
        (Some(Err(error)), _) => return Err(error),
        (Some(Ok(())) | None, None) => {}
    }
    if options.talk != Talk::Quiet && !last.phase.is_empty() {
        output::talk(&render::run_summary(&last, paint));
    }
    Ok(0)
}
