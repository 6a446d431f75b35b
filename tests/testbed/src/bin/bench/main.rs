//! `bench`: how fast mongoferry copies and follows, held against a floor measured in the same run.
//!
//! Alone, a number says more of the machine than of the program. So each round measures, one behind the other and each
//! on a fresh target: the floor (the same documents, encoded already, inserted over as many connections with nothing
//! else done), mongoferry's copy, and `mongodump | mongorestore` where there is one. The ratios are what counts.

mod arguments;
mod clusters;
mod copy;
mod failure;
mod ferry;
mod floor;
mod latency;
mod meter;
mod report;
mod restore;
mod table;
mod tail;
mod wire;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use mongodb::Client;
use mongodb::bson::doc;
use testbed::{Options, ReplicaSet, Version, connect, end, fill, parity};

use arguments::Arguments;
use copy::Copied;
use failure::{Failure, Result};
use ferry::Ferry;
use floor::Indexes;
use latency::Steady;
use meter::{Machine, Meter};
use report::{Bursts, Data, Migration, Report, Round, Versions, Whole};
use restore::Tools;
use tail::Subject;

/// The same as mongoferry's: what is compared must not be the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mongoferry's batches: so many bytes, and so many documents at most.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_DOCUMENTS: u64 = 5_000;
/// MiB. Large enough that neither side cuts its oplog while it is measured.
const OPLOG_MB: u32 = 4096;
/// The database of the data set, and the one that is written to while mongoferry tails.
const DATABASE: &str = "shop";
const LIVE: &str = "live";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::from(2)
        }
    }
}

async fn run(mut arguments: Arguments) -> Result<()> {
    let json_path = arguments.json.take();
    let (json, table) = if arguments.shards.is_empty() {
        let bench = Bench::prepare(arguments).await?;
        let measured = bench.measure().await;
        bench.close().await;
        let report = measured?;
        (serde_json::to_string_pretty(&report), report.table())
    } else {
        let mut all = Vec::new();
        for shards in &arguments.shards {
            all.push(clusters::measure(&arguments, *shards).await?);
        }
        (serde_json::to_string_pretty(&all), clusters::table(&all))
    };
    let json = json.map_err(|error| Failure::new(error.to_string()))?;
    match json_path {
        Some(path) if path == Path::new("-") => println!("{json}"),
        path => {
            println!("{table}");
            if let Some(path) = path {
                std::fs::write(&path, json + "\n").map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
                eprintln!("bench: every number is in {}", path.display());
            }
        }
    }
    Ok(())
}

/// The source with its data, and what is known of it.
struct Bench {
    arguments: Arguments,
    server: ReplicaSet,
    source: Client,
    source_pid: u32,
    /// With their secondary indexes, which are on the source only while the whole is measured.
    indexes: Indexes,
    data: Data,
    versions: Versions,
    tools: Option<Tools>,
}

/// An empty server to write to.
struct Target {
    server: ReplicaSet,
    client: Client,
    pid: u32,
}

impl Target {
    async fn start(cache_gb: f64) -> Result<Target> {
        let server =
            ReplicaSet::start(Options { name: "target".into(), oplog_mb: OPLOG_MB, cache_gb, test_commands: false, ..Options::default() })
                .await?;
        let client = connect(&server.uri()).await?;
        let pid = pid(&client).await?;
        Ok(Target { server, client, pid })
    }

    async fn stop(self) {
        end(self.client).await;
        self.server.stop();
    }
}

impl Bench {
    async fn prepare(arguments: Arguments) -> Result<Bench> {
        tell("starting the source");
        let options =
            Options { name: "source".into(), oplog_mb: OPLOG_MB, cache_gb: arguments.cache_gb, test_commands: false, ..Options::default() };
        let server = ReplicaSet::start(options).await?;
        let source = connect(&server.uri()).await?;
        let source_pid = pid(&source).await?;
        tell(&format!("filling it with {} documents", arguments.documents));
        let filled = fill(&source, arguments.data_set(true)).await?;
        let collections = source.database(DATABASE).list_collection_names().await?;
        let indexes = floor::indexes(&source, DATABASE, &collections).await?;
        floor::drop_indexes(&source, DATABASE, &collections).await?;
        let mean = filled.bytes / filled.documents.max(1);
        let data = Data {
            documents: filled.documents,
            bytes: filled.bytes,
            collections: collections.len(),
            secondary_indexes: indexes.iter().map(|(_, specs)| specs.len()).sum(),
            documents_per_batch: u32::try_from((BATCH_BYTES / mean.max(1)).clamp(1, BATCH_DOCUMENTS)).unwrap_or(1),
            seed: arguments.seed,
        };
        let tools = Tools::find();
        let versions = Versions {
            mongoferry: version(&arguments.mongoferry)?,
            mongod: Version::default().to_string(),
            mongodump: tools.as_ref().map(Tools::version),
        };
        Ok(Bench { arguments, server, source, source_pid, indexes, data, versions, tools })
    }

    async fn close(self) {
        end(self.source).await;
        self.server.stop();
    }

    async fn measure(&self) -> Result<Report> {
        let mut report = Report {
            format: 1,
            command: std::env::args().collect(),
            versions: self.versions.clone(),
            machine: Machine::this(),
            cache_gb: self.arguments.cache_gb,
            writers: self.arguments.writers,
            partitions: self.arguments.partitions,
            data: self.data.clone(),
            ..Report::default()
        };
        let alone = if self.arguments.copy_only { Vec::new() } else { self.source_alone().await? };
        for round in 1..=self.arguments.rounds {
            let tail = round == self.arguments.rounds && !self.arguments.copy_only;
            tell(&format!("round {round} of {}: the floor", self.arguments.rounds));
            self.floor(&mut report).await?;
            tell("mongoferry without secondary indexes");
            self.copy(&mut report).await?;
            if let Some(tools) = &self.tools {
                tell("mongodump | mongorestore");
                let round = self.dump_restore(tools).await?;
                report.dump_restore.get_or_insert_default().push(round);
            }
            tell("mongoferry with secondary indexes");
            self.whole(&mut report, tail.then_some(&alone)).await?;
        }
        report.conclude();
        Ok(report)
    }

    fn collections(&self) -> Vec<String> {
        self.indexes.iter().map(|(collection, _)| collection.clone()).collect()
    }

    /// Nothing is left to be written, so that it is not written while something else is measured.
    async fn settle(&self) -> Result<()> {
        self.source.database("admin").run_command(doc! { "fsync": 1 }).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    fn meter(&self, client: u32, target: u32) -> Meter {
        Meter { client, source: self.source_pid, target }
    }

    async fn floor(&self, report: &mut Report) -> Result<()> {
        let target = Target::start(self.arguments.cache_gb).await?;
        let began = tokio::time::Instant::now();
        let commands = floor::encode(&self.source, DATABASE, &self.collections(), self.data.documents_per_batch).await?;
        report.read_seconds.push(began.elapsed().as_secs_f64());
        floor::create(&target.client, DATABASE, &self.collections()).await?;
        self.settle().await?;
        let meter = self.meter(std::process::id(), target.pid);
        let (seconds, cpu) = floor::send(&target.client, commands, self.arguments.writers, meter).await?;
        report.floor.push(Round::new(&self.data, seconds, cpu, None));
        let build_seconds = floor::build(&target.client, DATABASE, &self.indexes).await?;
        report.whole_floor.push(Whole::new(&self.data, seconds + build_seconds, seconds, None));
        target.stop().await;
        Ok(())
    }

    fn start(&self, target: &Target) -> Result<Ferry> {
        let mut more =
            vec![format!("--copy-writers={}", self.arguments.writers), format!("--copy-partitions={}", self.arguments.partitions)];
        more.extend(self.arguments.more.iter().cloned());
        let log = target.server.folder().join("mongoferry.log");
        Ferry::start(&self.arguments.mongoferry, &self.server.uri(), &target.server.uri(), log, &more)
    }

    async fn copied(&self, ferry: &mut Ferry, target: &Target, indexes: &Indexes) -> Result<Copied> {
        let meter = self.meter(ferry.pid(), target.pid);
        let copied = copy::watch(ferry, self.data.documents, meter, &target.client, DATABASE, indexes).await?;
        let mut there = 0;
        for collection in self.collections() {
            let collection = target.client.database(DATABASE).collection::<mongodb::bson::RawDocumentBuf>(&collection);
            there += collection.estimated_document_count().await?;
        }
        if there == self.data.documents {
            return Ok(copied);
        }
        Err(Failure::new(format!("the target has {there} documents of {}", self.data.documents)))
    }

    async fn copy(&self, report: &mut Report) -> Result<()> {
        let target = Target::start(self.arguments.cache_gb).await?;
        self.settle().await?;
        let mut ferry = self.start(&target)?;
        let copied = self.copied(&mut ferry, &target, &Indexes::new()).await?;
        ferry.stop().await?;
        report.copy.push(Round::new(&self.data, copied.copy_seconds, copied.cpu, Some(Migration::of(&copied))));
        target.stop().await;
        Ok(())
    }

    /// A whole migration; it is tailed from for as long as that is asked for.
    async fn whole(&self, report: &mut Report, alone: Option<&Vec<tail::Burst>>) -> Result<()> {
        floor::build(&self.source, DATABASE, &self.indexes).await?;
        let target = Target::start(self.arguments.cache_gb).await?;
        self.settle().await?;
        let mut ferry = self.start(&target)?;
        let copied = self.copied(&mut ferry, &target, &self.indexes).await?;
        report.whole.push(Whole::new(&self.data, copied.ready_seconds, copied.copy_seconds, Some(Migration::of(&copied))));
        if let Some(alone) = alone {
            self.tail(report, alone, &ferry, &target).await?;
        }
        ferry.stop().await?;
        if alone.is_some() {
            tell("comparing both sides");
            report.equal = Some(self.equal(&target).await?);
        }
        target.stop().await;
        floor::drop_indexes(&self.source, DATABASE, &self.collections()).await
    }

    async fn dump_restore(&self, tools: &Tools) -> Result<Round> {
        let target = Target::start(self.arguments.cache_gb).await?;
        self.settle().await?;
        let (from, to) = (self.server.uri(), target.server.uri());
        let log = target.server.folder().join("mongodump.log");
        let meter = self.meter(std::process::id(), target.pid);
        let (partitions, writers) = (self.arguments.partitions, self.arguments.writers);
        let (seconds, cpu) = tools.run(&from, &to, DATABASE, (partitions, writers), &log, meter)?;
        target.stop().await;
        Ok(Round::new(&self.data, seconds, cpu, None))
    }

    fn subject(&self, collection: &str) -> Result<Subject> {
        // The one of the shop's collections whose keys are ObjectIds and whose documents are as many as any other's.
        let from = "customers";
        Ok(Subject {
            database: LIVE.into(),
            collection: collection.into(),
            from: (DATABASE.into(), from.into()),
            operations: self.arguments.operations,
            seed: self.arguments.seed,
        })
    }

    /// What the source can take when nobody tails it.
    async fn source_alone(&self) -> Result<Vec<tail::Burst>> {
        tell("bursts on the source alone");
        self.settle().await?;
        // There is no target yet; the client stands in for it.
        let meter = self.meter(std::process::id(), std::process::id());
        let bursts = self.subject("alone")?.bursts(&self.source, None, meter).await?;
        self.source.database(LIVE).drop().await?;
        Ok(bursts)
    }

    async fn tail(&self, report: &mut Report, alone: &[tail::Burst], ferry: &Ferry, target: &Target) -> Result<()> {
        tell("bursts while mongoferry tails");
        self.settle().await?;
        let meter = self.meter(ferry.pid(), target.pid);
        let bursts = self.subject("tail")?.bursts(&self.source, Some(&target.client), meter).await?;
        report.tail = bursts.iter().zip(alone).map(|(burst, alone)| Bursts::new(burst, alone)).collect();
        tell(&format!("a steady load of {} inserts/s for {} s", self.arguments.rate, self.arguments.seconds));
        self.settle().await?;
        let steady =
            Steady { database: LIVE.into(), collection: "steady".into(), rate: self.arguments.rate, seconds: self.arguments.seconds };
        report.latency = Some(steady.measure(&self.source, &target.client).await?);
        Ok(())
    }

    /// Documents and collections; some indexes have their final form only after the cutover.
    async fn equal(&self, target: &Target) -> Result<bool> {
        use parity::Kind;
        let compared = testbed::compare(&self.source, &target.client, parity::everything).await?;
        let of_indexes = |kind| matches!(kind, Kind::MissingIndex | Kind::ExtraIndex | Kind::ChangedIndex);
        let differences: Vec<_> = compared.differences.iter().filter(|difference| !of_indexes(difference.kind)).collect();
        for difference in differences.iter().take(10) {
            tell(&difference.to_string());
        }
        Ok(differences.is_empty())
    }
}

fn tell(what: &str) {
    eprintln!("bench: {what}");
}

/// The process behind a connection.
async fn pid(client: &Client) -> Result<u32> {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await?;
    let pid = status.get("pid").and_then(|pid| pid.as_i64().or_else(|| pid.as_i32().map(i64::from)));
    pid.and_then(|pid| u32::try_from(pid).ok()).ok_or_else(|| Failure::new("a server without a process id"))
}

fn version(mongoferry: &Path) -> Result<String> {
    let output = Command::new(mongoferry).arg("--version").output();
    let output = output.map_err(|error| Failure::new(format!("cannot run {}: {error}", mongoferry.display())))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
