//! What the tests of the whole program share: the program as a child process, and pairs of real clusters for it.
//!
//! Nothing here outlives its value: children are killed and reaped when dropped, and die with this process even when
//! that one is killed.

pub mod accounts;
mod ferry;
mod pair;
mod servers;

pub use ferry::{Ferry, free_port, reached, time};
pub use pair::{Pair, whole_machine};
pub use servers::{contents, fail, no_slowness, run, slow_down, slowness, speed_up};

use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
    time::Duration,
};
use tokio::time::timeout;

/// How long any state may take to come. Long: it is only waited for in full when a test fails.
pub const DEADLINE: Duration = Duration::from_secs(180);
/// The database of the resume point.
pub const METADATA: &str = "__mdb_internal_mongoferry";

/// The program with an environment that says nothing about it, and no terminal.
pub fn program() -> Command {
    static SETPRIV: LazyLock<bool> =
        LazyLock::new(|| Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output().is_ok_and(|o| o.status.success()));
    let binary = env!("CARGO_BIN_EXE_mongoferry");
    // `setpriv` becomes the program, so the process id is the program's.
    let mut program = if *SETPRIV { Command::new("setpriv") } else { Command::new(binary) };
    if *SETPRIV {
        program.args(["--pdeathsig", "KILL", binary]);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MONGOFERRY_") {
            program.env_remove(name);
        }
    }
    program.env("NO_COLOR", "1").env_remove("USER").stdin(Stdio::null());
    program
}

/// What a finished command said.
#[derive(Debug)]
pub struct Told {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Told {
    /// Itself, if the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32, what: &str) -> Self {
        assert_eq!(self.code, code, "{what}\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// The answer as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", self.stdout, self.stderr))
    }
}

/// Runs the program to its end.
pub async fn told(args: &[&str]) -> Told {
    let mut command = program();
    command.args(args);
    let mut command = tokio::process::Command::from(command);
    // One that hangs is a failure of its test and of no other.
    let output = timeout(2 * DEADLINE, command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("`{}` does not end", args.first().unwrap_or(&""))).expect("the program can be started");
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    Told { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The seed of a test, for what it does at random; printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("MONGOFERRY_TEST_SEED").ok().map(|text| text.parse().expect("MONGOFERRY_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("{test}: MONGOFERRY_TEST_SEED={seed}");
    seed
}

/// Whether a long form of a test was asked for, as in `MONGOFERRY_TEST_FULL_KILL=1`.
pub fn full(name: &str) -> bool {
    std::env::var(format!("MONGOFERRY_TEST_FULL_{name}")).is_ok_and(|value| !value.is_empty() && value != "0")
}

/// Compares with, or with `UPDATE_GOLDEN=1` writes, a file in `tests/golden`.
#[track_caller]
pub fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{} differs; UPDATE_GOLDEN=1 writes it anew. It is now:\n{text}", path.display());
}
