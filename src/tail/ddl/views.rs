//! Views that the server does not let be, beside others that are still on the target.
//!
//! It checks a view against those that it is built on, and against those built on it: their collation has to be one, and they may
//! form no ring. A drop of `system.views` takes all views of a database at once, and no stream tells that (RAN on 6.0.5), so what
//! the source let be made behind it may be refused on the target. Then the database's views are made what they are on the source
//! now, and what the stream still tells of them leads there again.

use super::{Brought, Change};
use crate::{
    catalog::{Entry, State},
    checkpoint::Store,
    error::{Error, Result},
    model::{CollectionInfo, CollectionKind, Namespace, raw},
    source::Source,
    target::Target,
};
use bson::RawDocument;
use std::collections::BTreeSet;

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    /// Makes a view. One that the target still refuses had its form for a while only: it becomes what it is now.
    pub(super) async fn make_view(&self, entry: Entry) -> Result<Brought> {
        match self.make(entry.clone()).await {
            Err(Error::Refused { .. }) => {}
            other => return other,
        }
        let now = self.views_as_now(entry.ns.db()).await?;
        match self.make(entry.clone()).await {
            Err(error @ Error::Refused { .. }) => match now.into_iter().find(|info| info.ns == entry.ns) {
                Some(info) if same(&info.options, &entry.options) => Err(error),
                Some(info) => self.make(self.view(&info)).await,
                None => Ok(Brought::Nothing),
            },
            other => other,
        }
    }

    /// Gives all known views of a database the form that they have on the source; gives what that has.
    async fn views_as_now(&self, db: &str) -> Result<Vec<CollectionInfo>> {
        let mut now = self.tail.source.collections().await?;
        now.retain(|info| info.kind == CollectionKind::View && info.ns.db() == db);
        let mut other: BTreeSet<Namespace> = BTreeSet::new();
        for known in self.tail.catalog.living().into_iter().filter(|c| c.entry().is_view() && c.entry().ns.db() == db) {
            let (ns, options) = (known.entry().ns.clone(), known.entry().options.clone());
            if !now.iter().any(|info| info.ns == ns && same(&info.options, &options)) {
                tracing::info!(%ns, "a view that is in the way of another one is not like that on the source any more");
                self.drop_collection(known.uuid()).await?;
                other.insert(ns);
            }
        }
        for info in now.iter().filter(|info| other.contains(&info.ns)) {
            self.make(self.view(info)).await?;
        }
        Ok(now)
    }

    fn view(&self, info: &CollectionInfo) -> Entry {
        Entry::new(info, self.tail.selection.target_of(&info.ns), State::Complete, self.time)
    }
}

/// Whether options are the same; their order says nothing.
fn same(a: &RawDocument, b: &RawDocument) -> bool {
    let within = |a: &RawDocument, b: &RawDocument| raw::elements(a).all(|e| raw::elements(b).any(|other| other == e));
    within(a, b) && within(b, a)
}
