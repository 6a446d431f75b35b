//! Sources before 6.0: their streams show documents, drops, renames and nothing else of structure, so the catalog is
//! watched. What is learnt is put into the stream as the events of a 6.0 source, and nobody downstream knows.
//!
//! **Who an event is of** is told by its resume token ([`super::token`]): the UUID, never the name, so a name that is
//! used again confuses nobody. A UUID that is seen for the first time in the stream was created behind the listing that
//! the plan was made from; it is looked up, and a `create` goes before its first event. All its documents are in the
//! stream, since that was open before it was created. Where the look-up finds nothing, the collection is gone by now,
//! and gone for ever: its events are left out. Where it finds the collection under a later name, the `create` goes out
//! under the event's name, and the `rename` is still to come in the stream.
//!
//! **What no event tells** (empty collections, views, options, indexes) comes from a [`Look`] every second. A look
//! that was done at the time T is believed once the stream has passed T: everything that the stream tells of the time
//! before is then told. What the stream told of a collection or a name *since the look began* may be newer than the
//! look, so the look says nothing about these; the next one will. So a collection that was created, renamed and
//! dropped between two looks is never mistaken for what a look saw of it.
//!
//! **Who was replaced** by a rename is not told either. It is the collection that had the name so far, if it is gone by
//! now. One that still lives, or that the catalog has known at a later time than the event's, was not replaced: what we
//! know is then of a later state than the stream's, by a replay or by the plan's listing.
//! Likewise a collection that two looks in a row miss, and a look-up too, is dropped though no event said so: its
//! creation was rolled back.
//!
//! **After a crash** nothing of this is needed but what the catalog has saved ([`Known`]): what is known by UUID is not
//! created again, and the first look is compared with it. What the first look shows is newer than the catalog, and the
//! changes between them do not depend on how they came about.
//!
//! **At a fence**, or whenever somebody must know that structure is as new as documents ([`Asked`]), the stream's
//! position does not pass the time asked for before a look that began later has been told.
//!
//! **Documents without events** come by a rename from another database, by `convertToCapped` and by
//! `cloneCollectionAsCapped` (RAN on 4.4.2 and 5.0.4). The first two end in a `rename` whose collection is left unknown,
//! so that downstream takes it in; the third makes a capped collection, which downstream fills when it is created. Time
//! series and `system.js` are in no stream of these servers: they halt the migration with the reason.

mod asked;
mod changes;
mod eyes;
#[cfg(test)]
mod sim;
mod told;

pub use asked::Asked;
pub use told::{Known, Living};

use super::{MongoStream, token};
use crate::{
    error::{Error, Result},
    model::{Change, ChangeEvent, ClusterTime, CollectionKind, CollectionUuid, Ddl, Namespace, Position, Selection, Write},
    mongo::Cluster,
    source::{EventBatch, EventStream, StartAt},
};
use eyes::{Eyes, Look, Seen, Sight};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use told::Told;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A stream of documents, made whole by looks at the catalog.
pub struct Watched<R = MongoStream, E = Eyes> {
    stream: R,
    eyes: E,
    asked: Arc<Asked>,
    selection: Selection,
    told: Told,
    /// Where the stream is; everything up to here was given.
    at: Option<Position>,
    /// A look that the stream has not yet reached.
    pending: Option<Look>,
    looked_at: Option<Instant>,
    every: Duration,
}

impl Watched {
    pub(super) fn over(stream: MongoStream, cluster: Cluster, from: &StartAt, known: &Known, asked: Arc<Asked>) -> Self {
        Self::new(stream, Eyes::new(cluster), from, known, asked)
    }
}

impl<R: EventStream, E: Sight> Watched<R, E> {
    fn new(stream: R, eyes: E, from: &StartAt, known: &Known, asked: Arc<Asked>) -> Self {
        asked.begin();
        let at = match from {
            StartAt::Time(_) => None,
            StartAt::After(position) => Some(position.clone()),
        };
        let (selection, told) = (known.selection.clone(), Told::new(known));
        Self { stream, eyes, asked, selection, told, at, pending: None, looked_at: None, every: LOOK_EVERY }
    }

    /// The next batch of the stream, and a look meanwhile if it is time for one.
    async fn read(&mut self) -> Result<EventBatch> {
        let whole = self.asked.open().is_some();
        let due = whole || self.looked_at.is_none_or(|at| at.elapsed() >= self.every);
        if self.pending.is_some() || !due {
            return self.stream.next().await;
        }
        self.looked_at = Some(Instant::now());
        let number = self.told.begin_look();
        let known = self.told.identities();
        let (batch, look) = tokio::join!(self.stream.next(), self.eyes.look(number, &self.selection, &known, whole));
        self.pending = Some(look?);
        batch
    }

    /// Puts in front of an event what it takes for granted, and gives it the identity it is of.
    async fn event(&mut self, event: ChangeEvent, out: &mut Vec<ChangeEvent>) -> Result<()> {
        let ChangeEvent { position, change, bytes } = event;
        let of = token::collection(&position.token.0);
        let change = match change {
            Change::Idle => Change::Idle,
            Change::Write(write) => {
                let uuid = of.ok_or_else(|| anonymous(&write.ns))?;
                let known = self.told.holds(uuid) || !self.selection.takes(&write.ns);
                if known || self.introduce(uuid, &write.ns, &position, out).await? {
                    Change::Write(Write { uuid: Some(uuid), ..write })
                } else {
                    Change::Idle
                }
            }
            Change::Ddl(Ddl::Drop { ns, .. }) => {
                let uuid = of.ok_or_else(|| anonymous(&ns))?;
                self.told.gone(uuid);
                Change::Ddl(Ddl::Drop { ns, uuid: Some(uuid) })
            }
            Change::Ddl(Ddl::DropDatabase { db }) => {
                self.told.forget_views_of(&db, position.time);
                Change::Ddl(Ddl::DropDatabase { db })
            }
            Change::Ddl(Ddl::Rename { from, to, .. }) => {
                let uuid = of.ok_or_else(|| anonymous(&to))?;
                self.rename(uuid, from, to, &position, out).await?
            }
            other @ Change::Ddl(_) => other,
        };
        self.at = Some(position.clone());
        out.push(ChangeEvent { position, change, bytes });
        Ok(())
    }

    /// Makes sure that downstream knows a collection, whose next event is under this name. `false` where it is gone.
    async fn introduce(&mut self, uuid: CollectionUuid, ns: &Namespace, of: &Position, out: &mut Vec<ChangeEvent>) -> Result<bool> {
        if self.told.holds(uuid) {
            return Ok(true);
        }
        if self.told.is_gone(uuid) {
            return Ok(false);
        }
        let Some(info) = self.eyes.find(ns.db(), uuid).await? else {
            self.told.gone(uuid);
            return Ok(false);
        };
        self.no_view(ns, of, out)?;
        out.push(self.before(of, Ddl::Create { ns: ns.clone(), uuid: Some(uuid), options: info.options.clone() })?);
        self.told.hold(uuid, ns.clone(), just_before(of.time), info.options);
        Ok(true)
    }

    /// A collection takes a name. What no event tells: a view that had it was dropped.
    fn no_view(&mut self, ns: &Namespace, of: &Position, out: &mut Vec<ChangeEvent>) -> Result<()> {
        let drop = self.before(of, Ddl::Drop { ns: ns.clone(), uuid: None })?;
        if self.told.forget_view(ns, drop.position.time) {
            out.push(drop);
        }
        Ok(())
    }

    async fn rename(
        &mut self,
        uuid: CollectionUuid,
        from: Namespace,
        to: Namespace,
        of: &Position,
        out: &mut Vec<ChangeEvent>,
    ) -> Result<Change> {
        self.told.taken(&to);
        let mut dropped = None;
        if let Some(replaced) = self.told.had(&to, of.time).filter(|other| *other != uuid)
            && self.eyes.find(to.db(), replaced).await?.is_none()
        {
            self.told.gone(replaced);
            dropped = Some(replaced);
        }
        // The documents of these are in no event: downstream must not take them for empty.
        let hidden = from.is_temporary() && !from.coll().starts_with("tmp.");
        if !hidden && self.selection.takes(&from) && !self.introduce(uuid, &from, of, out).await? {
            return Ok(dropped.map_or(Change::Idle, |gone| Change::Ddl(Ddl::Drop { ns: to, uuid: Some(gone) })));
        }
        self.no_view(&to, of, out)?;
        self.told.rename(uuid, self.selection.takes(&to).then_some(&to), of.time);
        Ok(Change::Ddl(Ddl::Rename { from, to, uuid: Some(uuid), dropped }))
    }

    /// The end of a batch: time to believe a look, and to say where the stream is. Behind a batch with events, more of
    /// the same time may follow, of one transaction; behind an empty one, nothing.
    async fn end(&mut self, position: Position, empty: bool, out: &mut Vec<ChangeEvent>) -> Result<()> {
        let passed = |look: &mut Look| look.until < position.time || (empty && look.until == position.time);
        if let Some(look) = self.pending.take_if(passed) {
            let asked = self.asked.open().filter(|asked| *asked <= position.time);
            let time = asked.unwrap_or(position.time);
            let (news, all) = self.believe(&look).await?;
            for ddl in news {
                out.push(self.at_time(just_before(time), ddl)?);
            }
            if look.whole && all {
                self.asked.answer(look.from);
            }
        }
        if self.asked.open().is_none_or(|asked| position.time < asked) {
            self.at = Some(position.clone());
            out.push(ChangeEvent { position, change: Change::Idle, bytes: 0 });
        } else if self.at.is_none() {
            // The first of all: events may follow that need a place to come before.
            self.at = Some(position);
        }
        Ok(())
    }

    /// What a look tells that was not told, and whether that is all it saw.
    async fn believe(&mut self, look: &Look) -> Result<(Vec<Ddl>, bool)> {
        let mut news = Vec::new();
        for (uuid, ns) in self.told.missed(look) {
            if self.eyes.find(ns.db(), uuid).await?.is_none() {
                tracing::warn!(%ns, "the source has no such collection, and no event told so: its creation was rolled back");
                self.told.gone(uuid);
                news.push(Ddl::Drop { ns, uuid: Some(uuid) });
            }
        }
        if let Some(error) = look.seen.iter().find_map(unseen) {
            return Err(error);
        }
        self.told.views_gone(look, &mut news);
        self.told.collections(look, &mut news)?;
        self.told.views(look, &mut news);
        let all = self.told.end_look(look.number);
        Ok((news, all))
    }

    /// An event of ours in front of one of the stream: behind what was given last, and older than what follows.
    fn before(&self, of: &Position, ddl: Ddl) -> Result<ChangeEvent> {
        self.at_time(just_before(of.time), ddl)
    }

    fn at_time(&self, time: ClusterTime, ddl: Ddl) -> Result<ChangeEvent> {
        let at = self.at.as_ref().ok_or_else(|| Error::Bug("the stream began without a token".into()))?;
        let position = Position { token: at.token.clone(), time: time.max(at.time) };
        Ok(ChangeEvent { position, bytes: 1_024, change: Change::Ddl(ddl) })
    }
}

impl<R: EventStream, E: Sight> EventStream for Watched<R, E> {
    async fn next(&mut self) -> Result<EventBatch> {
        let mut read = self.read().await?.events;
        let end = read.pop_if(|last| matches!(last.change, Change::Idle));
        let empty = read.is_empty();
        let mut events = Vec::with_capacity(read.len() + 1);
        for event in read {
            self.event(event, &mut events).await?;
        }
        if let Some(end) = end {
            self.end(end.position, empty, &mut events).await?;
        }
        Ok(EventBatch { events })
    }
}

/// The latest time that is before another.
pub(super) fn just_before(time: ClusterTime) -> ClusterTime {
    match time.i.checked_sub(1) {
        Some(i) => ClusterTime { i, ..time },
        None => ClusterTime { t: time.t.saturating_sub(1), i: u32::MAX },
    }
}

/// Whether it is something whose documents the stream does not show.
fn unseen(seen: &Seen) -> Option<Error> {
    let (what, hint) = match seen.info.kind {
        CollectionKind::TimeSeries => {
            ("a time-series collection", "its events are not in the change streams of servers before 6.0: exclude it with `--exclude`")
        }
        _ if seen.info.ns.coll() == "system.js" => {
            ("stored JavaScript", "its events are not in the change streams of servers before 6.0: exclude it with `--exclude`")
        }
        _ => return None,
    };
    Some(Error::Unsupported { what: what.into(), ns: Some(seen.info.ns.to_string()), hint: hint.into() })
}

fn anonymous(ns: &Namespace) -> Error {
    Error::Unsupported {
        what: "an event that does not tell the identity of its collection".into(),
        ns: Some(ns.to_string()),
        hint: "sources before 6.0 are understood from 4.4 on".into(),
    }
}
