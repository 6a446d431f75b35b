//! What to do next, after any answer.

use crate::model::Status;

/// Next steps for a migration in this state.
pub(super) fn after_status(status: &Status) -> Vec<String> {
    if let ("committed", Some(remedy)) = (status.phase.as_str(), &status.remedy) {
        return vec![remedy.clone()];
    }
    let steps: &[&str] = match (status.activity.as_str(), status.phase.as_str()) {
        (_, "committed") => &[
            "point the application at the target; the source is no longer followed",
            "`mongoferry reverse`, with the options of `run`, lets the old source follow the target, so that a cutover leads back",
        ],
        ("halted", _) => &["remove the cause, then `mongoferry resume`"],
        ("held", _) => &["`mongoferry start` begins"],
        ("paused", _) => &["`mongoferry resume` goes on; mind the headroom until then"],
        (_, "tailing") if status.can_cut_over => &[
            "`mongoferry verify` compares both sides",
            "`mongoferry cutover --dry-run` shows what a cutover would do",
            "`mongoferry cutover` hands over",
        ],
        (_, "tailing") => &["`mongoferry cutover --dry-run` tells which gates are shut"],
        (_, "cutting_over") => &["wait: the cutover completes or undoes itself; `mongoferry abort` gives the source back at once"],
        _ => &["wait until the phase is `tailing`; `mongoferry status` shows how far it is"],
    };
    steps.iter().map(|step| (*step).to_owned()).collect()
}

/// Next steps after a comparison.
pub(super) fn after_verify(equal: bool) -> Vec<String> {
    let step = if equal {
        "`mongoferry cutover` hands over"
    } else {
        "run it again: a difference that stays is real; then look at the documents on both sides before any cutover"
    };
    vec![step.to_owned()]
}

/// Next steps after a preflight.
pub(super) fn after_check(ready: bool) -> Vec<String> {
    let step = if ready { "`mongoferry run` with the same options starts the migration" } else { "mend the errors, then check again" };
    vec![step.to_owned()]
}

/// As lines of a text answer.
pub(super) fn lines(steps: &[String]) -> String {
    steps.iter().map(|step| format!("next: {step}\n")).collect()
}
