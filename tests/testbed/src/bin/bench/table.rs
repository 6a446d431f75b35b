//! What was measured, as a table for people.

use std::fmt::Write as _;

use crate::report::{Calls, Migration, Report, Round, Spread, Whole};

impl Report {
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
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(["0", "999", "1,000", "1,234,568"], [0.0, 999.0, 1000.0, 1_234_567.8].map(grouped));
    }
}
