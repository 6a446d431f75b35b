//! Documents onto the target: raw bytes spliced into `insert`, `update` and `delete` commands.
//!
//! Measured on 6.0.5, documents of 0.8 KiB in batches of 1,000: insert 26 µs, replacement with upsert 76 µs;
//! so what is most likely new is inserted first and only duplicates are replaced.

use super::super::{ANOTHER_COLLECTION, Applied, Inserted, Statement, TargetCollection};
use crate::{
    error::{Error, Result},
    model::{
        Batch, DocumentKey, ShardKey, odd_at_top,
        raw::{self, Builder, tag},
    },
    mongo::{Cluster, DUPLICATE_KEY, WriteError, refused_by_code},
};
use bson::{RawDocument, RawDocumentBuf};

/// The server's bounds for one command: a body of 16 MiB and a little. Kept below by a margin for what is around the statements.
pub(super) const MAX_COMMAND_BYTES: usize = 15 << 20;
/// Statements of one command at most. The reply lists every duplicate with its key, and a reply above 16 MiB
/// closes the connection (RAN on 6.0.5 with 80,000).
const MAX_STATEMENTS: usize = 10_000;

/// ShardKeyNotFound: the shard key's fields hold what the server lets no shard key hold (RAN on 6.0.5).
pub(super) const SHARD_KEY_UNFIT: i32 = 61;

/// What that is.
pub(super) const UNFIT: &str = "its shard key holds an array, a document with an operator's name, or MaxKey; change it on the source, or begin anew with another `--shard`";

/// Inserts a batch of the copy. `ordered: false` only means to go on behind a duplicate: a `mongod` works the
/// documents of one command off in their order.
pub(crate) async fn insert(cluster: &Cluster, to: &TargetCollection, batch: &Batch, by: Option<&ShardKey>) -> Result<Inserted> {
    let mut total = Inserted::default();
    if !batch.has_odd() {
        insert_run(cluster, to, batch.array(), &mut total).await?;
        return Ok(total);
    }
    // Rare: some documents need a pipeline to arrive as they are.
    let mut run: Vec<&RawDocument> = Vec::new();
    for doc in batch.documents() {
        if odd_at_top(doc) {
            insert_run(cluster, to, &array(run.drain(..)), &mut total).await?;
            insert_odd(cluster, to, doc, by, &mut total).await?;
        } else {
            run.push(doc);
        }
    }
    insert_run(cluster, to, &array(run.into_iter()), &mut total).await?;
    Ok(total)
}

fn each(documents: &RawDocument) -> impl Iterator<Item = &RawDocument> {
    raw::elements(documents).filter_map(|e| e.document())
}

async fn insert_run(cluster: &Cluster, to: &TargetCollection, documents: &RawDocument, total: &mut Inserted) -> Result<()> {
    if each(documents).next().is_some() {
        match cluster.write_perhaps(to.ns.db(), &inserting(to), &insert_command(to, documents)).await? {
            Some(reply) => {
                total.inserted += reply.n;
                total.already_there += duplicates(cluster, to, documents, &reply.errors).await?;
            }
            None => total.already_there += all_there(cluster, to, documents).await?,
        }
    }
    Ok(())
}

/// A document that a plain insert would change: a pipeline's upsert under a filter that matches nothing, so
/// that a document which is there already shows as a duplicate (RAN on 6.0.5).
async fn insert_odd(
    cluster: &Cluster,
    to: &TargetCollection,
    doc: &RawDocument,
    by: Option<&ShardKey>,
    total: &mut Inserted,
) -> Result<()> {
    let key = DocumentKey::of(doc).ok_or_else(|| Error::Bug("a document without `_id`".into()))?;
    let mut b = head("update", to, doc.as_bytes().len());
    b.begin_array("updates").begin("0").begin("q");
    aim(&mut b, &key, by.map(|by| by.values(doc)).as_deref());
    b.begin_array("$nor").begin("0").end().end().end();
    literal(&mut b, doc);
    b.bool("upsert", true).end().end();
    let documents = array([doc].into_iter());
    match cluster.write_perhaps(to.ns.db(), &inserting(to), &tail(b)).await? {
        Some(reply) => {
            total.inserted += reply.upserted;
            total.already_there += duplicates(cluster, to, &documents, &reply.errors).await?;
        }
        None => total.already_there += all_there(cluster, to, &documents).await?,
    }
    Ok(())
}

/// How many statements met a document that was there; any other failure is an error.
async fn duplicates(cluster: &Cluster, to: &TargetCollection, documents: &RawDocument, errors: &[WriteError]) -> Result<u64> {
    for e in errors.iter().filter(|e| e.code != DUPLICATE_KEY || !e.of_id) {
        let refused = refused_by_code(cluster.side(), &inserting(to), e.code, "a document was refused");
        let of_shape = e.code != ANOTHER_COLLECTION && matches!(refused, Error::Refused { .. });
        if e.code == SHARD_KEY_UNFIT {
            return Err(refused_by_code(cluster.side(), &inserting(to), e.code, UNFIT));
        }
        let doc = each(documents).nth(e.index);
        if !of_shape || !is_there(cluster, to, doc.and_then(DocumentKey::of)).await? {
            return Err(refused);
        }
    }
    Ok(errors.len() as u64)
}

/// Looks, where no reply tells, whether a majority has all of these documents; gives their number.
async fn all_there(cluster: &Cluster, to: &TargetCollection, documents: &RawDocument) -> Result<u64> {
    let keys: Vec<DocumentKey> = each(documents).filter_map(DocumentKey::of).collect();
    let now = cluster.operation_time().await?;
    for key in &keys {
        let mut b = Builder::default();
        b.str("count", to.ns.coll()).doc("query", key.as_raw()).i32("limit", 1);
        let mut time = [0; 8];
        time[..4].copy_from_slice(&now.i.to_le_bytes());
        time[4..].copy_from_slice(&now.t.to_le_bytes());
        b.begin("readConcern").str("level", "majority").value("afterClusterTime", tag::TIMESTAMP, &time).end();
        let reply = cluster.run_raw(to.ns.db(), &inserting(to), &b.finish()).await?;
        if reply.get("n").and_then(crate::mongo::listing::count).is_none_or(|n| n == 0) {
            return Err(refused_by_code(cluster.side(), &inserting(to), 0, "a document was refused, in a reply that cannot be read"));
        }
    }
    Ok(keys.len() as u64)
}

/// Whether a document is there that the server could not name as a duplicate: in a clustered collection that error
/// fails itself for doubles, decimals and strings with a zero byte (codes 50810, 50819, 50825, 50826 and 15, RAN on
/// 6.0.5).
async fn is_there(cluster: &Cluster, to: &TargetCollection, key: Option<DocumentKey>) -> Result<bool> {
    let Some(key) = key else { return Ok(false) };
    let mut b = Builder::default();
    b.str("count", to.ns.coll()).doc("query", key.as_raw()).i32("limit", 1);
    let reply = cluster.run_raw(to.ns.db(), &inserting(to), &b.finish()).await?;
    Ok(reply.get("n").and_then(crate::mongo::listing::count).is_some_and(|n| n > 0))
}

/// A statement and, on a sharded collection, the values of the shard key by which the router finds its document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aimed<'a> {
    pub(crate) what: Statement<'a>,
    pub(crate) at: Option<&'a RawDocument>,
}

/// The fields of a filter: the `_id` alone, whatever else the source's document key has, and where the document is.
fn aim(b: &mut Builder, key: &DocumentKey, at: Option<&RawDocument>) {
    b.element(key.id());
    for e in at.into_iter().flat_map(raw::elements).filter(|e| e.name != b"_id") {
        if let Ok(name) = std::str::from_utf8(e.name) {
            b.begin(name).value("$eq", e.tag, e.value).end();
        }
    }
}

/// What a batch of aimed statements did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) diff_missed: bool,
    /// Inserts that took the place of a document, by their number.
    pub(crate) met: Vec<usize>,
    /// Statements refused for reasons of shape, by their number, and the server's code.
    pub(crate) refused: Vec<(usize, i32)>,
}

impl From<Done> for Applied {
    fn from(done: Done) -> Self {
        Self { diff_missed: done.diff_missed, refused: done.refused.into_iter().map(|(n, _)| n).collect(), met: done.met, why: None }
    }
}

/// Applies a batch: deletes, then inserts, then updates. That keeps the order of each key, since a deleted key
/// has nothing else, and one with an insert or put only diffs behind it. Deletes come first for the sake of capped
/// collections: an insert that finds no room drops the oldest document, which may be one that stays.
pub(crate) async fn apply(cluster: &Cluster, to: &TargetCollection, statements: &[Aimed<'_>]) -> Result<Done> {
    let mut applied = Done::default();
    let numbered = || statements.iter().map(|s| s.what).enumerate();
    let deletes: Vec<_> = numbered().filter_map(|(n, s)| matches!(s, Statement::Delete(_)).then_some(n)).collect();
    delete(cluster, to, statements, &deletes).await?;
    let plain = |doc: &RawDocument| !odd_at_top(doc);
    let inserts: Vec<_> = numbered().filter_map(|(n, s)| matches!(s, Statement::Insert(_, doc) if plain(doc)).then_some(n)).collect();
    let mut updates: Vec<usize> = insert_new(cluster, to, statements, &inserts, &mut applied).await?;
    applied.met.clone_from(&updates);
    updates.extend(numbered().filter_map(|(n, s)| match s {
        Statement::Insert(_, doc) => (!plain(doc)).then_some(n),
        Statement::Put(..) | Statement::Diff(..) => Some(n),
        Statement::Delete(_) => None,
    }));
    update(cluster, to, statements, &updates, &mut applied).await?;
    Ok(applied)
}

/// Inserts; gives those that were there already, to be put in their place.
async fn insert_new(
    cluster: &Cluster,
    to: &TargetCollection,
    statements: &[Aimed<'_>],
    which: &[usize],
    applied: &mut Done,
) -> Result<Vec<usize>> {
    let mut there = Vec::new();
    for chunk in chunks(statements, which) {
        let documents = array(chunk.iter().filter_map(|&n| statements[n].what.document()));
        let Some(reply) = cluster.write_perhaps(to.ns.db(), &applying(to), &insert_command(to, &documents)).await? else {
            there.extend(chunk);
            continue;
        };
        for e in fatal(cluster, to, &reply.errors)? {
            if e.code == DUPLICATE_KEY && e.of_id {
                there.push(chunk[e.index]);
            } else {
                applied.refused.push((chunk[e.index], e.code));
            }
        }
    }
    Ok(there)
}

async fn update(cluster: &Cluster, to: &TargetCollection, statements: &[Aimed<'_>], which: &[usize], applied: &mut Done) -> Result<()> {
    for chunk in chunks(statements, which) {
        let bytes = chunk.iter().map(|&n| statements[n].bytes()).sum();
        let mut b = head("update", to, bytes);
        b.begin_array("updates");
        for (i, &n) in chunk.iter().enumerate() {
            b.begin(&i.to_string());
            let Aimed { what, at } = &statements[n];
            b.begin("q");
            aim(&mut b, what.key(), *at);
            b.end();
            match what {
                Statement::Insert(_, doc) | Statement::Put(_, doc) => {
                    if odd_at_top(doc) {
                        literal(&mut b, doc);
                    } else {
                        b.doc("u", doc);
                    }
                    b.bool("upsert", true);
                }
                Statement::Diff(_, diff) => {
                    b.begin_array("u").begin("0").begin("$_internalApplyOplogUpdate").doc("oplogUpdate", diff).end().end().end();
                }
                Statement::Delete(_) => return Err(Error::Bug("a delete among updates".into())),
            }
            b.end();
        }
        b.end();
        let command = tail(b);
        let reply = match cluster.write_perhaps(to.ns.db(), &applying(to), &command).await? {
            Some(reply) => reply,
            // An upsert was named that cannot be read. What is written twice ends the same, and is no upsert any more.
            None => cluster.write(to.ns.db(), &applying(to), &command).await?,
        };
        let refused = fatal(cluster, to, &reply.errors)?;
        applied.diff_missed |= reply.n + (refused.len() as u64) < chunk.len() as u64;
        applied.refused.extend(refused.iter().map(|e| (chunk[e.index], e.code)));
    }
    Ok(())
}

async fn delete(cluster: &Cluster, to: &TargetCollection, statements: &[Aimed<'_>], which: &[usize]) -> Result<()> {
    for chunk in chunks(statements, which) {
        let mut b = head("delete", to, chunk.iter().map(|&n| statements[n].bytes()).sum());
        b.begin_array("deletes");
        for (i, &n) in chunk.iter().enumerate() {
            b.begin(&i.to_string()).begin("q");
            aim(&mut b, statements[n].what.key(), statements[n].at);
            b.end().i32("limit", 1).end();
        }
        b.end();
        let reply = cluster.write(to.ns.db(), &applying(to), &tail(b)).await?;
        if let Some(e) = fatal(cluster, to, &reply.errors)?.first() {
            return Err(refused_by_code(cluster.side(), &applying(to), e.code, "a delete was refused"));
        }
    }
    Ok(())
}

/// Deletes all documents.
pub(crate) async fn clear(cluster: &Cluster, to: &TargetCollection) -> Result<()> {
    let mut b = head("delete", to, 0);
    b.begin_array("deletes").begin("0").begin("q").end().i32("limit", 0).end().end();
    let reply = cluster.write(to.ns.db(), &format!("emptying `{}`", to.ns), &tail(b)).await?;
    fatal(cluster, to, &reply.errors)?
        .first()
        .map_or(Ok(()), |e| Err(refused_by_code(cluster.side(), &applying(to), e.code, "a delete was refused")))
}

/// Errors of single statements that are not about their shape: the whole command is repeated, or the
/// migration halts. The rest is given back.
fn fatal<'e>(cluster: &Cluster, to: &TargetCollection, errors: &'e [WriteError]) -> Result<&'e [WriteError]> {
    for e in errors {
        let error = refused_by_code(
            cluster.side(),
            &applying(to),
            e.code,
            "the collection is not the one that mongoferry made: somebody else changed the target",
        );
        if e.code == ANOTHER_COLLECTION || !matches!(error, Error::Refused { .. }) {
            return Err(error);
        }
    }
    Ok(errors)
}

impl<'a> Statement<'a> {
    /// Which document.
    #[must_use]
    pub fn key(&self) -> &'a DocumentKey {
        match *self {
            Statement::Insert(key, _) | Statement::Put(key, _) | Statement::Diff(key, _) | Statement::Delete(key) => key,
        }
    }

    fn document(&self) -> Option<&'a RawDocument> {
        match *self {
            Statement::Insert(_, doc) | Statement::Put(_, doc) => Some(doc),
            Statement::Diff(..) | Statement::Delete(_) => None,
        }
    }

    /// Bytes in a command, about.
    fn bytes(&self) -> usize {
        let payload = match self {
            Statement::Insert(_, doc) | Statement::Put(_, doc) | Statement::Diff(_, doc) => doc.as_bytes().len(),
            Statement::Delete(_) => 0,
        };
        payload + self.key().as_raw().as_bytes().len() + 96
    }
}

impl Aimed<'_> {
    fn bytes(&self) -> usize {
        self.what.bytes() + self.at.map_or(0, |at| 2 * at.as_bytes().len())
    }
}

/// Splits statements so that each part fits one command.
fn chunks<'n>(statements: &[Aimed<'_>], which: &'n [usize]) -> Vec<&'n [usize]> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, &n) in which.iter().enumerate() {
        let more = statements[n].bytes();
        if i > start && (bytes + more > MAX_COMMAND_BYTES || i - start >= MAX_STATEMENTS) {
            parts.push(&which[start..i]);
            (start, bytes) = (i, 0);
        }
        bytes += more;
    }
    if start < which.len() {
        parts.push(&which[start..]);
    }
    parts
}

fn inserting(to: &TargetCollection) -> String {
    format!("inserting into `{}`", to.ns)
}

fn applying(to: &TargetCollection) -> String {
    format!("applying changes to `{}`", to.ns)
}

fn head(verb: &str, to: &TargetCollection, bytes: usize) -> Builder {
    let mut b = Builder::with_capacity(bytes + 512);
    b.str(verb, to.ns.coll());
    b.uuid("collectionUUID", to.uuid);
    // No role but `restore` may bypass the validation of `system.js`, which cannot have a validator (RAN on 6.0.5 and 6.0.27).
    if !to.ns.is_functions() {
        b.bool("bypassDocumentValidation", true);
    }
    b.begin("writeConcern").str("w", "majority").end();
    b
}

fn tail(mut b: Builder) -> RawDocumentBuf {
    b.bool("ordered", false);
    b.finish()
}

fn insert_command(to: &TargetCollection, documents: &RawDocument) -> RawDocumentBuf {
    let mut b = head("insert", to, documents.as_bytes().len());
    b.value("documents", tag::ARRAY, documents.as_bytes());
    tail(b)
}

/// An update by a pipeline that leaves exactly this document.
fn literal(b: &mut Builder, doc: &RawDocument) {
    b.begin_array("u").begin("0").begin("$replaceWith").doc("$literal", doc).end().end().end();
}

fn array<'a>(documents: impl Iterator<Item = &'a RawDocument>) -> RawDocumentBuf {
    let mut b = Builder::default();
    for (i, doc) in documents.enumerate() {
        b.doc(&i.to_string(), doc);
    }
    b.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn large_batches_are_split_by_bytes_and_by_number() {
        let doc = rawdoc! {"_id": 1, "a": "x".repeat(4 << 20)};
        let key = DocumentKey::of(&doc).unwrap();
        let large = vec![Aimed { what: Statement::Put(&key, &doc), at: None }; 7];
        let which: Vec<_> = (0..7).collect();
        let sizes: Vec<_> = chunks(&large, &which).iter().map(|c| c.len()).collect();
        assert_eq!(sizes, [3, 3, 1]);
        let small = vec![Aimed { what: Statement::Delete(&key), at: None }; 25_000];
        let which: Vec<_> = (0..25_000).collect();
        assert_eq!(chunks(&small, &which).iter().map(|c| c.len()).sum::<usize>(), 25_000);
    }
}
