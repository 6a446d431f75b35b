//! What a write command's reply says: the driver hands it over as a success whatever is inside.

use super::refused_by_code;
use crate::{
    error::{Error, Remedy, Result},
    model::Side,
};
use bson::{Bson, Document};

/// The error of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteError {
    /// Which statement of the command.
    pub index: usize,
    /// The server's code.
    pub code: i32,
    /// Whether a duplicate is of `_id` rather than of another unique index.
    pub of_id: bool,
}

/// A write command's reply.
#[derive(Debug)]
pub struct WriteReply {
    /// Documents inserted, matched or deleted.
    pub n: u64,
    /// Upserts among them.
    pub upserted: u64,
    /// Statements that failed.
    pub errors: Vec<WriteError>,
    write_concern: Option<Error>,
}

/// Duplicate key.
pub(crate) const DUPLICATE_KEY: i32 = 11000;

impl WriteReply {
    /// # Errors
    /// [`Error::Bug`] where the reply has another shape than the manual says.
    pub fn parse(side: Side, doing: &str, reply: &Document) -> Result<Self> {
        let mut errors = Vec::new();
        for e in reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default() {
            let Bson::Document(e) = e else { return Err(Error::Bug("`writeErrors` holds no documents".into())) };
            let index = integer(e, "index")
                .and_then(|i| usize::try_from(i).ok())
                .ok_or_else(|| Error::Bug("a write error without index".into()))?;
            let code = integer(e, "code").and_then(|c| i32::try_from(c).ok()).unwrap_or(0);
            let of_id = e.get_document("keyPattern").is_ok_and(|k| k.len() == 1 && k.contains_key("_id"));
            errors.push(WriteError { index, code, of_id });
        }
        let write_concern = reply.get_document("writeConcernError").ok().map(|e| {
            let code = integer(e, "code").and_then(|c| i32::try_from(c).ok()).unwrap_or(64);
            refused_by_code(
                side,
                &format!("{doing} with write concern majority"),
                code,
                e.get_str("errmsg").unwrap_or("write concern failed"),
            )
        });
        Ok(Self {
            n: integer(reply, "n").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            upserted: reply.get_array("upserted").map_or(0, |u| u.len() as u64),
            errors,
            write_concern,
        })
    }

    /// Itself, where a majority has it and no statement failed for a reason that passes. A step-down in the
    /// middle of a batch shows as code 189 of its statements, inside a good reply (RAN on 6.0.5).
    pub(crate) fn settled(mut self, side: Side, doing: &str) -> Result<Self> {
        if let Some(error) = self.write_concern.take() {
            return Err(error);
        }
        let transient =
            self.errors.iter().map(|e| refused_by_code(side, doing, e.code, "a statement failed")).find(|e| e.remedy() == Remedy::Retry);
        transient.map_or(Ok(self), Err)
    }
}

fn integer(doc: &Document, name: &str) -> Option<i64> {
    match doc.get(name)? {
        Bson::Int32(n) => Some(i64::from(*n)),
        Bson::Int64(n) => Some(*n),
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers that the server wrote as doubles")]
        Bson::Double(n) => Some(*n as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn errors_inside_a_good_reply_are_seen() {
        let reply = doc! {"ok": 1, "n": 1, "writeErrors": [{"index": 2, "code": 11000, "keyPattern": {"_id": 1}}]};
        let parsed = WriteReply::parse(Side::Target, "t", &reply).unwrap().settled(Side::Target, "t").unwrap();
        assert_eq!((parsed.n, parsed.errors), (1, vec![WriteError { index: 2, code: 11000, of_id: true }]));
        let reply = doc! {"ok": 1, "n": 1, "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}};
        let stepped_down = doc! {"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": 189}]};
        assert!(WriteReply::parse(Side::Target, "t", &stepped_down).unwrap().settled(Side::Target, "t").is_err());
        assert!(WriteReply::parse(Side::Target, "t", &reply).unwrap().settled(Side::Target, "t").is_err());
    }
}
