//! What is wrong with a configuration. There may be several at once, and all are told.

use crate::error::Error;

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The flag, variable or key, as the operator wrote it.
    pub field: String,
    /// Reads on after its name.
    pub problem: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// Without a hint.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), hint: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error::BadConfig { field: problem.field, problem: problem.problem, hint: problem.hint }
    }
}
