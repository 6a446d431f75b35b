//! The catalogue: every option once, with its key in the file, its flag, its default and its help.
//! Flags, environment variables, help texts, man page and the example file all follow from it.

/// Heading in the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The two clusters and the process itself.
    Connection,
    /// What is replicated.
    Selection,
    /// The initial copy.
    Copy,
    /// The change stream.
    Tail,
    /// The comparison of both sides.
    Verification,
    /// Going slower under strain.
    Throttle,
    /// What the operator sees.
    Output,
    /// How the verbs reach the running process.
    Endpoint,
}

impl Group {
    /// As shown.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Group::Connection => "Connection",
            Group::Selection => "Selection",
            Group::Copy => "Copy",
            Group::Tail => "Tail",
            Group::Verification => "Verification",
            Group::Throttle => "Throttle",
            Group::Output => "Output",
            Group::Endpoint => "Endpoint",
        }
    }
}

/// How an option is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    Value,
    /// A connection string: one value that is never shown.
    Secret,
    /// Any number of values.
    List,
    /// Given or not; `=false` takes it back where a weaker place gives it.
    Switch,
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Place in the file, as in `copy.partitions`.
    pub key: &'static str,
    /// Name of the flag without its dashes.
    pub flag: &'static str,
    /// Heading.
    pub group: Group,
    /// How it is written.
    pub kind: Kind,
    /// Stands for the value in the help.
    pub value_name: &'static str,
    /// As it would be written; empty where there is none.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
    /// The explanation, with units.
    pub more: &'static str,
    /// A value for the example.
    pub example: &'static str,
}

impl Knob {
    /// Name of its environment variable.
    #[must_use]
    pub fn env(&self) -> String {
        env_name(self.flag)
    }
}

/// Name of the environment variable of a flag.
#[must_use]
pub fn env_name(flag: &str) -> String {
    format!("MONGOFERRY_{}", flag.replace('-', "_").to_uppercase())
}

/// The option with this key. Keys are written in the program, so one that is missing is a fault of ours.
pub(super) fn knob(key: &str) -> &'static Knob {
    KNOBS.iter().find(|knob| knob.key == key).expect("every key used in the program is in the catalogue")
}

const fn value(key: &'static str, flag: &'static str, group: Group, value_name: &'static str, default: &'static str) -> Knob {
    Knob { key, flag, group, kind: Kind::Value, value_name, default, help: "", more: "", example: "" }
}

const fn list(flag: &'static str, key: &'static str, value_name: &'static str) -> Knob {
    Knob { kind: Kind::List, ..value(key, flag, Group::Selection, value_name, "") }
}

const fn secret(key: &'static str) -> Knob {
    Knob { kind: Kind::Secret, ..value(key, key, Group::Connection, "URI", "") }
}

const fn switch(key: &'static str, flag: &'static str, group: Group) -> Knob {
    Knob { kind: Kind::Switch, ..value(key, flag, group, "BOOL", "false") }
}

const fn says(knob: Knob, help: &'static str, more: &'static str, example: &'static str) -> Knob {
    Knob { help, more, example, ..knob }
}

/// All options, in the order of the help.
pub const KNOBS: &[Knob] = &[
    says(
        secret("source"),
        "Connection string of the cluster to replicate from",
        "A replica set or sharded cluster. Prefer the environment variable or the file: a command line is seen by everybody on the host. It is never printed; messages show hosts only.",
        "mongodb://ferry@a1,a2,a3/?replicaSet=a&authSource=admin",
    ),
    says(
        secret("target"),
        "Connection string of the cluster to replicate to",
        "The namespaces to be written must not exist there at the first start. Prefer the environment variable or the file, as for --source.",
        "mongodb://ferry@b1,b2,b3/?replicaSet=b&authSource=admin",
    ),
    says(
        value("listen", "listen", Group::Connection, "ADDRESS", "127.0.0.1:27182"),
        "Address of the control endpoint",
        "The verbs `status`, `pause`, `resume`, `verify`, `cutover` and `abort` talk to this address; it also serves /metrics, /live and /ready. Any other than a loopback address needs --token-file, --tls-certificate and --tls-key.",
        "127.0.0.1:9000",
    ),
    says(
        value("token_file", "token-file", Group::Connection, "FILE", ""),
        "File with the bearer token of the control endpoint",
        "One line of at least 16 characters, which others may not read (`openssl rand -hex 32`, `chmod 600`). `run` then refuses requests without it, but for /live and /ready; the other verbs send it.",
        "/etc/mongoferry/token",
    ),
    says(
        value("tls_certificate", "tls-certificate", Group::Connection, "FILE", ""),
        "Certificate of the control endpoint, for HTTPS",
        "PEM: its own certificate, then those in between. Needs --tls-key. Read at the start.",
        "/etc/mongoferry/endpoint.pem",
    ),
    says(
        value("tls_key", "tls-key", Group::Connection, "FILE", ""),
        "Private key of that certificate",
        "PEM, not encrypted; others may not read it.",
        "/etc/mongoferry/endpoint.key",
    ),
    says(
        value("tls_client_ca", "tls-client-ca", Group::Connection, "FILE", ""),
        "CA whose client certificates the endpoint demands",
        "PEM. Whoever asks then needs a certificate of this CA as well as the token; so do probes and scrapers.",
        "/etc/mongoferry/clients.pem",
    ),
    says(
        value("metadata_database", "metadata-database", Group::Connection, "NAME", "__mdb_internal_mongoferry"),
        "Database of the resume point",
        "On the target. Give each of several migrations to one target its own.",
        "__mdb_internal_mongoferry_shop",
    ),
    says(
        value("retry_deadline", "retry-deadline", Group::Connection, "DURATION", "10m"),
        "How long a failing call is repeated",
        "Then the migration halts. Elections and network faults are over within it, mostly. From 1s to 24h.",
        "30m",
    ),
    says(
        value("on_halt", "on-halt", Group::Connection, "WHAT", "wait"),
        "What to do when the migration halts: wait or exit",
        "`wait` keeps the process and its endpoint up until `mongoferry resume`. `exit` ends it with the exit code of the cause, for a supervisor to see.",
        "exit",
    ),
    says(
        switch("hold", "hold", Group::Connection),
        "Wait for a start before writing, and stay after the commit",
        "For whoever drives a migration over HTTP: `mongoferry start` or POST /api/v1/start begins. A migration that has begun goes on at once. After the commit the endpoint stays until the process is stopped.",
        "",
    ),
    says(
        list("include", "selection.include", "PATTERN"),
        "Replicate only these databases or namespaces",
        "Repeat it for more. `shop` is a database, `shop.orders` a namespace; `*` and `?` stand for any text and any one character; `/…/` is a regular expression over the whole name. In the environment, commas separate the patterns. Without it all is replicated. May not change between runs.",
        "shop.*",
    ),
    says(
        list("exclude", "selection.exclude", "PATTERN"),
        "Leave these databases or namespaces out",
        "Written like --include, and stronger. May not change between runs.",
        "shop.tmp_*",
    ),
    says(
        list("rename", "selection.rename", "FROM=TO"),
        "Give a database or namespace another name on the target",
        "Repeat it for more. Both sides are databases or both are namespaces; a namespace is stronger than its database. May not change between runs.",
        "shop=store",
    ),
    says(
        value("selection.users_and_roles", "users-and-roles", Group::Selection, "WHICH", "none"),
        "Replicate users and custom roles: none, all or new",
        "Of all databases, whatever the filters say, and until the cutover, so that applications log in on the target as they did on the source. The users that mongoferry itself logs in as are left alone, and so is what is on the target only. With `all`, a target that has others of the same name is refused; with `new`, its own stay. Not together with --rename.",
        "all",
    ),
    says(
        list("shard", "selection.shard", "NS=KEY"),
        "Shard a collection of the target by this key",
        "Repeat it for more. NS is a name on the target; KEY is one field or several, each `field:1` or `field:hashed`. The target must be a sharded cluster. What is not named stays on one shard, and databases are spread over the shards. May not change between runs.",
        "shop.orders=customer:1,_id:1",
    ),
    says(
        switch("selection.drop_target_namespaces", "drop-target-namespaces", Group::Selection),
        "Drop the selected namespaces on the target before the first start",
        "Destroys data on the target. Without it, a target that holds any of them is refused.",
        "",
    ),
    says(
        switch("selection.restart_from_scratch", "restart-from-scratch", Group::Selection),
        "Forget the progress of an earlier run and copy again",
        "Throws the resume point away. Use it once, on the command line: where a supervisor repeats it, each restart copies anew. Together with --drop-target-namespaces if the target holds what was copied.",
        "",
    ),
    says(
        value("copy.partitions", "copy-partitions", Group::Copy, "N", "4"),
        "Partitions read from the source at the same time",
        "From 1 to 64. More is a greater load on the source.",
        "8",
    ),
    says(
        value("copy.writers", "copy-writers", Group::Copy, "N", "8"),
        "Inserts under way on the target at the same time",
        "From 1 to 256, over all partitions.",
        "16",
    ),
    says(
        value("copy.partition_size", "partition-size", Group::Copy, "SIZE", "128MiB"),
        "Size of one partition",
        "A collection larger than this is read in several parts. A part that was under way when the process ended is copied again. From 1MiB to 16GiB.",
        "512MiB",
    ),
    says(
        value("copy.read_preference", "read-preference", Group::Copy, "MODE", "secondaryPreferred"),
        "Members the copy reads from",
        "Of the source. One of primary, primaryPreferred, secondary, secondaryPreferred, nearest.",
        "secondary",
    ),
    says(
        switch("copy.indexes_before_data", "indexes-before-data", Group::Copy),
        "Create the indexes before the documents are copied",
        "Slower as a rule; a collection is never without its indexes.",
        "",
    ),
    says(
        value("copy.index_builds", "index-builds", Group::Copy, "N", "2"),
        "Index builds at the same time on the target",
        "From 1 to 32.",
        "4",
    ),
    says(
        value("copy.rate", "copy-rate", Group::Copy, "RATE", "unlimited"),
        "Limit of the initial copy, such as 50MB/s or 2000ops/s",
        "Bytes, documents, or both with a comma between. May be changed while it runs (`mongoferry set copy-rate=…`). Capped collections are copied without it.",
        "50MB/s,2000ops/s",
    ),
    says(
        value("tail.lanes", "lanes", Group::Tail, "N", "8"),
        "Ordered workers that apply the change stream",
        "All changes of a document go through one lane, in order. From 1 to 256.",
        "16",
    ),
    says(
        value("tail.checkpoint_interval", "checkpoint-interval", Group::Tail, "DURATION", "1s"),
        "How often the resume point is saved",
        "After a crash, at most this much is applied again. From 100ms to 60s.",
        "5s",
    ),
    says(
        value("tail.memory", "memory", Group::Tail, "SIZE", "512MiB"),
        "Memory for all data in flight",
        "Copy and tail together. Reading waits when it is used up. At least 128MiB.",
        "2GiB",
    ),
    says(
        value("tail.rate", "tail-rate", Group::Tail, "RATE", "unlimited"),
        "Limit of the tail, such as 50MB/s or 2000ops/s",
        "Bytes, events, or both with a comma between. May be changed while it runs. What writers do beyond it becomes lag; a cutover lifts it.",
        "20MB/s",
    ),
    says(
        value("throttle.adaptive_throttle", "adaptive-throttle", Group::Throttle, "WHEN", "on"),
        "Go slower while a cluster is under strain: on or off",
        "The copy yields before the tail, and neither ever stops. `status` tells the reason. May be changed while it runs.",
        "off",
    ),
    says(
        value("throttle.lag", "throttle-lag", Group::Throttle, "DURATION", "30s"),
        "Lag of a secondary, on either side, that is strain",
        "Delayed secondaries do not count. From 1s to 1h.",
        "10s",
    ),
    says(
        value("throttle.latency", "throttle-latency", Group::Throttle, "DURATION", "500ms"),
        "Time to answer a ping, on either side, that is strain",
        "If it is also five times what it is when there is little to do. From 1ms to 60s.",
        "100ms",
    ),
    says(
        value("throttle.queue", "throttle-queue", Group::Throttle, "N", "128"),
        "Operations in line, on either side, that are strain",
        "As `serverStatus` counts them in `globalLock.currentQueue`. From 1 to 1000000.",
        "50",
    ),
    says(
        value("verify.continuous", "verify-continuous", Group::Verification, "WHEN", "on"),
        "Compare both sides all the time: on or off",
        "Each collection as a whole once it is copied, then whatever the change stream touches. It yields to copy and tail. With `off` nothing is proved before a cutover but what `mongoferry verify` compares.",
        "off",
    ),
    says(
        value("verify.rate", "verify-rate", Group::Verification, "SIZE", "0"),
        "Bytes of the source compared in a second at most",
        "As measured by the source's documents. 0 is no limit, else at least 64KiB.",
        "20MiB",
    ),
    says(
        value("verify.every", "verify-every", Group::Verification, "DURATION", "24h"),
        "How often everything is compared anew",
        "Between two comparisons only what the change stream touches is looked at, which does not show what somebody else writes to the target. From 1s to 365d.",
        "6h",
    ),
    says(
        value("output.log_format", "log-format", Group::Output, "FORMAT", "text"),
        "How the log on stderr is written: text or json",
        "With `json` each line is an object, and there are no progress lines.",
        "json",
    ),
    says(switch("output.quiet", "quiet", Group::Output), "Only warnings and errors; no progress", "", ""),
    says(switch("output.verbose", "verbose", Group::Output), "Log details; no live progress lines", "", ""),
    says(
        value("output.color", "color", Group::Output, "WHEN", "auto"),
        "Colours: auto, always or never",
        "`auto` colours on a terminal unless NO_COLOR is set. Nothing is told by colour alone.",
        "never",
    ),
    says(
        switch("output.no_progress", "no-progress", Group::Output),
        "No progress lines",
        "Without it: live lines on a terminal, otherwise a status line at a falling rate.",
        "",
    ),
    says(
        value("endpoint", "endpoint", Group::Endpoint, "URL", "http://127.0.0.1:27182"),
        "Control endpoint of the running process",
        "The address that `mongoferry run` was given by --listen; `https://` where it was given a certificate.",
        "https://ferry.example:27182",
    ),
    says(
        value("endpoint_ca", "endpoint-ca", Group::Endpoint, "FILE", ""),
        "CA of the endpoint's certificate",
        "PEM. Without it, the public CAs that are built in.",
        "/etc/mongoferry/ca.pem",
    ),
    says(
        value("endpoint_certificate", "endpoint-certificate", Group::Endpoint, "FILE", ""),
        "Client certificate to show to the endpoint",
        "PEM. Needs --endpoint-key; for endpoints that were given --tls-client-ca.",
        "/etc/mongoferry/me.pem",
    ),
    says(
        value("endpoint_key", "endpoint-key", Group::Endpoint, "FILE", ""),
        "Private key of the client certificate",
        "PEM, not encrypted; others may not read it.",
        "/etc/mongoferry/me.key",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_follow_one_pattern() {
        let keys: BTreeSet<_> = KNOBS.iter().map(|k| k.key).collect();
        let flags: BTreeSet<_> = KNOBS.iter().map(|k| k.flag).collect();
        assert_eq!((keys.len(), flags.len()), (KNOBS.len(), KNOBS.len()));
        for knob in KNOBS {
            let last = knob.key.rsplit('.').next().unwrap().replace('_', "-");
            assert!(knob.flag.ends_with(&last), "{}: flag {}", knob.key, knob.flag);
            assert!(!knob.help.is_empty() && knob.help.len() < 70, "{}: one short line of help", knob.key);
        }
    }
}
