//! The README's tables are generated: this compares them, and `UPDATE_GOLDEN=1` writes them anew.

use mongoferry::{
    model::{Activity, ClusterTime, Phase, Verb, permits},
    observe::reference_table,
};
use std::{fs, path::Path, process::Command};

/// The text between `<!-- generated: NAME -->` and `<!-- end -->`.
fn with_table(readme: &str, name: &str, table: &str) -> String {
    let opening = format!("<!-- generated: {name} -->\n");
    let (before, rest) = readme.split_once(&opening).unwrap_or_else(|| panic!("README.md has no marker for `{name}`"));
    let (_, after) = rest.split_once("<!-- end -->").unwrap_or_else(|| panic!("the table `{name}` has no end"));
    format!("{before}{opening}{}\n<!-- end -->{after}", table.trim_end())
}

fn options_and_exit_codes() -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mongoferry")).arg("reference").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (options, codes) = text.split_once("\n\n").unwrap();
    (options.to_owned(), codes.to_owned())
}

fn phases() -> String {
    let at = ClusterTime::default();
    let phases = [
        Phase::Planned,
        Phase::Copying { start_at: at },
        Phase::CatchingUp { start_at: at, copied_at: at },
        Phase::Tailing,
        Phase::CuttingOver,
        Phase::Committed { fence: at },
    ];
    let mut table = format!("| Phase | {} |\n|", Verb::ALL.map(Verb::label).join(" | "));
    table.push_str(&" --- |".repeat(Verb::ALL.len() + 1));
    for phase in phases {
        let may = Verb::ALL.map(|verb| {
            let running = permits(&phase, &Activity::Running, verb);
            let idle = permits(&phase, &Activity::Paused { by: String::new() }, verb);
            match (running, idle) {
                (true, true) => "yes",
                (true, false) => "while running",
                (false, true) => "while paused or halted",
                (false, false) => "",
            }
        });
        table.push_str(&format!("\n| `{}` | {} |", phase.label(), may.join(" | ")));
    }
    table
}

#[test]
fn the_tables_of_the_readme_are_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let before = fs::read_to_string(&path).unwrap();
    let (options, codes) = options_and_exit_codes();
    let mut after = before.clone();
    for (name, table) in [("options", options), ("exit codes", codes), ("phases", phases()), ("metrics", reference_table())] {
        after = with_table(&after, name, &table);
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &after).unwrap();
    } else {
        assert!(before == after, "the tables of README.md are not up to date: run `UPDATE_GOLDEN=1 cargo test --test main docs::`");
    }
}

/// Clients are made from it: change it only on purpose.
#[test]
fn the_api_is_described_as_agreed() {
    crate::support::golden("openapi.json", mongoferry::observe::openapi());
}
