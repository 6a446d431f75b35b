//! The only place that writes to stdout (answers) and stderr (talk). A pipe that nobody reads is no
//! failure, and a connection string never leaves with its password.

use crate::config::{Color, redacted};
use regex::Regex;
use std::{
    io::{self, IsTerminal, Write},
    sync::LazyLock,
};

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// For a stream that is or is not a terminal.
    pub(super) fn new(color: Color, terminal: bool) -> Self {
        let on = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        Self { on }
    }

    /// For stdout.
    pub(super) fn answer(color: Color) -> Self {
        Self::new(color, io::stdout().is_terminal())
    }

    /// For stderr.
    pub(super) fn talk(color: Color) -> Self {
        Self::new(color, io::stderr().is_terminal())
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// For what went wrong.
    pub(super) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// For what needs attention.
    pub(super) fn warn(self, text: &str) -> String {
        self.with("1;33", text)
    }

    /// For what is well.
    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// For titles.
    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
}

/// Whether somebody can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; anything but `y` or `yes` is a no.
pub(super) fn ask(question: &str) -> bool {
    let mut line = String::new();
    let asked = write!(io::stderr(), "{} [y/N] ", scrubbed(question)).and_then(|()| io::stderr().flush());
    asked.and_then(|()| io::stdin().read_line(&mut line)).is_ok() && matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Writes the answer and a line end to stdout.
pub(super) fn answer(text: &str) {
    write(io::stdout().lock(), &scrubbed(text));
}

/// Writes help, man pages and the like to stdout: texts of the program's own, whose examples stay whole.
pub(super) fn verbatim(text: &str) {
    write(io::stdout().lock(), text);
}

/// Writes a line to stderr.
pub(super) fn talk(text: &str) {
    write(io::stderr().lock(), &scrubbed(text));
}

/// Writes a line to stderr below whatever stands there: live lines, or the `^C` of the terminal.
pub(super) fn interject(text: &str) {
    if io::stderr().is_terminal() {
        write(io::stderr().lock(), "");
    }
    talk(text);
}

/// Writes a JSON answer.
pub(super) fn json(value: &serde_json::Value) {
    answer(&format!("{value:#}"));
}

/// What cannot be written has no better place to be told: a closed pipe is the reader's choice.
fn write(mut stream: impl Write, text: &str) {
    drop(stream.write_all(text.trim_end_matches('\n').as_bytes()).and_then(|()| stream.write_all(b"\n")).and_then(|()| stream.flush()));
}

/// The text with every connection string in it reduced to its hosts.
pub(super) fn scrubbed(text: &str) -> String {
    static URI: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"mongodb(?:\+srv)?://[^\s'"`\u{1b}]*"#).expect("a constant expression is valid"));
    let hosts_only = |found: &regex::Captures<'_>| {
        let uri = &found[0];
        match uri.rsplit_once('@') {
            // Such a string cannot be cut with certainty.
            Some((before, _)) if before.contains('?') => uri.split_once("://").map_or("", |(scheme, _)| scheme).to_owned() + "://(hidden)",
            Some(_) | None if uri.contains('@') || uri.contains('?') => redacted(uri),
            Some(_) | None => uri.to_owned(),
        }
    };
    URI.replace_all(text, hosts_only).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_leave() {
        for uri in [
            "mongodb://u:s3cret@h/?a=b",
            "mongodb+srv://u:s3cret@h",
            "mongodb://u:s3?s3cret@h/",
            "mongodb://h/?tlsCertificateKeyFilePassword=s3cret",
        ] {
            let text = scrubbed(&format!("error: unexpected argument '{uri}' found"));
            assert!(!text.contains("s3"), "{text}");
            assert!(text.ends_with("' found"), "{text}");
        }
        assert_eq!(scrubbed("see mongodb://h1,h2/ and"), "see mongodb://h1,h2/ and");
    }

    #[test]
    fn colours_only_where_wanted() {
        assert_eq!(Paint::new(Color::Never, true).bad("x"), "x");
        assert_eq!(Paint::new(Color::Always, false).bad("x"), "\u{1b}[1;31mx\u{1b}[0m");
    }
}
