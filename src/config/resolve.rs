//! From what was written to the checked configuration: defaults, ranges, and all problems at once.

use super::{
    Config, CopyConfig, KNOBS, Kind, Knob, OutputOptions, Problem, TailConfig, ThrottleConfig, VerifyConfig,
    control::control,
    knobs::knob,
    output::{COLORS, LOG_FORMATS, Talk},
    raw::{Origin, Raw},
    redacted, values,
};
use crate::model::{Namespace, Selection, Settings, ShardKey, UsersAndRoles};
use secrecy::SecretString;
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

const MIB: u64 = 1 << 20;

/// The read preferences of a connection string.
const READ_PREFERENCES: [&str; 5] = ["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"];

/// A checked configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// For the engine.
    pub config: Config,
    /// For the command line itself.
    pub output: OutputOptions,
    /// Every option with its value and origin, in the order of the catalogue.
    pub settings: Vec<Setting>,
}

/// An option as it came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The option.
    pub key: &'static str,
    /// Its value; connection strings show hosts only.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
    /// Flag, variable, or key and file.
    pub name: String,
}

/// Checks everything.
///
/// # Errors
/// Every problem there is, in the order of the catalogue.
pub fn resolve(raw: &Raw) -> Result<Resolved, Vec<Problem>> {
    let mut r = Resolver::of(raw);
    let (listen, control) = control(&mut r);
    let metadata_database = r.one("metadata_database", values::database).unwrap_or_default();
    let config = Config {
        source: r.secret("source"),
        target: r.secret("target"),
        listen,
        control,
        hold: r.switch("hold"),
        settings: Settings {
            copy_rate: r.one("copy.rate", str::parse).unwrap_or_default(),
            tail_rate: r.one("tail.rate", str::parse).unwrap_or_default(),
            adaptive_throttle: r.one("throttle.adaptive_throttle", values::switch).unwrap_or_default(),
            ..Settings::default()
        },
        throttle: ThrottleConfig {
            lag: r.duration("throttle.lag", Duration::from_secs(1)..=Duration::from_secs(3600)),
            latency: r.duration("throttle.latency", Duration::from_millis(1)..=Duration::from_secs(60)),
            queue: r.number("throttle.queue", 1..=1_000_000) as u64,
        },
        retry_deadline: r.duration("retry_deadline", Duration::from_secs(1)..=Duration::from_secs(24 * 3600)),
        exit_on_halt: r.one("on_halt", |t| values::word(t, &[("wait", false), ("exit", true)])).unwrap_or_default(),
        selection: r.selection().reserving(&metadata_database),
        metadata_database,
        users_and_roles: r.users_and_roles(),
        shard: r.shard(),
        shard_reversed: BTreeMap::new(),
        drop_target_namespaces: r.switch("selection.drop_target_namespaces"),
        restart_from_scratch: r.asked("selection.restart_from_scratch"),
        copy: CopyConfig {
            partitions: r.number("copy.partitions", 1..=64),
            writers: r.number("copy.writers", 1..=256),
            partition_bytes: r.size("copy.partition_size", MIB..=16 * 1024 * MIB),
            read_preference: r
                .one("copy.read_preference", |t| values::word(t, &READ_PREFERENCES.map(|p| (p, p))))
                .unwrap_or_default()
                .to_owned(),
            indexes_before_data: r.switch("copy.indexes_before_data"),
            index_builds: r.number("copy.index_builds", 1..=32),
        },
        tail: TailConfig {
            lanes: r.number("tail.lanes", 1..=256),
            checkpoint_every: r.duration("tail.checkpoint_interval", Duration::from_millis(100)..=Duration::from_secs(60)),
        },
        verify: VerifyConfig {
            continuous: r.one("verify.continuous", |t| values::word(t, &[("on", true), ("off", false)])).unwrap_or_default(),
            rate: r.one("verify.rate", |t| if t == "0" { Ok(0) } else { values::size(t, &(64 * 1024..=u64::MAX)) }).unwrap_or_default(),
            every: r.duration("verify.every", Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600)),
        },
        memory: r.size("tail.memory", 128 * MIB..=u64::MAX),
    };
    let output = OutputOptions {
        log_format: r.one("output.log_format", |t| values::word(t, &LOG_FORMATS)).unwrap_or_default(),
        talk: match (r.switch("output.quiet"), r.switch("output.verbose")) {
            (true, true) => {
                r.problems.push(Problem::new("--quiet", "and `--verbose` exclude each other"));
                Talk::Normal
            }
            (true, false) => Talk::Quiet,
            (false, true) => Talk::Verbose,
            (false, false) => Talk::Normal,
        },
        color: r.one("output.color", |t| values::word(t, &COLORS)).unwrap_or_default(),
        progress: !r.switch("output.no_progress"),
    };
    r.outcome(Resolved { config, output, settings: KNOBS.iter().map(|k| setting(raw, k)).collect() })
}

/// Collects problems; what it gives back for a bad value is of no account, since nobody gets to see it.
pub(super) struct Resolver<'a> {
    raw: &'a Raw,
    problems: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    pub(super) fn of(raw: &'a Raw) -> Self {
        Self { raw, problems: Vec::new() }
    }

    /// The value, if nothing was found against any.
    pub(super) fn outcome<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.problems.is_empty() { Ok(value) } else { Err(self.problems) }
    }

    /// What is wrong with a value that is well-formed.
    pub(super) fn problem(&mut self, key: &str, problem: &str, hint: &str) {
        let knob = knob(key);
        let origin = self.raw.of(key).map_or(&Origin::Default, |w| &w.origin);
        self.problems.push(Problem::new(origin.name_of(knob), problem).hint(hint));
    }

    pub(super) fn one<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, values::Complaint>) -> Option<T> {
        let knob = knob(key);
        let written = self.raw.of(key);
        let text = written.and_then(|w| w.texts.first()).map_or(knob.default, String::as_str);
        match parse(text) {
            Ok(value) => Some(value),
            Err(complaint) => {
                self.complain(knob, complaint);
                None
            }
        }
    }

    fn complain(&mut self, knob: &Knob, complaint: String) {
        let origin = self.raw.of(knob.key).map_or(&Origin::Default, |w| &w.origin);
        self.problems.push(Problem::new(origin.name_of(knob), complaint));
    }

    fn number(&mut self, key: &str, range: RangeInclusive<usize>) -> usize {
        self.one(key, |text| values::number(text, &range)).unwrap_or_default()
    }

    fn size(&mut self, key: &str, range: RangeInclusive<u64>) -> u64 {
        self.one(key, |text| values::size(text, &range)).unwrap_or_default()
    }

    fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Duration {
        self.one(key, |text| values::duration(text, &range)).unwrap_or_default()
    }

    fn switch(&mut self, key: &str) -> bool {
        self.one(key, values::switch).unwrap_or_default()
    }

    /// A switch that is meant once: where a file or a variable repeats it, each restart would throw away what was done.
    fn asked(&mut self, key: &str) -> bool {
        let on = self.switch(key);
        if let Some(written) = self.raw.of(key).filter(|w| on && w.origin != Origin::Flag) {
            let hint = format!("give `--{}` on the command line, for the one start that it is meant for", knob(key).flag);
            self.problems.push(Problem::new(written.origin.name_of(knob(key)), "would be repeated by every restart").hint(hint));
        }
        on
    }

    fn secret(&mut self, key: &str) -> SecretString {
        let knob = knob(key);
        let Some(text) = self.raw.of(key).and_then(|w| w.texts.first()) else {
            let hint = format!("give it as `--{key}`, in the variable `{}`, or as `{key}` in the file of `--config`", knob.env());
            self.problems.push(Problem::new(format!("--{key}"), "is missing").hint(hint));
            return SecretString::from("");
        };
        let text = text.clone();
        if let Err(complaint) = values::uri(&text) {
            let origin = self.raw.of(key).map_or(&Origin::Default, |w| &w.origin);
            let hint =
                "its parts are `mongodb://` or `mongodb+srv://`, then `user:password@`, the hosts, and `/?replicaSet=NAME`".to_owned();
            self.problems.push(Problem::new(origin.name_of(knob), complaint).hint(hint));
        }
        SecretString::from(text)
    }

    fn shard(&mut self) -> BTreeMap<Namespace, ShardKey> {
        let mut keys = BTreeMap::new();
        for text in self.raw.of("selection.shard").map(|w| w.texts.clone()).unwrap_or_default() {
            match values::shard(&text) {
                Ok((ns, _)) if keys.contains_key(&ns) => self.complain(knob("selection.shard"), format!("gives `{ns}` two shard keys")),
                Ok((ns, key)) => drop(keys.insert(ns, key)),
                Err(complaint) => self.complain(knob("selection.shard"), complaint),
            }
        }
        keys
    }

    fn selection(&mut self) -> Selection {
        let texts = |key: &str| self.raw.of(key).map(|w| w.texts.clone()).unwrap_or_default();
        let (include, exclude) = (texts("selection.include"), texts("selection.exclude"));
        let pairs: Vec<_> = texts("selection.rename").iter().map(|text| values::rename(text)).collect();
        let mut renames = Vec::new();
        for pair in pairs {
            match pair {
                Ok(pair) => renames.push(pair),
                Err(complaint) => self.complain(knob("selection.rename"), complaint),
            }
        }
        // One list at a time, so that a fault in one does not hide a fault in another.
        for (include, exclude, renames) in [(&include[..], &[][..], &[][..]), (&[], &exclude, &[]), (&[], &[], &renames)] {
            if let Err((flag, problem)) = Selection::new(include, exclude, renames) {
                match KNOBS.iter().find(|knob| flag.strip_prefix("--") == Some(knob.flag)) {
                    Some(knob) => self.complain(knob, problem),
                    None => self.problems.push(Problem::new(flag, problem)),
                }
            }
        }
        Selection::new(&include, &exclude, &renames).unwrap_or_default()
    }
}

impl Resolver<'_> {
    /// Roles name databases and collections, and users roles: under other names they would allow something else.
    fn users_and_roles(&mut self) -> UsersAndRoles {
        let key = "selection.users_and_roles";
        let words = [("none", UsersAndRoles::None), ("all", UsersAndRoles::All), ("new", UsersAndRoles::New)];
        let which = self.one(key, |text| values::word(text, &words)).unwrap_or_default();
        if which != UsersAndRoles::None && self.raw.of("selection.rename").is_some_and(|w| !w.texts.is_empty()) {
            let origin = self.raw.of(key).map_or(&Origin::Default, |w| &w.origin);
            let hint = "make users and roles on the target yourself, with the names that are valid there";
            self.problems.push(Problem::new(origin.name_of(knob(key)), "and `--rename` exclude each other").hint(hint.to_owned()));
        }
        which
    }
}

fn setting(raw: &Raw, knob: &'static Knob) -> Setting {
    let written = raw.of(knob.key);
    let value = match (knob.kind, written) {
        (Kind::Secret, Some(w)) => w.texts.first().map(|uri| redacted(uri)).unwrap_or_default(),
        (_, Some(w)) => w.texts.join(", "),
        (_, None) => knob.default.to_owned(),
    };
    let origin = written.map_or(Origin::Default, |w| w.origin.clone());
    Setting { key: knob.key, value, name: origin.name_of(knob), origin }
}

#[cfg(test)]
mod tests {
    use super::super::{file::parse, raw::Written};
    use super::*;
    use secrecy::ExposeSecret;
    use std::path::Path;

    const URIS: &str = "source = 'mongodb://u:s3cret@a/'\ntarget = 'mongodb://u:s3cret@b/?tls=true'\n";

    fn file(text: &str) -> Raw {
        parse(&format!("{URIS}{text}"), Path::new("f.toml")).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_catalogue() {
        let resolved = resolve(&file("")).unwrap();
        let config = &resolved.config;
        assert_eq!((config.copy.partitions, config.copy.writers, config.tail.lanes), (4, 8, 8));
        assert_eq!((config.memory, config.copy.partition_bytes), (512 * MIB, 128 * MIB));
        assert_eq!(config.listen.to_string(), "127.0.0.1:27182");
        assert_eq!(config.source.expose_secret(), "mongodb://u:s3cret@a/");
        assert!(!config.exit_on_halt && resolved.output.progress);
        assert_eq!(resolved.settings.len(), KNOBS.len());
        assert!(!format!("{resolved:?}").contains("s3cret"));
    }

    #[test]
    fn a_flag_beats_the_file_and_its_origin_is_told() {
        let mut raw = file("[tail]\nlanes = 3\nmemory = '1GiB'\n");
        raw.put(knob("tail.lanes"), Written { texts: vec!["5".to_owned()], origin: Origin::Flag });
        let resolved = resolve(&raw).unwrap();
        assert_eq!((resolved.config.tail.lanes, resolved.config.memory), (5, 1 << 30));
        let told = |key| resolved.settings.iter().find(|s| s.key == key).map(|s| (s.value.as_str(), s.name.as_str())).unwrap();
        assert_eq!(told("tail.lanes"), ("5", "--lanes"));
        assert_eq!(told("tail.memory"), ("1GiB", "tail.memory in f.toml"));
        assert_eq!(told("source"), ("mongodb://a/", "source in f.toml"));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = "listen = '0.0.0.0:1'\n[tail]\nlanes = 0\nmemory = '1MiB'\ncheckpoint_interval = '2h'\n\
                    [selection]\ninclude = ['/(/']\nrename = ['a', 'b=c.d']\n[output]\nquiet = true\nverbose = true\n";
        let fields: Vec<_> = resolve(&file(text)).unwrap_err().into_iter().map(|p| p.field).collect();
        let wanted = [
            "listen in f.toml",
            "selection.rename in f.toml",
            "selection.include in f.toml",
            "selection.rename in f.toml",
            "tail.lanes in f.toml",
            "tail.checkpoint_interval in f.toml",
            "tail.memory in f.toml",
            "--quiet",
        ];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn missing_connection_strings_say_where_they_may_be_given() {
        let found = resolve(&Raw::default()).unwrap_err();
        assert_eq!(found.len(), 2);
        assert!(found[0].hint.as_deref().unwrap().contains("MONGOFERRY_SOURCE"));
    }
}
