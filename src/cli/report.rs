//! Reports and answers as text: a comparison, a preflight, what became of a command.

use super::{
    human::{bytes, count},
    next,
    output::Paint,
    render::{gates, table, table_text},
};
use crate::{
    engine::{CheckReport, Level},
    model::Gate,
    observe::Answer,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Differences shown as text; JSON has all that the report has.
const SHOWN: usize = 20;

/// What a comparison found.
#[derive(Debug, Deserialize)]
pub(super) struct VerifyReport {
    /// Whether both sides are equal.
    pub(super) equal: bool,
    documents: u64,
    bytes: u64,
    namespaces: Vec<NamespaceReport>,
    differences: Vec<Difference>,
    #[serde(default)]
    warnings: Vec<Difference>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    repairs: Option<Vec<Repair>>,
    #[serde(default)]
    covered: Option<Covered>,
}

/// What was done about a difference.
#[derive(Debug, Deserialize)]
struct Repair {
    ns: String,
    kind: String,
    #[serde(default)]
    id: Value,
    outcome: String,
    what: String,
    came_back: bool,
}

#[derive(Debug, Deserialize)]
struct NamespaceReport {
    ns: String,
    target_ns: String,
    documents: u64,
    bytes: u64,
    differences: u64,
}

#[derive(Debug, Deserialize)]
struct Difference {
    ns: String,
    kind: String,
    #[serde(default)]
    id: Value,
    #[serde(default)]
    detail: Option<String>,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Covered {
    collections: u64,
    views: u64,
    indexes: u64,
    documents: bool,
    field_order: bool,
    sharding: bool,
    parked: bool,
}

/// A comparison as text.
pub(super) fn verify(report: &VerifyReport, paint: Paint) -> String {
    let verdict = if report.equal { paint.good("equal") } else { paint.bad("NOT EQUAL") };
    let mut text = format!("{verdict}: {} documents, {} compared\n", count(report.documents), bytes(report.bytes));
    text.push_str(&report.covered.map(covered).unwrap_or_default());
    if !report.namespaces.is_empty() {
        let mut rows = table(&["namespace", "documents", "size", "differences"]);
        for n in &report.namespaces {
            let name = if n.ns == n.target_ns { n.ns.clone() } else { format!("{} = {}", n.ns, n.target_ns) };
            rows.add_row([name, count(n.documents), bytes(n.bytes), count(n.differences)]);
        }
        text.push_str(&format!("\n{}", table_text(&rows)));
    }
    text.push_str(&repairs(report.repairs.as_deref(), paint));
    if !report.differences.is_empty() {
        let mut rows = table(&["namespace", "difference", "_id", "detail"]);
        for d in report.differences.iter().take(SHOWN) {
            let id = id_text(&d.id);
            rows.add_row([d.ns.as_str(), d.kind.as_str(), id.as_str(), d.detail.as_deref().unwrap_or_default()]);
        }
        text.push_str(&format!("\n{}", table_text(&rows)));
        let left = report.differences.len().saturating_sub(SHOWN);
        match (left, report.truncated) {
            (0, false) => {}
            (0, true) => text.push_str("  and more that the report leaves out\n"),
            (left, false) => text.push_str(&format!("  and {left} more: `--output json` shows them\n")),
            (left, true) => text.push_str(&format!("  and {left} more in `--output json`, and more still that the report leaves out\n")),
        }
    }
    if !report.warnings.is_empty() {
        let mut rows = table(&["namespace", "warning", "detail"]);
        for d in report.warnings.iter().take(SHOWN) {
            rows.add_row([d.ns.as_str(), d.kind.as_str(), d.detail.as_deref().unwrap_or_default()]);
        }
        text.push_str(&format!("\n{}\n{}", paint.warn("differs, and stands in the way of nothing"), table_text(&rows)));
    }
    format!("{text}\n{}", next::lines(&next::after_verify(report.equal)))
}

/// What the verdict is about.
fn covered(c: Covered) -> String {
    let order = if c.field_order { "" } else { ", whatever the order of their fields" };
    let documents =
        if c.documents { format!("the documents of {} collections{order}", count(c.collections)) } else { "no documents".into() };
    let sharding = if c.sharding { ", shard keys and zones" } else { "" };
    let parked = if c.parked { "; that the target gets unique indexes and TTLs at the cutover is excused" } else { "" };
    format!("covered: {documents}, options, {} views, {} indexes{sharding}{parked}\n", count(c.views), count(c.indexes))
}

fn id_text(id: &Value) -> String {
    if id.is_null() { String::new() } else { id.as_str().map_or_else(|| id.to_string(), str::to_owned) }
}

/// What was mended, and what was not.
fn repairs(repairs: Option<&[Repair]>, paint: Paint) -> String {
    let Some(repairs) = repairs else { return String::new() };
    if repairs.is_empty() {
        return "\nnothing to mend\n".to_owned();
    }
    let mut rows = table(&["namespace", "difference", "_id", "outcome", "what"]);
    for r in repairs.iter().take(SHOWN) {
        let what = if r.came_back { format!("{}; it had come back: somebody else writes to the target", r.what) } else { r.what.clone() };
        rows.add_row([r.ns.as_str(), r.kind.as_str(), &id_text(&r.id), r.outcome.as_str(), &what]);
    }
    let mended = repairs.iter().filter(|r| r.outcome == "mended").count();
    let left = repairs.len().saturating_sub(SHOWN);
    let more = if left > 0 { format!("  and {left} more: `--output json` shows them\n") } else { String::new() };
    format!("\n{}\n{}{more}", paint.bold(&format!("mended {mended} of {}", repairs.len())), table_text(&rows))
}

/// Whether a preflight lets the migration start.
pub(super) fn check_exit_code(report: &CheckReport) -> u8 {
    let errors = report.findings.iter().filter(|finding| finding.level == Level::Error);
    errors.map(|finding| finding.exit_code.max(1)).next().unwrap_or(0)
}

/// A preflight as text.
pub(super) fn check(report: &CheckReport, paint: Paint) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let label = match finding.level {
            Level::Ok => paint.good("ok      "),
            Level::Warning => paint.warn("warning "),
            Level::Error => paint.bad("error   "),
        };
        text.push_str(&format!("{label}{}\n", finding.what));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("        hint: {hint}\n"));
        }
    }
    let (documents, size) = report
        .collections
        .iter()
        .fold((0u64, 0u64), |(d, b), (_, documents, bytes)| (d.saturating_add(*documents), b.saturating_add(*bytes)));
    if !report.collections.is_empty() {
        let mut rows = table(&["namespace", "documents (estimated)", "size"]);
        for (ns, documents, size) in &report.collections {
            rows.add_row([ns.clone(), count(*documents), bytes(*size)]);
        }
        text.push_str(&format!("\n{}", table_text(&rows)));
    }
    text.push_str(&format!(
        "\nto copy: {} collections, {} documents (estimated), {}\n\n",
        report.collections.len(),
        count(documents),
        bytes(size)
    ));
    text + &next::lines(&next::after_check(check_exit_code(report) == 0))
}

/// A preflight for scripts.
pub(super) fn check_json(report: &CheckReport) -> Value {
    let collections: Vec<_> =
        report.collections.iter().map(|(ns, documents, bytes)| json!({"ns": ns, "documents": documents, "bytes": bytes})).collect();
    let code = check_exit_code(report);
    json!({"format": 1, "ready": code == 0, "exit_code": code, "findings": report.findings, "collections": collections, "next_steps": next::after_check(code == 0)})
}

/// What became of a command, as text.
pub(super) fn answer(answer: &Answer, paint: Paint) -> String {
    let message = if answer.exit_code == 0 { answer.message.clone() } else { paint.bad(&answer.message) };
    let details = &answer.details;
    let found = details.get("gates").unwrap_or(details);
    let steps = details.get("steps").and_then(|found| Vec::<StepReport>::deserialize(found).ok());
    let details = match (Vec::<Gate>::deserialize(found), VerifyReport::deserialize(details)) {
        (Ok(found), _) => gates(&found, paint) + &steps.map(|found| steps_text(&found, paint)).unwrap_or_default(),
        (Err(_), Err(_)) if let Some(found) = steps => steps_text(&found, paint),
        (Err(_), Ok(report)) => format!("\n{}", verify(&report, paint)),
        (Err(_), Err(_)) if details.is_null() => String::new(),
        (Err(_), Err(_)) => format!("\n{details:#}\n"),
    };
    let hint = answer.hint.as_ref().map(|hint| format!("\n{} {hint}\n", paint.bold("hint:"))).unwrap_or_default();
    format!("{message}\n{details}{hint}")
}

/// A step of a cutover: what it would do, or how long it took.
#[derive(Debug, Deserialize)]
struct StepReport {
    step: String,
    #[serde(default)]
    does: Option<String>,
    #[serde(default)]
    seconds: Option<f64>,
}

fn steps_text(found: &[StepReport], paint: Paint) -> String {
    let rehearsal = found.iter().any(|step| step.does.is_some());
    let (title, column) = if rehearsal { ("steps that a cutover would take", "what it does") } else { ("steps taken", "seconds") };
    let mut rows = table(&["step", column]);
    for step in found {
        let fact = step.does.clone().or_else(|| step.seconds.map(|s| format!("{s:.3}"))).unwrap_or_default();
        rows.add_row([step.step.clone(), fact]);
    }
    format!("\n{}\n{}", paint.bold(title), table_text(&rows))
}

/// The same for scripts.
pub(super) fn answer_json(answer: &Answer) -> Value {
    json!({"format": 1, "exit_code": answer.exit_code, "message": answer.message, "hint": answer.hint, "details": answer.details})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Color, engine::Finding};

    fn plain() -> Paint {
        Paint::new(Color::Never, false)
    }

    #[test]
    fn a_comparison_reads_well() {
        let report = json!({"format": 1, "equal": false, "documents": 1200, "bytes": 2048, "truncated": true,
            "covered": {"collections": 1, "views": 2, "indexes": 3, "rechecked": 1, "generations": 2, "documents": true, "field_order": false,
                        "sharding": true, "parked": true},
            "warnings": [{"ns": "shop.a", "kind": "sharding", "id": null, "detail": "sharded by {a: 1} on the source only"}],
            "namespaces": [{"ns": "shop.a", "target_ns": "store.a", "documents": 1200, "bytes": 2048, "differences": 1}],
            "differences": [{"ns": "shop.a", "kind": "missing", "id": {"$oid": "ab"}, "detail": "not on the target"}]});
        let text = verify(&serde_json::from_value(report).unwrap(), plain());
        let wanted = "\
NOT EQUAL: 1,200 documents, 2.0 KiB compared
covered: the documents of 1 collections, whatever the order of their fields, options, 2 views, 3 indexes, shard keys and zones; that the target gets unique indexes and TTLs at the cutover is excused

  namespace         documents  size     differences
  shop.a = store.a  1,200      2.0 KiB  1

  namespace  difference  _id            detail
  shop.a     missing     {\"$oid\":\"ab\"}  not on the target
  and more that the report leaves out

differs, and stands in the way of nothing
  namespace  warning   detail
  shop.a     sharding  sharded by {a: 1} on the source only

next: run it again: a difference that stays is real; then look at the documents on both sides before any cutover
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_preflight_fails_with_the_code_of_its_first_error() {
        let finding = |level, exit_code| Finding { level, what: "x".into(), hint: Some("y".into()), exit_code };
        let findings = vec![finding(Level::Ok, 0), finding(Level::Warning, 4), finding(Level::Error, 4), finding(Level::Error, 2)];
        let report = CheckReport { findings, collections: vec![("a.b".into(), 3, 1024)] };
        assert_eq!(check_exit_code(&report), 4);
        assert_eq!(check_json(&report)["ready"], false);
        let text = check(&report, plain());
        assert!(text.contains("error   x\n        hint: y\n"), "{text}");
        assert!(text.contains("to copy: 1 collections, 3 documents (estimated), 1.0 KiB"), "{text}");
    }

    #[test]
    fn answers_show_gates_reports_and_hints() {
        let gates = json!({"gates": [{"name": "lag", "open": false, "why": "41 s"}]});
        let text = answer(&Answer { hint: Some("wait".into()), ..Answer::no("not ready").with(gates) }, plain());
        assert_eq!(text, "not ready\n\ngates of a cutover\n  gate  state  why\n  lag   SHUT   41 s\n\nhint: wait\n");
        assert_eq!(answer(&Answer::done("paused"), plain()), "paused\n");
        assert_eq!(answer_json(&Answer::done("paused"))["format"], 1);
    }
}
