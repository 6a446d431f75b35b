//! Options as they were written, each with the place it came from. Nothing is checked yet but names.

use super::{Knob, knobs::env_name};
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where a value came from, weakest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody wrote it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Env,
    /// The command line.
    Flag,
}

impl Origin {
    /// What kind of place it is, for scripts.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::File(_) => "file",
            Origin::Env => "env",
            Origin::Flag => "flag",
        }
    }

    /// What somebody would look for to change the value there.
    #[must_use]
    pub fn name_of(&self, knob: &Knob) -> String {
        match self {
            Origin::Default | Origin::Flag => format!("--{}", knob.flag),
            Origin::Env => env_name(knob.flag),
            Origin::File(path) => format!("{} in {}", knob.key, path.display()),
        }
    }
}

/// A value as written. Lists have any number of texts, everything else has one.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    /// The texts.
    pub texts: Vec<String>,
    /// Where they came from.
    pub origin: Origin,
}

/// Texts may be connection strings: they are not shown.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} text(s) from {:?}", self.texts.len(), self.origin)
    }
}

/// Options as written, by key. Of two values for one key the stronger origin wins, whole: lists are not joined.
#[derive(Debug, Clone, Default)]
pub struct Raw(BTreeMap<&'static str, Written>);

impl Raw {
    /// Keeps `written` unless there is a stronger one.
    pub fn put(&mut self, knob: &'static Knob, written: Written) {
        match self.0.get(knob.key) {
            Some(there) if there.origin > written.origin => {}
            Some(_) | None => {
                self.0.insert(knob.key, written);
            }
        }
    }

    /// `self` and `other` together.
    #[must_use]
    pub fn merged(mut self, other: Raw) -> Raw {
        for (key, written) in other.0 {
            self.put(super::knobs::knob(key), written);
        }
        self
    }

    /// What was written for a key.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<&Written> {
        self.0.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str, origin: Origin) -> Raw {
        let mut raw = Raw::default();
        raw.put(super::super::knobs::knob("tail.lanes"), Written { texts: vec![text.to_owned()], origin });
        raw
    }

    #[test]
    fn flags_beat_environment_beats_file_in_any_order() {
        let layers = || [raw("1", Origin::File("f".into())), raw("2", Origin::Env), raw("3", Origin::Flag)];
        let [file, env, flag] = layers();
        let merged = file.merged(env.clone()).merged(flag);
        assert_eq!(merged.of("tail.lanes").unwrap().texts, ["3"]);
        let [file, env, _] = layers();
        assert_eq!(env.merged(file).of("tail.lanes").unwrap().origin, Origin::Env);
    }

    #[test]
    fn what_was_written_is_not_shown_in_debug_output() {
        assert!(!format!("{:?}", raw("s3cret", Origin::Flag)).contains("s3cret"));
    }
}
