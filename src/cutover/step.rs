//! The steps, in order: each may be repeated, each has its undoing.

/// A step of the cutover. Gates are judged before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Saves that a cutover is under way, so that a restart undoes it. Then waits until the tail is where the source is now, and
    /// looks at all that can be looked at before anybody must wait.
    Begin,
    /// Blocks writes of users on the source, or takes the operator's word. Undone by allowing them again.
    Fence,
    /// Makes the source's clock move and waits until the tail has passed it.
    Drain,
    /// Compares structure and exact counts of both sides, which stand still.
    Recheck,
    /// Gives the target its final indexes and options. Undone by parking them again.
    Seal,
    /// Drains once more, to see that nothing came behind the fence, and compares the sealed structure.
    Confirm,
    /// Saves that the cutover is done. **The point of no return**: nothing is undone behind it.
    Commit,
    /// On a way back: lets users write to the target, from which they were kept until now. Repeated by the next start where
    /// it fails.
    Open,
}

/// All, in order.
pub const STEPS: [Step; 8] = [Step::Begin, Step::Fence, Step::Drain, Step::Recheck, Step::Seal, Step::Confirm, Step::Commit, Step::Open];

/// What is saved as the step once nothing of a cutover is left to do.
pub const DONE: &str = "done";
/// What is saved as the step while a cutover is undone: no commit comes into force behind it.
pub(super) const UNDO: &str = "undo";

impl Step {
    /// For status and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Step::Begin => "begin",
            Step::Fence => "fence",
            Step::Drain => "drain",
            Step::Recheck => "recheck",
            Step::Seal => "seal",
            Step::Confirm => "confirm",
            Step::Commit => "commit",
            Step::Open => "open",
        }
    }
}
