//! All integration tests, linked once. What needs real servers lives below a module called `real`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "seeds and measurements are for whoever reads the log of a test")]

mod bad_input;
mod cli;
mod ddl;
mod deploy;
mod docs;
mod election;
mod kill;
mod layers;
mod life;
mod memory;
mod property;
mod scenarios;
mod sharded_source;
mod support;
mod time_series;
mod verify;
mod versions;
