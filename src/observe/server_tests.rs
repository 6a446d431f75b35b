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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (status, seen) = watch::channel(Status::default());
    let (requests, mut asked) = mpsc::channel::<Request>(4);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, Endpoint { metrics: Arc::new(Metrics::new()), status: seen, requests }, stop.clone()));
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
        ("/pause", "", serde_json::json!({ "verb": "pause", "by": "http" })),
        ("/pause", r#"{"by":"ann"}"#, serde_json::json!({ "verb": "pause", "by": "ann" })),
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
    for line in index.lines().filter(|line| line.starts_with("GET") || line.starts_with("POST")) {
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
