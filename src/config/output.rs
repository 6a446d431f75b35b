//! What the operator sees of a run: options of the command line itself, not of the migration.

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogStyle {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Talk {
    /// Warnings and errors.
    Quiet,
    /// The story of the run.
    #[default]
    Normal,
    /// Details as well.
    Verbose,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// All of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputOptions {
    /// How the log is written.
    pub log_format: LogStyle,
    /// How much is said.
    pub talk: Talk,
    /// When colours are used.
    pub color: Color,
    /// Whether progress is shown.
    pub progress: bool,
}

pub(super) const LOG_FORMATS: [(&str, LogStyle); 2] = [("text", LogStyle::Text), ("json", LogStyle::Json)];

/// The words for [`Color`].
pub(super) const COLORS: [(&str, Color); 3] = [("auto", Color::Auto), ("always", Color::Always), ("never", Color::Never)];

impl Color {
    /// From its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Color> {
        COLORS.iter().find(|(name, _)| *name == word).map(|(_, color)| *color)
    }
}
