//! Sharded clusters as source and as target: real shards behind a router of the test bed's own, or a `mongos` that is there.

mod access;
mod both;
mod check;
mod faults;
mod fence;
mod moved;
mod rekeyed;
mod removed;
mod repeats;
mod reverse;
mod series;
mod source;
mod target;
mod users;
mod views;
mod zones;
