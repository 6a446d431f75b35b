//! The control endpoint: who may ask, and how the verbs ask.

use super::{
    Problem,
    raw::Raw,
    resolve::Resolver,
    values::{self, Complaint},
};
use std::{net::SocketAddr, path::PathBuf};

/// What protects the endpoint. Files are named, not yet read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlConfig {
    /// Holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// HTTPS instead of HTTP.
    pub tls: Option<TlsFiles>,
}

/// The files of an endpoint with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The endpoint's chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CA of the client certificates that are demanded.
    pub client_ca: Option<PathBuf>,
}

/// How a verb reaches the running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointOptions {
    /// As in `https://host:27182`.
    pub url: String,
    /// Holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// CA of the endpoint's certificate.
    pub ca: Option<PathBuf>,
    /// Client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The options of a verb that asks.
///
/// # Errors
/// Every problem found.
pub fn endpoint_options(raw: &Raw) -> Result<EndpointOptions, Vec<Problem>> {
    let mut r = Resolver::of(raw);
    let options = EndpointOptions {
        url: r.one("endpoint", |text| Ok(text.to_owned())).unwrap_or_default(),
        token_file: file(&mut r, "token_file"),
        ca: file(&mut r, "endpoint_ca"),
        identity: both(&mut r, "endpoint_certificate", "endpoint_key"),
    };
    r.outcome(options)
}

/// The endpoint's address and protection. Beyond this host, both token and TLS are needed.
pub(super) fn control(r: &mut Resolver<'_>) -> (SocketAddr, ControlConfig) {
    let listen = r.one("listen", values::address).unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    let token_file = file(r, "token_file");
    let client_ca = file(r, "tls_client_ca");
    let tls = both(r, "tls_certificate", "tls_key").map(|(certificate, key)| TlsFiles { certificate, key, client_ca: client_ca.clone() });
    if client_ca.is_some() && tls.is_none() {
        r.problem("tls_client_ca", "needs a certificate of the endpoint's own", "give `--tls-certificate` and `--tls-key` as well");
    }
    if !listen.ip().is_loopback() && (token_file.is_none() || tls.is_none()) {
        r.problem(
            "listen",
            "opens the control endpoint to other hosts, which needs a token and TLS",
            "give `--token-file`, `--tls-certificate` and `--tls-key`, or listen on 127.0.0.1",
        );
    }
    (listen, ControlConfig { token_file, tls })
}

/// A file that may be named.
fn file(r: &mut Resolver<'_>, key: &str) -> Option<PathBuf> {
    r.one(key, |text| Ok::<_, Complaint>((!text.is_empty()).then(|| PathBuf::from(text)))).flatten()
}

/// Two files, or none.
fn both(r: &mut Resolver<'_>, first: &str, second: &str) -> Option<(PathBuf, PathBuf)> {
    let flag = |key: &str| format!("`--{}`", key.replace('_', "-"));
    match (file(r, first), file(r, second)) {
        (Some(a), Some(b)) => Some((a, b)),
        (None, None) => None,
        (Some(_), None) => {
            r.problem(first, &format!("needs {}", flag(second)), &format!("give {} as well", flag(second)));
            None
        }
        (None, Some(_)) => {
            r.problem(second, &format!("needs {}", flag(first)), &format!("give {} as well", flag(first)));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{file::parse, resolve};
    use super::*;
    use std::path::Path;

    fn raw(text: &str) -> Raw {
        let uris = "source = 'mongodb://a/'\ntarget = 'mongodb://b/'\n";
        parse(&format!("{uris}{text}"), Path::new("f")).unwrap()
    }

    #[test]
    fn beyond_loopback_both_token_and_tls_are_needed() {
        let (token, tls) = ("token_file = 't'\n", "tls_certificate = 'c'\ntls_key = 'k'\n");
        for listen in ["0.0.0.0:1", "10.0.0.7:1", "[::]:1", "192.168.1.1:27182"] {
            let listen = format!("listen = '{listen}'\n");
            for lacking in [String::new(), token.to_owned(), tls.to_owned()] {
                let found = resolve(&raw(&format!("{listen}{lacking}"))).unwrap_err();
                assert!(found[0].hint.as_deref().unwrap().contains("--token-file"), "{found:?}");
            }
            assert!(resolve(&raw(&format!("{listen}{token}{tls}"))).is_ok(), "{listen}");
        }
        for listen in ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.9.9.9:1"] {
            assert!(resolve(&raw(&format!("listen = '{listen}'\n"))).is_ok(), "{listen}");
        }
    }

    #[test]
    fn halves_are_refused() {
        for half in ["tls_certificate = 'c'", "tls_key = 'k'", "tls_client_ca = 'c'"] {
            assert_eq!(resolve(&raw(half)).unwrap_err().len(), 1, "{half}");
        }
        for half in ["endpoint_certificate = 'c'", "endpoint_key = 'k'"] {
            assert!(endpoint_options(&raw(half)).is_err(), "{half}");
        }
    }

    #[test]
    fn a_verb_needs_no_clusters() {
        let options = endpoint_options(&Raw::default()).unwrap();
        assert_eq!((options.url.as_str(), options.token_file), ("http://127.0.0.1:27182", None));
    }
}
