//! A command as a client sent it, and its rewriting for a server.

use mongodb::bson::raw::{BindRawBsonRef, CStr, CString, cstr};
use mongodb::bson::{RawBsonRef, RawDocument, RawDocumentBuf};

use super::failure::{Code, Failure};
use super::wire::{Message, Sequence};

/// Belongs to the conversation between the client and the front. Session and transaction numbers are added again where
/// a server is to see them: with them, its routing commands abort the process (6.0.5, an invariant in
/// `transaction_router.cpp`).
const OURS: [&str; 8] =
    ["lsid", "txnNumber", "autocommit", "startTransaction", "$clusterTime", "apiVersion", "apiStrict", "apiDeprecationErrors"];

#[derive(Debug)]
pub struct Command {
    pub name: String,
    pub db: String,
    pub body: RawDocumentBuf,
    pub sequences: Vec<Sequence>,
}

impl Command {
    pub fn new(message: Message) -> Result<Command, Failure> {
        let Message { body, sequences, legacy, .. } = message;
        let name = body.iter().next().transpose()?.map(|(name, _)| name.as_str().to_owned());
        let name = name.ok_or_else(|| Failure::new(Code::BadValue, "an empty command"))?;
        let db = if legacy { "admin".into() } else { body.get_str("$db")?.to_owned() };
        Ok(Command { name, db, body, sequences })
    }

    /// What stands beside the command's name: mostly a collection's.
    pub fn value(&self) -> Result<RawBsonRef<'_>, Failure> {
        let first = self.body.iter().next().transpose()?;
        first.map(|(_, value)| value).ok_or_else(|| Failure::new(Code::BadValue, "an empty command"))
    }

    /// What stands beside the command's name, if it is a text.
    pub fn text(&self) -> Result<&str, Failure> {
        self.value()?.as_str().ok_or_else(|| Failure::new(Code::BadValue, format!("{} wants a name", self.name)))
    }

    /// The namespace of a command that names a collection of its database.
    pub fn namespace(&self) -> Result<String, Failure> {
        Ok(format!("{}.{}", self.db, self.text()?))
    }

    /// Database and collection of a command that names both in one text (`shardCollection: "db.collection"`).
    pub fn full_name(&self) -> Result<(&str, &str), Failure> {
        let text = self.text()?;
        text.split_once('.').ok_or_else(|| Failure::new(Code::BadValue, format!("{text:?} is no namespace")))
    }

    /// The same for a server, under the name it has there.
    pub fn renamed(&self, name: &CStr) -> Result<RawDocumentBuf, Failure> {
        self.rewritten(name, self.value()?, &[])
    }

    /// The same for a server, unaltered.
    pub fn plain(&self) -> Result<RawDocumentBuf, Failure> {
        let name = CString::try_from(self.name.as_str())?;
        self.renamed(&name)
    }

    /// With another name, another value beside it, and without the fields of `but`.
    pub fn rewritten(&self, name: &CStr, value: impl BindRawBsonRef, but: &[&str]) -> Result<RawDocumentBuf, Failure> {
        let mut body = RawDocumentBuf::new();
        body.append(name, value);
        for field in self.body.iter().skip(1) {
            let (key, value) = field?;
            if !OURS.contains(&key.as_str()) && !but.contains(&key.as_str()) {
                body.append(key, value);
            }
        }
        Ok(body)
    }

    /// Session and transaction number of a write that may be sent again, or of a transaction's command.
    pub fn session(&self) -> Option<(&RawDocument, i64)> {
        Some((self.body.get_document("lsid").ok()?, self.body.get_i64("txnNumber").ok()?))
    }

    pub fn is_in_transaction(&self) -> bool {
        matches!(self.body.get_bool("autocommit"), Ok(false))
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.body.get_bool(name), Ok(true))
    }

    /// A number of any type.
    pub fn number(&self, name: &str) -> Option<i64> {
        number(self.body.get(name).ok()??)
    }
}

pub fn number(value: RawBsonRef<'_>) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from)).or_else(|| value.as_f64().map(|number| number as i64))
}

/// Copies the fields that are named.
pub fn copy_fields(from: &RawDocument, to: &mut RawDocumentBuf, names: &[&str]) -> Result<(), Failure> {
    for field in from {
        let (key, value) = field?;
        if names.contains(&key.as_str()) {
            to.append(key, value);
        }
    }
    Ok(())
}

/// `writeConcern: {w: "majority"}`, which the servers' internal commands want.
pub fn append_majority(to: &mut RawDocumentBuf) {
    let mut majority = RawDocumentBuf::new();
    majority.append(cstr!("w"), "majority");
    to.append(cstr!("writeConcern"), majority);
}
