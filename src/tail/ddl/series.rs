//! Structural changes of time series. Their view has no entry in the catalog: it comes, changes and goes with the buckets.

use super::Change;
use crate::{
    catalog::Collection,
    checkpoint::Store,
    error::Result,
    model::{Namespace, raw},
    source::Source,
    target::{Target, bucket_span, mixed_schema},
};
use bson::{RawDocument, RawDocumentBuf};
use std::sync::Arc;

/// Whether a `create` is that of a time series' view. That of the buckets came before it and made both.
pub(super) fn is_view_of_series(ns: &Namespace, options: &RawDocument) -> bool {
    raw::get(options, "viewOn").and_then(|e| e.str()) == Some(ns.buckets().coll())
}

impl<S: Source, T: Target, C: Store> Change<'_, S, T, C> {
    /// Who has a name at the catalog's position: a time series has that of its buckets and its own.
    pub(super) fn holder(&self, ns: &Namespace) -> Option<Arc<Collection>> {
        let other_half = ns.series().unwrap_or_else(|| ns.buckets());
        self.tail.catalog.named(ns).or_else(|| self.tail.catalog.named(&other_half))
    }

    /// `collMod` of buckets, without what is parked and without indexes. It goes to the series: only then does the view change, too
    /// (RAN on 6.0.5: a new granularity leaves it behind otherwise).
    pub(super) async fn modify_series(&self, buckets: &Collection, series: &Namespace, change: &RawDocument) -> Result<()> {
        let there = self.tail.target.lookup(series).await?;
        let Some(there) = there.map(|info| info.options) else { return Ok(()) };
        if change.is_empty() {
            return self.mirror_mixed_schema(buckets, series, &there).await;
        }
        let span = |options: &RawDocument| raw::get(options, "timeseries").and_then(|e| e.document()).map_or(0, bucket_span);
        let mut rest = raw::Builder::default();
        for e in raw::elements(change) {
            // A replay may find the target coarser, and the server would refuse the way back.
            if e.name != b"timeseries" || span(change) > span(&there) {
                rest.element(e);
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        self.tail.target.modify(series, None, &rest.finish()).await
    }

    /// That buckets may be of mixed schema, the stream does not tell: the event of that `collMod` is empty (RAN on 6.0.27). So the
    /// source is asked what it says now.
    async fn mirror_mixed_schema(&self, buckets: &Collection, series: &Namespace, there: &RawDocument) -> Result<()> {
        let of = buckets.on_source();
        let listed = self.tail.source.collections().await?;
        let here: Option<RawDocumentBuf> = listed.into_iter().find(|c| c.uuid == Some(of.uuid)).map(|c| c.options);
        let Some(wanted) = here.and_then(|options| mixed_schema(&options)) else { return Ok(()) };
        if mixed_schema(there) == Some(wanted) {
            return Ok(());
        }
        let mut b = raw::Builder::default();
        b.bool("timeseriesBucketsMayHaveMixedSchemaData", wanted);
        self.tail.target.modify(series, None, &b.finish()).await
    }
}
