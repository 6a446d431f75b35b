//! Handing the application over: gates, then a saga that either completes or leaves no trace.

mod gates;
mod saga;
mod step;

pub use gates::{Facts, gates};
pub use saga::{Cutover, Outcome, take_back};
pub use step::{STEPS, Step};
