//! What was measured, with every number; as JSON it is the file, and [`super::table`] is for people.

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
    fn ratios_are_taken_within_a_round() {
        let data = Data { documents: 100, ..Data::default() };
        let round = |seconds| Round::new(&data, seconds, Cpu::default(), None);
        let mut report = Report { floor: vec![round(1.0), round(4.0)], copy: vec![round(2.0), round(5.0)], ..Report::default() };
        report.conclude();
        let ratio = report.ratios.copy_of_floor.unwrap();
        assert_eq!((ratio.min, ratio.max), (0.5, 0.8));
    }
}
