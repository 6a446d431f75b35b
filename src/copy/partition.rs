//! One partition: reading ahead while earlier batches are inserted, progress without holes.

use super::Copy;
use crate::{
    catalog::Collection,
    checkpoint::{Frontier, Store},
    error::Result,
    model::{Batch, Bound, CanonicalKey, ClusterTime, DocumentKey, Partition, raw},
    race::{Hold, Reread},
    retry::Patience,
    source::{Found, Scan, ScanBatch, ScanRange, Source},
    target::{ANOTHER_COLLECTION, Inserted, Target},
    tasks::panicked,
    throttle::Turn,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Bytes that a batch should have: large enough to amortise the round trip, small enough for memory.
/// Measured with documents of 0.9 KB: 1,000 to 10,000 documents differ by less than the noise.
const BATCH_BYTES: u64 = 4 << 20;
/// Documents of a batch at most: the server lists every duplicate in its reply.
const BATCH_DOCUMENTS: u64 = 5_000;
/// Batches of one partition that are inserted at the same time.
const DEPTH: usize = 3;
/// How often the progress of a partition is saved. What is not is read again after a crash.
const SAVE_EVERY: Duration = Duration::from_millis(500);

/// How the copy of a partition ended.
pub(super) enum End {
    /// Durable, or its collection is gone.
    Done,
    /// We were told to stop.
    Stopped,
    /// Not ended: the pace wants a wait during which no cursor may be open.
    Yielded,
}

/// A batch that the target durably has.
struct Confirmed {
    seq: u64,
    last: Option<Bound>,
    documents: u64,
    bytes: u64,
    hold: Hold,
}

/// Copies the rest of a partition.
pub(super) async fn copy<S: Source, T: Target, C: Store>(
    copy: &Copy<S, T, C>,
    partition: Partition,
    stop: &CancellationToken,
) -> Result<End> {
    let Some(collection) = copy.catalog.find(partition.id.collection) else { return Ok(End::Done) };
    let mut worker = Worker { copy, collection, partition, unsaved: Vec::new(), saved_at: Instant::now(), patience: copy.retry.patience() };
    loop {
        match worker.scan(stop).await {
            Ok(End::Yielded) if copy.pace.wait(stop).await => {}
            Ok(End::Yielded) => return Ok(End::Stopped),
            Ok(end) => return Ok(end),
            // The cursor is opened again behind what is durable.
            Err(error) if stop.is_cancelled() => return Err(error),
            Err(error) => worker.patience.after(error).await?,
        }
    }
}

struct Worker<'a, S, T, C> {
    copy: &'a Copy<S, T, C>,
    collection: Arc<Collection>,
    partition: Partition,
    /// Holds of batches that are durable but whose progress is not yet saved.
    unsaved: Vec<Hold>,
    saved_at: Instant,
    /// With failures of the scan.
    patience: Patience,
}

impl<S: Source, T: Target, C: Store> Worker<'_, S, T, C> {
    async fn scan(&mut self, stop: &CancellationToken) -> Result<End> {
        let mut cursor = self.copy.race.hold();
        let range = self.range(cursor.at()).await?;
        let mut scan = match self.copy.source.scan(&self.collection.on_source(), range).await? {
            Found::Here(scan) => scan,
            Found::Gone => return self.gone().await,
        };
        let (mut inserts, mut frontier, mut seq) = (JoinSet::new(), Frontier::default(), 0..);
        let mut turn_at = Instant::now();
        let outcome = loop {
            if stop.is_cancelled() {
                break Ok(End::Stopped);
            }
            if let Err(error) = self.reap(&mut inserts, &mut frontier, DEPTH).await {
                break Err(error);
            }
            match self.copy.pace.turn(turn_at.elapsed(), stop).await {
                Turn::Go => turn_at = Instant::now(),
                Turn::Yield => break Ok(End::Yielded),
                Turn::Stopped => break Ok(End::Stopped),
            }
            let Some(room) = self.copy.memory.to_read(stop).await else { break Ok(End::Stopped) };
            let started = Instant::now();
            let batch = match scan.next().await {
                Ok(None) => break Ok(End::Done),
                Ok(Some(batch)) => batch,
                Err(error) => break Err(error),
            };
            self.copy.metrics.copy_read(started.elapsed());
            self.copy.pace.took(|| (batch.documents.as_bytes().len(), raw::elements(&batch.documents).count()));
            self.patience.restore();
            let (hold, read_at) = (cursor.split(), batch.read_at);
            inserts.spawn(insert(
                self.copy.clone(),
                self.collection.clone(),
                seq.next().unwrap_or_default(),
                batch,
                hold,
                room,
                stop.clone(),
            ));
            cursor.advance(read_at);
        };
        // Whatever ended the reading, what is under way is brought to its end and counted.
        let drained = self.reap(&mut inserts, &mut frontier, 0).await;
        let end = outcome?;
        drained?;
        if matches!(end, End::Done) {
            self.partition.done = true;
        }
        self.save().await?;
        Ok(end)
    }

    async fn range(&self, held: ClusterTime) -> Result<ScanRange> {
        let estimate = self.copy.source.estimate(&self.collection.on_source()).await?;
        let mean = estimate.bytes / estimate.documents.max(1);
        let (bytes, documents) = self.copy.pace.batch(BATCH_BYTES, BATCH_DOCUMENTS);
        let batch_documents = u32::try_from((bytes / mean.max(1)).clamp(1, documents)).unwrap_or(1);
        let (from, max) = (self.partition.from().cloned(), self.partition.max.clone());
        let after = held.max(self.collection.entry().read_from);
        Ok(ScanRange { from, max, after, batch_documents, natural: false })
    }

    /// The collection was dropped on the source. The tail will drop it here; until it has come that far the
    /// target shows what is no more.
    async fn gone(&mut self) -> Result<End> {
        self.copy.race.read(self.copy.source.operation_time().await?);
        self.partition.done = true;
        self.save().await?;
        Ok(End::Done)
    }

    /// Takes note of finished inserts, and waits until no more than `most` are under way.
    async fn reap(
        &mut self,
        inserts: &mut JoinSet<Result<Option<Confirmed>>>,
        frontier: &mut Frontier<Confirmed>,
        most: usize,
    ) -> Result<()> {
        loop {
            let ended = if inserts.len() > most { inserts.join_next().await } else { inserts.try_join_next() };
            let Some(ended) = ended else { break };
            let ended = ended.unwrap_or_else(|panic| Err(panicked(&panic)));
            if let Some(confirmed) = ended? {
                frontier.applied(confirmed.seq, confirmed, |c| {
                    self.partition.after = c.last.or(self.partition.after.take());
                    self.partition.documents += c.documents;
                    self.partition.bytes += c.bytes;
                    self.unsaved.push(c.hold);
                });
            }
        }
        if self.saved_at.elapsed() >= SAVE_EVERY && !self.unsaved.is_empty() {
            self.save().await?;
        }
        Ok(())
    }

    /// Saves progress, and only then lets the resume point pass the batches behind it.
    async fn save(&mut self) -> Result<()> {
        self.copy.store.save_partitions(std::slice::from_ref(&self.partition)).await?;
        self.saved_at = Instant::now();
        self.unsaved.drain(..).for_each(Hold::confirm);
        Ok(())
    }
}

/// Inserts a batch, has what raced read again, and answers when all of it is durable; `None` when told to stop.
async fn insert<S: Source, T: Target, C: Store>(
    copy: Copy<S, T, C>,
    collection: Arc<Collection>,
    seq: u64,
    batch: ScanBatch,
    mut hold: Hold,
    reading: OwnedSemaphorePermit,
    stop: CancellationToken,
) -> Result<Option<Confirmed>> {
    let (read_at, before, bytes) = (batch.read_at, batch.before, batch.documents.as_bytes().len());
    let Some(_room) = copy.memory.to_write(bytes, &stop).await else { return Ok(None) };
    drop(reading);
    let Some(Ok(writer)) = stop.run_until_cancelled(copy.writers.clone().acquire_owned()).await else { return Ok(None) };
    let batch = Batch::new(batch.documents);
    let last = batch.last().cloned();
    if batch.is_empty() {
        return Ok(Some(Confirmed { seq, last, documents: 0, bytes: 0, hold }));
    }
    copy.race.read(read_at);
    if batch.has_repeated_names() && !collection.entry().repeats && collection.note_repeats().await {
        copy.save(&collection).await?;
    }
    {
        // No structural change meanwhile: the name and identity on the target are those of now.
        let _shared = collection.gate.read().await;
        hold.inserting();
        let started = Instant::now();
        let Some(inserted) = put(&copy, &collection, &batch).await? else {
            return Ok(Some(Confirmed { seq, last, documents: 0, bytes: 0, hold }));
        };
        copy.metrics.copy_inserted(started.elapsed());
        copy.metrics.copied(inserted.inserted, batch.bytes(), inserted.already_there);
    }
    drop(writer);
    if !reread(&copy, &collection, &batch, before).await? {
        return Ok(None);
    }
    Ok(Some(Confirmed { seq, last, documents: batch.len(), bytes: batch.bytes(), hold }))
}

/// Inserts under the name that the collection has now; `None` where it is gone.
async fn put<S: Source, T: Target, C: Store>(copy: &Copy<S, T, C>, collection: &Collection, batch: &Batch) -> Result<Option<Inserted>> {
    let Some(to) = collection.on_target() else { return Ok(None) };
    match copy.target.insert(&to, batch).await {
        Err(error) if error.code() == Some(ANOTHER_COLLECTION) => {
            copy.race.read(collection.relocate(&copy.source, &copy.target).await?);
            let Some(to) = collection.on_target() else { return Ok(None) };
            copy.target.insert(&to, batch).await.map(Some)
        }
        other => other.map(Some),
    }
}

/// Has every key that was touched after the batch was read read again in its lane. `false` when the tail ended.
async fn reread<S: Source, T: Target, C: Store>(
    copy: &Copy<S, T, C>,
    collection: &Arc<Collection>,
    batch: &Batch,
    before: ClusterTime,
) -> Result<bool> {
    if !copy.race.is_touched(collection.uuid()) {
        return Ok(true);
    }
    let keys: Vec<DocumentKey> = batch.keys().collect();
    let orders: Vec<CanonicalKey> = keys.iter().map(|key| collection.order_of(key)).collect();
    let raced = copy.race.raced(collection.uuid(), &orders, before);
    let (done, mut confirmed) = mpsc::channel(raced.len().max(1));
    for (n, at_least) in &raced {
        let reread = Reread { collection: collection.clone(), key: keys[*n].clone(), at_least: *at_least, done: done.clone() };
        if copy.rereads.send(reread).await.is_err() {
            return Ok(false);
        }
    }
    drop(done);
    for _ in &raced {
        if confirmed.recv().await.is_none() {
            return Ok(false);
        }
    }
    copy.metrics.reread(raced.len() as u64);
    Ok(true)
}
