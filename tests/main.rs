//! All integration tests, linked once. What needs real servers lives below a module called `real`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "seeds and measurements are for whoever reads the log of a test")]

mod bad_input;
mod capped;
mod cli;
mod continuous;
mod control;
mod cutover;
mod ddl;
mod deploy;
mod docs;
mod election;
mod hardship;
mod kill;
mod layers;
mod life;
mod memory;
mod property;
mod reverse;
mod scenarios;
mod sharded;
mod steering;
mod support;
mod time_series;
mod users;
mod verify;
mod versions;
