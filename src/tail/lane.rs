//! Applies whatever is waiting as one batch: small when idle, large under load, no timer.

use super::{
    Passed, Work,
    fold::{Op, Round, fold},
    repeats,
};
use crate::{
    catalog::{Collection, State},
    checkpoint::Store,
    error::{Error, Result},
    model::{CanonicalKey, ClusterTime, CollectionUuid, DocumentKey, WriteOp, odd_at_top, repeats_a_name, surely_one},
    observe::{AppliedOp, Metrics},
    race::Race,
    source::{Fetched, Found, Source},
    target::{ANOTHER_COLLECTION, Statement, Target, TargetCollection},
};
use bson::RawDocumentBuf;
use std::{collections::HashMap, sync::Arc};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Changes of one batch at most.
const MAX_BATCH: usize = 1_000;
/// How often a batch is applied again because collections are not where they were.
const MAX_RELOCATIONS: u32 = 20;
/// Documents read again in one call at most, and the bytes of an answer above which fewer are asked for.
const MAX_REREADS: usize = 512;
const LARGE_ANSWER: usize = 4 << 20;

struct Lane<S, T, C> {
    source: S,
    target: T,
    store: C,
    race: Race,
    metrics: Arc<Metrics>,
    /// How many documents to read again in one call: grows while answers are small.
    rereads: usize,
}

/// Of a batch of one collection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// A document that was read again has a field name twice, which the stream has yet to tell: none such was written. Once that is
    /// noted, the batch is to be applied from its beginning.
    MetRepeats,
}

/// Runs until the router has gone and everything is applied, or until `at_once` fires. Returns at the first error: what was not
/// acknowledged will be seen again.
pub(super) async fn run<S: Source, T: Target, C: Store>(
    mut work: mpsc::Receiver<Work>,
    (source, target, store): (S, T, C),
    race: Race,
    metrics: Arc<Metrics>,
    ledger: mpsc::Sender<Passed>,
    at_once: CancellationToken,
) -> Result<()> {
    let mut lane = Lane { source, target, store, race, metrics, rereads: 1 };
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while work.recv_many(&mut batch, MAX_BATCH).await > 0 {
        if at_once.is_cancelled() {
            return Ok(());
        }
        let started = Instant::now();
        // To apply a batch again leaves the same as to apply it once. Meanwhile the next of its databases may be moved to another shard.
        let mut relocations = 0;
        while let Err(error) = lane.apply(&batch).await {
            if relocations == MAX_RELOCATIONS {
                return Err(error);
            }
            relocations += 1;
            lane.relocate(&batch, error).await?;
        }
        lane.metrics.applied_batch(batch.len() as u64, started.elapsed());
        for work in batch.drain(..) {
            match work {
                Work::Change(p) => {
                    if ledger.send(Passed { seq: p.seq, position: p.position, place: p.place }).await.is_err() {
                        return Ok(()); // its own error tells why
                    }
                }
                // The copy may have gone meanwhile.
                Work::Reread { reread, place } => {
                    drop(place);
                    let _ = reread.done.send(()).await;
                }
            }
        }
    }
    Ok(())
}

impl<S: Source, T: Target, C: Store> Lane<S, T, C> {
    /// Behind the error that a collection is not where it was: a structural change that a process of ours asked for before it
    /// died may be carried out after we looked. Any other error is given back.
    async fn relocate(&self, batch: &[Work], error: Error) -> Result<()> {
        if error.code() != Some(ANOTHER_COLLECTION) {
            return Err(error);
        }
        let collections = batch.iter().map(|work| match work {
            Work::Change(parcel) => &parcel.collection,
            Work::Reread { reread, .. } => &reread.collection,
        });
        let distinct: HashMap<CollectionUuid, &Arc<Collection>> = collections.map(|c| (c.uuid(), c)).collect();
        for collection in distinct.into_values() {
            self.race.read(collection.relocate(&self.source, &self.target).await?);
        }
        Ok(())
    }

    async fn apply(&mut self, batch: &[Work]) -> Result<()> {
        let mut by_collection: HashMap<CollectionUuid, (&Arc<Collection>, Vec<Op<'_>>)> = HashMap::new();
        for work in batch {
            let (collection, op) = match work {
                Work::Change(parcel) => (&parcel.collection, Op::of(parcel)),
                Work::Reread { reread, .. } => (&reread.collection, Op::reread(reread)),
            };
            by_collection.entry(collection.uuid()).or_insert_with(|| (collection, Vec::new())).1.push(op);
        }
        for (collection, ops) in by_collection.into_values() {
            self.count(&ops);
            while self.apply_to(collection, &ops).await? == Outcome::MetRepeats {
                repeats::note(&self.store, collection).await?;
            }
        }
        Ok(())
    }

    async fn apply_to(&mut self, collection: &Collection, ops: &[Op<'_>]) -> Result<Outcome> {
        let _shared = collection.gate.read().await;
        // Views hold no documents; what was dropped meanwhile needs none.
        let Some(to) = collection.on_target() else { return Ok(Outcome::Done) };
        let (in_order, repeats) = (collection.entry().capped, collection.entry().repeats);
        let ops: Vec<_> = ops.iter().map(|op| if repeats { op.without_diff() } else { *op }).collect();
        for round in fold(ops, in_order, |key| collection.identity_of(key)) {
            if self.round(collection, &to, round).await? == Outcome::MetRepeats {
                return Ok(Outcome::MetRepeats);
            }
        }
        Ok(Outcome::Done)
    }

    async fn round(&mut self, collection: &Collection, to: &TargetCollection, round: Round<'_>) -> Result<Outcome> {
        if self.reread(collection, to, &round.rereads).await? == Outcome::MetRepeats {
            return Ok(Outcome::MetRepeats);
        }
        self.make_way(collection, to, &round.statements).await?;
        let applied = self.target.apply(to, &round.statements).await?;
        let mut again: Vec<&DocumentKey> = applied.refused.iter().map(|&n| round.statements[n].key()).collect();
        if applied.diff_missed && self.is_missed(collection, &round) {
            again.extend(round.statements.iter().filter(|s| matches!(s, Statement::Diff(..))).map(Statement::key));
        }
        // A replay, or the twin of a document on another shard: the source knows.
        if round.twins {
            again.extend(applied.met.iter().map(|&n| round.statements[n].key()));
        }
        let again: Vec<_> = again.into_iter().map(|key| (key, round.newest)).collect();
        self.reread(collection, to, &again).await
    }

    /// Whether a diff that found no document tells of a loss. It does not while the copy is under way: the document
    /// is yet to come, and will be as new. Nor while the target may be newer than the stream: the document was
    /// deleted by then, and that event is yet to come. (To read it again would make the target newer still, and
    /// the next diffs miss as well.)
    fn is_missed(&self, collection: &Collection, round: &Round<'_>) -> bool {
        collection.entry().state == State::Complete && round.newest > self.race.newest_shown()
    }

    /// Reads documents from the source and leaves the target with exactly what is there.
    async fn reread(&mut self, collection: &Collection, to: &TargetCollection, keys: &[(&DocumentKey, ClusterTime)]) -> Result<Outcome> {
        let mut rest = keys;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.rereads.min(rest.len()));
            rest = later;
            let after = now.iter().map(|(_, t)| *t).max().unwrap_or_default();
            let asked: Vec<DocumentKey> = now.iter().map(|(key, _)| (*key).clone()).collect();
            // A collection that is gone on the source will be dropped here by the tail.
            let Found::Here(Fetched { documents, read_at }) = self.source.fetch(&collection.on_source(), &asked, after).await? else {
                continue;
            };
            self.race.reread(read_at);
            if !collection.entry().repeats && documents.iter().any(|doc| repeats_a_name(doc)) {
                return Ok(Outcome::MetRepeats);
            }
            let bytes: usize = documents.iter().map(|d| d.as_bytes().len()).sum();
            self.rereads = if bytes > LARGE_ANSWER { 1 } else { (self.rereads * 2).min(MAX_REREADS) };
            self.put(collection, to, &asked, &documents).await?;
            self.metrics.applied(AppliedOp::Reread, now.len() as u64);
        }
        Ok(Outcome::Done)
    }

    /// A document that only a pipeline can write is written as a new one where names may be repeated: the server would
    /// make a diff of the old one and the new one.
    async fn make_way(&self, collection: &Collection, to: &TargetCollection, statements: &[Statement<'_>]) -> Result<()> {
        if !collection.entry().repeats {
            return Ok(());
        }
        let odd = statements.iter().filter(|s| matches!(s, Statement::Insert(_, doc) | Statement::Put(_, doc) if odd_at_top(doc)));
        let deletes: Vec<_> = odd.map(|s| Statement::Delete(s.key())).collect();
        self.target.apply(to, &deletes).await.map(drop)
    }

    async fn put(&self, collection: &Collection, to: &TargetCollection, asked: &[DocumentKey], found: &[RawDocumentBuf]) -> Result<()> {
        let keys: Vec<DocumentKey> = found.iter().filter_map(|doc| DocumentKey::of(doc)).collect();
        // Under a collation, keys that differ may be one: a document that is asked for by one and found by the other is deleted first.
        // Not where the put will find it: in a capped collection it would lose its place.
        let mut there: HashMap<CanonicalKey, Vec<&DocumentKey>> = HashMap::new();
        for key in &keys {
            there.entry(key.canonical()).or_default().push(key);
        }
        let is_there = |key: &DocumentKey| there.get(&key.canonical()).is_some_and(|keys| keys.iter().any(|found| surely_one(found, key)));
        let deletes: Vec<_> = asked.iter().filter(|key| !is_there(key)).map(Statement::Delete).collect();
        self.target.apply(to, &deletes).await?;
        let mut puts: Vec<_> = keys.iter().zip(found).map(|(key, doc)| Statement::Put(key, doc)).collect();
        // In the order of the events, which capped collections keep.
        let places: HashMap<CanonicalKey, usize> = asked.iter().enumerate().rev().map(|(n, key)| (key.canonical(), n)).collect();
        puts.sort_by_cached_key(|put| places.get(&put.key().canonical()).copied());
        self.make_way(collection, to, &puts).await?;
        let applied = self.target.apply(to, &puts).await?;
        if applied.refused.is_empty() {
            return Ok(());
        }
        Err(Error::Refused {
            side: crate::model::Side::Target,
            doing: format!("a document of `{}` as it is on the source", to.ns),
            code: 0,
            source: applied
                .why
                .unwrap_or("the document cannot be stored there, neither as the change stream told it nor as it was read again")
                .into(),
        })
    }

    fn count(&self, ops: &[Op<'_>]) {
        for op in AppliedOp::ALL {
            let n = ops.iter().filter(|o| op_of(o) == Some(op)).count();
            if n > 0 {
                self.metrics.applied(op, n as u64);
            }
        }
    }
}

fn op_of(op: &Op<'_>) -> Option<AppliedOp> {
    match op {
        Op::Reread(..) => None,
        Op::Write(write, _) => match write.op {
            WriteOp::Insert(_) => Some(AppliedOp::Insert),
            WriteOp::Replace(_) => Some(AppliedOp::Replace),
            WriteOp::Diff(_) => Some(AppliedOp::Update),
            WriteOp::Delete => Some(AppliedOp::Delete),
            WriteOp::Reread => None,
        },
    }
}
