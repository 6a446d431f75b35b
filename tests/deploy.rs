//! What is shipped for operating agrees with the program: alert rules, dashboard, runbook.

use mongoferry::error::Error;
use mongoferry::model::{ClusterTime, Side};
use mongoferry::observe::{CATALOGUE, Entry, Kind, Metrics};
use regex::Regex;
use std::collections::BTreeSet;

const ALERTS: &str = include_str!("../deploy/alerts.yml");
const ALERTS_TEST: &str = include_str!("../deploy/alerts_test.yml");
const DASHBOARD: &str = include_str!("../deploy/grafana-dashboard.json");
const RUNBOOK: &str = include_str!("../deploy/RUNBOOK.md");

/// Every PromQL expression of the dashboard, variables' queries included.
fn dashboard_expressions() -> Vec<String> {
    fn walk(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    if let (serde_json::Value::String(text), "expr" | "definition") = (value, name.as_str()) {
                        found.push(text.clone());
                    } else {
                        walk(value, found);
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::from_str(DASHBOARD).expect("the dashboard is JSON"), &mut found);
    found
}

/// The entry that exposes a name; only a histogram has suffixes.
fn entry_of(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| match entry.kind {
        Kind::Counter | Kind::Gauge => entry.name == name,
        Kind::Histogram { .. } => ["_bucket", "_sum", "_count"].iter().any(|suffix| name.strip_suffix(suffix) == Some(entry.name)),
    })
}

/// What is wrong with the metrics and labels named in a text.
fn objections(text: &str) -> Vec<String> {
    let uses = Regex::new(r"\b(mongoferry_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let matchers = Regex::new(r#"([a-z_]+)=~?\\?"([^"\\]*)\\?""#).unwrap();
    let mut found = Vec::new();
    for used in uses.captures_iter(text) {
        let name = &used[1];
        let Some(entry) = entry_of(name) else {
            found.push(format!("{name} is not exposed"));
            continue;
        };
        for matcher in used.get(2).into_iter().flat_map(|labels| matchers.captures_iter(labels.as_str())) {
            let (label, value) = (&matcher[1], &matcher[2]);
            if matches!(label, "job" | "instance") {
                continue;
            }
            match entry.labels.iter().find(|(known, _)| *known == label) {
                None => found.push(format!("{name} has no label {label}")),
                Some((_, values)) => {
                    found.extend(value.split('|').filter(|v| !values.contains(v)).map(|v| format!("{name}: {label} is never {v}")));
                }
            }
        }
    }
    found
}

/// Anchors of the runbook's headings, as a renderer of Markdown makes them.
fn anchors() -> BTreeSet<String> {
    let headings = RUNBOOK.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| heading.to_lowercase().replace(' ', "-")).collect()
}

fn alert_names() -> Vec<&'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
fn alerts_and_dashboard_name_only_what_is_exposed() {
    assert_eq!(objections(ALERTS), Vec::<String>::new());
    assert_eq!(objections(ALERTS_TEST), Vec::<String>::new());
    let expressions = dashboard_expressions();
    assert!(expressions.len() > 30);
    for expression in expressions {
        assert_eq!(objections(&expression), Vec::<String>::new(), "{expression}");
    }
}

#[test]
fn the_check_itself_objects() {
    for wrong in [
        "mongoferry_lag",
        "mongoferry_apply_duration_seconds",
        "mongoferry_lag_seconds_sum",
        r#"mongoferry_phase{phase="done"}"#,
        r#"mongoferry_phase{state="x"}"#,
    ] {
        assert_eq!(objections(wrong).len(), 1, "{wrong}");
    }
    assert!(objections(r#"mongoferry_phase{job="x",phase=~"planned|tailing"} mongoferry_apply_duration_seconds_bucket"#).is_empty());
}

#[test]
fn metrics_of_the_process_on_the_dashboard_are_exposed() {
    let exposed = Metrics::new().render();
    let names = Regex::new(r"\bprocess_[a-z_]+").unwrap();
    for expression in dashboard_expressions() {
        for name in names.find_iter(&expression) {
            assert!(!cfg!(target_os = "linux") || exposed.contains(&format!("# TYPE {} ", name.as_str())), "{}", name.as_str());
        }
    }
}

#[test]
fn every_alert_is_explained_and_tested_both_ways() {
    let anchors = anchors();
    let runbooks: Vec<&str> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert_eq!(runbooks.len(), alert_names().len(), "every alert has a runbook");
    for link in runbooks {
        let anchor = link.trim_matches('"').strip_prefix("deploy/RUNBOOK.md#").expect("links go to the runbook");
        assert!(anchors.contains(anchor), "the runbook has no section {anchor}");
    }
    for needed in ["summary: ", "description: ", "severity: "] {
        assert_eq!(ALERTS.matches(needed).count(), alert_names().len(), "every alert has a {needed}");
    }
    // Flow or block style, the name is followed by what is expected: nothing, or a list.
    let text = ALERTS_TEST.replace([',', '\n'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for alert in alert_names() {
        assert!(RUNBOOK.contains(alert), "the runbook does not name {alert}");
        assert!(text.contains(&format!("alertname: {alert} exp_alerts: []")), "{alert} is never seen not to fire");
        assert!(text.contains(&format!("alertname: {alert} exp_alerts: - exp_labels")), "{alert} is never seen to fire");
    }
}

#[test]
fn links_within_the_runbook_lead_somewhere() {
    let anchors = anchors();
    for link in Regex::new(r"\]\(#([a-z-]+)\)").unwrap().captures_iter(RUNBOOK) {
        assert!(anchors.contains(&link[1]), "#{}", &link[1]);
    }
}

/// The section of the runbook about an error. No `_` arm on purpose: a new error needs a section.
fn section(error: &Error) -> &'static str {
    match error {
        Error::Unreachable { .. } => "Unreachable",
        Error::PositionLost { .. } => "Position lost",
        Error::ShardsRemoved { .. } => "Shards removed",
        Error::Forbidden { .. } => "Forbidden",
        Error::BadCredentials { .. } => "Bad credentials",
        Error::Refused { .. } => "Refused",
        Error::UnfitCluster { .. } => "Unfit cluster",
        Error::TargetNotEmpty { .. } => "Target not empty",
        Error::ForeignMetadata { .. } => "Foreign metadata",
        Error::Leased { .. } => "Leased",
        Error::LeaseLost { .. } => "Lease lost",
        Error::Unsupported { .. } => "Unsupported",
        Error::BadConfig { .. } => "Bad config",
        Error::NoEndpoint { .. } => "No endpoint",
        Error::Interrupted => "Interrupted",
        Error::Bug(_) => "Bug",
    }
}

#[test]
fn every_error_has_a_section_with_its_exit_code() {
    let side = Side::Source;
    let text = String::new;
    let cause = || "cause".into();
    let all = [
        Error::Unreachable { side, doing: text(), why: mongoferry::error::Trouble::Network, source: cause() },
        Error::PositionLost { wanted: ClusterTime::default(), oldest: None },
        Error::ShardsRemoved { shards: Vec::new(), wanted: ClusterTime::default() },
        Error::Forbidden { side, doing: text(), source: cause() },
        Error::BadCredentials { side, source: cause() },
        Error::Refused { side, doing: text(), code: 0, source: cause() },
        Error::UnfitCluster { side, problem: text(), hint: text() },
        Error::TargetNotEmpty { namespaces: Vec::new() },
        Error::ForeignMetadata { database: text(), problem: text(), hint: text() },
        Error::Leased { holder: text() },
        Error::LeaseLost { holder: text() },
        Error::Unsupported { what: text(), ns: None, hint: text() },
        Error::BadConfig { field: text(), problem: text(), hint: None },
        Error::NoEndpoint { endpoint: text(), source: cause() },
        Error::Interrupted,
        Error::Bug(text()),
    ];
    for error in all {
        let heading = format!("\n### {}\n", section(&error));
        let (_, after) = RUNBOOK.split_once(&heading).unwrap_or_else(|| panic!("no section{heading}"));
        let body = after.split("\n## ").next().and_then(|text| text.split("\n### ").next()).unwrap_or_default();
        let code = error.exit_code();
        assert!(body.contains(&format!("(exit {code})")), "{} says another exit code than {code}", section(&error));
        assert!(RUNBOOK.contains(&format!("\n| {code} | ")) || RUNBOOK.contains(&format!("\n| {code}, ")), "{code} is not in the table");
    }
}
