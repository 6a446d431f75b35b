//! Why a command is not answered with success: a server said so, or the front does.

use mongodb::bson::raw::cstr;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf};

/// Codes and names are the servers' own (`error_codes.yml`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BadValue = 2,
    HostUnreachable = 6,
    FailedToParse = 9,
    Unauthorized = 13,
    IllegalOperation = 20,
    NamespaceNotFound = 26,
    CursorNotFound = 43,
    CommandNotFound = 59,
    ShardKeyNotFound = 61,
    ShardNotFound = 70,
    FailedToSatisfyReadPreference = 133,
    NoSuchTransaction = 251,
    OperationNotSupportedInTransaction = 263,
}

/// An answer with `ok: 0`.
#[derive(Debug)]
pub enum Failure {
    /// As a server gave it.
    Server(RawDocumentBuf),
    Front {
        code: Code,
        message: String,
        labels: &'static [&'static str],
    },
}

pub type Answer = Result<RawDocumentBuf, Failure>;

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure::Front { code, message: message.into(), labels: &[] }
    }

    /// A server could not be reached, or the connection ended before its answer.
    pub fn unreachable(message: impl Into<String>) -> Failure {
        Failure::Front { code: Code::HostUnreachable, message: message.into(), labels: &["ResumableChangeStreamError"] }
    }

    pub fn with_labels(self, labels: &'static [&'static str]) -> Failure {
        match self {
            Failure::Front { code, message, .. } => Failure::Front { code, message, labels },
            Failure::Server(mut reply) => {
                if !labels.is_empty() && matches!(reply.get("errorLabels"), Ok(None)) {
                    reply.append(cstr!("errorLabels"), array(labels));
                }
                Failure::Server(reply)
            }
        }
    }

    pub fn code(&self) -> i32 {
        match self {
            Failure::Server(reply) => reply.get_i32("code").unwrap_or_default(),
            Failure::Front { code, .. } => *code as i32,
        }
    }

    /// What the front believed about the place of a collection or database is out of date: look again, and try again.
    /// The server has done nothing.
    pub fn is_stale(&self) -> bool {
        is_stale(self.code())
    }

    pub fn into_reply(self) -> RawDocumentBuf {
        match self {
            Failure::Server(reply) => reply,
            Failure::Front { code, message, labels } => {
                let mut reply = RawDocumentBuf::new();
                reply.append(cstr!("ok"), 0.0);
                reply.append(cstr!("errmsg"), message);
                reply.append(cstr!("code"), code as i32);
                reply.append(cstr!("codeName"), format!("{code:?}"));
                if !labels.is_empty() {
                    reply.append(cstr!("errorLabels"), array(labels));
                }
                reply
            }
        }
    }
}

/// `StaleEpoch`, `StaleDbVersion`, `StaleConfig`.
pub fn is_stale(code: i32) -> bool {
    [150, 249, 13388].contains(&code)
}

/// Whether a server's answer says that it did what it was told.
pub fn is_ok(reply: &RawDocument) -> bool {
    matches!(reply.get("ok"), Ok(Some(ok)) if ok.as_f64() == Some(1.0) || ok.as_i32() == Some(1))
}

impl From<mongodb::bson::error::Error> for Failure {
    fn from(error: mongodb::bson::error::Error) -> Self {
        Failure::new(Code::FailedToParse, format!("the front cannot read the command: {error}"))
    }
}

fn array(labels: &[&str]) -> RawArrayBuf {
    labels.iter().map(|label| (*label).to_owned()).collect()
}
