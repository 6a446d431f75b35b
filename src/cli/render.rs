//! A status as text for people. The same snapshot is printed as it is for scripts.

use super::{human, next, output::Paint};
use crate::model::{Gate, Status, VerificationStatus};
use comfy_table::{Table, presets};

/// Differences shown as text; JSON has more.
const DIFFERENCES_SHOWN: usize = 20;

/// A table without lines, as narrow as it may be.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table
}

/// Rendered without the blanks that a table leaves at its edges.
pub(super) fn table_text(table: &Table) -> String {
    table.lines().map(|line| format!("  {}\n", line.trim())).collect()
}

/// The gates of a cutover: shut ones first.
pub(super) fn gates(gates: &[Gate], paint: Paint) -> String {
    if gates.is_empty() {
        return String::new();
    }
    let mut table = table(&["gate", "state", "why"]);
    let (open, shut): (Vec<_>, Vec<_>) = gates.iter().partition(|gate| gate.open);
    for gate in shut.into_iter().chain(open) {
        table.add_row([gate.name.as_str(), if gate.open { "open" } else { "SHUT" }, gate.why.as_str()]);
    }
    format!("\n{}\n{}", paint.bold("gates of a cutover"), table_text(&table))
}

/// Everything worth knowing, a screen at most.
pub(super) fn status(status: &Status, paint: Paint) -> String {
    let activity = match status.activity.as_str() {
        "running" => paint.good("running"),
        "halted" => paint.bad("halted"),
        other => paint.warn(other),
    };
    let mut text = format!("{}, {activity}\n", paint.bold(&status.phase.replace('_', " ")));
    if let Some(reason) = &status.reason {
        text.push_str(&format!("  because: {reason}\n"));
    }
    if let Some(remedy) = &status.remedy {
        text.push_str(&format!("  remedy:  {remedy}\n"));
    }
    for lack in &status.done_without {
        text.push_str(&format!("  note:    {lack}\n"));
    }
    let rows = facts(status);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    text.push('\n');
    for (name, fact) in rows {
        text.push_str(&format!("  {name:<width$}  {fact}\n"));
    }
    if status.phase != "committed" {
        text.push_str(&gates(&status.gates, paint));
    }
    if !status.verification.listed_differences.is_empty() {
        let mut table = table(&["namespace", "difference", "_id", "detail"]);
        for d in status.verification.listed_differences.iter().take(DIFFERENCES_SHOWN) {
            table.add_row([&d.ns, &d.kind, d.id.as_deref().unwrap_or_default(), &d.detail]);
        }
        text.push_str(&format!("\n{}\n{}", paint.bold("differences that persist"), table_text(&table)));
        let left = status.verification.differences.saturating_sub(DIFFERENCES_SHOWN as u64);
        if left > 0 {
            text.push_str(&format!("  and {left} more\n"));
        }
    }
    let warnings = &status.verification.warnings;
    if !warnings.is_empty() {
        let mut table = table(&["namespace", "warning", "detail"]);
        for d in warnings.iter().take(DIFFERENCES_SHOWN) {
            table.add_row([&d.ns, &d.kind, &d.detail]);
        }
        text.push_str(&format!("\n{}\n{}", paint.bold("differences that do not stand in the way"), table_text(&table)));
    }
    if !status.unfinished_indexes.is_empty() {
        let mut table = table(&["namespace", "index", "state", "why"]);
        for index in &status.unfinished_indexes {
            let state = match index.progress {
                Some(progress) => format!("{}, {:.0} %", index.state, progress * 100.0),
                None => index.state.clone(),
            };
            table.add_row([&index.ns, &index.name, &state, index.error.as_deref().unwrap_or_default()]);
        }
        text.push_str(&format!("\n{}\n{}", paint.bold("indexes not yet on the target"), table_text(&table)));
    }
    text.push('\n');
    text.push_str(&next::lines(&next::after_status(status)));
    text
}

/// Name and value of each fact.
fn facts(s: &Status) -> Vec<(&'static str, String)> {
    use human::{bytes, count, maybe_seconds, seconds};
    let mut rows = vec![("migration", format!("{} (mongoferry {})", s.migration, s.version))];
    if let Some(direction) = &s.direction {
        rows.push(("direction", format!("{}: {} to {}", direction.way, direction.source, direction.target)));
    }
    if s.phase != "committed" {
        rows.push(("lag", maybe_seconds(s.lag_seconds)));
        let window = s.oplog_window_seconds.map(|w| format!(" of an oplog window of {}", seconds(w))).unwrap_or_default();
        rows.push(("headroom", format!("{}{window}", maybe_seconds(s.headroom_seconds))));
        rows.push((
            "resume point",
            s.checkpoint_age_seconds.map_or("not saved yet".to_owned(), |age| format!("saved {} ago", seconds(age))),
        ));
    }
    rows.push(("copied", copied(s)));
    let collections = format!("{} of {} collections", count(s.copy.collections_done), count(s.copy.collections));
    rows.push(("", format!("{collections}, {} of {} partitions", count(s.copy.partitions_done), count(s.copy.partitions))));
    let events = &s.events;
    rows.push(("events", format!("{} read, {} applied, {} structural", count(events.read), count(events.applied), count(events.ddl))));
    if s.phase != "committed" && !s.verification.state.is_empty() {
        rows.extend(verification(&s.verification));
    }
    rows.push(("in flight", format!("{} of {}", bytes(s.in_flight.bytes), bytes(s.in_flight.limit_bytes))));
    for slowed in &s.throttle.reasons {
        rows.push(("throttled", format!("{}: {}", slowed.reason, slowed.detail)));
    }
    rows.extend(s.settings.reason.iter().map(|reason| ("settings", format!("as set: {reason}"))));
    let share = |name: &str, share: Option<f64>| share.filter(|s| *s < 1.0).map(|s| format!("{name} at {:.0} % of its speed", s * 100.0));
    rows.extend(share("copy", s.throttle.copy_share).map(|text| ("", text)));
    rows.extend(share("tail", s.throttle.tail_share).map(|text| ("", text)));
    if s.retries > 0 {
        rows.push(("retries", count(s.retries)));
    }
    if let Some(cutover) = &s.cutover {
        rows.push(("cutover", cutover.step.clone()));
        rows.extend(cutover.fence.map(|fence| ("fence", fence.to_string())));
        rows.extend(cutover.writes_blocked_seconds.map(|blocked| ("writes blocked", seconds(blocked))));
        rows.extend(cutover.proof.clone().map(|proof| ("proof", proof)));
        rows.extend(cutover.last_failure.clone().map(|failure| ("last failure", failure)));
    }
    rows
}

/// What is proved equal.
fn verification(v: &VerificationStatus) -> Vec<(&'static str, String)> {
    use human::{bytes, count};
    if v.state == "off" {
        return vec![("verification", "off".to_owned())];
    }
    let until = v.proved_cluster_time.map(|time| format!(", equal as of {time}")).unwrap_or_default();
    let mut rows = vec![("verification", format!("{}: {} documents, {} compared{until}", v.state, count(v.documents), bytes(v.bytes)))];
    let states = [(v.verified, "verified"), (v.stale, "stale"), (v.pending, "pending"), (v.different, "different")];
    let states: Vec<_> = states.iter().filter(|(n, _)| *n > 0).map(|(n, state)| format!("{} {state}", count(*n))).collect();
    if !states.is_empty() {
        rows.push(("", format!("collections: {}", states.join(", "))));
    }
    rows.extend(v.failure.clone().map(|failure| ("", failure)));
    rows
}

/// How much of the copy is done, and that the whole is an estimate.
pub(super) fn copied(s: &Status) -> String {
    use human::{bytes, count};
    let copy = &s.copy;
    let done = format!("{} documents, {}", count(copy.documents + copy.already_there), bytes(copy.bytes));
    if s.phase == "committed" || copy.estimated_documents == 0 {
        return done;
    }
    format!("{done}, of {} documents, {} (estimated)", count(copy.estimated_documents), bytes(copy.estimated_bytes))
}

/// How a run ended: the last snapshot, short.
pub(super) fn run_summary(s: &Status, paint: Paint) -> String {
    let mut rows = vec![("copied", copied(s)), ("events", format!("{} applied", human::count(s.events.applied)))];
    if let Some(cutover) = &s.cutover {
        rows.extend(cutover.fence.map(|fence| ("fence", fence.to_string())));
        rows.extend(cutover.writes_blocked_seconds.map(|blocked| ("writes blocked", human::seconds(blocked))));
        rows.extend(cutover.proof.clone().map(|proof| ("proof", proof)));
    }
    let rows: String = rows.into_iter().map(|(name, fact)| format!("  {name:<14}  {fact}\n")).collect();
    format!("{}\n{rows}\n{}", paint.bold(&s.phase.replace('_', " ")), next::lines(&next::after_status(s)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Color;
    use serde_json::json;

    fn example() -> Status {
        let json = json!({
            "format": 1, "version": "0.1.0", "migration": "4f2a", "phase": "tailing", "activity": "running",
            "reason": null, "remedy": null, "exit_code": null, "can_cut_over": false, "can_write_to_target": false,
            "gates": [{"name": "lag", "open": true, "why": "0.4 s"}, {"name": "indexes", "open": false, "why": "1 failed"}],
            "lag_seconds": 0.4, "headroom_seconds": 86000.0, "oplog_window_seconds": 86000.4, "checkpoint_age_seconds": 0.8,
            "applied_cluster_time": {"t": 7, "i": 1}, "source_cluster_time": {"t": 7, "i": 2}, "resume_cluster_time": null,
            "copy": {"documents": 12000, "bytes": 1073741824u64, "estimated_documents": 12010, "estimated_bytes": 1073741824u64,
                     "already_there": 0, "reread": 3, "partitions_done": 8, "partitions": 8, "collections_done": 3, "collections": 3},
            "events": {"read": 1204, "applied": 1204, "ddl": 2, "reread": 0},
            "in_flight": {"bytes": 0, "limit_bytes": 536870912},
            "retries": 1,
            "verification": {"state": "different", "documents": 11999, "bytes": 1073741824u64, "verified": 2, "different": 1, "differences": 1,
                             "listed_differences": [{"ns": "shop.orders", "kind": "missing", "id": "7", "detail": "not on the target"}],
                             "warnings": [{"ns": "shop.orders", "kind": "sharding", "id": null, "detail": "sharded by {a: 1} on the source only"}]},
            "unfinished_indexes": [{"ns": "shop.orders", "name": "by_day", "state": "failed", "error": "duplicate key"}],
            "cutover": null, "permitted": ["pause", "verify"]
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_status_reads_well() {
        let text = status(&example(), Paint::new(Color::Never, false));
        let wanted = "\
tailing, running

  migration     4f2a (mongoferry 0.1.0)
  lag           0.4 s
  headroom      23 h 53 min of an oplog window of 23 h 53 min
  resume point  saved 0.8 s ago
  copied        12,000 documents, 1.0 GiB, of 12,010 documents, 1.0 GiB (estimated)
                3 of 3 collections, 8 of 8 partitions
  events        1,204 read, 1,204 applied, 2 structural
  verification  different: 11,999 documents, 1.0 GiB compared
                collections: 2 verified, 1 different
  in flight     0 B of 512.0 MiB
  retries       1

gates of a cutover
  gate     state  why
  indexes  SHUT   1 failed
  lag      open   0.4 s

differences that persist
  namespace    difference  _id  detail
  shop.orders  missing     7    not on the target

differences that do not stand in the way
  namespace    warning   detail
  shop.orders  sharding  sharded by {a: 1} on the source only

indexes not yet on the target
  namespace    index   state   why
  shop.orders  by_day  failed  duplicate key

next: `mongoferry cutover --dry-run` tells which gates are shut
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_halt_tells_why_and_what_to_do() {
        let halted = Status { activity: "halted".into(), reason: Some("disk full".into()), remedy: Some("make room".into()), ..example() };
        let text = status(&halted, Paint::new(Color::Never, false));
        assert!(text.starts_with("tailing, halted\n  because: disk full\n  remedy:  make room\n"), "{text}");
        assert!(text.ends_with("next: remove the cause, then `mongoferry resume`\n"), "{text}");
    }

    #[test]
    fn the_summary_of_a_commit_names_the_fence() {
        let cutover =
            serde_json::from_value(json!({"step": "done", "fence": {"t": 9, "i": 1}, "writes_blocked_seconds": 1.5, "last_failure": null}))
                .unwrap();
        let done = Status { phase: "committed".into(), cutover: Some(cutover), ..example() };
        let text = run_summary(&done, Paint::new(Color::Never, false));
        assert!(text.contains("fence           (9, 1)\n  writes blocked  1.5 s\n"), "{text}");
    }
}
