//! `mongoferry verify`: compares both sides, by the running process or stand-alone.

use super::{
    args,
    exit::Failure,
    output::{self, Paint},
    report::{self, VerifyReport},
    run, signals, status, steer,
};
use crate::{
    config::{Color, Resolved, resolve},
    error::Error,
    observe::{Command as Ask, Examination},
};
use clap::{ArgMatches, Command};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The options that mean something to a comparison.
const WANTED: [&str; 12] = [
    "source",
    "target",
    "metadata_database",
    "retry_deadline",
    "selection.include",
    "selection.exclude",
    "selection.rename",
    "selection.users_and_roles",
    "verify.rate",
    "output.log_format",
    "output.quiet",
    "output.color",
];

pub(super) fn command() -> Command {
    let about = "Compare both sides, document by document";
    let long = "Compare both sides, document by document, collections and indexes included. Exit code 0 if they are equal, 1 if not.\n\n\
                By default it asks the running process, which compares while it follows the source. With --source and --target, with --config, \
                or with --stand-alone it compares two clusters by itself; writes to the source meanwhile show up as differences.";
    let alone = args::bare_switch(
        "stand-alone",
        "Compare the clusters by itself, without a running process",
        "For connection strings that are given in the environment; --source, --target and --config imply it.",
    );
    let repair = args::bare_switch(
        "repair",
        "Mend what persists, by the running process",
        "Documents are read from the source again and put on the target in their order with the change stream; indexes, views and validators are made anew. What cannot be mended is told with its remedy. A difference that comes back is made by somebody else who writes to the target.",
    );
    let order = args::bare_switch(
        "ignore-field-order",
        "Take documents for equal that differ only in the order of fields",
        "At any depth. Items of an array keep their order.",
    );
    let sharding = args::bare_switch(
        "ignore-sharding",
        "Do not compare shard keys and zones",
        "They are compared between two sharded clusters. Alone, what differs is a difference; in a migration it is a warning, told with the command that mends it.",
    );
    let command = Command::new("verify").about(about).long_about(long);
    let command = args::with_knobs(command, |knob| WANTED.contains(&knob.key) || args::is_of_endpoint(knob));
    args::with_output(command.args([repair, order, sharding]).arg(alone.help_heading("Connection")))
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let given = |id| args::is_given(matches, id);
    let alone = matches.get_flag("stand-alone") || given("source") || given("target") || given("config");
    let how = Examination {
        repair: matches.get_flag("repair"),
        ignore_field_order: matches.get_flag("ignore-field-order"),
        ignore_sharding: matches.get_flag("ignore-sharding"),
    };
    match (alone, given("endpoint")) {
        (true, _) if how.repair => Err(Failure::from(Error::BadConfig {
            field: "--repair".to_owned(),
            problem: "needs a running migration: a stand-alone comparison only reads".to_owned(),
            hint: Some("leave out `--source`, `--target`, `--config` and `--stand-alone`".to_owned()),
        })),
        (true, true) => Err(Failure::from(Error::BadConfig {
            field: "--endpoint".to_owned(),
            problem: "and a stand-alone comparison exclude each other".to_owned(),
            hint: Some("leave out `--endpoint`, or `--source`, `--target`, `--config` and `--stand-alone`".to_owned()),
        })),
        (true, false) => stand_alone(matches, how, args::wants_json(matches)?),
        (false, _) => by_process(matches, how, args::wants_json(matches)?),
    }
}

fn by_process(matches: &ArgMatches, how: Examination, as_json: bool) -> Result<u8, Failure> {
    let answer = status::client(matches)?.ask(&Ask::Verify(how))?;
    match VerifyReport::deserialize(&answer.details) {
        Ok(found) => {
            tell(&answer.details, &found, as_json, super::color_of(matches));
        }
        Err(_) => steer::tell(&answer, as_json, super::color_of(matches)),
    }
    Ok(answer.exit_code)
}

fn stand_alone(matches: &ArgMatches, how: Examination, as_json: bool) -> Result<u8, Failure> {
    let Resolved { config, output, .. } = resolve(&args::gather(matches)?)?;
    run::log(output);
    let stop = CancellationToken::new();
    let ended = signals::run_until_done(&stop, || async { stop.run_until_cancelled(crate::engine::verify_clusters(&config, how)).await })?;
    let value = match (ended.result.flatten(), ended.signal) {
        (Some(value), _) => value?,
        (None, code) => return Ok(code.unwrap_or(130)),
    };
    let found = VerifyReport::deserialize(&value).map_err(|why| Error::Bug(format!("a report that cannot be shown: {why}")))?;
    Ok(tell(&value, &found, as_json, output.color))
}

/// Tells a report, and gives back the exit code that goes with it.
fn tell(value: &Value, found: &VerifyReport, as_json: bool, color: Color) -> u8 {
    if as_json {
        output::json(value);
    } else {
        output::answer(&report::verify(found, Paint::answer(color)));
    }
    u8::from(!found.equal)
}
