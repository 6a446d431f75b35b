//! The cluster's clock as the front has heard it: a logical time that every message carries on.
//!
//! A `mongos` does the same, and answers the time it knows as the operation time when it has no better one: "safe but
//! not optimal because we can always return a later operation time than actual" (its source, `strategy.cpp`).

use std::sync::Mutex;

use mongodb::bson::raw::cstr;
use mongodb::bson::{RawDocument, RawDocumentBuf, Timestamp};

/// The newest `$clusterTime` that any server has told.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Option<(Timestamp, RawDocumentBuf)>>);

impl Clock {
    /// Takes note of what a message says.
    pub fn hear(&self, message: &RawDocument) {
        let Ok(told) = message.get_document("$clusterTime") else { return };
        let Ok(time) = told.get_timestamp("clusterTime") else { return };
        let mut newest = self.0.lock().expect("nothing panics with the clock");
        if newest.as_ref().is_none_or(|(known, _)| *known < time) {
            *newest = Some((time, told.to_owned()));
        }
    }

    /// Puts the time into a command for a server.
    pub fn tell(&self, command: &mut RawDocumentBuf) {
        if let Some((_, told)) = &*self.0.lock().expect("nothing panics with the clock") {
            command.append(cstr!("$clusterTime"), told);
        }
    }

    /// Puts the time into an answer to a client, as the operation time, too.
    pub fn sign(&self, answer: &mut RawDocumentBuf) {
        if let Some((time, told)) = &*self.0.lock().expect("nothing panics with the clock") {
            answer.append(cstr!("operationTime"), *time);
            answer.append(cstr!("$clusterTime"), told);
        }
    }

    pub fn time(&self) -> Option<Timestamp> {
        self.0.lock().expect("nothing panics with the clock").as_ref().map(|(time, _)| *time)
    }
}
