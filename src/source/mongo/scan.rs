//! Reading a range of a collection, and finding keys that split it.

use super::super::{CollectionRef, Found, Scan, ScanBatch, ScanRange};
use super::{fetch::wherever, identity::Identity};
use crate::{
    error::{Error, Result},
    model::{Bound, ClusterTime, raw},
    mongo::{Cluster, CursorOptions, RawCursor, listing},
};
use bson::{RawDocumentBuf, doc};
use mongodb::options::SelectionCriteria;

/// A scan of one range.
///
/// `min`/`max` with a hint read an exact range of the `_id` index over all BSON types. A query by `$gte`/`$lt`
/// would be bracketed by type and lose documents (RAN). The server reads `min` without `max` as "below
/// MaxKey", so a document whose `_id` *is* MaxKey is asked for at the end of an open range.
pub struct MongoScan {
    cluster: Cluster,
    cursor: RawCursor,
    /// The node's time before the next reply.
    before: ClusterTime,
    /// What is still to be read behind the range: the command for `_id: MaxKey`.
    last: Option<(String, RawDocumentBuf, CursorOptions)>,
}

impl MongoScan {
    /// Opens the cursor on a node that has reached `range.after`.
    pub(crate) async fn open(
        cluster: &Cluster,
        by: Identity,
        on: SelectionCriteria,
        of: &CollectionRef,
        range: ScanRange,
    ) -> Result<Found<Self>> {
        let options = &CursorOptions { batch_documents: Some(range.batch_documents), await_time: None, on: Some(on) };
        // A range from MaxKey to the end is that one key; the server refuses it as `min` (RAN: code 51175).
        let only_max_key = !range.natural && range.max.is_none() && range.from.as_ref().is_some_and(is_max_key);
        let open = |of: CollectionRef| {
            let command = if only_max_key { find_max_key(by, &of, &range) } else { find(by, &of, &range) };
            async move { cluster.open(of.ns.db(), &format!("reading `{}`", of.ns), command, options.clone()).await }
        };
        let Found::Here((of, cursor)) = wherever(cluster, of, open).await? else { return Ok(Found::Gone) };
        // Without `min` either it is a plain scan of the index, which shows MaxKey by itself.
        let open_end = range.max.is_none() && range.from.is_some() && !range.natural && !only_max_key;
        let last = open_end.then(|| (of.ns.db().to_owned(), find_max_key(by, &of, &range), options.clone()));
        Ok(Found::Here(Self { cluster: cluster.clone(), cursor, before: range.after, last }))
    }
}

impl Scan for MongoScan {
    async fn next(&mut self) -> Result<Option<ScanBatch>> {
        loop {
            if let Some(reply) = self.cursor.next().await? {
                let read_at = reply.operation_time().ok_or_else(|| Error::Bug("a reply without `operationTime`".into()))?;
                let before = self.before;
                self.before = before.max(read_at);
                let documents = raw::owned(reply.documents()?);
                return Ok(Some(ScanBatch { documents, before, read_at }));
            }
            let Some((db, command, options)) = self.last.take() else { return Ok(None) };
            self.cursor = self.cluster.open(&db, "reading the last key", command, options).await?;
        }
    }
}

fn find(by: Identity, of: &CollectionRef, range: &ScanRange) -> RawDocumentBuf {
    let mut b = raw::Builder::with_capacity(512);
    by.begin(&mut b, "find", of);
    if range.natural {
        b.begin("hint").i32("$natural", 1).end();
    } else {
        // A router merges what the shards give by this order; on one server it is the order of the index (RAN on 6.0.5).
        b.begin("hint").i32("_id", 1).end().begin("sort").i32("_id", 1).end();
        if let Some(min) = &range.from {
            b.doc("min", min);
        }
        if let Some(max) = &range.max {
            b.doc("max", max);
        }
    }
    finish(b, range)
}

pub(super) fn is_max_key(bound: &Bound) -> bool {
    raw::get(bound, "_id").is_some_and(|id| id.tag == raw::tag::MAX_KEY)
}

fn find_max_key(by: Identity, of: &CollectionRef, range: &ScanRange) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    by.begin(&mut b, "find", of);
    b.begin("filter").value("_id", raw::tag::MAX_KEY, &[]).end();
    finish(b, range)
}

fn finish(mut b: raw::Builder, range: &ScanRange) -> RawDocumentBuf {
    b.i32("batchSize", i32::try_from(range.batch_documents).unwrap_or(i32::MAX));
    b.begin("readConcern").str("level", "majority").timestamp("afterClusterTime", range.after.t, range.after.i).end();
    b.finish()
}

/// Keys for about `parts` equal ranges, from a random sample of twenty keys for each.
pub(crate) async fn split(cluster: &Cluster, of: &CollectionRef, parts: u32) -> Result<Vec<Bound>> {
    if parts < 2 {
        return Ok(Vec::new());
    }
    let per_part = 20;
    let pipeline = vec![doc! {"$sample": {"size": i64::from(parts) * per_part}}, doc! {"$project": {"_id": 1}}, doc! {"$sort": {"_id": 1}}];
    let command = doc! {"aggregate": of.ns.coll(), "pipeline": pipeline, "cursor": {"batchSize": 100_000}, "allowDiskUse": true};
    let command = RawDocumentBuf::try_from(&command).map_err(|e| Error::Bug(e.to_string()))?;
    let sample = listing::found(cluster, of.ns.db(), &format!("sampling `{}`", of.ns), &command).await?;
    let per_part = usize::try_from(per_part).unwrap_or(20);
    let mut bounds: Vec<Bound> = sample.into_iter().skip(per_part).step_by(per_part).collect();
    bounds.dedup();
    // Nothing is below MinKey, and a range that ends there is refused.
    bounds.retain(|bound| raw::get(bound, "_id").is_some_and(|id| id.tag != raw::tag::MIN_KEY));
    Ok(bounds)
}
