//! Exit codes, and how a failure is told.

use super::output::{self, Paint};
use crate::{config::Problem, error::Error};

/// Every exit code with its meaning: help, man page and README show this table.
pub(super) const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "the honest \"no\": a mismatch, not ready, a cutover undone"),
    (2, "usage or configuration"),
    (3, "a cluster, or the process at the endpoint, cannot be reached"),
    (4, "an operator must act on a cluster"),
    (5, "the resume point is lost: copy again"),
    (70, "a fault of mongoferry"),
    (130, "interrupted (SIGINT); the same command goes on"),
    (143, "terminated (SIGTERM); the same command goes on"),
];

/// The table as text.
pub(super) fn table() -> String {
    let rows = EXIT_CODES.iter().map(|(code, meaning)| format!("  {code:>3}  {meaning}\n"));
    format!("Exit codes:\n{}", rows.collect::<String>().trim_end())
}

/// Why a verb could not do what was asked: one error, or every problem of a configuration.
#[derive(Debug)]
pub(super) struct Failure(Vec<Error>);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self(problems.into_iter().map(Error::from).collect())
    }
}

impl Failure {
    /// The exit code: that of the first error.
    pub(super) fn exit_code(&self) -> u8 {
        self.0.first().map_or(70, Error::exit_code)
    }

    /// What happened, why, and what to do.
    pub(super) fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        let mut hints: Vec<String> = Vec::new();
        for error in &self.0 {
            text.push_str(&format!("{} {error}\n", paint.bad("error:")));
            let mut cause = std::error::Error::source(error);
            let mut told = error.to_string();
            while let Some(next) = cause {
                // Some drivers repeat the lower message in the upper one.
                let line = next.to_string();
                if !told.ends_with(&line) {
                    text.push_str(&format!("caused by: {line}\n"));
                }
                told = line;
                cause = next.source();
            }
            hints.extend(error.hint().filter(|hint| !hints.contains(hint)));
        }
        if !hints.is_empty() {
            text.push('\n');
        }
        for hint in hints {
            text.push_str(&format!("{} {hint}\n", paint.bold("hint:")));
        }
        text
    }

    /// Tells it on stderr.
    pub(super) fn tell(&self, paint: Paint) {
        output::talk(&self.text(paint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Color, model::Side};

    #[test]
    fn an_error_is_told_with_its_causes_and_a_hint() {
        let source = std::io::Error::other("connection refused").into();
        let failure = Failure::from(Error::Unreachable {
            side: Side::Source,
            doing: "listing collections".to_owned(),
            why: crate::error::Trouble::Network,
            source,
        });
        let text = failure.text(Paint::new(Color::Never, false));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "error: the source cluster did not answer while listing collections");
        assert_eq!(lines[1], "caused by: connection refused");
        assert_eq!(lines[2], "");
        assert!(lines[3].starts_with("hint: check that the hosts"));
        assert_eq!(failure.exit_code(), 3);
    }

    #[test]
    fn several_problems_are_a_line_each() {
        let failure = Failure::from(vec![Problem::new("--a", "is bad").hint("mend it"), Problem::new("--b", "is worse").hint("mend it")]);
        let text = failure.text(Paint::new(Color::Never, false));
        assert_eq!(text, "error: `--a` is bad\nerror: `--b` is worse\n\nhint: mend it\n");
        assert_eq!(failure.exit_code(), 2);
    }
}
