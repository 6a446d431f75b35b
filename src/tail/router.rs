//! Same document, same lane; whatever touches a whole collection goes alone.

use super::{
    Parcel, Passed, Tail, Work,
    ddl::{self, Brought},
    repeats,
};
use crate::{
    capped::Verdict,
    catalog::{Collection, State},
    checkpoint::Store,
    error::{Error, Result},
    model::{Change, ChangeEvent, ClusterTime, CollectionUuid, Ddl, Position, Write, WriteOp, repeats_a_name},
    observe::{AppliedOp, EventOp},
    race::Reread,
    source::{EventBatch, Source},
    target::Target,
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// What a document read again is counted as, in bytes, before its size is known.
const REREAD_BYTES: usize = 16 << 10;

pub(super) struct Router<S, T, C> {
    pub tail: Tail<S, T, C>,
    pub lanes: Vec<mpsc::Sender<Work>>,
    pub ledger: mpsc::Sender<Passed>,
    pub stop: CancellationToken,
    /// The newest event that went down a lane. What is read again behind it must not be older.
    pub newest: ClusterTime,
    /// Whether the source is sharded; known once the first event comes.
    pub sharded: bool,
}

/// Where a write goes.
enum Route {
    Lane(Arc<Collection>),
    /// Not selected, or gone: it only moves the frontier.
    Nowhere,
    /// Of a collection that nothing was told of.
    Unknown(CollectionUuid),
}

/// Told by a step that there is nobody left to send to: the lane's or the ledger's own error tells why.
type Flow = Option<()>;

impl<S: Source, T: Target, C: Store> Router<S, T, C> {
    /// Routes until the reader ends. Dropping the lanes' senders at the end runs the lanes dry.
    pub async fn route(mut self, mut batches: mpsc::Receiver<EventBatch>, mut rereads: mpsc::Receiver<Reread>) -> Result<()> {
        let mut seq = 0..;
        self.sharded = self.tail.source.is_sharded().await?;
        loop {
            // Re-reads first: a batch of the copy, and so the resume point, waits for them.
            let flow = tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                Some(reread) = rereads.recv() => self.reread(reread).await,
                batch = batches.recv() => match batch {
                    None => None,
                    Some(batch) => self.batch(batch, &mut seq).await?,
                },
            };
            if flow.is_none() {
                return Ok(());
            }
        }
    }

    async fn batch(&mut self, batch: EventBatch, seq: &mut std::ops::RangeFrom<u64>) -> Result<Flow> {
        self.count(&batch);
        for event in batch.events {
            let Some(seq) = seq.next() else { return Err(Error::Bug("event numbers ran out".into())) };
            if self.event(seq, event).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    async fn event(&mut self, seq: u64, event: ChangeEvent) -> Result<Flow> {
        let ChangeEvent { position, change, bytes } = event;
        let time = position.time;
        self.newest = self.newest.max(time);
        let Some(place) = self.tail.room.take(bytes, &self.stop).await else { return Ok(None) };
        let passed = match change {
            Change::Idle => Passed { seq, position, place },
            Change::Write(write) => return self.write(seq, position, write, place).await,
            Change::Ddl(change) => {
                let Some(_alone) = self.tail.room.all(&place, &self.stop).await else { return Ok(None) };
                self.ddl(&change, time).await?;
                Passed { seq, position, place }
            }
        };
        Ok(self.ledger.send(passed).await.ok())
    }

    async fn write(&mut self, seq: u64, position: Position, mut write: Write, place: OwnedSemaphorePermit) -> Result<Flow> {
        let time = position.time;
        let collection = match self.known_route_of(&write, time, &place).await? {
            None => return Ok(None),
            Some(Route::Nowhere) => return Ok(self.ledger.send(Passed { seq, position, place }).await.ok()),
            Some(Route::Unknown(_)) => {
                return Err(Error::Bug(format!("an event of a collection that was never created (`{}`)", write.ns)));
            }
            Some(Route::Lane(collection)) => collection,
        };
        if collection.entry().capped {
            let (uuid, key) = (collection.uuid(), collection.identity_of(&write.key));
            let mut verdict = self.tail.capped.judge(uuid, time, &write.op, key);
            if verdict == Verdict::Ends {
                let Some(_alone) = self.tail.room.all(&place, &self.stop).await else { return Ok(None) };
                self.tail.capped.read_until(uuid, self.tail.race.newest_shown());
                verdict = self.tail.capped.judge(uuid, time, &write.op, key);
            }
            match verdict {
                Verdict::News | Verdict::Ends => {}
                Verdict::Doubtful if write.op.holds_document() => write.op = WriteOp::Reread,
                Verdict::Doubtful => {}
                Verdict::Shown => return Ok(self.ledger.send(Passed { seq, position, place }).await.ok()),
                Verdict::Reorders => {
                    let Some(_alone) = self.tail.room.all(&place, &self.stop).await else { return Ok(None) };
                    let change = ddl::Change { tail: &self.tail, stop: &self.stop, time, sharded: self.sharded };
                    let span = change.fill_anew(&collection).await?;
                    self.tail.capped.copied(collection.uuid(), span);
                    return Ok(self.ledger.send(Passed { seq, position, place }).await.ok());
                }
            }
        } else if self.sharded && matches!(write.op, WriteOp::Delete) {
            // It may be told behind the insertion on another shard.
            write.op = WriteOp::Reread;
        }
        self.note_repeats(&collection, &write).await?;
        let order = collection.order_of(&write.key);
        self.tail.race.touch(collection.uuid(), order, time);
        self.tail.parity.note(collection.uuid(), &write.key);
        let lane = &self.lanes[order.lane(self.lanes.len())];
        Ok(lane.send(Work::Change(Parcel { seq, position, write, collection, place })).await.ok())
    }

    async fn ddl(&mut self, change: &Ddl, time: ClusterTime) -> Result<()> {
        let brought = ddl::Change { tail: &self.tail, stop: &self.stop, time, sharded: self.sharded }.apply(change).await?;
        self.brought(brought);
        Ok(())
    }

    fn brought(&mut self, brought: Brought) {
        match brought {
            Brought::Nothing => {}
            Brought::Capped(uuid, span) => self.tail.capped.copied(uuid, span),
            Brought::Documents => self.tail.copy_wanted.notify_one(),
        }
        self.tail.metrics.applied(AppliedOp::Ddl, 1);
        self.tail.parity.note_structure();
        self.tail.indexes_changed.notify_one();
    }

    /// As [`Router::route_of`]. On a sharded source a collection that nothing was told of has taken another's place: it was
    /// moved to another shard as a whole, or resharded. `None` when told to stop.
    async fn known_route_of(&mut self, write: &Write, time: ClusterTime, place: &OwnedSemaphorePermit) -> Result<Option<Route>> {
        let route = self.route_of(write, time)?;
        let Route::Unknown(uuid) = route else { return Ok(Some(route)) };
        if !self.sharded {
            return Ok(Some(route));
        }
        let Some(_alone) = self.tail.room.all(place, &self.stop).await else { return Ok(None) };
        let change = ddl::Change { tail: &self.tail, stop: &self.stop, time, sharded: true };
        let brought = change.appeared(&write.ns, uuid).await?;
        self.brought(brought);
        self.route_of(write, time).map(Some)
    }

    async fn note_repeats(&self, collection: &Collection, write: &Write) -> Result<()> {
        let (WriteOp::Insert(doc) | WriteOp::Replace(doc) | WriteOp::Diff(doc)) = &write.op else { return Ok(()) };
        if collection.entry().repeats || !repeats_a_name(doc) { Ok(()) } else { repeats::note(&self.tail.store, collection).await }
    }

    fn route_of(&self, write: &Write, time: ClusterTime) -> Result<Route> {
        let catalog = &self.tail.catalog;
        let uuid = write.uuid.ok_or_else(|| Error::Bug("a write event without `collectionUUID`".into()))?;
        match catalog.find(uuid) {
            Some(collection) if collection.entry().state == State::Dropped => Ok(Route::Nowhere),
            Some(collection) => Ok(Route::Lane(collection)),
            None if !self.tail.selection.takes(&write.ns) => Ok(Route::Nowhere),
            // Dropped before the collections were listed.
            None if time <= catalog.listed_until() => Ok(Route::Nowhere),
            None => Ok(Route::Unknown(uuid)),
        }
    }

    async fn reread(&self, mut reread: Reread) -> Flow {
        // Events of its key may have come since the copy asked, and are in front of it in the lane.
        reread.at_least = reread.at_least.max(self.newest);
        let place = self.tail.room.take(REREAD_BYTES, &self.stop).await?;
        let lane = reread.collection.order_of(&reread.key).lane(self.lanes.len());
        self.lanes[lane].send(Work::Reread { reread, place }).await.ok()
    }

    fn count(&self, batch: &EventBatch) {
        let metrics = &self.tail.metrics;
        for op in EventOp::ALL {
            let of_kind = batch.events.iter().filter(|e| op_of(&e.change) == Some(op));
            let (events, bytes) = of_kind.fold((0, 0), |(n, bytes), e| (n + 1, bytes + e.bytes as u64));
            if events > 0 {
                metrics.read(op, events, bytes);
            }
        }
    }
}

fn op_of(change: &Change) -> Option<EventOp> {
    match change {
        Change::Idle => None,
        Change::Ddl(_) => Some(EventOp::Ddl),
        Change::Write(write) => Some(match write.op {
            WriteOp::Insert(_) => EventOp::Insert,
            WriteOp::Diff(_) | WriteOp::Reread => EventOp::Update,
            WriteOp::Replace(_) => EventOp::Replace,
            WriteOp::Delete => EventOp::Delete,
        }),
    }
}
