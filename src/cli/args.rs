//! The grammar of the command line, made from the catalogue of options. Only this file builds flags.

use crate::config::{Group, KNOBS, Kind, Knob, Origin, Problem, Raw, Written, env_name, read};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, parser::ValueSource};
use std::path::Path;

/// Help, defaults and names in the form all options share.
fn describe(arg: Arg, help: &str, more: &str, default: &str, facts: &str) -> Arg {
    let short = if default.is_empty() { help.to_owned() } else { format!("{help} [default: {default}]") };
    let more = if more.is_empty() { String::new() } else { format!("\n\n{more}") };
    let default = if default.is_empty() { String::new() } else { format!("Default: {default}. ") };
    arg.help(short).long_help(format!("{help}.{more}\n\n{default}{facts}"))
}

/// The flag of an option.
fn flag(knob: &'static Knob) -> Arg {
    let example = match knob.example {
        "" => String::new(),
        // What a shell would take to itself is quoted.
        example if example.contains(['*', '?', '&', '$']) => format!("\nExample: --{} '{example}'", knob.flag),
        example => format!("\nExample: --{} {example}", knob.flag),
    };
    let facts = format!("Environment: {}. File: {}.{example}", knob.env(), knob.key);
    let default = if knob.kind == Kind::Switch { "" } else { knob.default };
    let arg = Arg::new(knob.key).long(knob.flag).value_name(knob.value_name).help_heading(knob.group.heading());
    let arg = describe(arg, knob.help, knob.more, default, &facts);
    // What hardly anybody turns is in the long help only.
    let arg = arg.hide_short_help(matches!(knob.key, "throttle.lag" | "throttle.latency" | "throttle.queue"));
    match knob.kind {
        Kind::Value | Kind::Secret => arg.action(ArgAction::Set),
        Kind::List => arg.action(ArgAction::Append),
        Kind::Switch => arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("true"),
    }
}

/// Adds the options whose keys are wanted, and `--config`.
pub(super) fn with_knobs(command: Command, wanted: impl Fn(&Knob) -> bool) -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").help_heading("Connection");
    let facts = format!("Environment: {}.\nExample: --config /etc/mongoferry.toml", env_name("config"));
    let more = "TOML. Flags are stronger than the environment, which is stronger than the file. A key that is not an option is an error.";
    let config = describe(config, "Configuration file", more, "", &facts);
    let (first, rest): (Vec<_>, Vec<_>) = KNOBS.iter().filter(|knob| wanted(knob)).partition(|knob| knob.kind == Kind::Secret);
    command.args(first.into_iter().map(flag)).arg(config).args(rest.into_iter().map(flag))
}

/// Whether an option is of the verbs that ask the running process.
pub(super) fn is_of_endpoint(knob: &Knob) -> bool {
    knob.group == Group::Endpoint || knob.key == "token_file"
}

/// Adds the options that lead to the running process.
pub(super) fn with_endpoint(command: Command) -> Command {
    with_knobs(command, is_of_endpoint)
}

/// Adds `--output`.
pub(super) fn with_output(command: Command) -> Command {
    let facts = format!("Environment: {}.\nExample: --output json", env_name("output"));
    let arg = Arg::new("output").long("output").value_name("FORMAT").help_heading("Output");
    let arg = arg.value_parser(PossibleValuesParser::new(["text", "json"])).hide_possible_values(true);
    let more =
        "`json` is for scripts: plain numbers, seconds and bytes, and a `format` that changes only when a field changes its meaning.";
    command.arg(describe(arg, "How the answer is written: text or json", more, "text", &facts))
}

/// Adds `--color` where the whole catalogue is not wanted.
pub(super) fn with_color(command: Command) -> Command {
    command.args(
        KNOBS
            .iter()
            .filter(|knob| knob.key == "output.color")
            .map(|knob| flag(knob).value_parser(PossibleValuesParser::new(["auto", "always", "never"])).hide_possible_values(true)),
    )
}

/// A switch of one verb alone, which has no place in environment or file.
pub(super) fn bare_switch(name: &'static str, help: &'static str, more: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help).long_help(format!("{help}.\n\n{more}"))
}

/// What the verb was given on the command line for `name`, or in the environment.
pub(super) fn text_of(matches: &ArgMatches, name: &str) -> Option<String> {
    let flag = matches.try_get_one::<String>(name).ok().flatten().cloned();
    flag.or_else(|| std::env::var(env_name(name)).ok().filter(|text| !text.is_empty()))
}

/// Whether the answer is to be JSON. Asked before anything is done.
pub(super) fn wants_json(matches: &ArgMatches) -> Result<bool, Vec<Problem>> {
    match text_of(matches, "output").as_deref() {
        None | Some("text") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(vec![Problem::new(env_name("output"), format!("must be `text` or `json`, not `{other}`"))]),
    }
}

/// Whether a flag stands on the command line.
pub(super) fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// All that was written: command line, environment, file.
pub(super) fn gather(matches: &ArgMatches) -> Result<Raw, Vec<Problem>> {
    let mut raw = Raw::default();
    let mut problems = Vec::new();
    for knob in KNOBS {
        if let Ok(Some(values)) = matches.try_get_many::<String>(knob.key) {
            raw.put(knob, Written { texts: values.cloned().collect(), origin: Origin::Flag });
        }
        match std::env::var(knob.env()) {
            Ok(text) if !text.is_empty() => raw.put(knob, Written { texts: env_texts(knob, &text), origin: Origin::Env }),
            Ok(_) | Err(std::env::VarError::NotPresent) => {}
            Err(std::env::VarError::NotUnicode(_)) => problems.push(Problem::new(knob.env(), "is not UTF-8")),
        }
    }
    if let Some(path) = text_of(matches, "config") {
        match read(Path::new(&path)) {
            Ok(file) => raw = raw.merged(file),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(raw) } else { Err(problems) }
}

/// In the environment, commas separate the items of a list.
fn env_texts(knob: &Knob, text: &str) -> Vec<String> {
    match knob.kind {
        Kind::List => text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
        Kind::Value | Kind::Secret | Kind::Switch => vec![text.to_owned()],
    }
}
