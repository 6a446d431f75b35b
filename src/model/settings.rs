//! What may be changed while a migration runs: `mongoferry set name=value`, `PATCH /v1/settings`.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A limit; what is absent is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// Bytes a second.
    pub bytes: Option<u64>,
    /// Documents, or events, a second.
    pub operations: Option<u64>,
}

/// Below this, a batch of ordinary documents would take minutes.
const SLOWEST_BYTES: u64 = 10_000;

impl Rate {
    /// Whether it limits anything.
    #[must_use]
    pub fn is_limited(self) -> bool {
        self.bytes.is_some() || self.operations.is_some()
    }
}

impl FromStr for Rate {
    type Err = String;

    /// `unlimited`, `50MB/s`, `2000ops/s`, or both with a comma between.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("must be a rate such as `50MB/s`, `2000ops/s`, `50MB/s,2000ops/s` or `unlimited`, not `{text}`");
        let mut rate = Self::default();
        if matches!(text.trim(), "unlimited" | "off") {
            return Ok(rate);
        }
        for part in text.split(',').map(str::trim) {
            let amount = part.strip_suffix("/s").ok_or_else(wrong)?;
            if let Some(number) = amount.strip_suffix("ops") {
                let operations = number.trim().parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
                rate.operations = Some(operations);
            } else {
                let bytes = amount.parse::<bytesize::ByteSize>().map_err(|_| wrong())?.as_u64();
                if bytes < SLOWEST_BYTES {
                    return Err(format!("must be at least 10kB/s, not `{text}`; `mongoferry throttle` holds the copy back altogether"));
                }
                rate.bytes = Some(bytes);
            }
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.map(|n| match n {
            n if n % 1_000_000 == 0 => format!("{}MB/s", n / 1_000_000),
            n if n % 1_000 == 0 => format!("{}kB/s", n / 1_000),
            n => format!("{n}B/s"),
        });
        let parts: Vec<String> = bytes.into_iter().chain(self.operations.map(|n| format!("{n}ops/s"))).collect();
        f.write_str(if parts.is_empty() { "unlimited" } else { "" })?;
        f.write_str(&parts.join(","))
    }
}

impl TryFrom<String> for Rate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

/// The settings as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    /// Limit of the initial copy.
    #[schema(value_type = String)]
    pub copy_rate: Rate,
    /// Limit of the tail.
    #[schema(value_type = String)]
    pub tail_rate: Rate,
    /// Whether copy and tail yield while a cluster is under strain.
    pub adaptive_throttle: bool,
    /// Whether both sides are compared all the while.
    pub verification: bool,
    /// `default`, `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// Why an operator holds the copy back, while one does.
    pub throttle: Option<String>,
    /// Why they were last changed, if that was told.
    pub reason: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            copy_rate: Rate::default(),
            tail_rate: Rate::default(),
            adaptive_throttle: true,
            verification: true,
            log_level: "default".into(),
            throttle: None,
            reason: None,
        }
    }
}

/// What is saved with a migration: the settings, and the options that were in force when they were set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSettings {
    /// As they were last set.
    pub set: Settings,
    /// As the options had them.
    pub options: Settings,
}

/// Levels of the log, quiet first.
pub const LOG_LEVELS: [&str; 6] = ["default", "error", "warn", "info", "debug", "trace"];

impl Settings {
    /// Those that `mongoferry set` knows.
    pub const NAMES: [&'static str; 6] = ["copy-rate", "tail-rate", "adaptive-throttle", "verification", "log-level", "reason"];

    /// Changes several, or none. A reason goes with the change that it was told for.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn with<'a>(&self, wanted: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Self, String> {
        let mut changed = Self { reason: None, ..self.clone() };
        wanted.into_iter().try_for_each(|(name, value)| changed.set(name, value))?;
        Ok(changed)
    }

    /// Changes one.
    ///
    /// # Errors
    /// What is wrong with name or value, for people.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let about = |why: String| format!("`{name}` {why}");
        match name {
            "copy-rate" => self.copy_rate = value.parse().map_err(about)?,
            "tail-rate" => self.tail_rate = value.parse().map_err(about)?,
            "adaptive-throttle" => self.adaptive_throttle = switch(value).map_err(about)?,
            "verification" => self.verification = switch(value).map_err(about)?,
            "log-level" if LOG_LEVELS.contains(&value) => value.clone_into(&mut self.log_level),
            "log-level" => return Err(about(format!("must be one of {}, not `{value}`", LOG_LEVELS.join(", ")))),
            "reason" => self.reason = Some(value.to_owned()),
            _ => return Err(format!("`{name}` is no setting; there are {}", Self::NAMES.join(", "))),
        }
        Ok(())
    }

    /// After a restart: what was set stays, unless its option was changed meanwhile. The log's level is the process's.
    #[must_use]
    pub fn resumed(options: Settings, kept: Option<KeptSettings>) -> Settings {
        let Some(KeptSettings { set, options: then }) = kept else { return options };
        Settings {
            copy_rate: if then.copy_rate == options.copy_rate { set.copy_rate } else { options.copy_rate },
            tail_rate: if then.tail_rate == options.tail_rate { set.tail_rate } else { options.tail_rate },
            adaptive_throttle: if then.adaptive_throttle == options.adaptive_throttle {
                set.adaptive_throttle
            } else {
                options.adaptive_throttle
            },
            verification: if then.verification == options.verification { set.verification } else { options.verification },
            log_level: options.log_level,
            throttle: set.throttle,
            reason: set.reason,
        }
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(format!("must be `on` or `off`, not `{value}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for (text, bytes, operations) in [
            ("unlimited", None, None),
            ("50MB/s", Some(50_000_000), None),
            ("1MiB/s", Some(1 << 20), None),
            ("2000ops/s", None, Some(2000)),
            ("10kB/s,1ops/s", Some(10_000), Some(1)),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate, Rate { bytes, operations });
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
        assert_eq!(Rate { bytes: Some(50_000_000), operations: Some(7) }.to_string(), "50MB/s,7ops/s");
        for bad in ["", "50", "50MB", "0ops/s", "-1MB/s", "9kB/s", "x/s", "50MB/s,"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_name_can_be_set_and_nothing_else() {
        let mut settings = Settings::default();
        for (name, value) in Settings::NAMES.into_iter().zip(["1MB/s", "5ops/s", "off", "off", "debug", "at night"]) {
            settings.set(name, value).unwrap();
            // Any text is a reason.
            assert!(name == "reason" || settings.set(name, "nonsense").unwrap_err().contains(name));
        }
        let asked = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (rate, wrong) = (asked("copy-rate", "2MB/s"), asked("log-level", "loud"));
        let changed = settings.with([(&rate.0, &rate.1)]).unwrap();
        assert_eq!((changed.copy_rate.bytes, changed.reason), (Some(2_000_000), None), "a reason is that of one change");
        assert!(settings.with([(&rate.0, &rate.1), (&wrong.0, &wrong.1)]).is_err());
        assert!(settings.copy_rate.is_limited() && !settings.adaptive_throttle && !settings.verification);
        assert!(settings.set("throttle", "on").is_err());
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!((&json["copy-rate"], &json["log-level"]), (&"1MB/s".into(), &"debug".into()));
        assert_eq!(serde_json::from_value::<Settings>(json).unwrap(), settings);
    }

    #[test]
    fn what_was_set_survives_until_its_option_changes() {
        let options = Settings { copy_rate: "50MB/s".parse().unwrap(), ..Settings::default() };
        let set = Settings {
            copy_rate: "5MB/s".parse().unwrap(),
            verification: false,
            log_level: "trace".into(),
            throttle: Some("backup".into()),
            ..options.clone()
        };
        let kept = KeptSettings { set: set.clone(), options: options.clone() };
        let again = Settings::resumed(options.clone(), Some(kept.clone()));
        assert_eq!(again, Settings { log_level: "default".into(), ..set.clone() });
        let other = Settings { copy_rate: "70MB/s".parse().unwrap(), ..options.clone() };
        let again = Settings::resumed(other, Some(kept));
        assert_eq!((again.copy_rate.to_string().as_str(), again.verification), ("70MB/s", false));
        assert_eq!(Settings::resumed(options.clone(), None), options);
    }
}
