//! `mongoferry check`: whether a migration could start, and what it would copy. Changes nothing.

use super::{
    args,
    exit::Failure,
    output::{self, Paint},
    render::{table, table_text},
    report, run, signals,
};
use crate::config::{Group, Resolved, Setting, resolve};
use clap::{ArgMatches, Command};
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub(super) fn command() -> Command {
    let about = "Tell whether a migration could start and what it would copy; changes nothing";
    let long = "Tell whether a migration could start: reachability, versions, privileges, the oplog window, the target, and what would be copied. Changes nothing.\n\n\
                Takes the same options as `run`. Exit code 0 if it could start, otherwise that of the first error.";
    let show = args::bare_switch(
        "show-config",
        "Print the configuration with the origin of each value, and stop",
        "Does not contact any cluster. Connection strings show hosts only.",
    );
    let command = args::with_knobs(Command::new("check").about(about).long_about(long), |knob| knob.group != Group::Endpoint);
    args::with_output(command.arg(show.help_heading("Output")))
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let as_json = args::wants_json(matches)?;
    let resolved = resolve(&args::gather(matches)?)?;
    if matches.get_flag("show-config") {
        show_config(&resolved.settings, as_json);
        return Ok(0);
    }
    ask_engine(&resolved, as_json)
}

fn ask_engine(resolved: &Resolved, as_json: bool) -> Result<u8, Failure> {
    run::log(resolved.output);
    let stop = CancellationToken::new();
    let ended = signals::run_until_done(&stop, || async { stop.run_until_cancelled(crate::engine::check(&resolved.config)).await })?;
    let report = match (ended.result.flatten(), ended.signal) {
        (Some(report), _) => report?,
        (None, code) => return Ok(code.unwrap_or(130)),
    };
    if as_json {
        output::json(&report::check_json(&report));
    } else {
        output::answer(&report::check(&report, Paint::answer(resolved.output.color)));
    }
    Ok(report::check_exit_code(&report))
}

fn show_config(settings: &[Setting], as_json: bool) {
    if as_json {
        let all: Vec<_> =
            settings.iter().map(|s| json!({"key": s.key, "value": s.value, "origin": s.origin.label(), "name": s.name})).collect();
        return output::json(&json!({"format": 1, "settings": all}));
    }
    let mut rows = table(&["option", "value", "origin"]);
    for s in settings {
        let origin = match s.origin.label() {
            "default" => "default".to_owned(),
            label => format!("{label} ({})", s.name),
        };
        rows.add_row([s.key, s.value.as_str(), origin.as_str()]);
    }
    output::answer(&table_text(&rows));
}
