//! Folding: what remains of a lane's batch once each key has only its last word. Pure.
//!
//! A whole document or a delete makes everything before it of that key pointless; diffs behind it stay, in
//! order. Two keys that may be equal to the server though their bytes differ (`1` and `NumberLong(1)`) must not
//! be told apart by us: a batch is cut between them.

use super::Parcel;
use crate::{
    model::{CanonicalKey, ClusterTime, DocumentKey, Write, WriteOp, odd_at_top, same_key},
    race::Reread,
    target::Statement,
};
use bson::RawDocument;
use std::collections::HashMap;

/// One operation in a lane's queue, of one collection.
#[derive(Clone, Copy)]
pub(super) enum Op<'a> {
    Write(&'a Write, ClusterTime),
    Reread(&'a DocumentKey, ClusterTime),
}

impl<'a> Op<'a> {
    pub(super) fn of(parcel: &'a Parcel) -> Self {
        Op::Write(&parcel.write, parcel.position.time)
    }
    pub(super) fn reread(reread: &'a Reread) -> Self {
        Op::Reread(&reread.key, reread.at_least)
    }
    /// The document read again, for what a diff would tell.
    pub(super) fn without_diff(self) -> Self {
        match self {
            Op::Write(Write { op: WriteOp::Diff(_), key, .. }, time) => Op::Reread(key, time),
            other => other,
        }
    }
    fn document(&self) -> Option<&'a RawDocument> {
        match self {
            Op::Write(Write { op: WriteOp::Insert(doc) | WriteOp::Replace(doc), .. }, _) => Some(doc),
            Op::Write(..) | Op::Reread(..) => None,
        }
    }
    fn is_reread(&self) -> bool {
        matches!(self, Op::Reread(..) | Op::Write(Write { op: WriteOp::Reread, .. }, _))
    }
    fn key(&self) -> &'a DocumentKey {
        match self {
            Op::Write(write, _) => &write.key,
            Op::Reread(key, _) => key,
        }
    }
}

/// What can go to the target in one batch.
#[derive(Default)]
pub(super) struct Round<'a> {
    /// At most one word per key, then its diffs.
    pub statements: Vec<Statement<'a>>,
    /// To be read from the source, at or after the time.
    pub rereads: Vec<(&'a DocumentKey, ClusterTime)>,
    /// Newest event in it.
    pub newest: ClusterTime,
    /// Whether documents may have [twins](Write::twins).
    pub twins: bool,
}

/// The last word on one key.
struct Word<'a> {
    key: &'a DocumentKey,
    /// Whether something of this key came before in the round: an insert is then most likely a replacement.
    seen: bool,
    base: Base<'a>,
    diffs: Vec<&'a RawDocument>,
}

enum Base<'a> {
    Unknown,
    New(&'a RawDocument),
    Document(&'a RawDocument),
    Deleted,
    Reread(ClusterTime),
}

/// Folds operations, in order, into rounds to be applied one behind the other. `identity_of` tells which keys must
/// be taken for one. Where insertions must keep their order (`in_order`), a document that comes back is not put in the
/// place of the one that went.
pub(super) fn fold<'a>(
    ops: impl IntoIterator<Item = Op<'a>>,
    in_order: bool,
    identity_of: impl Fn(&DocumentKey) -> CanonicalKey,
) -> Vec<Round<'a>> {
    let mut rounds = Vec::new();
    let mut words: Vec<Word<'a>> = Vec::new();
    let mut by_key: HashMap<CanonicalKey, usize> = HashMap::new();
    let (mut newest, mut twins) = (ClusterTime::default(), false);
    // A document that only a pipeline can write goes to the target behind the inserts of its round.
    let mut alone = false;
    for op in ops {
        let odd = in_order && op.document().is_some_and(odd_at_top);
        // What is read again goes to the target in front of everything else of its round.
        let behind = in_order && op.is_reread() && words.iter().any(|word| !matches!(word.base, Base::Reread(_)));
        if (odd || behind || alone) && !words.is_empty() {
            rounds.push(round(std::mem::take(&mut words), newest));
            by_key.clear();
        }
        alone = odd;
        let canonical = identity_of(op.key());
        let cut = |word: &Word<'_>| {
            let moves = matches!(word.base, Base::Deleted) || matches!(word.base, Base::Reread(_)) && op.document().is_some();
            !same_key(word.key, op.key()) || in_order && moves
        };
        if by_key.get(&canonical).is_some_and(|&n| cut(&words[n])) {
            rounds.push(round(std::mem::take(&mut words), newest));
            by_key.clear();
        }
        let n = *by_key.entry(canonical).or_insert_with(|| {
            words.push(Word { key: op.key(), seen: false, base: Base::Unknown, diffs: Vec::new() });
            words.len() - 1
        });
        words[n].hear(op);
        if let Op::Write(write, time) = op {
            newest = newest.max(time);
            twins |= write.twins;
        }
    }
    rounds.push(round(words, newest));
    rounds.iter_mut().for_each(|round| round.twins = twins);
    rounds
}

impl<'a> Word<'a> {
    fn hear(&mut self, op: Op<'a>) {
        // The latest event's key carries the shard key of now.
        self.key = op.key();
        let (base, time) = match op {
            Op::Reread(_, at_least) => (Base::Reread(at_least), at_least),
            Op::Write(write, time) => match &write.op {
                // Its twin on another shard, or a replay: the source knows.
                WriteOp::Insert(_) if write.twins && self.is_there() => (Base::Reread(time), time),
                WriteOp::Insert(doc) if self.seen => (Base::Document(doc), time),
                WriteOp::Insert(doc) => (Base::New(doc), time),
                // Where it stands among the new ones.
                WriteOp::Replace(doc) if matches!(self.base, Base::New(_)) => (Base::New(doc), time),
                WriteOp::Replace(doc) => (Base::Document(doc), time),
                WriteOp::Delete => (Base::Deleted, time),
                WriteOp::Reread => (Base::Reread(time), time),
                WriteOp::Diff(diff) => {
                    match self.base {
                        // What will be read is to show this update too.
                        Base::Reread(at_least) => self.base = Base::Reread(at_least.max(time)),
                        // No stream tells this; the source knows.
                        Base::Deleted => self.base = Base::Reread(time),
                        Base::Unknown | Base::New(_) | Base::Document(_) => self.diffs.push(diff),
                    }
                    self.seen = true;
                    return;
                }
            },
        };
        self.base = match (base, &self.base) {
            (Base::Reread(_), Base::Reread(before)) => Base::Reread(time.max(*before)),
            (base, _) => base,
        };
        self.diffs.clear();
        self.seen = true;
    }

    fn is_there(&self) -> bool {
        matches!(self.base, Base::New(_) | Base::Document(_)) || !self.diffs.is_empty()
    }
}

fn round(words: Vec<Word<'_>>, newest: ClusterTime) -> Round<'_> {
    let mut round = Round { newest, ..Round::default() };
    for word in words {
        match word.base {
            Base::Unknown => {}
            Base::New(doc) => round.statements.push(Statement::Insert(word.key, doc)),
            Base::Document(doc) => round.statements.push(Statement::Put(word.key, doc)),
            Base::Deleted => round.statements.push(Statement::Delete(word.key)),
            Base::Reread(at_least) => round.rereads.push((word.key, at_least)),
        }
        round.statements.extend(word.diffs.into_iter().map(|diff| Statement::Diff(word.key, diff)));
    }
    round
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;
    use bson::{Bson, RawDocumentBuf, doc, rawdoc};

    fn write(id: impl Into<Bson>, op: WriteOp) -> Write {
        let key = RawDocumentBuf::try_from(&doc! {"_id": id.into()}).unwrap();
        Write { ns: Namespace::new("a", "b"), uuid: None, key: DocumentKey::new(key).unwrap(), twins: false, op }
    }
    fn insert(id: impl Into<Bson>) -> Write {
        write(id, WriteOp::Insert(rawdoc! {"_id": 0}))
    }
    fn diff(id: impl Into<Bson>, n: i32) -> Write {
        write(id, WriteOp::Diff(rawdoc! {"n": n}))
    }
    fn delete(id: impl Into<Bson>) -> Write {
        write(id, WriteOp::Delete)
    }
    fn replace(id: impl Into<Bson>) -> Write {
        write(id, WriteOp::Replace(rawdoc! {"_id": 0}))
    }
    fn shape(writes: &[Write]) -> Vec<Vec<String>> {
        shape_of(writes, false)
    }
    fn shape_of(writes: &[Write], in_order: bool) -> Vec<Vec<String>> {
        let ops = writes.iter().zip(1..).map(|(w, t)| Op::Write(w, ClusterTime { t, i: 0 }));
        fold(ops, in_order, DocumentKey::canonical)
            .iter()
            .map(|round| {
                let words = round.statements.iter().map(|s| match s {
                    Statement::Insert(..) => "insert".to_owned(),
                    Statement::Put(..) => "put".to_owned(),
                    Statement::Diff(_, d) => format!("diff {}", d.get_i32("n").unwrap()),
                    Statement::Delete(_) => "delete".to_owned(),
                });
                words.chain(round.rereads.iter().map(|(_, t)| format!("reread {}", t.t))).collect()
            })
            .collect()
    }

    #[test]
    fn only_the_last_word_on_a_key_remains() {
        assert_eq!(shape(&[insert(1), diff(1, 1), delete(1)]), [["delete"]]);
        assert_eq!(shape(&[delete(1), insert(1), diff(1, 1), diff(1, 2)]), [["put", "diff 1", "diff 2"]]);
        assert_eq!(shape(&[insert(1), insert(2)]), [["insert", "insert"]]);
        assert_eq!(shape(&[diff(1, 1), diff(1, 2)]), [["diff 1", "diff 2"]]);
    }

    #[test]
    fn a_reread_shows_every_update_behind_it() {
        assert_eq!(shape(&[write(1, WriteOp::Reread), diff(1, 9)]), [["reread 2"]]);
        assert_eq!(shape(&[write(1, WriteOp::Reread), delete(1)]), [["delete"]]);
        assert_eq!(shape(&[delete(1), diff(1, 9)]), [["reread 2"]]);
    }

    #[test]
    fn a_second_insertion_on_a_sharded_collection_is_for_the_source_to_tell() {
        let twin = |op| Write { twins: true, ..write(1, op) };
        let insert = || twin(WriteOp::Insert(rawdoc! {"_id": 1}));
        assert_eq!(shape(&[insert(), insert()]), [["reread 2"]]);
        assert_eq!(shape(&[diff(1, 1), insert()]), [["reread 2"]]);
        assert_eq!(shape(&[insert(), twin(WriteOp::Reread), insert()]), [["put"]]);
        assert_eq!(shape(&[delete(1), insert()]), [["put"]]);
    }

    #[test]
    fn insertions_keep_their_order_where_it_counts() {
        let reread = |id: i32| write(id, WriteOp::Reread);
        assert_eq!(shape_of(&[insert(1), insert(2), replace(1)], true), [["insert", "insert"]]);
        assert_eq!(shape_of(&[insert(1), insert(2), reread(2)], true), [vec!["insert", "insert"], vec!["reread 3"]]);
        assert_eq!(shape_of(&[reread(1), insert(2), replace(1)], true), [vec!["insert", "reread 1"], vec!["put"]]);
        assert_eq!(shape_of(&[delete(1), insert(2), insert(1)], true), [vec!["delete", "insert"], vec!["insert"]]);
        assert_eq!(shape(&[insert(1), insert(2), replace(1)]), [["insert", "insert"]]);
    }

    #[test]
    fn equal_keys_of_different_type_are_never_in_one_round() {
        assert_eq!(shape(&[delete(1), insert(1_i64), delete(2)]), [vec!["delete"], vec!["insert", "delete"]]);
    }
}
