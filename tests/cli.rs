//! The command line as it is seen from outside: help, exit codes, error texts. Needs no server.
//!
//! `UPDATE_GOLDEN=1 cargo test` writes the golden files anew.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

const VERBS: [&str; 15] = [
    "check",
    "run",
    "reverse",
    "status",
    "start",
    "pause",
    "resume",
    "throttle",
    "unthrottle",
    "set",
    "verify",
    "cutover",
    "abort",
    "completions",
    "man",
];

/// The program with an environment that says nothing about it, and no terminal.
fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_mongoferry"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MONGOFERRY_") {
            program.env_remove(name);
        }
    }
    program.env("NO_COLOR", "1").stdin(Stdio::null());
    program
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Compares with, or writes, a file in `tests/golden`.
fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{} differs; UPDATE_GOLDEN=1 writes it anew. It is now:\n{text}", path.display());
}

/// A file that is gone with its directory.
fn config(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn help_is_as_agreed() {
    golden("bare.txt", &stdout(&run(&[])));
    golden("help.txt", &stdout(&run(&["--help"])));
    golden("short-help.txt", &stdout(&run(&["-h"])));
    golden("run-short.txt", &stdout(&run(&["run", "-h"])));
    for verb in VERBS {
        let output = run(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        golden(&format!("{verb}.txt"), &stdout(&output));
    }
}

#[test]
fn the_help_of_every_verb_has_the_exit_codes_and_no_long_lines() {
    for verb in VERBS {
        let text = stdout(&run(&[verb, "--help"]));
        assert!(text.contains("70  a fault of mongoferry"), "{verb}");
        // The tables of flags may not be wrapped where a flag and its value alone are too long.
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{verb}: {line}");
        }
        let short = stdout(&run(&[verb, "-h"]));
        assert!(short.lines().count() <= 70, "{verb} -h has {} lines", short.lines().count());
    }
}

#[test]
fn man_pages_and_completions_come_from_the_program() {
    let page = stdout(&run(&["man"]));
    assert!(page.contains(".TH mongoferry 1") && page.contains("the honest"), "{page}");
    assert!(stdout(&run(&["man", "run"])).contains("MONGOFERRY_SOURCE"));
    assert!(stdout(&run(&["reference"])).contains("| `--lanes` | `MONGOFERRY_LANES` | `tail.lanes` | `8` |"));
    assert_eq!(run(&["man", "fly"]).status.code(), Some(2));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&run(&["completions", shell])).contains("cutover"), "{shell}");
    }
}

/// What goes wrong without a server: arguments, exit code, stderr.
#[test]
fn mistakes_are_told_with_their_exit_code() {
    let uris = ["--source", "mongodb://u:s3cret@a/", "--target", "mongodb://u:s3cret@b/"];
    let with = |rest: &[&'static str]| [&["check", "--show-config"][..], &uris, rest].concat();
    let (_kept, unknown_key) = config("lanse = 3\n\n[copy]\npartitions = 0\nwriter = 3\n");
    let mut from_file = with(&["--config"]);
    from_file.push(&unknown_key);
    let cases: [(&str, Vec<&str>, i32); 14] = [
        ("unknown-flag", with(&["--lanse", "3"]), 2),
        ("unknown-verb", vec!["cutoff"], 2),
        ("stray-uri", vec!["run", "mongodb://u:s3cret@a/?x=y"], 2),
        ("missing-source", vec!["run"], 2),
        (
            "many-problems",
            with(&[
                "--checkpoint-interval",
                "1 fortnight",
                "--lanes",
                "0",
                "--memory",
                "1MiB",
                "--rename",
                "a",
                "--read-preference",
                "secundary",
            ]),
            2,
        ),
        ("far-listen", with(&["--listen", "0.0.0.0:27182"]), 2),
        ("bad-uri", vec!["run", "--source", "http://u:s3cret@a", "--target", "mongodb://u:s3?cret@b"], 2),
        ("unknown-key", from_file, 2),
        ("no-file", with(&["--config", "/nonexistent/f.toml"]), 2),
        ("cutover-unasked", vec!["cutover"], 2),
        ("abort-unasked", vec!["abort"], 2),
        ("bad-endpoint", vec!["status", "--endpoint", "127.0.0.1:1"], 2),
        ("bad-timeout", vec!["cutover", "--yes", "--timeout", "soon"], 2),
        ("verify-both", vec!["verify", "--source", "mongodb://a", "--endpoint", "http://127.0.0.1:1"], 2),
    ];
    for (name, args, code) in cases {
        let output = run(&args);
        let text = stderr(&output).replace(&unknown_key, "f.toml");
        assert_eq!(output.status.code(), Some(code), "{name}: {text}");
        assert_eq!(stdout(&output), "", "{name}");
        for secret in ["s3cret", "cret@", "s3?"] {
            assert!(!text.contains(secret), "{name}: {text}");
        }
        golden(&format!("error-{name}.txt"), &text);
    }
}

#[test]
fn no_process_at_the_endpoint_is_exit_code_3() {
    // Bound and let go: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    for args in [&["status"][..], &["pause"], &["resume"], &["verify"], &["cutover", "--yes"], &["abort", "--yes"]] {
        let output = run(&[args, &["--endpoint", &endpoint]].concat());
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", stderr(&output));
        golden("error-no-endpoint.txt", &stderr(&output).replace(&port.to_string(), "PORT"));
    }
}

#[test]
fn the_configuration_is_shown_with_origins_and_without_passwords() {
    let (_kept, path) = config("source = 'mongodb://u:s3cret@file/'\n[tail]\nlanes = 3\nmemory = '1GiB'\n[copy]\nwriters = 2\n");
    let show = |output: &str| {
        let mut program = program();
        program.args(["check", "--show-config", "--output", output, "--config", &path, "--lanes", "5", "--quiet"]);
        program.env("MONGOFERRY_TARGET", "mongodb://u:s3cret@env/?tls=true").env("MONGOFERRY_LANES", "4");
        program.env("MONGOFERRY_MEMORY", "2GiB").env("MONGOFERRY_INCLUDE", "a, b.c").env("MONGOFERRY_LISTEN", "");
        program.output().unwrap()
    };
    let text = stdout(&show("text")).replace(&path, "f.toml");
    assert!(!text.contains("s3cret"), "{text}");
    golden("show-config.txt", &text);
    let json: serde_json::Value = serde_json::from_slice(&show("json").stdout).unwrap();
    assert_eq!(json["format"], 1);
    let of = |key: &str| json["settings"].as_array().unwrap().iter().find(|s| s["key"] == key).cloned().unwrap();
    assert_eq!((&of("tail.lanes")["value"], &of("tail.lanes")["origin"]), (&"5".into(), &"flag".into()));
    assert_eq!((&of("tail.memory")["value"], &of("tail.memory")["origin"]), (&"2GiB".into(), &"env".into()));
    assert_eq!((&of("copy.writers")["value"], &of("copy.writers")["origin"]), (&"2".into(), &"file".into()));
    assert_eq!(of("listen")["origin"], "default");
    assert_eq!(of("selection.include")["value"], "a, b.c");
    assert_eq!(of("target")["value"], "mongodb://env/");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = program().args(["man", "run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

/// Whether the process catches SIGTERM already.
fn catches_sigterm(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).unwrap_or(0) & (1 << 14) != 0
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_ends_a_run_with_its_own_exit_code() {
    let uris = ["--source", "mongodb://127.0.0.1:1/", "--target", "mongodb://127.0.0.1:1/", "--listen", "127.0.0.1:0"];
    let child = program().arg("run").args(uris).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !catches_sigterm(child.id()) {
        assert!(tokio::time::Instant::now() < deadline, "signals are not caught");
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(143), "{text}");
    assert!(text.contains("stopping at a safe place") && text.contains("the same command goes on"), "{text}");
}

/// One request, one canned answer: what a running process would say.
fn answering(body: &'static str) -> (String, std::thread::JoinHandle<String>) {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut part = [0; 1024];
        loop {
            let n = stream.read(&mut part).unwrap();
            request.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse().ok()));
                body.len() >= length.unwrap_or(0)
            });
            if whole || n == 0 {
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
                return text;
            }
        }
    });
    (endpoint, served)
}

#[test]
fn an_answer_decides_the_exit_code() {
    let (endpoint, served) = answering(r#"{"exit_code":1,"message":"the cutover was undone: lag","hint":"try again","details":null}"#);
    let output = run(&["cutover", "--yes", "--timeout", "5m", "--writes-stopped", "--endpoint", &endpoint]);
    let request = served.join().unwrap();
    assert!(request.starts_with("POST /v1/cutover HTTP/1.1"), "{request}");
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"writes_stopped": true, "timeout_seconds": 300, "dry_run": false, "waive_indexes": [], "then_reverse": false})
    );
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), "the cutover was undone: lag\n\nhint: try again\n"));
}

#[test]
fn a_comparison_by_the_process_is_shown_as_a_report() {
    let body = r#"{"exit_code":1,"message":"not equal","details":{"format":1,"equal":false,"documents":3,"bytes":300,
        "namespaces":[{"ns":"a.b","target_ns":"a.b","documents":3,"bytes":300,"differences":1}],
        "differences":[{"ns":"a.b","kind":"missing","id":7,"detail":null}],"truncated":false}}"#;
    for format in ["text", "json"] {
        let (endpoint, served) = answering(body);
        let output = run(&["verify", "--output", format, "--endpoint", &endpoint]);
        assert!(served.join().unwrap().starts_with("POST /v1/verify"));
        assert_eq!(output.status.code(), Some(1));
        match format {
            "json" => assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["documents"], 3),
            _ => assert!(stdout(&output).starts_with("NOT EQUAL: 3 documents"), "{}", stdout(&output)),
        }
    }
}

#[test]
fn a_wrong_output_format_is_refused_before_anything_is_done() {
    // Exit code 3 would mean that the endpoint was asked.
    let mut program = program();
    let output = program.args(["cutover", "--yes", "--endpoint", "http://127.0.0.1:1"]).env("MONGOFERRY_OUTPUT", "yaml").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn a_stranger_at_the_endpoint_is_told_as_such() {
    let (endpoint, served) = answering("<html>");
    let output = run(&["status", "--endpoint", &endpoint]);
    served.join().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("did not answer as mongoferry does"), "{}", stderr(&output));
}
