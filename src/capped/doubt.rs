//! Which events of a capped collection the target shows already: an event that is applied twice may change the order. Pure.
//!
//! A document that is deleted and inserted again stands at the end. Where both events are applied once more, to a target
//! that has what was inserted behind it as well, it is put behind that. What a copy surely shows is not applied again. In
//! what it may show (events from during the copy, or from before a crash) such a pair is in doubt, and there is no
//! telling where the document belongs: the collection is copied anew.
//!
//! So it is for a while behind that. A document that is read again in doubt may be one that came back since, and there
//! was no room for it yet: the oldest went instead. Then its delete and its insert are still to come, up to the newest
//! time at which such a document was read.

use crate::model::{CanonicalKey, ClusterTime, CollectionUuid, WriteOp};
use std::collections::{HashMap, HashSet};

/// Deleted keys remembered of one collection; beyond it, it is copied anew rather than held in memory.
const MAX_DELETED: usize = 100_000;

/// From when to when a copy was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Everything up to here is in the copy.
    pub from: ClusterTime,
    /// Nothing behind this is.
    pub until: ClusterTime,
}

/// What an event means for the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The target has it.
    Shown,
    /// The target may have it. A document that has rolled over since must not come back at the end: it is read again.
    Doubtful,
    /// The target does not have it.
    News,
    /// The target may have it, and to apply it may change the order.
    Reorders,
    /// The first behind what is in doubt. To be judged again once everything before it was applied, and
    /// [`Doubts::read_until`] was told.
    Ends,
}

/// What is in doubt, by collection.
#[derive(Debug, Clone, Default)]
pub struct Doubts {
    /// What the target shows at all may be as late as this.
    until: ClusterTime,
    of: HashMap<CollectionUuid, Doubt>,
}

#[derive(Debug, Clone, Default)]
struct Doubt {
    /// `None`: from a run before.
    span: Option<Span>,
    /// Whether there was anything in doubt.
    any: bool,
    /// The newest time at which a document in doubt was read; `None` while there may be more.
    read_until: Option<ClusterTime>,
    deleted: HashSet<CanonicalKey>,
}

impl Doubts {
    /// After a start: what an earlier run has applied may be as late as `until`.
    #[must_use]
    pub fn until(until: ClusterTime) -> Self {
        Self { until, of: HashMap::new() }
    }

    /// A collection was copied.
    pub fn copied(&mut self, collection: CollectionUuid, span: Span) {
        self.of.insert(collection, Doubt { span: Some(span), ..Doubt::default() });
    }

    /// Everything that was in doubt was applied, and no document of it was read later than that.
    pub fn read_until(&mut self, collection: CollectionUuid, time: ClusterTime) {
        self.of.entry(collection).or_default().read_until = Some(time);
    }

    /// Judges an event, in the order of the stream.
    pub fn judge(&mut self, collection: CollectionUuid, time: ClusterTime, op: &WriteOp, key: CanonicalKey) -> Verdict {
        let doubt = self.of.entry(collection).or_default();
        let Span { from, until } = doubt.span.unwrap_or(Span { from: ClusterTime::default(), until: self.until });
        if time <= from {
            return Verdict::Shown;
        }
        let verdict = match doubt.read_until {
            _ if time <= until => Verdict::Doubtful,
            None if doubt.any => return Verdict::Ends,
            Some(read) if time <= read => Verdict::News,
            None | Some(_) => {
                *doubt = Doubt { span: doubt.span, ..Doubt::default() };
                return Verdict::News;
            }
        };
        doubt.any = true;
        match op {
            WriteOp::Insert(_) if doubt.deleted.contains(&key) || doubt.deleted.len() > MAX_DELETED => return Verdict::Reorders,
            WriteOp::Delete => drop(doubt.deleted.insert(key)),
            WriteOp::Insert(_) | WriteOp::Replace(_) | WriteOp::Diff(_) | WriteOp::Reread => {}
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DocumentKey;
    use bson::rawdoc;

    const A: CollectionUuid = CollectionUuid([1; 16]);
    const B: CollectionUuid = CollectionUuid([2; 16]);

    fn at(t: u32) -> ClusterTime {
        ClusterTime { t, i: 0 }
    }
    fn key(id: i32) -> CanonicalKey {
        DocumentKey::of(&rawdoc! {"_id": id}).unwrap().canonical()
    }
    fn insert() -> WriteOp {
        WriteOp::Insert(rawdoc! {"_id": 1})
    }

    #[test]
    fn what_a_copy_shows_is_not_applied_again() {
        let mut doubts = Doubts::until(at(9));
        doubts.copied(A, Span { from: at(20), until: at(22) });
        assert_eq!(doubts.judge(A, at(19), &WriteOp::Delete, key(1)), Verdict::Shown);
        assert_eq!(doubts.judge(A, at(20), &insert(), key(1)), Verdict::Shown);
        assert_eq!(doubts.judge(A, at(21), &insert(), key(1)), Verdict::Doubtful, "its delete is in the copy for sure");
        assert_eq!(doubts.judge(A, at(23), &insert(), key(2)), Verdict::Ends);
        doubts.read_until(A, at(22));
        assert_eq!(doubts.judge(A, at(23), &insert(), key(2)), Verdict::News);
    }

    #[test]
    fn what_was_read_in_doubt_may_have_come_back_since() {
        let mut doubts = Doubts::until(at(9));
        assert_eq!(doubts.judge(A, at(9), &insert(), key(1)), Verdict::Doubtful);
        assert_eq!(doubts.judge(A, at(10), &WriteOp::Delete, key(1)), Verdict::Ends);
        doubts.read_until(A, at(12));
        assert_eq!(doubts.judge(A, at(10), &WriteOp::Delete, key(1)), Verdict::News);
        assert_eq!(doubts.judge(A, at(11), &insert(), key(2)), Verdict::News);
        assert_eq!(doubts.judge(A, at(12), &insert(), key(1)), Verdict::Reorders);
        assert_eq!(doubts.judge(A, at(13), &insert(), key(1)), Verdict::News);
        assert_eq!(doubts.judge(B, at(10), &insert(), key(1)), Verdict::News, "nothing of it was in doubt");
    }

    #[test]
    fn a_document_that_comes_back_while_in_doubt_has_no_place() {
        let mut doubts = Doubts::until(at(9));
        assert_eq!(doubts.judge(A, at(7), &WriteOp::Delete, key(1)), Verdict::Doubtful);
        assert_eq!(doubts.judge(A, at(8), &insert(), key(2)), Verdict::Doubtful);
        assert_eq!(doubts.judge(B, at(8), &insert(), key(1)), Verdict::Doubtful, "another collection");
        assert_eq!(doubts.judge(A, at(9), &insert(), key(1)), Verdict::Reorders);
        doubts.copied(A, Span { from: at(30), until: at(31) });
        assert_eq!(doubts.judge(A, at(9), &insert(), key(1)), Verdict::Shown);
        assert_eq!(doubts.judge(B, at(10), &WriteOp::Delete, key(1)), Verdict::Ends);
        doubts.read_until(B, at(9));
        assert_eq!(doubts.judge(B, at(10), &WriteOp::Delete, key(1)), Verdict::News);
        assert_eq!(doubts.judge(B, at(10), &insert(), key(1)), Verdict::News);
    }
}
