//! What the tests of the whole program share: the program as a child process, and pairs of real clusters for it.
//!
//! Nothing here outlives its value: children are killed and reaped when dropped, and die with this process even when
//! that one is killed.

use bson::{Document, doc};
use mongodb::Client;
use rand::Rng;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};
use testbed::{Options, ReplicaSet, connect, end, parity};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};

/// How long any state may take to come. Long: it is only waited for in full when a test fails.
pub const DEADLINE: Duration = Duration::from_secs(180);
/// Between two looks at a state.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// The database of the resume point.
pub const METADATA: &str = "__mdb_internal_mongoferry";

/// Tests that run servers at once, however many threads there are: elections have time limits.
const PLACES: u32 = 2;

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

/// The logs of servers.
#[derive(Debug)]
struct Words(Vec<PathBuf>);

/// A source and a target, each with a client.
#[derive(Debug)]
pub struct Pair {
    // Declared first, so that the logs are read before they are removed.
    _words: Words,
    pub source: ReplicaSet,
    pub target: ReplicaSet,
    /// Of the source.
    pub from: Client,
    /// Of the target.
    pub to: Client,
    _places: SemaphorePermit<'static>,
}

/// A test that fails tells what the servers died of, if they did.
impl Drop for Words {
    fn drop(&mut self) {
        for log in self.0.iter().filter(|_| std::thread::panicking()) {
            let text = fs::read_to_string(log).unwrap_or_default();
            let last: Vec<_> = text.lines().filter(|line| line.contains(r#""s":"F""#)).take(5).collect();
            if !last.is_empty() {
                eprintln!("last words in {}:\n{}", log.display(), last.join("\n"));
            }
        }
    }
}

impl Words {
    fn of(sets: [&ReplicaSet; 2]) -> Self {
        let logs =
            |set: &ReplicaSet| (0..set.addresses().len()).map(|n| set.folder().join(format!("node{n}/mongod.log"))).collect::<Vec<_>>();
        Self(sets.into_iter().flat_map(logs).collect())
    }
}

/// Room on the machine, for as long as it is kept.
async fn room(places: u32) -> SemaphorePermit<'static> {
    static FREE: Semaphore = Semaphore::const_new(PLACES as usize);
    FREE.acquire_many(places).await.expect("never closed")
}

/// The machine for one test, as long as the value lives: for tests with clusters of their own making.
pub async fn whole_machine() -> SemaphorePermit<'static> {
    room(PLACES).await
}

impl Pair {
    /// One node each.
    pub async fn start() -> Self {
        Self::with(Options::default(), Options::default()).await
    }

    /// As asked for. The names of the sets differ.
    pub async fn with(source: Options, target: Options) -> Self {
        // Several nodes want the machine for themselves.
        let places = if source.nodes + target.nodes > 2 { PLACES } else { 1 };
        Self::at(places, source, target).await
    }

    /// As [`Pair::with`], with the machine for itself: for tests whose load has a rate to reach.
    pub async fn alone(source: Options, target: Options) -> Self {
        Self::at(PLACES, source, target).await
    }

    async fn at(places: u32, source: Options, target: Options) -> Self {
        let places = room(places).await;
        let (source, target) = (Options { name: "source".into(), ..source }, Options { name: "target".into(), ..target });
        let (source, target) = tokio::try_join!(ReplicaSet::start(source), ReplicaSet::start(target)).unwrap();
        let (from, to) = (connect(&source.uri()).await.unwrap(), connect(&target.uri()).await.unwrap());
        Self { _words: Words::of([&source, &target]), source, target, from, to, _places: places }
    }

    /// Starts `run` between the two.
    pub fn ferry(&self, more: &[&str]) -> Ferry {
        Ferry::start(&self.source.uri(), &self.target.uri(), more)
    }

    /// Runs a command on a database of the source.
    #[track_caller]
    pub fn on_source(&self, database: &str, command: Document) -> impl Future<Output = Document> {
        run(&self.from, database, command)
    }

    /// Runs a command on a database of the target.
    #[track_caller]
    pub fn on_target(&self, database: &str, command: Document) -> impl Future<Output = Document> {
        run(&self.to, database, command)
    }

    /// The migration's record, if there is one.
    pub async fn record(&self) -> Option<Document> {
        self.to.database(METADATA).collection::<Document>("migration").find_one(doc! {}).await.unwrap()
    }

    /// Fails unless both sides are equal, byte for byte.
    pub async fn assert_equal(&self) {
        self.assert_equal_as(parity::everything).await;
    }

    /// As [`Pair::assert_equal`], with filters and renames: see [`testbed::compare`].
    pub async fn assert_equal_as(&self, pick: impl Fn(&str, &str) -> Option<(String, String)>) {
        let report = testbed::compare(&self.from, &self.to, pick).await.unwrap();
        let few: Vec<_> = report.differences.iter().take(30).map(ToString::to_string).collect();
        assert!(report.is_equal(), "{} differences, such as\n{}", report.differences.len(), few.join("\n"));
        assert!(report.documents().0 > 0, "nothing was compared");
    }

    /// Ends the clients before their runtime does.
    pub async fn end(self) {
        end(self.from).await;
        end(self.to).await;
    }
}

/// A digest of every database by the server itself, but for those that it writes to by itself: what must not change
/// when nothing may be written.
pub async fn contents(client: &Client) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in client.list_database_names().await.unwrap() {
        if !matches!(name.as_str(), "local" | "config") {
            let digest = run(client, &name, doc! {"dbHash": 1}).await.get_document("collections").unwrap().to_string();
            found.insert(name, digest);
        }
    }
    found
}

/// Runs a command; a reply with errors of single statements is a failure, too.
pub async fn run(client: &Client, database: &str, command: Document) -> Document {
    let name = command.keys().next().cloned().unwrap_or_default();
    match client.database(database).run_command(command).await {
        Ok(reply) if !reply.contains_key("writeErrors") => reply,
        other => panic!("{name} on `{database}`: {other:?}"),
    }
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

/// A hindrance on a server, as a command for its `admin`: commands of mongoferry are answered late. Needs
/// `enableTestCommands`, as the test bed's servers have.
pub fn slowness(commands: &[&str], by: Duration) -> Document {
    let data = doc! {
        "failCommands": commands.to_vec(), "blockConnection": true, "blockTimeMS": i64::try_from(by.as_millis()).unwrap(),
        "appName": "mongoferry",
    };
    doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data}
}

/// What takes it back.
pub fn no_slowness() -> Document {
    doc! {"configureFailPoint": "failCommand", "mode": "off"}
}

/// Slows the primary down.
pub async fn slow_down(client: &Client, commands: &[&str], by: Duration) {
    run(client, "admin", slowness(commands, by)).await;
}

/// Lets commands of mongoferry fail on the primary.
pub async fn fail(client: &Client, commands: &[&str], code: i32) {
    let data = doc! {"failCommands": commands.to_vec(), "errorCode": code, "appName": "mongoferry"};
    run(client, "admin", doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data}).await;
}

/// Takes [`slow_down`] and [`fail`] back.
pub async fn speed_up(client: &Client) {
    run(client, "admin", no_slowness()).await;
}
