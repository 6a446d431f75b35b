//! Views that went unseen, put into a stream that tells everything else.
//!
//! A drop of `system.views` takes all views of a database with it, and no stream tells that (RAN on 6.0.5). So the views
//! that were told are looked for on the source, now and then and whenever somebody must know that structure is as new as
//! documents (see [`Asked`]). One that is not there is told as dropped, behind the events read before the look: if it
//! comes again, or if its drop is told after all, that is behind it.

use super::{
    MongoStream,
    watch::{Asked, Known},
};
use crate::{
    error::Result,
    model::{Change, ChangeEvent, ClusterTime, CollectionKind, Ddl, Namespace},
    mongo::{Cluster, listing},
    source::{EventBatch, EventStream},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Between two looks that nobody has asked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A stream with the drops of views that it does not tell.
pub struct Swept {
    stream: MongoStream,
    cluster: Cluster,
    asked: Arc<Asked>,
    views: Views,
    looked_at: Instant,
}

impl Swept {
    pub(super) fn over(stream: MongoStream, cluster: Cluster, known: &Known, asked: Arc<Asked>) -> Self {
        asked.begin();
        let views = known.living.iter().filter(|c| c.info.kind == CollectionKind::View);
        let views = Views(views.map(|c| (c.info.ns.clone(), c.known_at)).collect());
        Self { stream, cluster, asked, views, looked_at: Instant::now() }
    }
}

/// Views of these databases, on the source right now.
async fn look(cluster: &Cluster, databases: &BTreeSet<String>) -> Result<BTreeSet<Namespace>> {
    let mut there = BTreeSet::new();
    for db in databases {
        let listed = listing::collections_of(cluster, db).await?;
        there.extend(listed.into_iter().filter(|c| c.kind != CollectionKind::Collection).map(|c| c.ns));
    }
    Ok(there)
}

impl EventStream for Swept {
    async fn next(&mut self) -> Result<EventBatch> {
        let mut batch = self.stream.next().await?;
        batch.events.iter().for_each(|event| self.views.hear(event));
        let asked = self.asked.open().is_some();
        let Some(last) = batch.events.last().filter(|_| asked || self.looked_at.elapsed() >= LOOK_EVERY) else { return Ok(batch) };
        let position = last.position.clone();
        let there = look(&self.cluster, &self.views.databases()).await?;
        let gone = self.views.without(&there, position.time);
        let drop_of = |ns| ChangeEvent { position: position.clone(), change: Change::Ddl(Ddl::Drop { ns, uuid: None }), bytes: 0 };
        batch.events.extend(gone.into_iter().map(drop_of));
        self.asked.answer(position.time);
        self.looked_at = Instant::now();
        Ok(batch)
    }
}

/// Views that were told, each with the time up to which that is known. Pure.
struct Views(BTreeMap<Namespace, ClusterTime>);

impl Views {
    fn hear(&mut self, event: &ChangeEvent) {
        if let Change::Ddl(Ddl::Create { ns, uuid: None, .. }) = &event.change {
            self.0.insert(ns.clone(), event.position.time);
        } else if let Change::Ddl(Ddl::Drop { ns, uuid: None }) = &event.change {
            self.0.remove(ns);
        }
    }

    fn databases(&self) -> BTreeSet<String> {
        self.0.keys().map(|ns| ns.db().to_owned()).collect()
    }

    /// Those that are not `there`, and no longer expected to be. One that the stream has yet to tell of stays.
    fn without(&mut self, there: &BTreeSet<Namespace>, at: ClusterTime) -> Vec<Namespace> {
        let gone: Vec<_> = self.0.iter().filter(|(ns, since)| !there.contains(*ns) && **since <= at).map(|(ns, _)| ns.clone()).collect();
        self.0.retain(|ns, _| !gone.contains(ns));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Position, ResumeToken};
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
        let mut views = Views([(ns("known"), at(1)), (ns("later"), at(9)), (ns("dropped"), at(1))].into());
        views.hear(&event(2, Ddl::Create { ns: ns("made"), uuid: None, options: RawDocumentBuf::new() }));
        views.hear(&event(3, Ddl::Drop { ns: ns("dropped"), uuid: None }));
        assert_eq!(views.databases().len(), 1);
        assert_eq!(views.without(&[ns("made")].into(), at(3)), [ns("known")]);
        assert!(views.without(&[ns("made")].into(), at(4)).is_empty());
        assert_eq!(views.without(&BTreeSet::new(), at(9)), [ns("later"), ns("made")]);
    }
}
