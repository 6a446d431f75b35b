//! The stream and the scans of the source in memory.

use super::{MemorySource, history};
use crate::{
    error::{Error, Result},
    model::{Bound, Change, ChangeEvent, CollectionUuid, Position, ResumeToken, raw, shelf::Place},
    source::{EventBatch, EventStream, Scan, ScanBatch, ScanRange},
};
use bson::{RawDocumentBuf, rawdoc};
use rand::Rng;
use std::{ops::Bound as Edge, time::Duration};

/// Events of one batch at most.
const MAX_EVENTS: usize = 6;

/// Turns that a stream without news waits where no time is given: others should have theirs.
const IDLE_TURNS: u32 = 8;

/// A change stream over the history.
#[derive(Debug)]
pub struct MemoryStream {
    pub(super) source: MemorySource,
    /// The number of the next event.
    pub(super) next: usize,
    /// When it has nothing new, it says so once in a while.
    pub(super) idle: Duration,
}

fn token(next: usize) -> ResumeToken {
    ResumeToken(rawdoc! {"next": i64::try_from(next).unwrap_or(i64::MAX)})
}

/// The number of the next event behind a token; `None` where it is none of ours.
pub(super) fn parse(token: &ResumeToken) -> Option<usize> {
    raw::get(&token.0, "next")?.integer()?.try_into().ok()
}

impl EventStream for MemoryStream {
    async fn next(&mut self) -> Result<EventBatch> {
        self.source.slow().await;
        if self.source.with(|w| w.history.events.len()) == self.next {
            if self.idle.is_zero() {
                for _ in 0..IDLE_TURNS {
                    tokio::task::yield_now().await;
                }
            } else {
                tokio::time::sleep(self.idle).await;
            }
        }
        self.source.with(|w| {
            if w.rng.random_bool(w.faults.stream) {
                return Err(MemorySource::unreachable("reading the change stream"));
            }
            let end = (self.next + w.rng.random_range(1..=MAX_EVENTS)).min(w.history.events.len());
            let mut events = Vec::new();
            for (moment, change) in &w.history.events[self.next..end] {
                self.next += 1;
                let position = Position { token: token(self.next), time: history::time(*moment) };
                events.push(ChangeEvent { position, change: change.clone(), bytes: w.event_bytes });
            }
            // Behind the last event all time has passed; before it, only that of the event.
            let caught_up = end == w.history.events.len();
            let passed = if caught_up { w.history.now() } else { w.history.events[end - 1].0 };
            let position = Position { token: token(self.next), time: history::time(passed) };
            events.push(ChangeEvent { position, change: Change::Idle, bytes: 0 });
            Ok(EventBatch { events })
        })
    }
}

/// Where a scan is.
#[derive(Debug)]
enum At {
    Key(Edge<Place>),
    Inserted(u64),
}

/// A scan of a range on a node that lags.
#[derive(Debug)]
pub struct MemoryScan {
    source: MemorySource,
    uuid: CollectionUuid,
    at: At,
    max: Option<Place>,
    batch: u32,
    /// What the node reported last.
    before: usize,
    /// What the node has.
    node: usize,
}

impl MemoryScan {
    pub(super) fn new(source: MemorySource, uuid: CollectionUuid, range: &ScanRange, node: usize) -> Self {
        let place = |bound: &Option<Bound>| bound.as_ref().and_then(|b| Place::of_document(b));
        let at = match place(&range.from) {
            _ if range.natural => At::Inserted(0),
            Some(from) => At::Key(Edge::Included(from)),
            None => At::Key(Edge::Unbounded),
        };
        let max = if range.natural { None } else { place(&range.max) };
        Self { source, uuid, at, max, batch: range.batch_documents, before: history::moment(range.after), node }
    }
}

impl Scan for MemoryScan {
    async fn next(&mut self) -> Result<Option<ScanBatch>> {
        self.source.slow().await;
        let source = self.source.clone();
        source.with(|w| {
            if w.rng.random_bool(w.faults.scan) {
                return Err(MemorySource::unreachable("reading a collection"));
            }
            let (mut b, mut n) = (raw::Builder::default(), 0);
            loop {
                // The node goes on while it answers: a batch may show several moments.
                if w.rng.random_bool(0.5) {
                    self.node = w.rng.random_range(self.node..=w.history.now());
                }
                if n == self.batch {
                    break;
                }
                let Some(standing) = w.history.snapshots[self.node].get(&self.uuid) else {
                    return Err(Error::Unreachable {
                        side: crate::model::Side::Source,
                        doing: "reading a collection".into(),
                        why: crate::error::Trouble::Network,
                        source: "it was dropped meanwhile".into(),
                    });
                };
                let Some(found) = self.step(&standing.documents) else { break };
                b.doc(&n.to_string(), &found);
                n += 1;
            }
            let before = std::mem::replace(&mut self.before, self.node);
            let documents = b.finish();
            Ok((n > 0).then(|| ScanBatch { documents, before: history::time(before), read_at: history::time(self.node) }))
        })
    }
}

impl MemoryScan {
    fn step(&mut self, documents: &crate::model::shelf::Shelf) -> Option<RawDocumentBuf> {
        match &mut self.at {
            At::Key(from) => {
                let (place, document) = documents.first(from.as_ref())?;
                if self.max.as_ref().is_some_and(|max| place >= max) {
                    return None;
                }
                *from = Edge::Excluded(place.clone());
                Some(document.clone())
            }
            At::Inserted(from) => {
                let (number, document) = documents.first_inserted(*from)?;
                *from = number + 1;
                Some(document.clone())
            }
        }
    }
}
