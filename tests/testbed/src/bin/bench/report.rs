//! What was measured: as JSON with every number, and as a table for people.

use std::fmt::Write as _;

use serde::Serialize;

use crate::copy::Copied;
use crate::latency::Latency;
use crate::meter::{Cpu, Machine};
use crate::tail::Burst;

/// A middle value with its extremes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Spread { median, min, max })
    }
}

/// Calls of one kind, as mongoferry counted them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Calls {
    pub count: f64,
    pub seconds: f64,
}

/// All documents brought onto the target once.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    pub seconds: f64,
    pub documents_per_second: f64,
    /// Of 1,000,000 bytes of documents.
    pub megabytes_per_second: f64,
    pub cpu_seconds: Cpu,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
}

/// What only mongoferry has.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    pub seconds_until_planned: f64,
    pub seconds_until_tailing: f64,
    pub seconds_until_indexes_built: f64,
    pub client_peak_memory_bytes: Option<u64>,
    pub reads: Calls,
    pub inserts: Calls,
}

/// Documents and indexes, from nothing.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Whole {
    pub seconds: f64,
    /// Of these, for the documents.
    pub insert_seconds: f64,
    pub documents_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bursts {
    pub kind: &'static str,
    pub operations: u64,
    /// From the first write on the source until all is visible on the target.
    pub seconds: f64,
    pub events_per_second: f64,
    /// What the source needed meanwhile, and what it needs when nobody tails it.
    pub source_seconds: f64,
    pub source_per_second: f64,
    pub source_alone_per_second: f64,
    pub of_source_alone: f64,
    pub cpu_seconds: Cpu,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    pub documents: u64,
    pub bytes: u64,
    pub collections: usize,
    pub secondary_indexes: usize,
    pub documents_per_batch: u32,
    pub seed: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    pub mongoferry: String,
    pub mongod: String,
    pub mongodump: Option<String>,
}

/// Numbers of one run divided by those of the same round.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ratios {
    /// Documents a second of the copy phase, of the floor's. The target is 0.8.
    pub copy_of_floor: Option<Spread>,
    /// The CPU seconds of the floor, servers included, by the copy's: what the ratio is when the cores are the limit and
    /// nobody else has them. Much steadier than the times where others do.
    pub copy_of_floor_by_cpu: Option<Spread>,
    /// With indexes and start: the floor's seconds by mongoferry's.
    pub whole_of_floor: Option<Spread>,
    pub dump_restore_of_floor: Option<Spread>,
    pub copy_of_dump_restore: Option<Spread>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Grows when a field changes its meaning or goes.
    pub format: u32,
    pub command: Vec<String>,
    pub versions: Versions,
    pub machine: Machine,
    pub cache_gb: f64,
    pub writers: usize,
    pub partitions: usize,
    pub data: Data,
    pub ratios: Ratios,
    /// All documents read and nothing else done, by as many cursors as there are collections.
    pub read_seconds: Vec<f64>,
    pub floor: Vec<Round>,
    pub copy: Vec<Round>,
    pub whole_floor: Vec<Whole>,
    pub whole: Vec<Whole>,
    /// None where the tools are not on the search path.
    pub dump_restore: Option<Vec<Round>>,
    pub tail: Vec<Bursts>,
    pub latency: Option<Latency>,
    /// Whether both sides were equal at the end, byte for byte, as the test bed sees it.
    pub equal: Option<bool>,
}

impl Round {
    pub fn new(data: &Data, seconds: f64, cpu_seconds: Cpu, migration: Option<Migration>) -> Round {
        Round {
            seconds,
            documents_per_second: data.documents as f64 / seconds,
            megabytes_per_second: data.bytes as f64 / 1e6 / seconds,
            cpu_seconds,
            migration,
        }
    }
}

impl Migration {
    pub fn of(copied: &Copied) -> Migration {
        Migration {
            seconds_until_planned: copied.plan_seconds,
            seconds_until_tailing: copied.tailing_seconds,
            seconds_until_indexes_built: copied.ready_seconds,
            client_peak_memory_bytes: copied.peak_memory,
            reads: copied.reads,
            inserts: copied.inserts,
        }
    }
}

impl Whole {
    pub fn new(data: &Data, seconds: f64, insert_seconds: f64, migration: Option<Migration>) -> Whole {
        Whole { seconds, insert_seconds, documents_per_second: data.documents as f64 / seconds, migration }
    }
}

impl Bursts {
    pub fn new(burst: &Burst, alone: &Burst) -> Bursts {
        let operations = burst.operations as f64;
        let seconds = burst.target_seconds.unwrap_or(f64::NAN);
        Bursts {
            kind: burst.kind.label(),
            operations: burst.operations,
            seconds,
            events_per_second: operations / seconds,
            source_seconds: burst.source_seconds,
            source_per_second: operations / burst.source_seconds,
            source_alone_per_second: operations / alone.source_seconds,
            of_source_alone: alone.source_seconds / seconds,
            cpu_seconds: burst.cpu,
        }
    }
}

impl Report {
    /// Fills in what follows from the rounds.
    pub fn conclude(&mut self) {
        let rate = |rounds: &[Round]| rounds.iter().map(|round| round.documents_per_second).collect::<Vec<_>>();
        let pairs = |a: Vec<f64>, b: Vec<f64>| Spread::of(a.into_iter().zip(b).map(|(a, b)| a / b));
        self.ratios.copy_of_floor = pairs(rate(&self.copy), rate(&self.floor));
        let together = |rounds: &[Round]| rounds.iter().map(|round| round.cpu_seconds.together()).collect::<Vec<_>>();
        self.ratios.copy_of_floor_by_cpu = pairs(together(&self.floor), together(&self.copy));
        let whole = |rounds: &[Whole]| rounds.iter().map(|whole| whole.documents_per_second).collect::<Vec<_>>();
        self.ratios.whole_of_floor = pairs(whole(&self.whole), whole(&self.whole_floor));
        if let Some(rounds) = &self.dump_restore {
            self.ratios.dump_restore_of_floor = pairs(rate(rounds), rate(&self.floor));
            self.ratios.copy_of_dump_restore = pairs(rate(&self.copy), rate(rounds));
        }
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        self.head(&mut text);
        self.copies(&mut text);
        self.wholes(&mut text);
        self.tails(&mut text);
        if let Some(equal) = self.equal {
            line(&mut text, if equal { "\nBoth sides are equal at the end, byte for byte." } else { "\nTHE TWO SIDES DIFFER AT THE END." });
        }
        text
    }

    fn head(&self, text: &mut String) {
        let (data, machine) = (&self.data, &self.machine);
        line(
            text,
            &format!(
                "{} documents, {:.0} MB, {} collections, {} secondary indexes, seed {}; {} documents per batch, {} connections",
                grouped(data.documents as f64),
                data.bytes as f64 / 1e6,
                data.collections,
                data.secondary_indexes,
                data.seed,
                grouped(f64::from(data.documents_per_batch)),
                self.writers,
            ),
        );
        line(
            text,
            &format!(
                "{} cores {}, {:.0} GiB, shared by everything below; {}, mongod {} with {} GB of cache each",
                machine.cores,
                machine.processor,
                machine.memory_bytes as f64 / f64::from(1 << 30),
                self.versions.mongoferry,
                self.versions.mongod,
                self.cache_gb,
            ),
        );
    }

    fn copies(&self, text: &mut String) {
        let rounds = self.floor.len();
        line(text, &format!("\nCopy, without secondary indexes: median of {rounds} rounds (min–max)"));
        row(text, "", ["documents/s", "MB/s", "of floor", "client CPU s", "µs/doc"].map(String::from));
        let show = |text: &mut String, name: &str, rounds: &[Round], ratio: Option<Spread>| {
            let of = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
            let client = of(|round| round.cpu_seconds.client());
            row(
                text,
                name,
                [
                    spread(of(|round| round.documents_per_second), 0),
                    spread(of(|round| round.megabytes_per_second), 0),
                    spread(ratio, 2),
                    spread(client, 2),
                    client.map_or_else(String::new, |client| format!("{:.2}", client.median * 1e6 / self.data.documents as f64)),
                ],
            );
        };
        show(text, "floor: encoded documents inserted", &self.floor, None);
        show(text, "mongoferry, copy phase", &self.copy, self.ratios.copy_of_floor);
        match &self.dump_restore {
            Some(rounds) => show(text, "mongodump | mongorestore", rounds, self.ratios.dump_restore_of_floor),
            None => line(text, "  mongodump | mongorestore              not on PATH"),
        }

        line(text, "\nWhere the CPU seconds go: medians");
        row(text, "", ["seconds", "source", "target", "client user", "client system", "these together", "others"].map(String::from));
        let shares = |text: &mut String, name: &str, rounds: &[Round]| {
            let of =
                |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value)).map_or_else(String::new, |s| format!("{:.2}", s.median));
            row(
                text,
                name,
                [
                    of(|round| round.seconds),
                    of(|round| round.cpu_seconds.source),
                    of(|round| round.cpu_seconds.target),
                    of(|round| round.cpu_seconds.client_user),
                    of(|round| round.cpu_seconds.client_system),
                    of(|round| round.cpu_seconds.together()),
                    of(|round| round.cpu_seconds.others),
                ],
            );
        };
        shares(text, "floor", &self.floor);
        shares(text, "mongoferry", &self.copy);
        if let Some(rounds) = &self.dump_restore {
            shares(text, "mongodump | mongorestore", rounds);
        }
        let by_cpu = spread(self.ratios.copy_of_floor_by_cpu, 2);
        line(
            text,
            &format!("  By CPU seconds, the copy is {by_cpu} of the floor; reading is no part of the floor, and shares its cores here."),
        );
        line(text, "  The client's seconds are those of the whole process from its start, its answers to this program included.");
        let Some(reads) = Spread::of(self.read_seconds.iter().map(|seconds| self.data.documents as f64 / seconds)) else { return };
        line(text, &format!("  The source alone is read at {} documents/s.", spread(Some(reads), 0)));
        let migrations: Vec<&Migration> = self.copy.iter().filter_map(|round| round.migration.as_ref()).collect();
        let peak = Spread::of(migrations.iter().filter_map(|m| m.client_peak_memory_bytes).map(|bytes| bytes as f64 / f64::from(1 << 20)));
        let of =
            |calls: fn(&Migration) -> Calls| Spread::of(migrations.iter().map(|m| calls(m).seconds / calls(m).count.max(1.0) * 1000.0));
        line(
            text,
            &format!(
                "  mongoferry: one read takes {} ms, one insert {} ms; at most {} MiB of memory.",
                spread(of(|m| m.reads), 1),
                spread(of(|m| m.inserts), 1),
                spread(peak, 0)
            ),
        );
    }

    fn wholes(&self, text: &mut String) {
        if self.whole.is_empty() {
            return;
        }
        line(text, "\nWith secondary indexes, from nothing until all are built");
        row(text, "", ["seconds", "documents/s", "of floor"].map(String::from));
        let show = |text: &mut String, name: &str, rounds: &[Whole], ratio: Option<Spread>| {
            let of = |value: fn(&Whole) -> f64| Spread::of(rounds.iter().map(value));
            row(text, name, [spread(of(|w| w.seconds), 1), spread(of(|w| w.documents_per_second), 0), spread(ratio, 2)]);
        };
        show(text, "floor: inserts, then builds", &self.whole_floor, None);
        show(text, "mongoferry, from its start", &self.whole, self.ratios.whole_of_floor);
        let migrations = || self.whole.iter().filter_map(|whole| whole.migration.as_ref());
        line(
            text,
            &format!(
                "  mongoferry planned after {} s, tailed after {} s.",
                spread(Spread::of(migrations().map(|m| m.seconds_until_planned)), 2),
                spread(Spread::of(migrations().map(|m| m.seconds_until_tailing)), 1)
            ),
        );
    }

    fn tails(&self, text: &mut String) {
        if self.tail.is_empty() {
            return;
        }
        line(text, "\nTail: bursts on the source, until the last is visible on the target");
        row(text, "", ["operations", "events/s", "source then/s", "source alone/s", "of it", "client CPU s"].map(String::from));
        for burst in &self.tail {
            row(
                text,
                burst.kind,
                [
                    grouped(burst.operations as f64),
                    grouped(burst.events_per_second),
                    grouped(burst.source_per_second),
                    grouped(burst.source_alone_per_second),
                    format!("{:.2}", burst.of_source_alone),
                    format!("{:.2}", burst.cpu_seconds.client()),
                ],
            );
        }
        let Some(latency) = &self.latency else { return };
        line(
            text,
            &format!(
                "\nLatency at {:.0} inserts/s, {} in all: from the commit on the source to visible on the target, ms",
                latency.inserts_per_second,
                grouped(latency.inserts as f64)
            ),
        );
        row(text, "", ["p50", "p90", "p99", "max"].map(String::from));
        for (name, p) in [("from the acknowledgement", &latency.from_acknowledged_ms), ("from before it was sent", &latency.from_sent_ms)] {
            row(text, name, [p.p50, p.p90, p.p99, p.max].map(|ms| format!("{ms:.1}")));
        }
    }
}

fn line(text: &mut String, one: &str) {
    text.push_str(one);
    text.push('\n');
}

fn row<const N: usize>(text: &mut String, name: &str, cells: [String; N]) {
    // Writing to a string cannot fail.
    let _ = write!(text, "  {name:36}");
    for cell in cells {
        let _ = write!(text, "  {cell:>24}");
    }
    let trimmed = text.trim_end().len();
    text.truncate(trimmed);
    text.push('\n');
}

fn spread(spread: Option<Spread>, digits: usize) -> String {
    let number = |value: f64| if digits == 0 { grouped(value) } else { format!("{value:.digits$}") };
    match spread {
        None => String::new(),
        Some(Spread { median, min, max }) => format!("{} ({}–{})", number(median), number(min), number(max)),
    }
}

/// A whole number with commas.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([3.0, 9.0, 1.0]).unwrap().median, 3.0);
        assert!(Spread::of([]).is_none());
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(["0", "999", "1,000", "1,234,568"], [0.0, 999.0, 1000.0, 1_234_567.8].map(grouped));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let data = Data { documents: 100, ..Data::default() };
        let round = |seconds| Round::new(&data, seconds, Cpu::default(), None);
        let mut report = Report { floor: vec![round(1.0), round(4.0)], copy: vec![round(2.0), round(5.0)], ..Report::default() };
        report.conclude();
        let ratio = report.ratios.copy_of_floor.unwrap();
        assert_eq!((ratio.min, ratio.max), (0.5, 0.8));
    }
}
