//! One migration has one writer.
//!
//! The lease is a part of the record: a holder, a number that grows with every taking, and an end by the
//! *server's* clock, so that clocks of clients do not matter. Whoever finds it lapsed, or held by a process of
//! this machine that is dead, takes it over. Its holder renews it, saves only under its own number, and stops
//! writing when it could not renew for two thirds of the term, before anybody else may take it.

use std::time::Duration;

/// For how long a lease holds without being renewed.
pub const LEASE: Duration = Duration::from_secs(15);

/// This process, as the lease names it: `host|boot|pid namespace|pid|start`, so that a successor on the same
/// machine can tell at once that it is dead.
#[must_use]
pub fn holder() -> String {
    let pid = std::process::id();
    [machine(), pid.to_string(), started(pid).unwrap_or_default()].join("|")
}

/// Host, boot and pid namespace.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").map(|p| p.display().to_string()).unwrap_or_default();
    [read("/proc/sys/kernel/hostname"), read("/proc/sys/kernel/random/boot_id"), namespace].join("|")
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`, counted behind the name. None for one that has
/// ended and whose parent has yet to hear of it.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace();
    let alive = !matches!(fields.next(), Some("Z" | "X"));
    fields.nth(18).filter(|_| alive).map(str::to_owned)
}

/// Whether that holder is known to be dead: of this machine, and no longer running. `false` where it cannot
/// be known.
#[must_use]
pub(super) fn known_dead(holder: &str) -> bool {
    let parts: Vec<&str> = holder.rsplitn(3, '|').collect();
    let [start, pid, place] = parts[..] else { return false };
    let Ok(pid) = pid.parse() else { return false };
    place == machine() && !start.is_empty() && started(pid).as_deref() != Some(start)
}

/// For people: host and process id.
#[must_use]
pub(super) fn described(holder: &str) -> String {
    let parts: Vec<&str> = holder.split('|').collect();
    match parts[..] {
        [host, _, _, pid, _] => format!("process {pid} on {host}"),
        _ => holder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_a_former_process_of_our_number_is_dead() {
        let me = holder();
        assert!(!known_dead(&me));
        let (before, _) = me.rsplit_once('|').unwrap();
        assert!(known_dead(&format!("{before}|1")), "same pid, started at another time");
        assert!(!known_dead("elsewhere|x|y|1|2"), "of another machine nothing is known");
    }
}
