//! `mongoferry reverse`: after a cutover, the old source follows the new primary cluster.

use super::{args, exit::Failure, run};
use crate::{config::Group, engine::Way};
use clap::{ArgMatches, Command};

pub(super) fn command() -> Command {
    let about = "After a cutover: let the old source follow the new primary, so that a cutover leads back";
    let long = "After a cutover: let the old source follow the new primary cluster, from the very fence and without a new copy, so that \
                `mongoferry cutover` leads back.\n\n\
                Give it the options of `run` as they were, source and target included: it finds out which way to go, and inverts filters and \
                renames. The same command goes on where an earlier one stopped, and after the cutover of the way back it leads forward again.";
    args::with_knobs(Command::new("reverse").about(about).long_about(long), |knob| {
        knob.group != Group::Endpoint && !["hold", "selection.drop_target_namespaces", "selection.restart_from_scratch"].contains(&knob.key)
    })
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    run::start(matches, Way::Back)
}
