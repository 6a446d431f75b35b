//! `cutover` and `abort`: the two verbs that cannot be taken back, and so want a word of consent.

use super::{
    args,
    exit::Failure,
    output::{self, Paint},
    render, status, steer,
};
use crate::{
    config::{Problem, duration},
    observe::{Command as Ask, Handover},
};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::time::Duration;

const TIMEOUT: &str = "60s";

fn yes() -> Arg {
    args::bare_switch("yes", "Do not ask", "Needed where there is no terminal to ask at.")
}

/// Help of `cutover`.
pub(super) fn cutover_command() -> Command {
    let about = "Hand over to the target: block writes, drain, seal, commit";
    let long = "Hand over to the target: block writes to the source, drain, seal the target, commit. Until the commit every step is undone on failure.\n\n\
                Returns when it is committed (exit code 0) or undone (exit code 1, with the reason). Interrupting this command does not stop the cutover; \
                `mongoferry abort` does.";
    let stopped = args::bare_switch(
        "writes-stopped",
        "Affirm that nobody writes to the source any more",
        "Where mongoferry cannot block the writes itself, it needs your word. A write that comes after all is lost on the target.",
    );
    let dry = args::bare_switch("dry-run", "Show the gates, and change nothing", "Exit code 0 if all gates are open, 1 if not.");
    let timeout = Arg::new("timeout")
        .long("timeout")
        .value_name("DURATION")
        .help(format!("Time within which it completes or is undone [default: {TIMEOUT}]"));
    let timeout = timeout.long_help(format!(
        "Time within which it completes or is undone.\n\nWrites to the source are blocked no longer than this. From 1s to 1h.\n\nDefault: {TIMEOUT}. Environment: MONGOFERRY_TIMEOUT.\nExample: --timeout 5m"
    ));
    let unproved = args::bare_switch(
        "accept-unproved-documents",
        "Hand over although documents are not all proved equal",
        "Opens the parity gate while collections are not yet compared, or verification fails. Differences that were found keep it shut.",
    );
    let waive = Arg::new("waive-index").long("waive-index").value_name("DB.COLLECTION:INDEX").action(ArgAction::Append);
    let waive = waive.help("Hand over without this index, which could not be built; may be given more than once").long_help(
        "Hand over without this index, which could not be built; may be given more than once.\n\n`mongoferry status` lists what is unfinished and why. The target stays without it.\n\n\
         Example: --waive-index shop.orders:by_customer",
    );
    let command = Command::new("cutover").about(about).long_about(long).args([yes(), stopped, timeout, waive, unproved, dry]);
    args::with_color(args::with_output(args::with_endpoint(command)))
}

/// Hands over.
pub(super) fn cutover(matches: &ArgMatches) -> Result<u8, Failure> {
    let text = args::text_of(matches, "timeout").unwrap_or_else(|| TIMEOUT.to_owned());
    let timeout = duration(&text, &(Duration::from_secs(1)..=Duration::from_secs(3600)))
        .map_err(|complaint| vec![Problem::new("--timeout", complaint)])?;
    let dry_run = matches.get_flag("dry-run");
    if !dry_run && !consent(matches, "cutover", "Block writes to the source and hand over to the target?")? {
        return Ok(1);
    }
    steer::ask(
        matches,
        &Ask::Cutover(Handover {
            writes_stopped: matches.get_flag("writes-stopped"),
            timeout_seconds: timeout.as_secs(),
            dry_run,
            accept_unproved_documents: matches.get_flag("accept-unproved-documents"),
            waive_indexes: matches.get_many("waive-index").into_iter().flatten().cloned().collect(),
        }),
    )
}

/// Help of `abort`.
pub(super) fn abort_command() -> Command {
    let about = "Give the migration up: lift the fence, drop the metadata, end the process";
    let long = "Give the migration up: allow writes to the source again if they are blocked, drop the metadata on the target, end the process.\n\n\
                What was copied stays on the target. It cannot be resumed afterwards.";
    let command = Command::new("abort").about(about).long_about(long).arg(yes());
    args::with_color(args::with_output(args::with_endpoint(command)))
}

/// Gives up.
pub(super) fn abort(matches: &ArgMatches) -> Result<u8, Failure> {
    if !consent(matches, "abort", "Give the migration up? It cannot be resumed afterwards.")? {
        return Ok(1);
    }
    steer::ask(matches, &Ask::Abort)
}

/// `--yes`, or a yes at the terminal with the status in view. Nobody there to ask is a mistake in usage.
fn consent(matches: &ArgMatches, verb: &str, question: &str) -> Result<bool, Failure> {
    if matches.get_flag("yes") {
        return Ok(true);
    }
    if !output::can_ask() {
        let problem = Problem::new(verb, "needs `--yes` where there is no terminal to ask at");
        return Err(vec![problem.hint(format!("`mongoferry {verb} --yes` means it"))].into());
    }
    let value = status::client(matches)?.status()?;
    output::talk(&render::status(&status::understood(&value)?, Paint::talk(super::color_of(matches))));
    let agreed = output::ask(question);
    if !agreed {
        output::talk("nothing was changed");
    }
    Ok(agreed)
}
