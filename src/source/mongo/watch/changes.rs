//! Which structural changes lead from what was told to what was seen. Pure.

use crate::model::{CollectionUuid, Ddl, IndexSpec, Namespace, raw};
use bson::{RawDocument, RawDocumentBuf};
use std::collections::BTreeMap;

/// What `collMod` changes on a collection of servers before 6.0, and the value that means "not set".
fn defaults() -> RawDocumentBuf {
    bson::rawdoc! {"validator": {}, "validationLevel": "strict", "validationAction": "error", "recordPreImages": false}
}
/// Fields of an index that `collMod` changes in place.
const IN_PLACE: [&str; 2] = ["hidden", "expireAfterSeconds"];
/// Fields of a view that `collMod` changes.
const OF_VIEW: [&[u8]; 2] = [b"viewOn", b"pipeline"];

/// The options of a collection, as `modify` wants them; `None` where nothing that can be modified differs.
pub(super) fn options(told: &RawDocument, seen: &RawDocument) -> Option<RawDocumentBuf> {
    let mut b = raw::Builder::default();
    for default in raw::elements(&defaults()) {
        let of = |doc| raw::elements(doc).find(|e: &raw::Element<'_>| e.name == default.name);
        let (before, now) = (of(told).unwrap_or(default), of(seen).unwrap_or(default));
        if before != now {
            b.element(now);
        }
    }
    (!b.is_empty()).then(|| b.finish())
}

/// The definition of a view; `Err` where it is another view altogether.
pub(super) fn view(told: &RawDocument, seen: &RawDocument) -> Result<Option<RawDocumentBuf>, ()> {
    let rest = |doc| fields(doc).into_iter().filter(|(name, _)| !OF_VIEW.contains(&name.as_slice())).collect::<Vec<_>>();
    if rest(told) != rest(seen) {
        return Err(());
    }
    if fields(told) == fields(seen) {
        return Ok(None);
    }
    let mut b = raw::Builder::default();
    for e in raw::elements(seen).filter(|e| OF_VIEW.contains(&e.name)) {
        b.element(e);
    }
    Ok(Some(b.finish()))
}

/// The indexes of a collection.
pub(super) fn indexes(ns: &Namespace, uuid: CollectionUuid, told: &BTreeMap<String, IndexSpec>, seen: &[IndexSpec]) -> Vec<Ddl> {
    let uuid = Some(uuid);
    let mut dropped: Vec<String> = told.keys().filter(|name| !seen.iter().any(|s| s.name() == *name)).cloned().collect();
    let (mut made, mut modified) = (Vec::new(), Vec::new());
    for spec in seen.iter().filter(|s| !s.is_id()) {
        match told.get(spec.name()) {
            None => made.push(spec.clone()),
            Some(before) if fields(&before.0) == fields(&spec.0) => {}
            Some(before) => match in_place(before, spec) {
                Some(change) => modified.push(change),
                None => {
                    dropped.push(spec.name().to_owned());
                    made.push(spec.clone());
                }
            },
        }
    }
    let ns = || ns.clone();
    let mut changes = Vec::new();
    if !dropped.is_empty() {
        changes.push(Ddl::DropIndexes { ns: ns(), uuid, names: dropped });
    }
    if !made.is_empty() {
        changes.push(Ddl::CreateIndexes { ns: ns(), uuid, indexes: made });
    }
    changes.extend(modified.into_iter().map(|options| Ddl::Modify { ns: ns(), uuid, options }));
    changes
}

/// A change of one index as `collMod` has it; `None` where it was dropped and built anew.
fn in_place(before: &IndexSpec, now: &IndexSpec) -> Option<RawDocumentBuf> {
    if fields(&before.without(&IN_PLACE).0) != fields(&now.without(&IN_PLACE).0) {
        return None;
    }
    let mut b = raw::Builder::default();
    b.begin("index").str("name", now.name());
    let [hidden, ttl] = IN_PLACE;
    if before.is(hidden) != now.is(hidden) {
        b.bool(hidden, now.is(hidden));
    }
    match (raw::get(&before.0, ttl), raw::get(&now.0, ttl)) {
        (was, is) if was == is => {}
        // Only that of a TTL index can be changed, and it cannot be taken away.
        (Some(_), Some(seconds)) => {
            b.element(seconds);
        }
        _ => return None,
    }
    b.end();
    Some(b.finish())
}

/// Fields in an order of their own: that of the server's says nothing here.
fn fields(doc: &RawDocument) -> BTreeMap<Vec<u8>, (u8, Vec<u8>)> {
    raw::elements(doc).map(|e| (e.name.to_vec(), (e.tag, e.value.to_vec()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn told(specs: &[RawDocumentBuf]) -> BTreeMap<String, IndexSpec> {
        specs.iter().cloned().map(IndexSpec).map(|s| (s.name().to_owned(), s)).collect()
    }
    fn found(before: &[RawDocumentBuf], now: &[RawDocumentBuf]) -> Vec<String> {
        let seen: Vec<_> = now.iter().cloned().map(IndexSpec).collect();
        let changes = indexes(&Namespace::new("a", "b"), CollectionUuid([1; 16]), &told(before), &seen);
        changes
            .iter()
            .map(|ddl| match ddl {
                Ddl::DropIndexes { names, .. } => format!("drop {}", names.join(" ")),
                Ddl::CreateIndexes { indexes, .. } => format!("make {}", indexes.iter().map(IndexSpec::name).collect::<Vec<_>>().join(" ")),
                Ddl::Modify { options, .. } => format!("modify {:?}", bson::Document::try_from(options).unwrap().to_string()),
                other => other.label().to_owned(),
            })
            .collect()
    }

    #[test]
    fn indexes_that_came_went_or_changed() {
        let a = rawdoc! {"v": 2, "key": {"a": 1}, "name": "a"};
        let a_reordered = rawdoc! {"name": "a", "v": 2, "key": {"a": 1}};
        let a_hidden = rawdoc! {"v": 2, "key": {"a": 1}, "name": "a", "hidden": true};
        let a_other = rawdoc! {"v": 2, "key": {"a": -1}, "name": "a"};
        let ttl = |n: i32| rawdoc! {"v": 2, "key": {"a": 1}, "name": "a", "expireAfterSeconds": n};
        let id = rawdoc! {"v": 2, "key": {"_id": 1}, "name": "_id_"};
        let one = |doc: &RawDocumentBuf| vec![doc.clone()];
        assert_eq!(found(&one(&a), &[id, a_reordered]), [""; 0]);
        assert_eq!(found(&[], &one(&a)), ["make a"]);
        assert_eq!(found(&one(&a), &[]), ["drop a"]);
        assert_eq!(found(&one(&a), &one(&a_other)), ["drop a", "make a"]);
        assert_eq!(found(&one(&a), &one(&ttl(5))), ["drop a", "make a"]);
        assert_eq!(found(&one(&a), &one(&a_hidden)), [r#"modify "{ \"index\": { \"name\": \"a\", \"hidden\": true } }""#]);
        assert_eq!(found(&one(&a_hidden), &one(&a)), [r#"modify "{ \"index\": { \"name\": \"a\", \"hidden\": false } }""#]);
        assert_eq!(found(&one(&ttl(5)), &one(&ttl(6))), [r#"modify "{ \"index\": { \"name\": \"a\", \"expireAfterSeconds\": 6 } }""#]);
    }

    #[test]
    fn options_that_came_went_or_changed() {
        let strict = rawdoc! {"validator": {"a": 1}, "validationLevel": "strict", "validationAction": "error"};
        assert_eq!(options(&rawdoc! {}, &strict), Some(rawdoc! {"validator": {"a": 1}}));
        assert_eq!(options(&strict, &rawdoc! {}), Some(rawdoc! {"validator": {}}));
        assert_eq!(options(&strict, &rawdoc! {"validator": {"a": 1}, "capped": true}), None);
        assert_eq!(options(&rawdoc! {"recordPreImages": true}, &rawdoc! {}), Some(rawdoc! {"recordPreImages": false}));
    }

    #[test]
    fn views_that_changed() {
        let v = |on: &str| rawdoc! {"viewOn": on, "pipeline": []};
        assert_eq!(view(&v("a"), &v("a")), Ok(None));
        assert_eq!(view(&v("a"), &v("b")), Ok(Some(v("b"))));
        assert_eq!(view(&v("a"), &rawdoc! {"viewOn": "a", "pipeline": [], "collation": {"locale": "sv"}}), Err(()));
    }
}
