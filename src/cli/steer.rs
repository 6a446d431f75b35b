//! `pause` and `resume`, and what all verbs share that ask the running process for something.

use super::{
    args,
    exit::Failure,
    output::{self, Paint},
    report, status,
};
use crate::{
    config::Color,
    observe::{Answer, Command as Ask},
};
use clap::{ArgMatches, Command};

/// Help of `pause`.
pub(super) fn pause_command() -> Command {
    let about = "Stop copying and following at a safe place, and keep it";
    let long = "Stop copying and following at a safe place, and keep it. A restart stays paused.\n\n\
                The oplog of the source goes on growing meanwhile: `mongoferry status` shows the headroom, the time that is left for `resume`.";
    args::with_color(args::with_output(args::with_endpoint(Command::new("pause").about(about).long_about(long))))
}

/// Help of `resume`.
pub(super) fn resume_command() -> Command {
    let about = "Go on after a pause or a halt";
    args::with_color(args::with_output(args::with_endpoint(Command::new("resume").about(about))))
}

/// Stops.
pub(super) fn pause(matches: &ArgMatches) -> Result<u8, Failure> {
    let user = std::env::var("USER").ok().filter(|name| !name.is_empty());
    ask(matches, &Ask::Pause { by: user.unwrap_or_else(|| "operator".to_owned()) })
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
