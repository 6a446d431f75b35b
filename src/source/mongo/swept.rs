//! What goes unseen, put into a stream that tells everything else: views, and collections that a cluster reshards.
//!
//! A drop of `system.views` takes all views of a database with it, and no stream tells that, a router's neither (RAN on 6.0.5).
//! So the views that were told are looked for on the source, and so are the [identities](Identities) of sharded collections,
//! now and then and whenever somebody must know that structure is as new as documents (see [`Asked`]). What is not there is told
//! as dropped, behind the events read before the look: if it comes again, or if its drop is told after all, that is behind it.
//!
//! What is found is told between a batch and its end, as of a time before the one that was asked for: whoever waits for the stream
//! to pass that time has it by then, and nothing of it comes later. So what is done before a fence is never told behind it.

use super::{
    sharded::Identities,
    watch::{Asked, Known, just_before},
};
use crate::{
    error::Result,
    model::{Change, ChangeEvent, ClusterTime, CollectionKind, Ddl, Namespace, Position, Selection},
    mongo::{Cluster, listing},
    source::{EventBatch, EventStream},
};
use bson::rawdoc;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Between two looks that nobody has asked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Of looks that nobody has asked for: with very many databases they take at most one part in so many of the time.
const SHARE: u32 = 20;

/// A stream with the drops that it does not tell.
pub struct Swept<S> {
    stream: S,
    cluster: Cluster,
    asked: Arc<Asked>,
    views: Views,
    /// Of a sharded cluster.
    identities: Option<Identities>,
    /// Up to where the stream was given.
    at: Option<Position>,
    next_look: Instant,
}

impl<S: EventStream> Swept<S> {
    pub(super) fn over(stream: S, cluster: Cluster, known: &Known, identities: Option<Identities>, asked: Arc<Asked>) -> Self {
        asked.begin();
        Self { stream, cluster, asked, views: Views::known(known), identities, at: None, next_look: Instant::now() + LOOK_EVERY }
    }

    /// Whether it is time to look before the stream passes the end of a batch, and then for what is gone before which time.
    fn due(&self, end: ClusterTime) -> Option<ClusterTime> {
        let asked = self.asked.open().filter(|asked| *asked <= end);
        asked.or((Instant::now() >= self.next_look).then_some(end))
    }

    /// What is gone, though it was there at a time.
    async fn look(&mut self, end: ClusterTime, at: ClusterTime) -> Result<Vec<Ddl>> {
        let began = Instant::now();
        let mut there = BTreeSet::new();
        for db in self.views.databases() {
            let listed = listing::matching(&self.cluster, &db, rawdoc! {"type": {"$ne": "collection"}}).await?;
            there.extend(listed.into_iter().map(|view| view.ns));
        }
        let gone = self.views.without(&there, at);
        gone.iter().for_each(|ns| tracing::info!(%ns, "a view is not on the source any more, and nothing told so"));
        let mut gone: Vec<_> = gone.into_iter().map(|ns| Ddl::Drop { ns, uuid: None }).collect();
        if let Some(identities) = &mut self.identities {
            gone.extend(identities.replaced(&self.cluster).await?);
        }
        self.asked.answer(end);
        self.next_look = Instant::now() + LOOK_EVERY.max(began.elapsed() * SHARE);
        Ok(gone)
    }
}

impl<S: EventStream> EventStream for Swept<S> {
    async fn next(&mut self) -> Result<EventBatch> {
        let mut batch = self.stream.next().await?;
        for event in &batch.events {
            self.views.hear(event);
            self.identities.iter_mut().for_each(|identities| identities.hear(event));
        }
        let Some(end) = batch.events.last().map(|event| event.position.clone()) else { return Ok(batch) };
        let idle = batch.events.pop_if(|last| matches!(last.change, Change::Idle));
        let at = batch.events.last().map(|event| &event.position).or(self.at.as_ref()).cloned();
        if let Some((at, before)) = at.zip(self.due(end.time)) {
            let position = Position { time: at.time.max(just_before(before)), ..at };
            for ddl in self.look(end.time, position.time).await? {
                batch.events.push(ChangeEvent { position: position.clone(), change: Change::Ddl(ddl), bytes: 0 });
            }
        }
        batch.events.extend(idle);
        self.at = Some(end);
        Ok(batch)
    }
}

/// Views that are replicated and were told, each with the time up to which that is known. Pure.
struct Views {
    selection: Selection,
    told: BTreeMap<Namespace, ClusterTime>,
}

impl Views {
    fn known(known: &Known) -> Self {
        let views = known.living.iter().filter(|c| c.info.kind == CollectionKind::View);
        Self { selection: known.selection.clone(), told: views.map(|c| (c.info.ns.clone(), c.known_at)).collect() }
    }

    /// What a replay tells may be older than what is known.
    fn hear(&mut self, event: &ChangeEvent) {
        let time = event.position.time;
        match &event.change {
            Change::Ddl(Ddl::Create { ns, uuid: None, .. }) if self.selection.takes(ns) => {
                let since = self.told.entry(ns.clone()).or_insert(time);
                *since = time.max(*since);
            }
            Change::Ddl(Ddl::Drop { ns: dropped, uuid: None }) => self.told.retain(|ns, since| ns != dropped || *since > time),
            Change::Ddl(Ddl::DropDatabase { db }) => self.told.retain(|ns, since| ns.db() != db || *since > time),
            _ => {}
        }
    }

    fn databases(&self) -> BTreeSet<String> {
        self.told.keys().map(|ns| ns.db().to_owned()).collect()
    }

    /// Those that are not `there`, and no longer expected to be. One that the stream has yet to tell of stays.
    fn without(&mut self, there: &BTreeSet<Namespace>, at: ClusterTime) -> Vec<Namespace> {
        let gone: Vec<_> = self.told.iter().filter(|(ns, since)| !there.contains(*ns) && **since <= at).map(|(ns, _)| ns.clone()).collect();
        self.told.retain(|ns, _| !gone.contains(ns));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ResumeToken;
    use bson::{RawDocumentBuf, rawdoc};

    fn at(t: u32) -> ClusterTime {
        ClusterTime { t, i: 0 }
    }
    fn event(t: u32, change: Ddl) -> ChangeEvent {
        ChangeEvent { position: Position { token: ResumeToken(rawdoc! {"_data": ""}), time: at(t) }, change: Change::Ddl(change), bytes: 0 }
    }

    #[test]
    fn what_is_gone_is_told_once_and_what_is_to_come_is_not() {
        let ns = |coll: &str| Namespace::new("d", coll);
        let other = |coll: &str| Namespace::new("other", coll);
        let told = [(ns("known"), 1), (ns("later"), 9), (ns("dropped"), 1), (other("dropped with it"), 1), (other("made since"), 9)];
        let mut views = Views { selection: Selection::default(), told: told.map(|(ns, t)| (ns, at(t))).into() };
        let made = |t| event(t, Ddl::Create { ns: ns("made"), uuid: None, options: RawDocumentBuf::new() });
        views.hear(&made(2));
        views.hear(&event(3, Ddl::Drop { ns: ns("dropped"), uuid: None }));
        views.hear(&event(3, Ddl::DropDatabase { db: "other".into() }));
        assert_eq!(views.databases(), ["d".to_owned(), "other".to_owned()].into());
        assert_eq!(views.without(&[ns("made")].into(), at(3)), [ns("known")]);
        assert!(views.without(&[ns("made")].into(), at(4)).is_empty());
        // A replay.
        views.hear(&event(1, Ddl::Drop { ns: ns("made"), uuid: None }));
        views.hear(&made(1));
        assert!(views.without(&BTreeSet::new(), at(1)).is_empty());
        assert_eq!(views.without(&BTreeSet::new(), at(9)), [ns("later"), ns("made"), other("made since")]);
    }
}
