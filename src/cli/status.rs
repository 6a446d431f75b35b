//! `mongoferry status`: what the running process is at.

use super::{
    args,
    client::Client,
    exit::Failure,
    output::{self, Paint},
    render,
};
use crate::{config::endpoint_options, error::Error, model::Status};
use clap::{ArgMatches, Command};
use serde::Deserialize;

pub(super) fn command() -> Command {
    let about = "Show phase, lag, headroom, gates and next steps of the running process";
    args::with_color(args::with_output(args::with_endpoint(Command::new("status").about(about))))
}

/// The client for the endpoint that the verb was given.
pub(super) fn client(matches: &ArgMatches) -> Result<Client, Failure> {
    Ok(Client::new(&endpoint_options(&args::gather(matches)?)?)?)
}

/// A status that the program understands.
pub(super) fn understood(value: &serde_json::Value) -> Result<Status, Error> {
    Status::deserialize(value).map_err(|why| Error::BadConfig {
        field: "--endpoint".to_owned(),
        problem: format!("leads to a process whose status this version does not understand: {why}"),
        hint: Some("use the same version of mongoferry on both ends, or `--output json`".to_owned()),
    })
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let as_json = args::wants_json(matches)?;
    let value = client(matches)?.status()?;
    if as_json {
        output::json(&value);
    } else {
        output::answer(&render::status(&understood(&value)?, Paint::answer(super::color_of(matches))));
    }
    Ok(0)
}
