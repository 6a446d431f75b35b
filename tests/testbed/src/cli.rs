//! The verbs. What programs read goes to stdout as JSON, the rest to stderr. Exit status: 0 done (equal), 1 different,
//! 2 failed.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;
use testbed::{
    DataSet, Load, LoadOptions, Options, ReplicaSet, Report, Result, ShardedCluster, Version, connect, end, parity, server, sharded,
};
use tokio::signal::unix::{SignalKind, signal};

/// Real MongoDB servers, data, load and an independent comparison.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start servers, print where they are as one line of JSON, run until stdin closes or SIGINT or SIGTERM comes.
    Start(Start),
    /// Fetch a server and print the path of its mongod.
    Fetch {
        #[arg(long, default_value_t)]
        version: Version,
    },
    /// Insert a shop's data.
    Fill(Fill),
    /// Write a mixed load; print the counts as JSON at the end.
    Load(Write),
    /// Compare two clusters byte for byte.
    Compare(Compare),
}

#[derive(Args)]
struct Start {
    /// Data-bearing members.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: u8,
    /// A sharded cluster of this many shards, each of as many members as `--nodes` says.
    #[arg(long, default_value_t = 0, conflicts_with_all = ["name", "standalone", "tls"])]
    shards: u8,
    /// Of a sharded cluster: let the server's own balancer move chunks.
    #[arg(long, requires = "shards")]
    balancer: bool,
    #[arg(long, default_value = "rs0")]
    name: String,
    #[arg(long, default_value_t)]
    version: Version,
    /// A single server without replication.
    #[arg(long)]
    standalone: bool,
    #[arg(long)]
    tls: bool,
    /// Access control; the URI then names an administrator.
    #[arg(long)]
    auth: bool,
    /// MiB.
    #[arg(long, default_value_t = 256)]
    oplog_mb: u32,
    /// GiB of cache for each node.
    #[arg(long, default_value_t = 0.25)]
    cache_gb: f64,
    /// Further arguments for mongod.
    #[arg(last = true)]
    extra_args: Vec<String>,
}

#[derive(Args)]
struct Fill {
    #[arg(long)]
    uri: String,
    #[arg(long, default_value_t = 100_000)]
    documents: u64,
    /// Mean bytes of a document.
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    #[arg(long, default_value_t = 4)]
    collections: u32,
    #[arg(long, default_value = "shop")]
    database: String,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Without secondary indexes.
    #[arg(long)]
    no_indexes: bool,
}

#[derive(Args)]
struct Write {
    #[arg(long)]
    uri: String,
    /// Operations a second; 0 is as fast as it goes.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Until a signal comes when not given.
    #[arg(long)]
    seconds: Option<f64>,
    /// Random when not given.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, default_value_t = 2)]
    databases: u32,
    #[arg(long, default_value_t = 4)]
    collections: u32,
    #[arg(long, default_value_t = 4)]
    threads: u32,
    /// Also create, drop, rename and modify collections and indexes.
    #[arg(long)]
    ddl: bool,
}

#[derive(Args)]
struct Compare {
    #[arg(long)]
    source: String,
    #[arg(long)]
    target: String,
    /// Leave out this database; may be repeated.
    #[arg(long)]
    except: Vec<String>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Cli {
    pub async fn run(self) -> Result<ExitCode> {
        match self.verb {
            Verb::Start(verb) => verb.run().await,
            Verb::Fetch { version } => {
                say(&server::mongod(version).await?.path.display().to_string());
                Ok(ExitCode::SUCCESS)
            }
            Verb::Fill(verb) => verb.run().await,
            Verb::Load(verb) => verb.run().await,
            Verb::Compare(verb) => verb.run().await,
        }
    }
}

impl Start {
    async fn run(self) -> Result<ExitCode> {
        if self.shards > 0 {
            return self.run_sharded().await;
        }
        let options = Options {
            name: self.name,
            nodes: self.nodes.into(),
            version: self.version,
            standalone: self.standalone,
            tls: self.tls,
            auth: self.auth,
            oplog_mb: self.oplog_mb,
            cache_gb: self.cache_gb,
            extra_args: self.extra_args,
            ..Options::default()
        };
        tokio::select! {
            biased; // told to stop while starting: stop
            () = told_to_stop() => Ok(ExitCode::SUCCESS),
            set = ReplicaSet::start(options) => {
                let set = set?;
                let nodes: Vec<_> = (0..set.addresses().len()).map(|i| set.node_uri(i)).collect();
                let line = json!({ "uri": set.uri(), "nodes": nodes, "ca_file": set.ca_file(), "folder": set.folder() });
                say(&line.to_string());
                tokio::select! {
                    () = told_to_stop() => {}
                    () = stdin_closed() => {}
                }
                set.stop();
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    async fn run_sharded(self) -> Result<ExitCode> {
        let options = sharded::Options {
            shards: self.shards.into(),
            nodes_per_shard: self.nodes.into(),
            version: self.version,
            oplog_mb: self.oplog_mb,
            cache_gb: self.cache_gb,
            server_balancer: self.balancer,
            auth: self.auth,
            extra_args: self.extra_args,
        };
        tokio::select! {
            biased; // told to stop while starting: stop
            () = told_to_stop() => Ok(ExitCode::SUCCESS),
            cluster = ShardedCluster::start(options) => {
                let cluster = cluster?;
                let sets = cluster.shards().iter().map(ReplicaSet::uri);
                let shards: Vec<_> = sets.collect();
                let router = if cluster.has_mongos().await { "mongos" } else { "front" };
                let line = json!({ "uri": cluster.uri(), "router": router, "shards": shards, "config": cluster.config().uri() });
                say(&line.to_string());
                tokio::select! {
                    () = told_to_stop() => {}
                    () = stdin_closed() => {}
                }
                cluster.stop();
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Fill {
    async fn run(self) -> Result<ExitCode> {
        let client = connect(&self.uri).await?;
        let set = DataSet {
            database: self.database,
            documents: self.documents,
            approx_bytes: self.bytes,
            collections: self.collections,
            seed: self.seed,
            indexes: !self.no_indexes,
        };
        let filled = testbed::fill(&client, set).await;
        end(client).await;
        say(&json!(filled?).to_string());
        Ok(ExitCode::SUCCESS)
    }
}

impl Write {
    async fn run(self) -> Result<ExitCode> {
        let client = connect(&self.uri).await?;
        let defaults = LoadOptions::default();
        let options = LoadOptions {
            seed: self.seed.unwrap_or(defaults.seed),
            ops_per_second: self.rate,
            databases: self.databases,
            collections: self.collections,
            threads: self.threads,
            ddl: self.ddl,
        };
        let load = Load::start(client.clone(), options);
        let time = self.seconds.map_or(Duration::MAX, Duration::from_secs_f64);
        tokio::select! {
            () = told_to_stop() => {}
            () = tokio::time::sleep(time) => {}
        }
        let counts = load.stop().await;
        end(client).await;
        say(&json!(counts).to_string());
        Ok(ExitCode::SUCCESS)
    }
}

impl Compare {
    async fn run(self) -> Result<ExitCode> {
        let (source, target) = (connect(&self.source).await?, connect(&self.target).await?);
        let pick = |database: &str, collection: &str| {
            let left_out = self.except.iter().any(|name| name == database);
            if left_out { None } else { parity::everything(database, collection) }
        };
        let report = testbed::compare(&source, &target, pick).await;
        end(source).await;
        end(target).await;
        let report = report?;
        match self.output {
            Output::Json => say(&json!(report).to_string()),
            Output::Text => say(&table(&report)),
        }
        Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// A line for each namespace, the differences below, the verdict last.
fn table(report: &Report) -> String {
    let width = report.namespaces.iter().map(|line| line.namespace.len()).max().unwrap_or(0).max("namespace".len());
    let mut text = format!("{:width$} {:>12} {:>12} {:>12}\n", "namespace", "source", "target", "differences");
    for line in &report.namespaces {
        let (source, target, differences) = (line.source_documents, line.target_documents, line.differences);
        text += &format!("{:width$} {source:>12} {target:>12} {differences:>12}\n", line.namespace);
    }
    for difference in &report.differences {
        text += &format!("{difference}\n");
    }
    let (source, target) = report.documents();
    let verdict = if report.is_equal() { "equal" } else { "DIFFERENT" };
    text + &format!("{verdict}: {source} documents on the source, {target} on the target, compared byte for byte")
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads: nothing to be done about it.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn told_to_stop() {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (mut interrupt, mut terminate) = (interrupt.expect("SIGINT"), terminate.expect("SIGTERM"));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Read by a thread of its own: one of tokio's would keep the runtime from ending.
async fn stdin_closed() {
    let (closed, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = closed.send(());
    });
    let _ = told.await;
}
