//! `pause` and `resume`, and what all verbs share that ask the running process for something.

use super::{
    args,
    exit::Failure,
    output::{self, Paint},
    report, status,
};
use crate::{
    config::Color,
    observe::{Answer, Command as Ask, StartOrder},
};
use clap::{Arg, ArgMatches, Command};

/// Help of `pause`.
pub(super) fn pause_command() -> Command {
    let about = "Stop copying and following at a safe place, and keep it";
    let long = "Stop copying and following at a safe place, and keep it. A restart stays paused.\n\n\
                The oplog of the source goes on growing meanwhile: `mongoferry status` shows the headroom, the time that is left for `resume`.\n\n\
                Returns once everything that was read is on the target and the place is saved; with --immediate, once the calls that \
                are under way have ended. What was read and not applied is then read again.";
    let immediate =
        args::bare_switch("immediate", "Do not wait for what was read to be applied", "For when a cluster needs relief at once.");
    args::with_color(args::with_output(args::with_endpoint(Command::new("pause").about(about).long_about(long).arg(immediate))))
}

/// Help of `resume`.
pub(super) fn resume_command() -> Command {
    let about = "Go on after a pause or a halt";
    args::with_color(args::with_output(args::with_endpoint(Command::new("resume").about(about))))
}

/// Stops.
pub(super) fn pause(matches: &ArgMatches) -> Result<u8, Failure> {
    let user = std::env::var("USER").ok().filter(|name| !name.is_empty());
    ask(matches, &Ask::Pause { by: user.unwrap_or_else(|| "operator".to_owned()), immediate: matches.get_flag("immediate") })
}

/// Help of `start`.
pub(super) fn start_command() -> Command {
    let about = "Begin what `run --hold` holds back";
    args::with_color(args::with_output(args::with_endpoint(Command::new("start").about(about))))
}

/// Begins.
pub(super) fn start(matches: &ArgMatches) -> Result<u8, Failure> {
    ask(matches, &Ask::Start(StartOrder::default()))
}

/// Help of `throttle`.
pub(super) fn throttle_command() -> Command {
    let about = "Hold the initial copy back; the tail goes on";
    let long = "Hold the initial copy back, without losing its place; the tail goes on, so that the oplog is not lost. A restart keeps it held back.\n\n\
                `mongoferry unthrottle` lets it go on. To slow it down instead: `mongoferry set copy-rate=20MB/s`.";
    let reason = Arg::new("reason").value_name("REASON").help("Why, for `status`").default_value("by an operator");
    args::with_color(args::with_output(args::with_endpoint(Command::new("throttle").about(about).long_about(long).arg(reason))))
}

/// Help of `unthrottle`.
pub(super) fn unthrottle_command() -> Command {
    let about = "Let the initial copy go on";
    args::with_color(args::with_output(args::with_endpoint(Command::new("unthrottle").about(about))))
}

/// Holds the copy back.
pub(super) fn throttle(matches: &ArgMatches) -> Result<u8, Failure> {
    let reason = matches.get_one::<String>("reason").cloned().unwrap_or_default();
    ask(matches, &Ask::Throttle { reason })
}

/// Goes on.
pub(super) fn resume(matches: &ArgMatches) -> Result<u8, Failure> {
    ask(matches, &Ask::Resume)
}

/// Asks the process and tells its answer.
pub(super) fn ask(matches: &ArgMatches, command: &Ask) -> Result<u8, Failure> {
    let as_json = args::wants_json(matches)?;
    let answer = status::client(matches)?.ask(command)?;
    tell(&answer, as_json, super::color_of(matches));
    Ok(answer.exit_code)
}

/// Tells an answer: done on stdout; so is a "no", since it is the answer.
pub(super) fn tell(answer: &Answer, as_json: bool, color: Color) {
    if as_json {
        output::json(&report::answer_json(answer));
    } else {
        output::answer(&report::answer(answer, Paint::answer(color)));
    }
}
