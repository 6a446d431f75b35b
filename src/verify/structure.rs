//! Compares options and indexes. Pure.

use super::{
    plan::Pair,
    report::{Difference, DifferenceKind},
};
use crate::model::{CollectionKind, IndexSpec, raw};
use bson::RawDocument;
use std::collections::BTreeMap;

/// Options that say nothing about what a collection is.
const IGNORED_OPTIONS: [&[u8]; 2] = [b"uuid", b"temp"];
/// Each server gives the buckets of a time series a validator of its own, which differs between versions (RAN: 6.0.5 and 6.0.27) and
/// which nobody may change.
const IGNORED_OPTIONS_OF_BUCKETS: [&[u8]; 3] = [b"uuid", b"temp", b"validator"];
/// Fields of an index that some versions of the server show and others do not.
const IGNORED_INDEX_FIELDS: [&[u8]; 2] = [b"ns", b"background"];
/// Options that the target gets at the seal.
const PARKED_OPTIONS: [&[u8]; 1] = [b"expireAfterSeconds"];
/// Fields of an index that the target gets at the seal.
const PARKED_INDEX_FIELDS: [&[u8]; 3] = [b"unique", b"prepareUnique", b"expireAfterSeconds"];

/// Differences between the options of both sides; `parked`: the target is not sealed yet.
#[must_use]
pub fn options(pair: &Pair, parked: bool) -> Vec<Difference> {
    let (ours, theirs) = (&pair.source_info, &pair.target_info);
    let differ = |detail| Difference::of(DifferenceKind::Options, &ours.ns, detail);
    if ours.kind != theirs.kind {
        return vec![differ(format!("is a {} on the source and a {} on the target", kind(ours.kind), kind(theirs.kind)))];
    }
    let parked: &[&[u8]] = if parked { &PARKED_OPTIONS } else { &[] };
    let ignored: &[&[u8]] = if ours.ns.is_buckets() { &IGNORED_OPTIONS_OF_BUCKETS } else { &IGNORED_OPTIONS };
    fields(&ours.options, &theirs.options, ignored, parked)
        .map(|(name, what)| Difference { part: Some(name), ..differ(format!("option {what}")) })
        .collect()
}

fn kind(kind: CollectionKind) -> &'static str {
    match kind {
        CollectionKind::Collection => "collection",
        CollectionKind::View => "view",
        CollectionKind::TimeSeries => "time series",
    }
}

/// Differences between the indexes of both sides, by name; `parked`: the target is not sealed yet.
#[must_use]
pub fn indexes(pair: &Pair, ours: &[IndexSpec], theirs: &[IndexSpec], parked: bool) -> Vec<Difference> {
    let differ = |name: &str, detail| Difference {
        part: Some(name.to_owned()),
        ..Difference::of(DifferenceKind::Index, &pair.source_info.ns, detail)
    };
    let parked: &[&[u8]] = if parked { &PARKED_INDEX_FIELDS } else { &[] };
    let mut there: BTreeMap<&str, &IndexSpec> = theirs.iter().map(|spec| (spec.name(), spec)).collect();
    let mut found = Vec::new();
    for spec in ours {
        let name = spec.name();
        match there.remove(name) {
            None => found.push(differ(name, format!("index `{name}` missing on target"))),
            Some(other) => {
                let differing = fields(&spec.0, &other.0, &IGNORED_INDEX_FIELDS, parked);
                found.extend(differing.map(|(_, what)| differ(name, format!("index `{name}`: {what}"))));
            }
        }
    }
    found.extend(there.into_keys().map(|name| differ(name, format!("index `{name}` on target only"))));
    found
}

/// What the server writes down at the first `collMod`, and means all along (RAN on 6.0).
fn is_default(e: &raw::Element<'_>) -> bool {
    matches!((e.name, e.str()), (b"validationLevel", Some("strict")) | (b"validationAction", Some("error")))
}

/// Times to live are numbers of any type on 4.4, and from 5.0 on whatever is asked for becomes an `int` (RAN on 4.4.2,
/// 5.0.4 and 6.0.5).
fn same(a: &raw::Element<'_>, b: &raw::Element<'_>) -> bool {
    a == b || (a.name == b"expireAfterSeconds" && a.integer().is_some() && a.integer() == b.integer())
}

/// Top-level fields that differ, by name and in words. The order of fields says nothing here. What is `parked` may be
/// absent on the target.
fn fields<'a>(
    ours: &'a RawDocument,
    theirs: &'a RawDocument,
    ignored: &'a [&'a [u8]],
    parked: &'a [&'a [u8]],
) -> impl Iterator<Item = (String, String)> + 'a {
    let seen = move |doc: &'a RawDocument| raw::elements(doc).filter(move |e| !ignored.contains(&e.name) && !is_default(e));
    let find = move |doc: &'a RawDocument, name: &[u8]| seen(doc).find(|e| e.name == name);
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let changed = seen(ours).filter_map(move |e| match find(theirs, e.name) {
        Some(other) => (!same(&e, &other)).then(|| (text(e.name), format!("`{}` differs", text(e.name)))),
        None => (!parked.contains(&e.name)).then(|| (text(e.name), format!("`{}` missing on target", text(e.name)))),
    });
    let extra = seen(theirs).filter(move |e| find(ours, e.name).is_none());
    changed.chain(extra.map(move |e| (text(e.name), format!("`{}` on target only", text(e.name)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CollectionInfo, Namespace};
    use bson::{RawDocumentBuf, rawdoc};

    fn pair(ours: RawDocumentBuf, theirs: RawDocumentBuf) -> Pair {
        let info = |options| CollectionInfo { ns: Namespace::new("d", "c"), uuid: None, kind: CollectionKind::Collection, options };
        Pair { source_info: info(ours), target_info: info(theirs) }
    }
    fn details(found: Vec<Difference>) -> Vec<String> {
        found.into_iter().map(|d| d.detail).collect()
    }

    #[test]
    fn options_are_a_set_of_fields() {
        let equal = pair(rawdoc! {"capped": true, "size": 5, "temp": true}, rawdoc! {"size": 5, "capped": true, "uuid": 1});
        assert_eq!(details(options(&equal, false)), [""; 0]);
        let other = pair(rawdoc! {"capped": true, "size": 5, "max": 1}, rawdoc! {"capped": true, "size": 5_i64, "validator": {}});
        assert_eq!(
            details(options(&other, false)),
            ["option `size` differs", "option `max` missing on target", "option `validator` on target only"]
        );
        let strict = pair(rawdoc! {"validator": {}, "validationLevel": "strict"}, rawdoc! {"validationAction": "error", "validator": {}});
        assert!(options(&strict, false).is_empty(), "defaults, written down or not");
        let moderate = pair(rawdoc! {"validationLevel": "strict"}, rawdoc! {"validationLevel": "moderate"});
        assert_eq!(details(options(&moderate, false)), ["option `validationLevel` on target only"]);
        let mut buckets = pair(rawdoc! {"validator": {"a": 1}, "size": 1}, rawdoc! {"validator": {"b": 1}, "size": 2});
        buckets.source_info.ns = buckets.source_info.ns.buckets();
        assert_eq!(details(options(&buckets, false)), ["option `size` differs"], "the validator is the server's own");
        let mut view = equal;
        view.target_info.kind = CollectionKind::View;
        assert_eq!(details(options(&view, false)), ["is a collection on the source and a view on the target"]);
    }

    #[test]
    fn parked_forms_are_right_before_the_seal_and_wrong_after() {
        let ttl = pair(rawdoc! {"expireAfterSeconds": 5}, rawdoc! {});
        assert!(options(&ttl, true).is_empty());
        assert_eq!(details(options(&ttl, false)), ["option `expireAfterSeconds` missing on target"]);
        let ours =
            [IndexSpec(rawdoc! {"v": 2, "key": {"a": 1}, "name": "a_1", "unique": true, "expireAfterSeconds": 9, "background": true})];
        let theirs = [IndexSpec(rawdoc! {"v": 2, "name": "a_1", "key": {"a": 1}, "ns": "d.c"})];
        assert!(indexes(&ttl, &ours, &theirs, true).is_empty());
        assert_eq!(
            details(indexes(&ttl, &ours, &theirs, false)),
            ["index `a_1`: `unique` missing on target", "index `a_1`: `expireAfterSeconds` missing on target"]
        );
        let typed = |seconds: bson::RawBson| [IndexSpec(rawdoc! {"name": "t", "expireAfterSeconds": seconds})];
        assert!(indexes(&ttl, &typed(9_i64.into()), &typed(9_i32.into()), false).is_empty());
        assert_eq!(indexes(&ttl, &typed(f64::NAN.into()), &typed(0_i32.into()), false).len(), 1);
        let wrong = [IndexSpec(rawdoc! {"v": 2, "name": "a_1", "key": {"a": 1}, "expireAfterSeconds": 8})];
        assert_eq!(details(indexes(&ttl, &ours, &wrong, true)), ["index `a_1`: `expireAfterSeconds` differs"]);
    }

    #[test]
    fn indexes_by_name() {
        let p = pair(rawdoc! {}, rawdoc! {});
        let spec = |name: &str, key: RawDocumentBuf| IndexSpec(rawdoc! {"name": name, "key": key});
        let ours = [spec("a", rawdoc! {"a": 1, "b": 1}), spec("b", rawdoc! {"b": 1})];
        let theirs = [spec("a", rawdoc! {"b": 1, "a": 1}), spec("c", rawdoc! {"c": 1})];
        let found = details(indexes(&p, &ours, &theirs, true));
        assert_eq!(found, ["index `a`: `key` differs", "index `b` missing on target", "index `c` on target only"]);
    }
}
