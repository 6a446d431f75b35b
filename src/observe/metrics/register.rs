//! From an entry of the catalogue to a registered handle. All children of a label are made here, once, so
//! that no call site ever looks one up and every series is exposed from the start.

use super::catalogue::{Entry, Kind};
use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

const VALID: &str = "the catalogue holds valid names, each registered once";

fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect(VALID);
    registry.register(Box::new(collector.clone())).expect(VALID);
    collector
}

fn opts(entry: &Entry) -> Opts {
    Opts::new(entry.name, entry.help)
}

/// A counter without labels.
pub(super) fn counter(registry: &Registry, entry: &Entry) -> IntCounter {
    registered(registry, IntCounter::with_opts(opts(entry)))
}

/// A counter per value of the one label.
pub(super) fn counters<const N: usize>(registry: &Registry, entry: &Entry, values: [&str; N]) -> [IntCounter; N] {
    let family = registered(registry, IntCounterVec::new(opts(entry), &[entry.labels[0].0]));
    values.map(|value| family.with_label_values(&[value]))
}

/// A counter per pair of values of the two labels.
pub(super) fn counter_grid<const N: usize, const M: usize>(
    registry: &Registry,
    entry: &Entry,
    outer: [&str; N],
    inner: [&str; M],
) -> [[IntCounter; M]; N] {
    let family = registered(registry, IntCounterVec::new(opts(entry), &[entry.labels[0].0, entry.labels[1].0]));
    outer.map(|a| inner.map(|b| family.with_label_values(&[a, b])))
}

/// A gauge without labels.
pub(super) fn gauge(registry: &Registry, entry: &Entry) -> Gauge {
    registered(registry, Gauge::with_opts(opts(entry)))
}

/// The same for a value that is not known yet.
pub(super) fn unknown_gauge(registry: &Registry, entry: &Entry) -> Gauge {
    let gauge = gauge(registry, entry);
    gauge.set(f64::NAN);
    gauge
}

/// A gauge per value of the one label.
pub(super) fn gauges<const N: usize>(registry: &Registry, entry: &Entry, values: [&str; N]) -> [Gauge; N] {
    let family = registered(registry, GaugeVec::new(opts(entry), &[entry.labels[0].0]));
    values.map(|value| family.with_label_values(&[value]))
}

/// A histogram with the entry's buckets.
pub(super) fn histogram(registry: &Registry, entry: &Entry) -> Histogram {
    let buckets = match entry.kind {
        Kind::Histogram { buckets } => buckets.to_vec(),
        Kind::Counter | Kind::Gauge => Vec::new(),
    };
    registered(registry, Histogram::with_opts(HistogramOpts::from(opts(entry)).buckets(buckets)))
}
