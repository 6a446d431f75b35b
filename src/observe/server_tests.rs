use super::super::control::{Answer, Command};
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A server on a real socket, and an engine that says what it was asked.
struct Running {
    address: std::net::SocketAddr,
    status: watch::Sender<Status>,
    stop: CancellationToken,
    tasks: JoinSet<Result<()>>,
}

async fn start(with_engine: bool) -> Running {
    start_with(with_engine, Access::default()).await
}

async fn start_with(with_engine: bool, access: Access) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (status, seen) = watch::channel(Status::default());
    let (requests, mut asked) = mpsc::channel::<Request>(4);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, access, Endpoint::new(Arc::new(Metrics::new()), seen, requests), stop.clone()));
    if with_engine {
        tasks.spawn(async move {
            while let Some(Request { command, answer }) = asked.recv().await {
                if let Command::Abort(_) = command {
                    drop(answer);
                    continue;
                }
                let told = serde_json::to_value(&command).unwrap();
                let _ = answer.send(Answer::no("not today").with(told));
            }
            Ok(())
        });
    }
    Running { address, status, stop, tasks }
}

impl Running {
    /// Code, headers and body of an answer.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn post(&self, path: &str, body: &str) -> (u16, serde_json::Value) {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let (code, _, body) = self.ask("POST", path, kind, body).await;
        (code, serde_json::from_str(&body).unwrap())
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let server = start(true).await;
    let (code, head, body) = server.ask("GET", "/metrics", "", "").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("# TYPE mongoferry_lag_seconds gauge"));
    server.end().await;
}

#[tokio::test]
async fn ready_follows_the_status_and_live_does_not() {
    let server = start(true).await;
    assert_eq!(server.ask("GET", "/live", "", "").await.0, 200);
    assert_eq!(server.ask("GET", "/ready", "", "").await.0, 503);
    server.status.send_modify(|s| {
        s.phase = "copying".into();
        s.activity = "running".into();
    });
    assert_eq!(server.ask("GET", "/ready", "", "").await.0, 200);
    server.status.send_modify(|s| {
        s.activity = "paused".into();
        s.reason = Some("by ops".into());
    });
    let (code, _, body) = server.ask("GET", "/ready", "", "").await;
    assert_eq!((code, body.as_str()), (503, "paused: by ops\n"));
    assert_eq!(server.ask("GET", "/live", "", "").await.0, 200);
    let (_, head, body) = server.ask("GET", "/status", "", "").await;
    assert!(head.contains("application/json"));
    let shown: Status = serde_json::from_str(&body).unwrap();
    assert_eq!(shown, *server.status.borrow());
    server.end().await;
}

#[tokio::test]
async fn verbs_reach_the_engine_with_their_defaults() {
    let server = start(true).await;
    for (path, body, told) in [
        ("/pause", "", serde_json::json!({ "verb": "pause", "by": "http", "immediate": false })),
        ("/pause", r#"{"by":"ann"}"#, serde_json::json!({ "verb": "pause", "by": "ann", "immediate": false })),
        ("/v1/pause", r#"{"immediate":true}"#, serde_json::json!({ "verb": "pause", "by": "http", "immediate": true })),
        ("/v1/throttle", r#"{"reason":"backup"}"#, serde_json::json!({ "verb": "throttle", "reason": "backup" })),
        ("/v1/unthrottle", "", serde_json::json!({ "verb": "unthrottle" })),
        ("/v1/start", "", serde_json::json!({ "verb": "start" })),
        ("/resume", "{}", serde_json::json!({ "verb": "resume" })),
        ("/verify", "", serde_json::json!({ "verb": "verify" })),
        (
            "/cutover",
            "",
            serde_json::json!({ "verb": "cutover", "writes_stopped": false, "timeout_seconds": 60, "dry_run": false, "waive_indexes": [], "then_reverse": false }),
        ),
        (
            "/cutover",
            r#"{"dry_run":true}"#,
            serde_json::json!({ "verb": "cutover", "writes_stopped": false, "timeout_seconds": 60, "dry_run": true, "waive_indexes": [], "then_reverse": false }),
        ),
    ] {
        let (code, answer) = server.post(path, body).await;
        assert_eq!(code, 200, "an honest no is an answer");
        assert_eq!((&answer["exit_code"], &answer["details"]), (&1.into(), &told), "{path} {body}");
    }
    server.end().await;
}

#[tokio::test]
async fn what_is_not_understood_is_refused_as_json() {
    let server = start(true).await;
    for (path, body) in
        [("/cutover", r#"{"dryrun":true}"#), ("/resume", r#"{"by":"x"}"#), ("/pause", r#"{"by":7}"#), ("/pause", "{"), ("/abort", "[1]")]
    {
        let (code, answer) = server.post(path, body).await;
        assert_eq!(code, 400, "{path} {body}");
        assert!(answer["error"].is_string());
    }
    let (code, _, _) = server.ask("POST", "/cutover", "Content-Type: text/plain\r\n", "{}").await;
    assert_eq!(code, 415);
    let (code, _, _) = server.ask("POST", "/cutover", "", "{}").await;
    assert_eq!(code, 415, "no content type is not JSON");
    let (code, _, _) = server.ask("POST", "/pause", "Content-Type: application/json\r\n", &" ".repeat(LARGEST_BODY + 1)).await;
    assert_eq!(code, 413);
    assert_eq!(server.ask("GET", "/nothing", "", "").await.0, 404);
    assert_eq!(server.ask("GET", "/cutover", "", "").await.0, 405);
    server.end().await;
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let server = start(true).await;
    for header in ["Origin: https://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n", "Host: evil.example\r\n"] {
        assert_eq!(server.ask("POST", "/cutover", header, "").await.0, 403, "{header}");
        assert_eq!(server.ask("GET", "/status", header, "").await.0, 403, "{header}");
    }
    server.end().await;
}

#[tokio::test]
async fn an_engine_that_is_gone_is_told() {
    let server = start(false).await;
    let (code, answer) = server.post("/pause", "").await;
    assert_eq!((code, &answer["error"]), (503, &"the engine has ended".into()));
    server.end().await;
    let server = start(true).await;
    assert_eq!(server.post("/abort", "").await.0, 503, "it took the request and dropped it");
    server.end().await;
}

#[tokio::test]
async fn the_index_lists_every_route() {
    let server = start(true).await;
    let (_, _, index) = server.ask("GET", "/", "", "").await;
    for line in index.lines().filter(|line| ["GET", "POST", "PATCH"].iter().any(|method| line.starts_with(method))) {
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        assert!(!matches!(server.ask(method, path, "", "").await.0, 404 | 405), "{line}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_connection_left_open_does_not_hold_up_the_end() {
    let server = start(true).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let began = tokio::time::Instant::now();
    server.end().await;
    assert!(began.elapsed() < GRACE * 3);
    drop(silent);
}

#[tokio::test]
async fn with_a_token_only_probes_are_answered_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let access = Access { token: Some(Token::renewed(&path, "--token-file").unwrap()), tls: None };
    let server = start_with(true, access).await;
    server.status.send_modify(|s| {
        s.phase = "copying".into();
        s.activity = "halted".into();
        s.reason = Some("`shop.orders` is gone".into());
    });
    let bare = [
        "",
        "Authorization: 0123456789abcdef\r\n",
        "Authorization: Bearer 0123456789abcdeX\r\n",
        "Authorization: Basic 0123456789abcdef\r\n",
    ];
    for header in bare {
        for (method, path) in
            [("GET", "/"), ("GET", "/status"), ("GET", "/metrics"), ("POST", "/abort"), ("GET", "/nothing"), ("GET", "/v1/status")]
        {
            let (code, head, body) = server.ask(method, path, header, "").await;
            assert_eq!(code, 401, "{method} {path} {header}");
            assert!(head.contains("www-authenticate: bearer") && !body.contains("0123"), "{body}");
        }
        assert_eq!(server.ask("GET", "/live", header, "").await.0, 200);
        let (code, _, body) = server.ask("GET", "/ready", header, "").await;
        assert_eq!((code, body.as_str()), (503, "not ready\n"), "the reason is not for everybody");
    }
    let known = "Authorization: bearer 0123456789abcdef\r\n";
    assert_eq!(server.ask("GET", "/status", known, "").await.0, 200);
    assert_eq!(server.ask("POST", "/pause", known, "").await.0, 200);
    assert!(server.ask("GET", "/ready", known, "").await.2.contains("shop.orders"));
    server.end().await;
}

#[tokio::test]
async fn settings_are_changed_by_name() {
    let server = start(true).await;
    let kind = "Content-Type: application/json\r\n";
    let (code, _, body) = server.ask("PATCH", "/v1/settings", kind, r#"{"copy-rate":"5MB/s","verification":false}"#).await;
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let told = serde_json::json!({"verb": "set", "settings": {"copy-rate": "5MB/s", "verification": "false"}});
    assert_eq!((code, &answer["details"]), (200, &told));
    server.status.send_modify(|s| s.settings.verification = false);
    let (code, _, body) = server.ask("GET", "/v1/settings", "", "").await;
    let settings: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &settings["verification"], &settings["copy-rate"]), (200, &false.into(), &"unlimited".into()));
    server.end().await;
}

#[tokio::test]
async fn mongosyncs_bodies_are_taken_as_curl_sends_them() {
    let server = start(true).await;
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (path, body, error) in [
        ("/api/v1/start", r#"{"source":"cluster0","destination":"cluster1"}"#, "InvalidState"),
        ("/api/v1/start", "{}", "InvalidOption"),
        ("/api/v1/start", "nonsense", "InvalidRequest"),
        ("/api/v1/pause", "{}", "InvalidState"),
        ("/api/v1/resume", "", "InvalidState"),
        ("/api/v1/commit", "{}", "InvalidState"),
        ("/api/v1/commit", r#"{"force":true}"#, "InvalidRequest"),
        ("/api/v1/reverse", "{}", "InvalidState"),
    ] {
        let (code, _, said) = server.ask("POST", path, kind, body).await;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, &said["success"], &said["error"]), (400, &false.into(), &error.into()), "{path} {body}");
        assert!(said["errorDescription"].is_string());
    }
    let (code, _, said) = server.ask("GET", "/api/v1/progress", "", "").await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["success"], &said["progress"]["state"]), (200, &true.into(), &"INITIALIZING".into()));
    server.status.send_modify(|s| {
        (s.phase, s.activity, s.reason) = ("tailing".into(), "halted".into(), Some("no more".into()));
    });
    let (_, _, said) = server.ask("GET", "/api/v1/progress", "", "").await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["success"], &said["errorDescription"], &said["progress"]["state"]),
        (&false.into(), &"no more".into(), &"PAUSED".into())
    );
    server.end().await;
}

/// A commit is answered as soon as it is under way, not when it has ended.
#[tokio::test]
async fn a_commit_is_answered_once_it_has_begun() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (status, seen) = watch::channel(Status { phase: "tailing".into(), activity: "running".into(), ..Status::default() });
    let (requests, mut asked) = mpsc::channel::<Request>(4);
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    tasks.spawn(serve(listener, Access::default(), Endpoint::new(Arc::new(Metrics::new()), seen, requests), stop.clone()));
    let server = Running { address, status: status.clone(), stop, tasks };
    let begin = async {
        let request = asked.recv().await.unwrap();
        assert!(matches!(&request.command, Command::Cutover(order) if !order.writes_stopped && !order.dry_run));
        status.send_modify(|s| s.phase = "cutting_over".into());
        request
    };
    let ((code, _, said), never_answered) = tokio::join!(server.ask("POST", "/api/v1/commit", "", "{}"), begin);
    assert_eq!((code, said.as_str()), (200, r#"{"success":true}"#));
    drop(never_answered);
    server.end().await;
}
