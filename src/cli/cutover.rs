//! `cutover` and `abort`: the two verbs that cannot be taken back, and so want a word of consent.

use super::{
    args,
    exit::Failure,
    output::{self, Paint},
    render, run, signals, status, steer,
};
use crate::{
    config::{Problem, Resolved, duration, resolve},
    observe::{Command as Ask, GiveUp, Handover},
};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const TIMEOUT: &str = "60s";
const ALONE: &str = "stand-alone";
const DROP: &str = "drop-target-namespaces";
/// The options that mean something to an `abort` without a process.
const WANTED: [&str; 7] = ["source", "target", "metadata_database", "retry_deadline", "output.log_format", "output.quiet", "output.color"];

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
    let dry = args::bare_switch(
        "dry-run",
        "Show the gates and what each step would do, and change nothing",
        "Exit code 0 if all gates are open, 1 if not.",
    );
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
    let reverse = args::bare_switch(
        "then-reverse",
        "Let the old source follow the new primary as soon as it is committed",
        "As `mongoferry reverse` does, by the process that runs already: another cutover then leads back. Saved with the commit, so that the \
         same `run` goes on with it after a crash.",
    );
    let command = Command::new("cutover").about(about).long_about(long).args([yes(), stopped, timeout, waive, unproved, reverse, dry]);
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
            then_reverse: matches.get_flag("then-reverse"),
            waive_indexes: matches.get_many("waive-index").into_iter().flatten().cloned().collect(),
        }),
    )
}

/// Help of `abort`.
pub(super) fn abort_command() -> Command {
    let about = "Give the migration up: lift the fence, drop the metadata, end the process";
    let long = "Give the migration up: allow writes to the source again if they are blocked, drop the metadata on the target, end the process.\n\n\
                What was copied stays on the target, unless --drop-target-namespaces is given. It cannot be resumed afterwards.\n\n\
                By default it asks the running process. Where that has died, give the connection strings of its `run`, or --stand-alone if they \
                are in the environment or the file: then the verb acts by itself, as long as no process holds the migration.";
    let alone = args::bare_switch(
        ALONE,
        "Act without a running process",
        "For connection strings that are given in the environment or the file; --source and --target imply it.",
    );
    let drop = args::bare_switch(
        DROP,
        "Drop what was copied to the target, too",
        "Only collections and views that mongoferry made there itself; what somebody else has put in their place since stays.",
    );
    let command = Command::new("abort").about(about).long_about(long).args([yes(), drop, alone.help_heading("Connection")]);
    args::with_output(args::with_knobs(command, |knob| WANTED.contains(&knob.key) || args::is_of_endpoint(knob)))
}

/// Without a process.
fn alone(matches: &ArgMatches, how: GiveUp) -> Result<u8, Failure> {
    let as_json = args::wants_json(matches)?;
    let Resolved { config, output, .. } = resolve(&args::gather(matches)?)?;
    run::log(output);
    let stop = CancellationToken::new();
    let ended =
        signals::run_until_done(&stop, || async { stop.run_until_cancelled(Box::pin(crate::engine::abort_clusters(&config, how))).await })?;
    let answer = match (ended.result.flatten(), ended.signal) {
        (Some(answer), _) => answer?,
        (None, code) => return Ok(code.unwrap_or(130)),
    };
    steer::tell(&answer, as_json, output.color);
    Ok(answer.exit_code)
}

/// Gives up.
pub(super) fn abort(matches: &ArgMatches) -> Result<u8, Failure> {
    if !consent(matches, "abort", "Give the migration up? It cannot be resumed afterwards.")? {
        return Ok(1);
    }
    let how = GiveUp { drop_target_namespaces: matches.get_flag(DROP) };
    if matches.get_flag(ALONE) || ["source", "target"].iter().any(|id| args::is_given(matches, id)) {
        return alone(matches, how);
    }
    steer::ask(matches, &Ask::Abort(how))
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
    // An abort by the verb itself has nobody to ask for a status.
    if let Ok(value) = status::client(matches)?.status() {
        output::talk(&render::status(&status::understood(&value)?, Paint::talk(super::color_of(matches))));
    }
    let agreed = output::ask(question);
    if !agreed {
        output::talk("nothing was changed");
    }
    Ok(agreed)
}
