use super::*;
use crate::model::{ClusterTime, CutoverStatus, Gate, InFlightStatus, Phase, UnfinishedIndex};

/// `name{label=value,…}` of every series of ours, sorted; the buckets of a histogram are left out.
fn series(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("mongoferry_") && !line.contains("_bucket{"))
        .filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series.replace('"', "")))
        .collect();
    found.sort();
    found
}

fn value(metrics: &Metrics, series: &str) -> f64 {
    let text = metrics.render();
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
    line.unwrap_or_else(|| panic!("{series} is not exposed")).rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn the_exposition_is_golden() {
    let golden = include_str!("exposition.golden").replace("VERSION", env!("CARGO_PKG_VERSION"));
    let now = series(&Metrics::new().render()).join("\n") + "\n";
    assert_eq!(now, golden, "dashboards and alerts of others read these names: change exposition.golden only on purpose");
}

#[test]
fn the_catalogue_is_what_is_exposed() {
    let text = Metrics::new().render();
    for entry in CATALOGUE {
        assert!(text.contains(&format!("# HELP {} {}\n", entry.name, entry.help)), "{}", entry.name);
        assert!(text.contains(&format!("# TYPE {} {}\n", entry.name, entry.kind.label())), "{}", entry.name);
        for (label, values) in entry.labels {
            for value in *values {
                let pair = format!("{label}=\"{value}\"");
                assert!(text.lines().any(|l| l.starts_with(&format!("{}{{", entry.name)) && l.contains(&pair)), "{} {pair}", entry.name);
            }
        }
    }
    let exposed = text.lines().filter(|line| line.starts_with("# TYPE mongoferry_")).count();
    assert_eq!(exposed, CATALOGUE.len(), "something is exposed that is not in the catalogue");
}

#[test]
fn names_and_kinds_keep_the_rules() {
    for entry in CATALOGUE {
        assert!(entry.name.starts_with("mongoferry_"), "{}", entry.name);
        assert_eq!(entry.name.ends_with("_total"), entry.kind == Kind::Counter, "{}", entry.name);
        assert!(entry.help.ends_with('.') && !entry.help.contains('|'), "{}", entry.name);
        if let Kind::Histogram { buckets } = entry.kind {
            assert!(buckets.is_sorted() && !buckets.is_empty(), "{}", entry.name);
        }
    }
}

#[test]
fn the_process_itself_is_measured_without_a_prefix() {
    if cfg!(target_os = "linux") {
        assert!(Metrics::new().render().contains("\nprocess_resident_memory_bytes "));
    }
}

#[test]
fn the_reference_has_a_row_per_metric() {
    assert_eq!(reference_table().lines().count(), CATALOGUE.len() + 2);
    assert!(reference_table().contains(
        "| `mongoferry_retries_total` | counter | `side`: source, target; `cause`: network, election, overload, timeout, other |"
    ));
}

#[test]
fn unknown_is_not_zero() {
    let metrics = Metrics::new();
    metrics.show(&Status::default());
    for name in [
        "lag_seconds",
        "oplog_headroom_seconds",
        "oplog_window_seconds",
        "checkpoint_age_seconds",
        "parity_age_seconds",
        "lease_age_seconds",
    ] {
        assert!(value(&metrics, &format!("mongoferry_{name}")).is_nan(), "{name}");
    }
}

#[test]
fn the_gauges_show_the_status() {
    let metrics = Metrics::new();
    let index = |state: &str| UnfinishedIndex { ns: "a.b".into(), name: "x_1".into(), state: state.into(), error: None, progress: None };
    metrics.show(&Status {
        phase: "tailing".into(),
        activity: "paused".into(),
        lag_seconds: Some(1.5),
        applied_cluster_time: Some(ClusterTime { t: 1_700_000_000, i: 3 }),
        gates: vec![
            Gate { name: "lag".into(), open: true, why: String::new() },
            Gate { name: "parity".into(), open: false, why: String::new() },
        ],
        in_flight: InFlightStatus { bytes: 10, limit_bytes: 100 },
        unfinished_indexes: vec![index("failed"), index("failed"), index("waiting")],
        cutover: Some(CutoverStatus { writes_blocked_seconds: Some(0.8), ..CutoverStatus::default() }),
        ..Status::default()
    });
    for (series, expected) in [
        ("mongoferry_lag_seconds", 1.5),
        ("mongoferry_applied_cluster_time_seconds", 1_700_000_000.0),
        ("mongoferry_in_flight_limit_bytes", 100.0),
        ("mongoferry_cutover_gate_open{gate=\"lag\"}", 1.0),
        ("mongoferry_cutover_gate_open{gate=\"parity\"}", 0.0),
        ("mongoferry_unfinished_indexes{state=\"failed\"}", 2.0),
        ("mongoferry_unfinished_indexes{state=\"building\"}", 0.0),
        ("mongoferry_writes_blocked_seconds", 0.8),
        ("mongoferry_activity{activity=\"paused\"}", 1.0),
        ("mongoferry_activity{activity=\"running\"}", 0.0),
    ] {
        assert!((value(&metrics, series) - expected).abs() < 1e-9, "{series}");
    }
    for phase in Phase::LABELS {
        let shown = value(&metrics, &format!("mongoferry_phase{{phase=\"{phase}\"}}"));
        assert_eq!(shown > 0.5, phase == "tailing", "{phase}");
    }
}

#[test]
fn verbs_count_and_getters_read_them() {
    let metrics = Metrics::new();
    metrics.read(EventOp::Update, 3, 300);
    metrics.read(EventOp::Ddl, 1, 50);
    metrics.applied(AppliedOp::Reread, 2);
    metrics.applied(AppliedOp::Ddl, 1);
    metrics.applied_batch(3, Duration::from_millis(4));
    metrics.copied(10, 1000, 2);
    metrics.reread(1);
    metrics.retried(Side::Target, RetryCause::Election);
    metrics.mismatches(MismatchKind::Extra, 7);
    metrics.partitions(4, 2, 1);
    assert_eq!((metrics.events_read_total(), metrics.events_applied_total(), metrics.events_applied(AppliedOp::Reread)), (4, 3, 2));
    assert_eq!(
        (metrics.copied_documents(), metrics.copied_bytes(), metrics.already_there_documents(), metrics.reread_documents()),
        (10, 1000, 2, 1)
    );
    assert_eq!(metrics.retries_total(), 1);
    for (series, expected) in [
        ("mongoferry_events_read_bytes_total", 350.0),
        ("mongoferry_apply_batch_events_sum", 3.0),
        ("mongoferry_retries_total{cause=\"election\",side=\"target\"}", 1.0),
        ("mongoferry_mismatches{kind=\"extra\"}", 7.0),
        ("mongoferry_copy_partitions{state=\"waiting\"}", 4.0),
    ] {
        assert!((value(&metrics, series) - expected).abs() < 1e-9, "{series}");
    }
}

#[test]
fn an_index_build_ends_with_its_guard() {
    let metrics = Metrics::new();
    let (first, _second) = (metrics.index_build(), metrics.index_build());
    drop(first);
    assert!((value(&metrics, "mongoferry_index_builds_running") - 1.0).abs() < 1e-9);
}

#[test]
fn an_age_set_by_a_verb_is_exposed() {
    let metrics = Metrics::new();
    metrics.parity_proved(Duration::from_secs(60));
    metrics.checkpoint_saved(Duration::from_millis(3));
    metrics.lease_renewed();
    for (series, least) in
        [("mongoferry_parity_age_seconds", 60.0), ("mongoferry_checkpoint_age_seconds", 0.0), ("mongoferry_lease_age_seconds", 0.0)]
    {
        let age = value(&metrics, series);
        assert!((least..least + 30.0).contains(&age), "{series} {age}");
    }
    metrics.lease_gone();
    assert!(value(&metrics, "mongoferry_lease_age_seconds").is_nan());
}
