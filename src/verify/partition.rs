//! Compares one partition: both sides are read once, the target by the ranges that the source's batches make.
//!
//! A range goes from one key that the source showed to another, so what the target has in between is found
//! too; the first begins where the partition does and the last ends where it ends. Which key is in which
//! range, the servers say: we never order keys.

use super::{
    Settings,
    compare::{Comparison, Digest, MismatchKind, digest_of, documents, key_of},
};
use crate::{
    error::{Error, Result},
    model::{Bound, ClusterTime, DocumentKey, Partition, bound_of, raw},
    observe::Metrics,
    source::{CollectionRef, Found, Scan, ScanBatch, ScanRange, Source},
};
use bson::RawDocumentBuf;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

/// One partition to be compared.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// Number of its pair.
    pub(super) pair: usize,
    pub(super) source: CollectionRef,
    pub(super) target: CollectionRef,
    pub(super) partition: Partition,
    /// Documents of a batch.
    pub(super) batch_documents: u32,
    /// What both sides must have reached.
    pub(super) source_time: ClusterTime,
    pub(super) target_time: ClusterTime,
}

/// What a partition's comparison found.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) pair: usize,
    pub(super) documents: u64,
    pub(super) bytes: u64,
    /// Keys to look at again.
    pub(super) mismatches: Vec<(DocumentKey, MismatchKind)>,
    /// Mismatches for which there was no room.
    pub(super) overflow: u64,
    /// One side was dropped meanwhile.
    pub(super) gone: bool,
}

/// How many mismatches may still be kept, all partitions together.
pub(super) type Room = Arc<AtomicI64>;

/// Compares a partition. `stop` is looked at between batches.
///
/// # Errors
/// As classified, after retries from the last key that was compared: never a verdict on a part.
pub(super) async fn compare<A: Source, B: Source>(
    source: A,
    target: B,
    task: Task,
    settings: Settings,
    room: Room,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<Outcome> {
    let outcome = Outcome { pair: task.pair, ..Outcome::default() };
    let from = task.partition.min.clone();
    let digest = settings.ignore_field_order.then(|| digest_of(true));
    let walk = Mutex::new(Walk { source, target, task, room, from, carried: None, scan: None, ahead: None, outcome, metrics, digest });
    let retry = settings.retry.until(stop.clone());
    let mut bytes = 0;
    while !stop.is_cancelled() {
        let started = Instant::now();
        if retry.run(|| async { walk.lock().await.step().await }).await? {
            return Ok(walk.into_inner().outcome);
        }
        let so_far = walk.lock().await.outcome.bytes;
        settings.pace.rest(so_far - std::mem::replace(&mut bytes, so_far), started.elapsed(), &stop).await;
    }
    Err(Error::Interrupted)
}

struct Walk<A: Source, B: Source> {
    source: A,
    target: B,
    task: Task,
    room: Room,
    /// Where the next range begins: everything before it is compared.
    from: Option<Bound>,
    /// The last document of the batch before: not compared yet.
    carried: Option<RawDocumentBuf>,
    scan: Option<A::Scan>,
    ahead: Option<ScanBatch>,
    outcome: Outcome,
    metrics: Arc<Metrics>,
    digest: Option<Digest>,
}

impl<A: Source, B: Source> Walk<A, B> {
    /// Compares one range; whether it was the last. After an error the next call begins with the same range.
    async fn step(&mut self) -> Result<bool> {
        let done = self.range().await;
        if done.is_err() {
            (self.scan, self.ahead, self.carried) = (None, None, None);
        }
        done
    }

    async fn range(&mut self) -> Result<bool> {
        if self.scan.is_none() {
            let task = &self.task;
            let range = scan_range(self.from.clone(), task.partition.max.clone(), task.source_time, task.batch_documents);
            match self.source.scan(&task.source, range).await? {
                Found::Here(scan) => self.scan = Some(scan),
                Found::Gone => return Ok(self.gone()),
            }
        }
        let Some(scan) = &mut self.scan else { return Err(Error::Bug("a scan that was not opened".into())) };
        let batch = match self.ahead.take() {
            Some(batch) => Some(batch),
            None => scan.next().await?,
        };
        let Some(batch) = batch else { return self.last().await };

        let read = documents(&batch.documents)?;
        if read.is_empty() {
            return Ok(false);
        }
        let carried = self.carried.take();
        let mut ours: Vec<_> = carried.iter().map(|doc| &**doc).chain(read).collect();
        // The last document is the first of the next range, since a range leaves out its end.
        let Some(last) = ours.pop() else { return Ok(false) };
        if ours.is_empty() {
            // A range may not end where it begins.
            self.carried = Some(raw::owned(last));
            return Ok(false);
        }
        let max = Some(bound_of(last).ok_or_else(|| Error::Bug("a stored document without `_id`".into()))?);
        // Reading on is done while the target is read. Both are awaited to their ends.
        let theirs = read_target(&self.target, &self.task, self.from.clone(), max.clone(), &ours, &self.room, self.digest);
        let (found, ahead) = tokio::join!(theirs, scan.next());
        let (found, ahead) = (found?, ahead?);
        let Some(found) = found else { return Ok(self.gone()) };
        let kept = raw::owned(last);
        self.outcome.add(found, &ours, &self.room, &self.metrics);
        (self.from, self.carried, self.ahead) = (max, Some(kept), ahead);
        if self.ahead.is_some() { Ok(false) } else { self.last().await }
    }

    /// From the last document to the partition's end.
    async fn last(&mut self) -> Result<bool> {
        let ours: Vec<_> = self.carried.iter().map(|doc| &**doc).collect();
        let max = self.task.partition.max.clone();
        let Some(found) = read_target(&self.target, &self.task, self.from.clone(), max, &ours, &self.room, self.digest).await? else {
            return Ok(self.gone());
        };
        self.outcome.add(found, &ours, &self.room, &self.metrics);
        Ok(true)
    }

    fn gone(&mut self) -> bool {
        self.outcome.gone = true;
        true
    }
}

/// What one range's comparison found.
#[derive(Default)]
struct InRange {
    mismatches: Vec<(DocumentKey, MismatchKind)>,
    overflow: u64,
}

impl InRange {
    fn push(&mut self, doc: &bson::RawDocument, kind: MismatchKind, room: &Room) -> Result<()> {
        // Taken only when the range is done, since a range that fails is read again.
        if room.load(Ordering::Relaxed) > i64::try_from(self.mismatches.len()).unwrap_or(i64::MAX) {
            self.mismatches.push((key_of(doc)?, kind));
        } else {
            self.overflow += 1;
        }
        Ok(())
    }
}

impl Outcome {
    fn add(&mut self, found: InRange, ours: &[&bson::RawDocument], room: &Room, metrics: &Metrics) {
        room.fetch_sub(i64::try_from(found.mismatches.len()).unwrap_or(i64::MAX), Ordering::Relaxed);
        let (documents, bytes) = (ours.len() as u64, ours.iter().map(|doc| doc.as_bytes().len() as u64).sum());
        metrics.verified(documents, bytes);
        self.documents += documents;
        self.bytes += bytes;
        self.mismatches.extend(found.mismatches);
        self.overflow += found.overflow;
    }
}

/// Reads a range of the target batch by batch and compares it; `None` where the collection is gone.
async fn read_target<B: Source>(
    target: &B,
    task: &Task,
    from: Option<Bound>,
    max: Option<Bound>,
    ours: &[&bson::RawDocument],
    room: &Room,
    digest: Option<Digest>,
) -> Result<Option<InRange>> {
    let mut found = InRange::default();
    let mut comparison = Comparison::new(ours, digest);
    let range = scan_range(from, max, task.target_time, task.batch_documents);
    let mut scan = match target.scan(&task.target, range).await? {
        Found::Here(scan) => scan,
        Found::Gone => return Ok(None),
    };
    while let Some(batch) = scan.next().await? {
        for doc in documents(&batch.documents)? {
            if let Some(kind) = comparison.meet(doc)? {
                found.push(doc, kind, room)?;
            }
        }
    }
    for doc in comparison.missing() {
        found.push(doc, MismatchKind::Missing, room)?;
    }
    Ok(Some(found))
}

fn scan_range(from: Option<Bound>, max: Option<Bound>, after: ClusterTime, batch_documents: u32) -> ScanRange {
    ScanRange { from, max, after, batch_documents, natural: false }
}
