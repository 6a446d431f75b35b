//! The way to the running process. Verbs never act behind its back: where it does not answer, they say so.

use crate::{
    config::EndpointOptions,
    error::{Cause, Error, Result},
    observe::{Answer, Command, Token, private},
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use std::{path::Path, sync::Arc, time::Duration};
use ureq::{
    http::StatusCode,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

/// A long report is still a report.
const LARGEST_ANSWER: u64 = 256 << 20;

/// Speaks to one endpoint.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    authorization: Option<SecretString>,
}

impl Client {
    /// For an endpoint such as `http://127.0.0.1:27182`.
    ///
    /// # Errors
    /// What does not look like one; files that cannot be used; a token that would travel in the clear.
    pub(super) fn new(options: &EndpointOptions) -> Result<Self> {
        let (scheme, host) = parts(&options.url)?;
        let token = options.token_file.as_ref().map(|path| Token::read(path, "--token-file")).transpose()?;
        if token.is_some() && scheme == "http" && !is_loopback(host) {
            return Err(bad(
                "--endpoint",
                "would send the token in the clear".to_owned(),
                "use `https://`; `mongoferry run` serves it with `--tls-certificate` and `--tls-key`",
            ));
        }
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls(options)?)
            .build();
        Ok(Self { agent: config.into(), endpoint: format!("{scheme}://{host}"), authorization: token.map(|token| token.header()) })
    }

    /// The status, as the process wrote it.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`].
    pub(super) fn status(&self) -> Result<serde_json::Value> {
        let request = self.signed(self.agent.get(format!("{}/v1/status", self.endpoint)));
        self.read(request.config().timeout_global(Some(Duration::from_secs(10))).build().call())
    }

    /// Asks, and waits as long as it takes.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`]; a "no" of the process is an answer.
    pub(super) fn ask(&self, command: &Command) -> Result<Answer> {
        if let Command::Set { settings } = command {
            return self.read(self.signed(self.agent.patch(format!("{}/v1/settings", self.endpoint))).send_json(settings));
        }
        let bug = |why: &str| Error::Bug(format!("a command that cannot be sent: {why}"));
        let mut body = serde_json::to_value(command).map_err(|why| bug(&why.to_string()))?;
        let verb = body.as_object_mut().and_then(|fields| fields.remove("verb"));
        let verb = verb.as_ref().and_then(|verb| verb.as_str()).ok_or_else(|| bug("it has no verb"))?;
        self.read(self.signed(self.agent.post(format!("{}/v1/{verb}", self.endpoint))).send_json(&body))
    }

    fn signed<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(token) => request.header("authorization", token.expose_secret()),
            None => request,
        }
    }

    fn read<T: DeserializeOwned>(&self, sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<T> {
        let silent = |source| Error::NoEndpoint { endpoint: self.endpoint.clone(), source };
        // What is below an I/O error tells more than its wrapper.
        let cause = |why| if let ureq::Error::Io(io) = why { io.into() } else { Box::new(why) as Cause };
        let mut response = sent.map_err(|why| silent(cause(why)))?;
        let code = response.status();
        if code == StatusCode::UNAUTHORIZED {
            let problem = match self.authorization {
                Some(_) => "does not hold the token of the process at the endpoint",
                None => "is missing: the process at the endpoint asks for a token",
            };
            return Err(bad("--token-file", problem.to_owned(), "give the file that `mongoferry run` was given as `--token-file`"));
        }
        if code.is_client_error() {
            let said = response.body_mut().read_json::<serde_json::Value>().unwrap_or_default();
            if let Some(why) = said["error"].as_str() {
                return Err(bad("--endpoint", format!("refused the request: {why}"), ""));
            }
        }
        if !code.is_success() {
            return Err(silent(format!("what listens there answered {code}").into()));
        }
        let read = response.body_mut().with_config().limit(LARGEST_ANSWER).read_json();
        read.map_err(|why| silent(format!("what listens there did not answer as mongoferry does: {why}").into()))
    }
}

fn bad(flag: &str, problem: String, hint: &str) -> Error {
    Error::BadConfig { field: flag.to_owned(), problem, hint: (!hint.is_empty()).then(|| hint.to_owned()) }
}

/// Scheme, and host with port.
fn parts(url: &str) -> Result<(&'static str, &str)> {
    let rest = url.strip_prefix("http://").map(|rest| ("http", rest)).or_else(|| url.strip_prefix("https://").map(|rest| ("https", rest)));
    match rest.map(|(scheme, rest)| (scheme, rest.trim_end_matches('/'))) {
        Some((scheme, host)) if !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']) => Ok((scheme, host)),
        Some(_) | None => Err(bad("--endpoint", "must be a URL such as `http://127.0.0.1:27182`".to_owned(), "")),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whom to trust, and what to show.
fn tls(options: &EndpointOptions) -> Result<TlsConfig> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = &options.ca {
        let text = std::fs::read(path)
            .map_err(|why| bad("--endpoint-ca", format!("names a file that cannot be read: {}: {why}", path.display()), ""))?;
        tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates(&text, path, "--endpoint-ca")?)));
    }
    if let Some((certificate, key)) = &options.identity {
        let text = std::fs::read(certificate).map_err(|why| {
            bad("--endpoint-certificate", format!("names a file that cannot be read: {}: {why}", certificate.display()), "")
        })?;
        let chain = certificates(&text, certificate, "--endpoint-certificate")?;
        let secret = PrivateKey::from_pem(&private(key, "--endpoint-key")?)
            .map_err(|_| bad("--endpoint-key", format!("names a file without a private key in PEM: {}", key.display()), ""))?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, secret)));
    }
    Ok(tls.build())
}

fn certificates(text: &[u8], path: &Path, flag: &str) -> Result<Vec<Certificate<'static>>> {
    let found: Vec<_> = parse_pem(text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        })
        .collect::<Result<_, _>>()
        .map_err(|why| bad(flag, format!("names a file that cannot be read: {}: {why}", path.display()), ""))?;
    if found.is_empty() {
        return Err(bad(flag, format!("names a file without a certificate in PEM: {}", path.display()), ""));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked() {
        for good in ["http://127.0.0.1:27182", "http://localhost:1/", "https://h:1", "https://h"] {
            assert!(parts(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:27182", "http://", "http://u:p@h", "http://h/x", "ftp://h", "https://h?x"] {
            assert_eq!(parts(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_token_does_not_travel_in_the_clear() {
        for (host, near) in [("localhost:1", true), ("127.0.0.1", true), ("[::1]:27182", true), ("10.0.0.1:1", false), ("h", false)] {
            assert_eq!(is_loopback(host), near, "{host}");
        }
    }
}
