//! Handing the application over: gates, then a saga that either completes or leaves no trace.

mod gates;
mod rehearsal;
mod saga;
mod step;
mod undo;

pub use gates::{Facts, gates};
pub use rehearsal::{Plan, rehearse};
pub use saga::{Cutover, Outcome};
pub use step::{DONE, STEPS, Step};
pub use undo::{Settled, give_back, settle, take_back};
