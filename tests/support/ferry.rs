//! `mongoferry run` as a child process.

use super::{DEADLINE, Told, program, told};
use bson::doc;
use mongodb::Client;
use rand::Rng;
use serde_json::Value;
use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};
use testbed::parity;
use tokio::time::{Instant, sleep};

/// Between two looks at a state.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A child that is killed and reaped on drop.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `mongoferry run` as a child process.
#[derive(Debug)]
pub struct Ferry {
    arguments: Vec<String>,
    endpoint: String,
    folder: tempfile::TempDir,
    process: Option<Process>,
}

impl Ferry {
    /// Starts `run`; does not wait for anything.
    pub fn start(source: &str, target: &str, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut arguments: Vec<String> = ["run", "--source", source, "--target", target, "--listen", &address].map(String::from).to_vec();
        arguments.extend(more.iter().map(ToString::to_string));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut ferry = Self { arguments, endpoint: format!("http://{address}"), folder, process: None };
        ferry.restart();
        ferry
    }

    /// Starts the same command again; a process that still runs is killed.
    pub fn restart(&mut self) {
        self.process = None;
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log can be opened");
        let again = log.try_clone().expect("a log can be opened");
        let mut command = program();
        command.args(&self.arguments).stdout(again).stderr(log);
        self.process = Some(Process(command.spawn().expect("the program can be started")));
    }

    /// Starts it again with other options of `run` behind the URIs.
    pub fn restart_with(&mut self, more: &[&str]) {
        self.arguments.truncate(7);
        self.arguments.extend(more.iter().map(ToString::to_string));
        self.restart();
    }

    /// Starts another verb that works as `run` does, with the same options.
    pub fn restart_as(&mut self, verb: &str) {
        verb.clone_into(&mut self.arguments[0]);
        self.restart();
    }

    /// Kills it at once (SIGKILL).
    pub fn kill_9(&mut self) {
        self.process = None;
    }

    /// Sends a signal, as in `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the process cannot be signalled\n{}", self.log());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the process was started").0.id()
    }

    /// Host and port of its endpoint.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// Everything it and its predecessors wrote to stderr and stdout.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The exit code, if it has ended.
    fn ended(&mut self) -> Option<i32> {
        let process = self.process.as_mut()?;
        process.0.try_wait().expect("a child can be waited for").map(|status| status.code().unwrap_or(-1))
    }

    /// The status; `None` while nobody answers, or nothing is known yet.
    pub async fn look(&self) -> Option<Value> {
        let url = format!("{}/status", self.endpoint);
        let get = move || {
            let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).proxy(None).build();
            ureq::Agent::from(config).get(url).call().ok()?.body_mut().read_json::<Value>().ok()
        };
        let status = tokio::task::spawn_blocking(get).await.expect("asking does not panic")?;
        (status["phase"] != "").then_some(status)
    }

    /// What `/metrics` shows.
    pub async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.endpoint);
        let get = move || ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
        tokio::task::spawn_blocking(get).await.expect("asking does not panic")
    }

    /// The status, as soon as there is one.
    pub async fn status(&mut self) -> Value {
        self.wait_for("a status", |_| true).await
    }

    /// Waits until the status is as wanted, and gives it. Fails when the process ends or halts before.
    pub async fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        match self.wait_within(DEADLINE, what, wanted).await {
            Ok(status) => status,
            Err(last) => panic!("waited in vain for {what}; last seen: {last:#}\n{}", self.log()),
        }
    }

    /// As [`Ferry::wait_for`], for what may rightly not come in time: then the last status is given.
    pub async fn wait_within(&mut self, time: Duration, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Value> {
        let deadline = Instant::now() + time;
        let mut last = None;
        loop {
            if let Some(status) = self.look().await {
                if wanted(&status) {
                    return Ok(status);
                }
                assert!(status["activity"] != "halted", "waiting for {what}, it halted: {status:#}\n{}", self.log());
                last = Some(status);
            }
            if let Some(code) = self.ended() {
                panic!("waiting for {what}, it ended with {code}\n{}", self.log());
            }
            if Instant::now() > deadline {
                return Err(last.unwrap_or_default());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits for a phase, or one behind it.
    pub async fn wait_for_phase(&mut self, phase: &str) -> Value {
        self.wait_for(phase, |status| reached(status, phase)).await
    }

    /// Waits until every gate of a cutover is open.
    pub async fn wait_until_ready(&mut self) -> Value {
        self.wait_for("every gate to be open", |status| status["can_cut_over"] == true).await
    }

    /// Waits until everything that the source had done when this was called is on the target.
    pub async fn wait_until_caught_up(&mut self, source: &Client) -> Value {
        let note = doc! {"appendOplogNote": 1, "data": {"test": "caught up"}, "writeConcern": {"w": "majority"}};
        let now = source.database("admin").run_command(note).await.unwrap().get_timestamp("operationTime").unwrap();
        let wanted = (u64::from(now.time), u64::from(now.increment));
        self.wait_for("the tail to catch up", |status| time(&status["applied_cluster_time"]) >= Some(wanted)).await
    }

    /// Asks the process: another verb with its `--endpoint`.
    pub async fn verb(&self, args: &[&str]) -> Told {
        told(&[args, &["--endpoint", &self.endpoint]].concat()).await
    }

    /// Hands over. "Not ready" is asked again, since gates move under load; everything else is told.
    pub async fn cutover(&mut self, more: &[&str]) -> Told {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.wait_until_ready().await;
            let told = self.verb(&[&["cutover", "--yes"], more].concat()).await;
            let not_ready =
                told.code == 1 && (told.stdout.contains("not ready to cut over") || told.stdout.contains("is not possible while"));
            if !not_ready || Instant::now() > deadline {
                return told;
            }
        }
    }

    /// Hands over, and waits for the process to end well.
    pub async fn cutover_and_end(&mut self) -> Told {
        let told = self.cutover(&[]).await;
        assert_eq!(told.code, 0, "the cutover failed: {told:?}\n{}", self.log());
        let code = self.wait_exit().await;
        assert_eq!(code, 0, "after the cutover, run ended with {code}\n{}", self.log());
        told
    }

    /// Hands over from a source whose writers are stopped, and compares; gives how many documents each side has.
    pub async fn hand_over_stopped(&mut self, from: &Client, to: &Client) -> (u64, u64) {
        let told = self.cutover(&["--writes-stopped"]).await;
        assert_eq!(told.code, 0, "the cutover failed: {told:?}\n{}", self.log());
        assert_eq!(self.wait_exit().await, 0, "{}", self.log());
        let report = testbed::compare(from, to, parity::everything).await.unwrap();
        let few: Vec<_> = report.differences.iter().take(30).map(ToString::to_string).collect();
        assert!(report.is_equal(), "{} differences, such as\n{}\n{}", report.differences.len(), few.join("\n"), self.log());
        report.documents()
    }

    /// Waits until it has ended; gives the exit code.
    pub async fn wait_exit(&mut self) -> i32 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(code) = self.ended() {
                return code;
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.log());
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Whether a status is of this phase, or one behind it.
pub fn reached(status: &Value, phase: &str) -> bool {
    let order =
        |phase: &str| ["planned", "copying", "catching_up", "tailing", "cutting_over", "committed"].iter().position(|p| *p == phase);
    status["phase"].as_str().and_then(order) >= order(phase)
}

/// A cluster time in a status.
pub fn time(value: &Value) -> Option<(u64, u64)> {
    value["t"].as_u64().zip(value["i"].as_u64())
}

/// A loopback port that nobody listens on, below those that the system gives to outgoing connections: it is free also
/// when a process comes back to it.
pub fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| rand::rng().random_range(20_000..32_000));
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("some port is free")
}
