//! The control endpoint from outside: token and TLS with the verbs themselves, and who may not listen. Needs no
//! server; what the endpoint steers is tested below `real`.

use crate::support::{Told, told};
use mongoferry::{
    model::Status,
    observe::{Access, Answer, Endpoint, Metrics, Request, Tls, Token, serve},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A folder of keys: two CAs, a certificate for `localhost` of the first, a client's of the second, and tokens.
pub struct Keys(tempfile::TempDir);

impl Keys {
    pub fn make() -> Self {
        let keys = Self(tempfile::tempdir().unwrap());
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        keys.put("ca.pem", &ours.pem(), 0o644);
        keys.put("clients.pem", &theirs.pem(), 0o644);
        for (name, issuer) in [("endpoint", &ours), ("client", &theirs)] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            keys.put(&format!("{name}.pem"), &params.signed_by(&key, issuer).unwrap().pem(), 0o644);
            keys.put(&format!("{name}.key"), &key.serialize_pem(), 0o600);
        }
        keys.put("token", "0123456789abcdef0123456789abcdef\n", 0o600);
        keys.put("other", "fedcba9876543210fedcba9876543210\n", 0o600);
        keys
    }

    fn put(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn access(&self, client_ca: bool) -> Access {
        let ca = client_ca.then(|| self.path("clients.pem"));
        Access {
            token: Some(Token::renewed(&self.path("token"), "--token-file").unwrap()),
            tls: Some(Tls::renewed(&self.path("endpoint.pem"), &self.path("endpoint.key"), ca.as_deref()).unwrap()),
        }
    }
}

/// An endpoint with an engine that says yes to everything.
struct Server {
    port: u16,
    stop: CancellationToken,
    tasks: JoinSet<mongoferry::error::Result<()>>,
    _status: watch::Sender<Status>,
}

impl Server {
    async fn start(access: Access) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shown = Status { format: 1, phase: "tailing".into(), activity: "running".into(), ..Status::default() };
        let (status, seen) = watch::channel(shown);
        let (requests, mut asked) = mpsc::channel::<Request>(4);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(serve(listener, access, Endpoint::new(Arc::new(Metrics::new()), seen, requests), stop.clone()));
        tasks.spawn(async move {
            while let Some(Request { answer, .. }) = asked.recv().await {
                let _ = answer.send(Answer::done("done"));
            }
            Ok(())
        });
        Self { port, stop, tasks, _status: status }
    }

    async fn ask(&self, verb: &str, scheme: &str, more: &[&str]) -> Told {
        let endpoint = format!("{scheme}://localhost:{}", self.port);
        told(&[&[verb, "--endpoint", &endpoint], more].concat()).await
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn the_verbs_come_in_by_token_and_tls_only() {
    let keys = Keys::make();
    let server = Server::start(keys.access(false)).await;
    let (ca, token, other) = (keys.text("ca.pem"), keys.text("token"), keys.text("other"));
    let good = ["--endpoint-ca", ca.as_str(), "--token-file", token.as_str()];
    for verb in ["status", "pause", "resume"] {
        server.ask(verb, "https", &good).await.expect(0, verb);
    }
    let without = server.ask("status", "https", &["--endpoint-ca", &ca]).await.expect(2, "no token");
    assert!(without.stderr.contains("asks for a token"), "{}", without.stderr);
    let wrong = server.ask("status", "https", &["--endpoint-ca", &ca, "--token-file", &other]).await.expect(2, "another token");
    assert!(wrong.stderr.contains("does not hold the token") && !wrong.stderr.contains("fedcba"), "{}", wrong.stderr);
    server.ask("status", "https", &["--token-file", &token]).await.expect(3, "an unknown CA");
    let others = keys.text("clients.pem");
    server.ask("status", "https", &["--token-file", &token, "--endpoint-ca", &others]).await.expect(3, "another CA");
    server.ask("status", "http", &["--token-file", &token]).await.expect(3, "HTTP where HTTPS is spoken");
    // The environment and the file lead there, too.
    let config = format!("endpoint = 'https://localhost:{}'\nendpoint_ca = '{ca}'\ntoken_file = '{token}'\n", server.port);
    keys.put("f.toml", &config, 0o600);
    told(&["status", "--config", &keys.text("f.toml")]).await.expect(0, "by file");
    let mut by_environment = crate::support::program();
    by_environment.arg("status").env("MONGOFERRY_TOKEN_FILE", &token).env("MONGOFERRY_ENDPOINT_CA", &ca);
    by_environment.env("MONGOFERRY_ENDPOINT", format!("https://localhost:{}", server.port));
    let output = tokio::process::Command::from(by_environment).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    server.end().await;
}

#[tokio::test]
async fn client_certificates_are_demanded_where_asked_for() {
    let keys = Keys::make();
    let server = Server::start(keys.access(true)).await;
    let (ca, token) = (keys.text("ca.pem"), keys.text("token"));
    let (mine, key) = (keys.text("client.pem"), keys.text("client.key"));
    let base = ["--endpoint-ca", ca.as_str(), "--token-file", token.as_str()];
    server.ask("status", "https", &base).await.expect(3, "no client certificate");
    let (strange, its_key) = (keys.text("endpoint.pem"), keys.text("endpoint.key"));
    let with_strange = [&base[..], &["--endpoint-certificate", &strange, "--endpoint-key", &its_key]].concat();
    server.ask("status", "https", &with_strange).await.expect(3, "a certificate of another CA");
    let with_mine = [&base[..], &["--endpoint-certificate", &mine, "--endpoint-key", &key]].concat();
    server.ask("status", "https", &with_mine).await.expect(0, "its certificate");
    server.end().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_nobody_up() {
    let keys = Keys::make();
    let server = Server::start(keys.access(false)).await;
    let silent: Vec<_> = futures_util::future::join_all((0..8).map(|_| tokio::net::TcpStream::connect(("127.0.0.1", server.port)))).await;
    let (ca, token) = (keys.text("ca.pem"), keys.text("token"));
    server.ask("status", "https", &["--endpoint-ca", &ca, "--token-file", &token]).await.expect(0, "the ninth");
    drop(silent);
    server.end().await;
}

#[tokio::test]
async fn renewed_files_are_taken_up_by_the_running_endpoint() {
    let (keys, new) = (Keys::make(), Keys::make());
    let server = Server::start(keys.access(true)).await;
    new.put("token", "00112233445566778899aabbccddeeff\n", 0o600);
    // What clients know: of before, and of what is to come.
    let (old, client) = (Keys(tempfile::tempdir().unwrap()), ["ca.pem", "client.pem", "client.key", "token"]);
    for name in client {
        old.put(name, &fs::read_to_string(keys.path(name)).unwrap(), 0o600);
    }
    let ask = async |of: &Keys, token: &Keys| {
        let [ca, certificate, key, _] = client.map(|name| of.text(name));
        let by =
            ["--endpoint-ca", &ca, "--endpoint-certificate", &certificate, "--endpoint-key", &key, "--token-file", &token.text("token")];
        server.ask("status", "https", &by).await.code
    };
    assert_eq!((ask(&old, &old).await, ask(&new, &new).await), (0, 3));
    for name in ["endpoint.pem", "endpoint.key", "clients.pem", "token"] {
        // As by a link that is turned over.
        keys.put("next", &fs::read_to_string(new.path(name)).unwrap(), 0o600);
        fs::rename(keys.path("next"), keys.path(name)).unwrap();
    }
    let deadline = tokio::time::Instant::now() + crate::support::DEADLINE;
    while ask(&new, &new).await != 0 {
        assert!(tokio::time::Instant::now() < deadline, "the renewed files are not taken up");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!((ask(&old, &new).await, ask(&new, &old).await), (3, 2), "neither the former certificates nor the former token");
    server.end().await;
}

/// The refusals come before any cluster is asked.
#[tokio::test]
async fn files_and_addresses_that_do_not_protect_are_refused() {
    let keys = Keys::make();
    let (token, certificate, key) = (keys.text("token"), keys.text("endpoint.pem"), keys.text("endpoint.key"));
    let (stranger, ca) = (keys.text("client.key"), keys.text("ca.pem"));
    keys.put("open", "0123456789abcdef0123456789abcdef\n", 0o644);
    let (open, none) = (keys.text("open"), keys.text("none"));
    let cases: [(&[&str], &str); 9] = [
        (&["--listen", "0.0.0.0:0"], "needs a token and TLS"),
        (&["--listen", "0.0.0.0:0", "--token-file", &token], "needs a token and TLS"),
        (&["--listen", "0.0.0.0:0", "--tls-certificate", &certificate, "--tls-key", &key], "needs a token and TLS"),
        (&["--tls-certificate", &certificate], "needs `--tls-key`"),
        (&["--tls-client-ca", &ca], "needs a certificate"),
        (&["--token-file", &open], "others may read"),
        (&["--token-file", &none], "cannot be read"),
        (&["--tls-certificate", &certificate, "--tls-key", &stranger], "do not go together"),
        (&["--tls-certificate", &key, "--tls-key", &key], "without a certificate"),
    ];
    for (args, complaint) in cases {
        let uris = ["run", "--source", "mongodb://127.0.0.1:1/", "--target", "mongodb://127.0.0.1:2/"];
        let refused = told(&[&uris[..], args].concat()).await.expect(2, complaint);
        assert!(refused.stderr.contains(complaint), "{args:?}: {}", refused.stderr);
    }
    let clear = told(&["status", "--endpoint", "http://10.0.0.1:27182", "--token-file", &token]).await.expect(2, "in the clear");
    assert!(clear.stderr.contains("in the clear"), "{}", clear.stderr);
}
