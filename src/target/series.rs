//! Time series on the target.
//!
//! A time series is two names: the view that people use, and `system.buckets.…`, which holds the documents. Ours is the
//! second: its documents are copied and tailed as those of any collection. The pair is made by one `create` of the series,
//! as its owner made it; the view comes and goes with its buckets (RAN on 6.0.5 and 6.0.27: a `drop` of either takes both).

use super::{Target, park_options};
use crate::{
    error::{Error, Result},
    model::{CollectionUuid, Namespace, raw},
};
use bson::{RawDocument, RawDocumentBuf};

/// What the server puts into the options of buckets by itself, and does not take with a series.
const OF_THE_SERVER: [&[u8]; 2] = [b"validator", b"clusteredIndex"];

/// How the server keeps it that buckets may hold values of different types at one place: within the storage engine's options, where
/// a `create` takes it (RAN on 6.0.27; 6.0.5 has no such thing, and keeps it unread).
const MIXED_SCHEMA: &str = "timeseriesBucketsMayHaveMixedSchemaData=";

/// Makes a collection or view with the options that the target may act on before the seal; a time series where `ns` is its buckets.
/// Gives its identity, which a view has not. There must be room: see [`names`].
///
/// # Errors
/// [`Error::TargetNotEmpty`] where the name of a series is taken; as classified.
pub async fn make<T: Target>(target: &T, ns: &Namespace, options: &RawDocument) -> Result<Option<CollectionUuid>> {
    let (at_once, _) = park_options(options);
    let Some(series) = ns.series() else { return target.create(ns, &at_once).await };
    target.create(&series, &of_series(&at_once)).await?;
    match target.lookup(ns).await?.and_then(|buckets| buckets.uuid) {
        Some(uuid) => Ok(Some(uuid)),
        None => Err(Error::TargetNotEmpty { namespaces: vec![series.to_string()] }),
    }
}

/// The names that a collection takes on the target.
#[must_use]
pub fn names(ns: &Namespace) -> Vec<Namespace> {
    ns.series().into_iter().chain([ns.clone()]).collect()
}

/// The options of a series, from those of its buckets.
fn of_series(buckets: &RawDocument) -> RawDocumentBuf {
    let mut b = raw::Builder::with_capacity(buckets.as_bytes().len());
    for e in raw::elements(buckets).filter(|e| !OF_THE_SERVER.contains(&e.name)) {
        b.element(e);
    }
    b.finish()
}

/// Whether options say that buckets may be of mixed schema; `None` where they say nothing.
#[must_use]
pub fn mixed_schema(options: &RawDocument) -> Option<bool> {
    let engine = raw::get(options, "storageEngine")?.document()?;
    let config = raw::get(raw::get(engine, "wiredTiger")?.document()?, "configString")?.str()?;
    let (_, value) = config.split_once(MIXED_SCHEMA)?;
    Some(value.starts_with("true"))
}

/// Seconds that a bucket spans at most, as the field `timeseries` of a listing or of a `collMod` has it; zero where it does not say.
/// A series can only become coarser (RAN: the server refuses all else), so of two states the one that spans more is the later.
#[must_use]
pub fn bucket_span(timeseries: &RawDocument) -> i64 {
    let by_granularity = || match raw::get(timeseries, "granularity")?.str()? {
        "seconds" => Some(3_600),
        "minutes" => Some(86_400),
        "hours" => Some(2_592_000),
        _ => None,
    };
    raw::get(timeseries, "bucketMaxSpanSeconds").and_then(|e| e.integer()).or_else(by_granularity).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_series_is_made_with_what_its_owner_gave() {
        let buckets =
            rawdoc! {"validator": {"a": 1}, "collation": {"locale": "en"}, "clusteredIndex": true, "timeseries": {"timeField": "t"}};
        assert_eq!(of_series(&buckets), rawdoc! {"collation": {"locale": "en"}, "timeseries": {"timeField": "t"}});
    }

    #[test]
    fn mixed_schema_is_read_from_the_engines_options() {
        let with = |config: &str| rawdoc! {"storageEngine": {"wiredTiger": {"configString": config}}};
        let told = |value: &str| format!("block_compressor=zlib,app_metadata=({MIXED_SCHEMA}{value})");
        assert_eq!(mixed_schema(&with(&told("true"))), Some(true));
        assert_eq!(mixed_schema(&with(&told("false"))), Some(false));
        assert_eq!(mixed_schema(&with("block_compressor=zlib")), None);
        assert_eq!(mixed_schema(&rawdoc! {"storageEngine": {"wiredTiger": {}}}), None);
    }

    #[test]
    fn of_two_granularities_the_coarser_is_the_later() {
        let spans = ["seconds", "minutes", "hours"].map(|g| bucket_span(&rawdoc! {"granularity": g}));
        assert!(spans.is_sorted() && spans[0] > 0);
        assert_eq!(bucket_span(&rawdoc! {"granularity": "seconds", "bucketMaxSpanSeconds": 7_200}), 7_200);
        assert_eq!(bucket_span(&rawdoc! {"timeField": "t"}), 0);
    }
}
