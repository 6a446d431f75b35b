//! The way to the running process. Verbs never act behind its back: where it does not answer, they say so.

use crate::{
    error::{Cause, Error, Result},
    observe::{Answer, Command},
};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A long report is still a report.
const LARGEST_ANSWER: u64 = 256 << 20;

/// Speaks to one endpoint.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: String,
}

impl Client {
    /// For an endpoint such as `http://127.0.0.1:27182`.
    ///
    /// # Errors
    /// What does not look like one.
    pub(super) fn new(endpoint: &str) -> Result<Self> {
        let host = endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match host {
            Some(host) if !host.is_empty() && !host.contains(['/', '@', '?', ' ']) => {
                let config = ureq::Agent::config_builder()
                    .timeout_connect(Some(Duration::from_secs(5)))
                    .timeout_global(None)
                    .http_status_as_error(false)
                    .proxy(None)
                    .build();
                Ok(Self { agent: config.into(), endpoint: format!("http://{host}") })
            }
            Some(_) | None => Err(Error::BadConfig {
                field: "--endpoint".to_owned(),
                problem: "must be a URL such as `http://127.0.0.1:27182`".to_owned(),
                hint: None,
            }),
        }
    }

    /// The status, as the process wrote it.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`].
    pub(super) fn status(&self) -> Result<serde_json::Value> {
        let request = self.agent.get(format!("{}/status", self.endpoint));
        self.read(request.config().timeout_global(Some(Duration::from_secs(10))).build().call())
    }

    /// Asks, and waits as long as it takes.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`]; a "no" of the process is an answer.
    pub(super) fn ask(&self, command: &Command) -> Result<Answer> {
        let bug = |why: &str| Error::Bug(format!("a command that cannot be sent: {why}"));
        let mut body = serde_json::to_value(command).map_err(|why| bug(&why.to_string()))?;
        let verb = body.as_object_mut().and_then(|fields| fields.remove("verb"));
        let verb = verb.as_ref().and_then(|verb| verb.as_str()).ok_or_else(|| bug("it has no verb"))?;
        self.read(self.agent.post(format!("{}/{verb}", self.endpoint)).send_json(&body))
    }

    fn read<T: DeserializeOwned>(&self, sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<T> {
        let silent = |source| Error::NoEndpoint { endpoint: self.endpoint.clone(), source };
        // What is below an I/O error tells more than its wrapper.
        let cause = |why| if let ureq::Error::Io(io) = why { io.into() } else { Box::new(why) as Cause };
        let mut response = sent.map_err(|why| silent(cause(why)))?;
        let code = response.status();
        if !code.is_success() {
            return Err(silent(format!("what listens there answered {code}").into()));
        }
        let read = response.body_mut().with_config().limit(LARGEST_ANSWER).read_json();
        read.map_err(|why| silent(format!("what listens there did not answer as mongoferry does: {why}").into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked() {
        for good in ["http://127.0.0.1:27182", "http://localhost:1/"] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:27182", "https://h:1", "http://", "http://u:p@h", "http://h/x"] {
            assert_eq!(Client::new(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
