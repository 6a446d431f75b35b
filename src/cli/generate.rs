//! `completions`, `man` and the reference table: made from the grammar itself, so that they cannot lag behind it.

use super::{exit, exit::Failure, output};
use crate::{
    config::{KNOBS, Kind},
    error::Error,
};
use clap::{Arg, ArgMatches, Command, builder::EnumValueParser};
use clap_complete::Shell;

/// Help of `completions`.
pub(super) fn completions_command() -> Command {
    let shell = Arg::new("shell").required(true).value_name("SHELL").value_parser(EnumValueParser::<Shell>::new()).help("The shell");
    let long = "Print the completions for a shell.\n\nExample: mongoferry completions bash > /etc/bash_completion.d/mongoferry";
    Command::new("completions").about("Print the completions for a shell").long_about(long).arg(shell)
}

/// Help of `man`.
pub(super) fn man_command() -> Command {
    let verb = Arg::new("verb").value_name("VERB").help("The verb; without it, the page of the program");
    let long = "Print a man page.\n\nExample: mongoferry man run | man -l -";
    Command::new("man").about("Print a man page").long_about(long).arg(verb)
}

/// Help of `reference`.
pub(super) fn reference_command() -> Command {
    Command::new("reference").about("Print the table of options and exit codes in Markdown").hide(true)
}

/// Prints completions.
pub(super) fn completions(mut grammar: Command, matches: &ArgMatches) -> Result<u8, Failure> {
    let mut text = Vec::new();
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        clap_complete::generate(*shell, &mut grammar, "mongoferry", &mut text);
    }
    output::verbatim(&String::from_utf8_lossy(&text));
    Ok(0)
}

/// Prints a man page.
pub(super) fn man(mut grammar: Command, matches: &ArgMatches) -> Result<u8, Failure> {
    grammar.build();
    let page = match matches.get_one::<String>("verb") {
        None => grammar,
        Some(verb) => match grammar.find_subcommand(verb) {
            Some(command) => command.clone(),
            None => {
                let problem = "is not a verb".to_owned();
                let hint = Some("`mongoferry` alone lists the verbs".to_owned());
                return Err(Error::BadConfig { field: verb.clone(), problem, hint }.into());
            }
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(|why| Error::Bug(format!("a man page that cannot be made: {why}")))?;
    output::verbatim(&String::from_utf8_lossy(&text));
    Ok(0)
}

/// Prints the tables of the README.
pub(super) fn reference() -> Result<u8, Failure> {
    let mut text = "| Flag | Environment | File | Default | |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for knob in KNOBS {
        let default = if knob.default.is_empty() || knob.kind == Kind::Switch { String::new() } else { format!("`{}`", knob.default) };
        text.push_str(&format!("| `--{}` | `{}` | `{}` | {default} | {} |\n", knob.flag, knob.env(), knob.key, knob.help));
    }
    text.push_str("\n| Exit code | Meaning |\n| ---: | --- |\n");
    for (code, meaning) in exit::EXIT_CODES {
        text.push_str(&format!("| {code} | {meaning} |\n"));
    }
    output::verbatim(&text);
    Ok(0)
}
