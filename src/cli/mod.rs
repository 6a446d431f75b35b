//! The command line: from arguments to an exit code. A file per verb; stdout is the answer, stderr is talk.

mod args;
mod check;
mod client;
mod cutover;
mod exit;
mod generate;
mod human;
mod next;
mod output;
mod pace;
mod progress;
mod render;
mod report;
mod reverse;
mod run;
mod set;
mod signals;
mod status;
mod steer;
mod verify;

use crate::{config::Color, error::Error, observe};
use clap::{ArgMatches, Command, error::ErrorKind};
use exit::Failure;
use output::Paint;
use std::{io::IsTerminal, process::ExitCode};

/// The verbs by purpose, as the bare command shows them.
const TREE: [(&str, &[&str]); 4] = [
    ("migrate", &["check", "run", "verify", "cutover", "reverse"]),
    ("watch", &["status"]),
    ("steer", &["start", "pause", "resume", "throttle", "unthrottle", "set", "abort"]),
    ("install", &["completions", "man"]),
];

const USUAL: &str = "\
most usual:
  mongoferry check   --source URI --target URI    can it start, and what would it copy
  mongoferry run     --source URI --target URI    start, or go on
  mongoferry cutover --yes                        hand over, from another terminal

`mongoferry VERB -h` lists the options of a verb, `--help` explains them.";

/// The whole grammar.
fn grammar() -> Command {
    let long = "Replicate one MongoDB cluster to another continuously: copy, follow, compare, hand over in seconds.\n\n\
                `run` is the process that works; the other verbs ask it over HTTP on this host.";
    Command::new("mongoferry")
        .about("Replicate one MongoDB cluster to another continuously, and hand over")
        .long_about(long)
        .version(env!("CARGO_PKG_VERSION"))
        .term_width(100)
        .infer_long_args(false)
        .after_help("`mongoferry VERB --help` explains a verb; `mongoferry --help` lists the exit codes.")
        .after_long_help(exit::table())
        .subcommands(
            [
                check::command(),
                run::command(),
                status::command(),
                steer::start_command(),
                steer::pause_command(),
                steer::resume_command(),
                steer::throttle_command(),
                steer::unthrottle_command(),
                set::command(),
                verify::command(),
                cutover::cutover_command(),
                cutover::abort_command(),
                reverse::command(),
                generate::completions_command(),
                generate::man_command(),
                generate::reference_command(),
            ]
            .map(|verb| verb.after_long_help(exit::table())),
        )
}

/// The program: parses, does what the verb says, tells what became of it.
#[must_use]
pub fn main() -> ExitCode {
    let matches = match grammar().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return ExitCode::from(told_by_clap(&error)),
    };
    let color = matches.subcommand().map_or(Color::Auto, |(_, verb)| color_of(verb));
    let code = execute(&matches).unwrap_or_else(|failure| {
        failure.tell(Paint::talk(color));
        failure.exit_code()
    });
    ExitCode::from(code)
}

fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    match matches.subcommand() {
        None => {
            output::answer(&overview());
            Ok(0)
        }
        Some(("check", verb)) => check::execute(verb),
        Some(("run", verb)) => run::execute(verb),
        Some(("status", verb)) => status::execute(verb),
        Some(("start", verb)) => steer::start(verb),
        Some(("pause", verb)) => steer::pause(verb),
        Some(("resume", verb)) => steer::resume(verb),
        Some(("throttle", verb)) => steer::throttle(verb),
        Some(("unthrottle", verb)) => steer::ask(verb, &observe::Command::Unthrottle),
        Some(("set", verb)) => set::execute(verb),
        Some(("verify", verb)) => verify::execute(verb),
        Some(("cutover", verb)) => cutover::cutover(verb),
        Some(("reverse", verb)) => reverse::execute(verb),
        Some(("abort", verb)) => cutover::abort(verb),
        Some(("completions", verb)) => generate::completions(grammar(), verb),
        Some(("man", verb)) => generate::man(grammar(), verb),
        Some(("reference", _)) => generate::reference(),
        Some((other, _)) => Err(Error::Bug(format!("the verb `{other}` has no body")).into()),
    }
}

/// The tree of verbs, a line each.
fn overview() -> String {
    let grammar = grammar();
    let about = |name: &str| grammar.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string).unwrap_or_default();
    let group = |(title, verbs): &(&str, &[&str])| {
        let lines: String = verbs.iter().map(|name| format!("  {name:<12} {}\n", about(name))).collect();
        format!("{title}\n{lines}")
    };
    let tree: String = TREE.iter().map(group).collect();
    format!("{}\n\n{tree}\n{USUAL}", about_program(&grammar))
}

fn about_program(grammar: &Command) -> String {
    let about = grammar.get_about().map(ToString::to_string).unwrap_or_default();
    format!("mongoferry {}: {about}", env!("CARGO_PKG_VERSION"))
}

/// The colours that the verb was asked for; what a file says about them counts for `run`, `check` and `verify`.
fn color_of(verb: &ArgMatches) -> Color {
    let flag = verb.try_get_one::<String>("output.color").ok().flatten().cloned();
    let word = flag.or_else(|| std::env::var("MONGOFERRY_COLOR").ok());
    word.and_then(|word| Color::parse(&word)).unwrap_or_default()
}

/// Help and version are answers; everything else that clap has to say is a mistake in usage.
fn told_by_clap(error: &clap::Error) -> u8 {
    let styled = |terminal: bool| {
        let colourful = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if colourful { error.render().ansi().to_string() } else { error.render().to_string() }
    };
    // clap pads the empty lines of its help.
    let trimmed = |text: String| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output::verbatim(&trimmed(styled(std::io::stdout().is_terminal())));
        0
    } else {
        output::talk(&trimmed(styled(std::io::stderr().is_terminal())));
        2
    }
}
