//! Retryable writes: what was answered to a session's newest write, for the client that lost the answer.
//!
//! The shards' routing commands take no transaction numbers, so they are not sent on; a client that lost its
//! connection to the front and sends its write again gets the first answer. What the front cannot know is whether a
//! write was done whose answer it lost itself, on a server's death: such a write may be done twice.

use std::collections::HashMap;
use std::sync::Mutex;

use mongodb::bson::{RawDocument, RawDocumentBuf};

/// By session: the newest transaction number and its answer.
#[derive(Default)]
pub struct Retried(Mutex<HashMap<Vec<u8>, (i64, RawDocumentBuf)>>);

impl Retried {
    pub fn answer(&self, (session, number): (&RawDocument, i64)) -> Option<RawDocumentBuf> {
        let sessions = self.0.lock().expect("nothing panics with the sessions");
        sessions.get(session.as_bytes()).filter(|(newest, _)| *newest == number).map(|(_, answer)| answer.clone())
    }

    pub fn remember(&self, (session, number): (&RawDocument, i64), answer: &RawDocument) {
        self.0.lock().expect("nothing panics with the sessions").insert(session.as_bytes().to_vec(), (number, answer.to_owned()));
    }

    pub fn forget(&self, session: &RawDocument) {
        self.0.lock().expect("nothing panics with the sessions").remove(session.as_bytes());
    }
}
