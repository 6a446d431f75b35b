//! The rooms' walls: each room names only the rooms listed for it, and a few crates are named in one place.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What each room may name. A room that is not listed here does not exist.
fn arrows() -> BTreeMap<&'static str, Vec<&'static str>> {
    let base = ["model", "error"];
    let with = |more: &[&'static str]| [&base[..], more].concat();
    [
        ("model", vec![]),
        ("error", vec!["model"]),
        ("retry", with(&[])),
        ("tasks", with(&[])),
        ("config", with(&[])),
        ("observe", with(&[])),
        ("mongo", with(&["retry"])),
        ("source", with(&["retry", "mongo"])),
        ("target", with(&["retry", "mongo"])),
        ("accounts", with(&["mongo"])),
        ("catalog", with(&["source", "target"])),
        ("race", with(&["catalog"])),
        ("parity", with(&[])),
        ("capped", with(&["catalog", "observe", "race", "retry", "source", "target", "throttle"])),
        ("checkpoint", with(&["catalog", "mongo", "parity"])),
        ("indexes", with(&["catalog", "source", "target", "observe", "tasks"])),
        ("throttle", with(&[])),
        ("tail", with(&["capped", "catalog", "checkpoint", "parity", "race", "retry", "source", "target", "observe", "tasks", "throttle"])),
        ("copy", with(&["catalog", "checkpoint", "race", "retry", "source", "target", "observe", "tasks", "throttle"])),
        ("verify", with(&["accounts", "catalog", "checkpoint", "parity", "source", "target", "observe", "retry"])),
        ("cutover", with(&["accounts", "catalog", "checkpoint", "indexes", "source", "target", "observe", "tail", "verify"])),
        (
            "engine",
            with(&[
                "accounts",
                "capped",
                "catalog",
                "checkpoint",
                "config",
                "copy",
                "cutover",
                "indexes",
                "mongo",
                "observe",
                "parity",
                "race",
                "retry",
                "source",
                "tail",
                "target",
                "tasks",
                "throttle",
                "verify",
            ]),
        ),
        ("cli", with(&["config", "engine", "observe"])),
        ("lib", vec![]),
        ("main", vec![]),
    ]
    .into()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source file with its room, its path from `src` and its text without comments.
fn code() -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    files(&src(), &mut all);
    all.into_iter()
        .map(|path| {
            let name = path.strip_prefix(src()).unwrap().display().to_string();
            let room = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code: Vec<&str> = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect();
            (room, name, code.join("\n"))
        })
        .collect()
}

/// The rooms named in `use crate::{a::…, b::…}` and in `crate::a::…`.
fn rooms_named(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for after in code.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            named.push(first_word(after));
            continue;
        };
        let (mut depth, mut at_start) = (1, true);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => at_start = true,
                c if at_start && depth == 1 && c.is_alphanumeric() => {
                    named.push(first_word(&list[at..]));
                    at_start = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    named.retain(|n| !n.is_empty() && n.chars().all(|c| c.is_lowercase() || c == '_'));
    named
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let arrows = arrows();
    let mut wrong = Vec::new();
    for (room, name, code) in code() {
        let may_use =
            arrows.get(room.as_str()).unwrap_or_else(|| panic!("`{room}` is no room: add it to the arrows, with a reason to exist"));
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        for used in rooms_named(&code) {
            if used != room && !may_use.contains(&used.as_str()) {
                wrong.push(format!("{name}: `{room}` names `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_few_crates_are_named_in_one_place() {
    let places: [(&str, &[&str]); 4] = [
        ("mongodb::", &["mongo/", "source/mongo/", "target/mongo/", "checkpoint/mongo.rs"]),
        ("backoff::", &["retry.rs"]),
        ("clap::", &["cli/"]),
        ("axum::", &["observe/"]),
    ];
    let mut wrong = Vec::new();
    for (_, name, code) in code() {
        for (word, allowed) in places {
            if code.contains(word) && !allowed.iter().any(|place| name.starts_with(place)) {
                wrong.push(format!("{name} names `{word}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_phase_is_changed_in_one_place() {
    let mut wrong = Vec::new();
    for (_, name, code) in code() {
        let tests_left_out = code.split("#[cfg(test)]").next().unwrap();
        if tests_left_out.contains(".step(Milestone") && !name.starts_with("engine/") {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_walls_are_seen() {
    assert_eq!(
        rooms_named("use crate::{\n    error::{Error, Result},\n    tail::first,\n};\nuse crate::mongo::X;"),
        ["error", "tail", "mongo"]
    );
}
