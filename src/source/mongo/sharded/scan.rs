//! Reading a range of a collection as it was at one cluster time, and again at a later one after a while.

use super::{
    super::{fetch::wherever, identity::Identity},
    placement,
};
use crate::{
    error::{Error, Result, Trouble},
    model::{Bound, ClusterTime, DocumentKey, Side, raw, same_key},
    mongo::{Cluster, CursorOptions, RawCursor},
    source::{CollectionRef, Found, Scan, ScanBatch, ScanRange},
};
use bson::RawDocumentBuf;
use mongodb::options::SelectionCriteria;
use std::time::Duration;
use tokio::time::Instant;

/// How long one cursor is read. Well below what servers keep of the past (300 s), and short for the migrations that wait
/// for it.
const MAX_AGE: Duration = Duration::from_secs(60);
/// How often a cursor is opened before chunks have stayed where they are meanwhile.
const OPENINGS: u32 = 50;

/// A scan of one range in the order of `_id`, each part of it as of one cluster time. See the module above.
pub struct SnapshotScan {
    cluster: Cluster,
    by: Identity,
    on: SelectionCriteria,
    of: CollectionRef,
    range: ScanRange,
    part: Part,
    given: Given,
}

/// Which keys were given.
#[derive(Debug, Default)]
struct Given {
    last: Option<DocumentKey>,
    /// Whether the next batch begins with that key again, unless it is gone.
    again: bool,
}

/// Two documents with one `_id`.
#[derive(Debug)]
struct Twins;

/// What is read at one time.
struct Part {
    cursor: RawCursor,
    at: ClusterTime,
    opened: Instant,
    /// Whether the key MaxKey, which an open range does not show, is still to be asked for.
    open_end: bool,
}

impl SnapshotScan {
    /// Opens it at a time of its own, `range.after` or later.
    pub(crate) async fn open(
        cluster: &Cluster,
        by: Identity,
        on: SelectionCriteria,
        of: &CollectionRef,
        range: ScanRange,
    ) -> Result<Found<Self>> {
        let Found::Here((of, part)) = Part::found(cluster, by, &on, of, &range).await? else { return Ok(Found::Gone) };
        Ok(Found::Here(Self { cluster: cluster.clone(), by, on, of, range, part, given: Given::default() }))
    }

    /// Goes on behind the last key, at a newer time; `false` where the collection is gone.
    async fn renew(&mut self) -> Result<bool> {
        if let Some(last) = &self.given.last {
            self.range.from = Some(raw::owned(last.as_raw()));
        }
        self.given.again = self.given.last.is_some();
        self.range.after = self.part.at;
        match Part::found(&self.cluster, self.by, &self.on, &self.of, &self.range).await? {
            Found::Here((of, part)) => (self.of, self.part) = (of, part),
            // Dropped: the tail will tell.
            Found::Gone => return Ok(false),
        }
        Ok(true)
    }
}

impl Given {
    /// The batch without the key that was given before. Twins lie side by side here; on a target that is read to be compared, both
    /// are given.
    fn check(&mut self, documents: RawDocumentBuf, side: Side) -> Result<std::result::Result<RawDocumentBuf, Twins>> {
        let mut given_before = false;
        for doc in raw::elements(&documents).filter_map(|e| e.document()) {
            let key = DocumentKey::of(doc).ok_or_else(|| Error::Bug("a document without `_id`".into()))?;
            let again = std::mem::take(&mut self.again);
            if self.last.as_ref().is_some_and(|last| same_key(last, &key)) {
                match (again, side) {
                    (true, _) => given_before = true,
                    (false, Side::Source) => return Ok(Err(Twins)),
                    (false, Side::Target) => {}
                }
            }
            self.last = Some(key);
        }
        if !given_before {
            return Ok(Ok(documents));
        }
        let mut b = raw::Builder::with_capacity(documents.as_bytes().len());
        let rest = raw::elements(&documents).filter_map(|e| e.document()).skip(1);
        for (n, doc) in rest.enumerate() {
            b.doc(&n.to_string(), doc);
        }
        Ok(Ok(b.finish()))
    }
}

/// Two documents with one `_id`, which only a sharded collection can have.
pub(in crate::source::mongo) fn twins(of: &CollectionRef) -> Error {
    Error::Unsupported {
        what: "two documents with the same `_id` on different shards".into(),
        ns: Some(of.ns.to_string()),
        hint: "the target can hold one of them: give one another `_id` (or delete it) on the source and go on, or leave the collection out with `--exclude`".into(),
    }
}

impl Scan for SnapshotScan {
    async fn next(&mut self) -> Result<Option<ScanBatch>> {
        loop {
            if self.part.opened.elapsed() > MAX_AGE && !self.renew().await? {
                return Ok(None);
            }
            if let Some(reply) = self.part.cursor.next().await? {
                let documents = self.given.check(raw::owned(reply.documents()?), self.cluster.side())?.map_err(|Twins| twins(&self.of))?;
                let at = self.part.at;
                return Ok(Some(ScanBatch { documents, before: at, read_at: at }));
            }
            if !self.part.open_end {
                return Ok(None);
            }
            (self.range.from, self.given) = (Some(max_key()), Given::default());
            if !self.renew().await? {
                return Ok(None);
            }
        }
    }
}

impl Part {
    /// Opens a cursor on the collection, whatever its name is by now.
    async fn found(
        cluster: &Cluster,
        by: Identity,
        on: &SelectionCriteria,
        of: &CollectionRef,
        range: &ScanRange,
    ) -> Result<Found<(CollectionRef, Self)>> {
        wherever(cluster, of, |of| async move { Self::open(cluster, by, on, &of, range).await }).await
    }

    async fn open(cluster: &Cluster, by: Identity, on: &SelectionCriteria, of: &CollectionRef, range: &ScanRange) -> Result<Self> {
        // A range from MaxKey to the end is that one key; the server refuses it as `min`.
        let only_max_key = range.max.is_none() && range.from.as_ref().is_some_and(super::super::scan::is_max_key);
        for _ in 0..OPENINGS {
            let (before, now) = placement(cluster, of.uuid).await?;
            let at = now.max(range.after);
            let opened = Instant::now();
            let command = find(by, of, range, at, only_max_key);
            let cursor = cluster.open(of.ns.db(), &doing(of), command, options(range, on)).await?;
            if placement(cluster, of.uuid).await?.0 == before {
                let open_end = range.max.is_none() && range.from.is_some() && !only_max_key;
                return Ok(Self { cursor, at, opened, open_end });
            }
        }
        Err(restless(cluster, of))
    }
}

fn doing(of: &CollectionRef) -> String {
    format!("reading `{}`", of.ns)
}

fn restless(cluster: &Cluster, of: &CollectionRef) -> Error {
    Error::Unreachable { side: cluster.side(), doing: doing(of), why: Trouble::Other, source: "its chunks move without a pause".into() }
}

fn options(range: &ScanRange, on: &SelectionCriteria) -> CursorOptions {
    CursorOptions { batch_documents: Some(range.batch_documents), await_time: None, on: Some(on.clone()) }
}

fn max_key() -> Bound {
    let mut b = raw::Builder::default();
    b.value("_id", raw::tag::MAX_KEY, &[]);
    b.finish()
}

fn find(by: Identity, of: &CollectionRef, range: &ScanRange, at: ClusterTime, only_max_key: bool) -> RawDocumentBuf {
    let mut b = raw::Builder::with_capacity(512);
    by.begin(&mut b, "find", of);
    if only_max_key {
        b.begin("filter").value("_id", raw::tag::MAX_KEY, &[]).end();
    } else {
        b.begin("hint").i32("_id", 1).end();
        if let Some(min) = &range.from {
            b.doc("min", min);
        }
        if let Some(max) = &range.max {
            b.doc("max", max);
        }
    }
    b.begin("sort").i32("_id", 1).end();
    b.i32("batchSize", i32::try_from(range.batch_documents).unwrap_or(i32::MAX));
    b.begin("readConcern").str("level", "snapshot").timestamp("atClusterTime", at.t, at.i).end();
    b.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocument, rawdoc};

    fn batch(ids: &[i32]) -> RawDocumentBuf {
        let mut b = raw::Builder::default();
        for (n, id) in ids.iter().enumerate() {
            b.doc(&n.to_string(), &rawdoc! {"_id": *id});
        }
        b.finish()
    }
    fn ids(documents: &RawDocument) -> Vec<i64> {
        let id = |doc: &RawDocument| raw::get(doc, "_id").and_then(|e| e.integer()).unwrap();
        raw::elements(documents).filter_map(|e| e.document()).map(id).collect()
    }

    #[test]
    fn a_scan_that_is_opened_again_gives_no_key_twice() {
        let mut given = Given::default();
        let check = |given: &mut Given, some: &[i32]| ids(&given.check(batch(some), Side::Source).unwrap().unwrap());
        assert_eq!(check(&mut given, &[1, 2]), [1, 2]);
        given.again = true;
        assert_eq!(check(&mut given, &[2, 3]), [3]);
        given.again = true;
        assert_eq!(check(&mut given, &[3]), [0_i64; 0]);
        given.again = true;
        assert_eq!(check(&mut given, &[4, 5]), [4, 5], "it was deleted meanwhile");
        assert_eq!(check(&mut given, &[6]), [6]);
    }

    #[test]
    fn two_documents_with_one_id_are_noticed_within_a_batch_and_over_two() {
        let twins = |batches: &[&[i32]], again: bool| {
            let mut given = Given { last: None, again: false };
            for (n, some) in batches.iter().enumerate() {
                given.again = again && n > 0;
                if given.check(batch(some), Side::Source).unwrap().is_err() {
                    return true;
                }
            }
            false
        };
        assert!(twins(&[&[1, 2, 2]], false) && twins(&[&[1, 2], &[2, 3]], false));
        assert!(twins(&[&[1, 2], &[2, 2]], true), "one was given before, the other was not");
        assert!(!twins(&[&[1, 2], &[2, 3]], true) && !twins(&[&[1, 2], &[3]], false));
    }
}
