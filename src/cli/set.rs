//! `mongoferry set`: changes what may be changed while a migration runs.

use super::{args, exit::Failure, output, status, steer};
use crate::{config::Problem, model::Settings, observe::Command as Ask};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;

pub(super) fn command() -> Command {
    let about = "Change settings of the running process, or show them";
    let long = "Change settings of the running process; without any, show them.\n\n  \
                copy-rate=RATE            limit of the initial copy: 50MB/s, 2000ops/s, both with a comma, unlimited\n  \
                tail-rate=RATE            limit of the tail\n  \
                adaptive-throttle=on|off  go slower while a cluster is under strain\n  \
                verification=on|off       compare both sides all the while\n  \
                log-level=LEVEL           default, error, warn, info, debug, trace\n  \
                reason=TEXT               why, for `status` and the log; goes with the next change\n\n\
                They survive a restart until their option of `run` is changed, but for log-level, which is the process's. \
                All are set, or none.";
    let settings = Arg::new("settings").value_name("NAME=VALUE").action(ArgAction::Append).help("What to change");
    args::with_color(args::with_output(args::with_endpoint(Command::new("set").about(about).long_about(long).arg(settings))))
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let mut settings = BTreeMap::new();
    for text in matches.get_many::<String>("settings").into_iter().flatten() {
        let Some((name, value)) = text.split_once('=') else {
            let hint = format!("settings are {}", Settings::NAMES.join(", "));
            return Err(vec![Problem::new(text.clone(), "is not written NAME=VALUE").hint(hint)].into());
        };
        settings.insert(name.to_owned(), value.to_owned());
    }
    if !settings.is_empty() {
        return steer::ask(matches, &Ask::Set { settings });
    }
    let as_json = args::wants_json(matches)?;
    let value = status::client(matches)?.status()?;
    if as_json {
        output::json(&value["settings"]);
    } else {
        let now = serde_json::to_value(status::understood(&value)?.settings).unwrap_or_default();
        let lines = now.as_object().into_iter().flatten().map(|(name, value)| {
            let text = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Bool(on) => (if *on { "on" } else { "off" }).to_owned(),
                _ => "-".to_owned(),
            };
            format!("{name}={text}\n")
        });
        output::answer(&lines.collect::<String>());
    }
    Ok(0)
}
