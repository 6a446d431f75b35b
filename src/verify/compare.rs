//! Compares documents of one range, byte for byte. Pure.
//!
//! Both sides give a range in the server's order, so mostly the next document of one is the next of the
//! other and one comparison of bytes says it all. Where it is not, documents are found by the bytes of
//! their `_id`. Keys that differ in bytes and are one to the server (`1` and `NumberLong(1)`, or `"k"` and
//! `"K"` by a collation) come out as one missing and one extra: the recheck asks the server, which decides.
//! Nothing is folded, summed or digested here, so no two differences can hide each other.

use crate::{
    error::{Error, Result},
    model::{DocumentKey, raw},
};
use bson::RawDocument;
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_128;

/// How the two sides differ in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MismatchKind {
    /// On the source only.
    Missing,
    /// On the target only.
    Extra,
    /// On both, with other bytes.
    Different,
}

/// The documents of a batch as they lie in it.
///
/// # Errors
/// [`Error::Bug`] where the batch cannot be walked to its end: a document left out would be a false verdict.
pub(super) fn documents(batch: &RawDocument) -> Result<Vec<&RawDocument>> {
    let mut walk = raw::elements(batch);
    let mut found = Vec::new();
    for e in walk.by_ref() {
        found.push(e.document().ok_or_else(|| Error::Bug("a batch holds something that is no document".into()))?);
    }
    if walk.broken() { Err(Error::Bug("a batch that cannot be walked to its end".into())) } else { Ok(found) }
}

/// What two documents are compared by: all of their bytes, or with the fields of each (but not the items of an array) in no
/// particular order.
pub(super) type Digest = fn(&RawDocument) -> u128;

pub(super) fn digest_of(ignore_field_order: bool) -> Digest {
    if ignore_field_order { without_order } else { |doc| xxh3_128(doc.as_bytes()) }
}

fn without_order(doc: &RawDocument) -> u128 {
    xxh3_128(&fields(doc, true))
}

fn fields(doc: &RawDocument, sort: bool) -> Vec<u8> {
    let field = |e: raw::Element<'_>| {
        let mut bytes = vec![e.tag];
        bytes.extend_from_slice(e.name);
        bytes.push(0);
        match e.document() {
            Some(inner) => bytes.extend(fields(inner, e.tag == raw::tag::DOCUMENT)),
            None => bytes.extend_from_slice(e.value),
        }
        xxh3_128(&bytes)
    };
    let mut all: Vec<u128> = raw::elements(doc).map(field).collect();
    if sort {
        all.sort_unstable();
    }
    all.into_iter().flat_map(u128::to_le_bytes).collect()
}

/// The key of a document.
///
/// # Errors
/// [`Error::Bug`] where it has no `_id`.
pub(super) fn key_of(doc: &RawDocument) -> Result<DocumentKey> {
    DocumentKey::of(doc).ok_or_else(|| Error::Bug("a stored document without `_id`".into()))
}

type Id<'a> = (u8, &'a [u8]);

fn id_of(doc: &RawDocument) -> Result<Id<'_>> {
    raw::get(doc, "_id").map(|e| (e.tag, e.value)).ok_or_else(|| Error::Bug("a stored document without `_id`".into()))
}

/// One range under comparison: all of the source's documents, and the target's as they come.
pub(super) struct Comparison<'a> {
    sources: &'a [&'a RawDocument],
    met: Vec<bool>,
    /// Where the next document of the target is expected.
    next: usize,
    /// Built when the two sides first fall out of step.
    by_id: Option<HashMap<Id<'a>, usize>>,
    digest: Option<Digest>,
}

impl<'a> Comparison<'a> {
    /// `digest` decides where bytes differ.
    pub(super) fn new(sources: &'a [&'a RawDocument], digest: Option<Digest>) -> Self {
        Self { sources, met: vec![false; sources.len()], next: 0, by_id: None, digest }
    }

    /// Takes the next document of the target; tells how it differs, if it does.
    pub(super) fn meet(&mut self, target: &RawDocument) -> Result<Option<MismatchKind>> {
        if self.sources.get(self.next).is_some_and(|s| s.as_bytes() == target.as_bytes()) && !self.met[self.next] {
            self.met[self.next] = true;
            self.next += 1;
            return Ok(None);
        }
        let Some(at) = self.find(id_of(target)?)? else { return Ok(Some(MismatchKind::Extra)) };
        if std::mem::replace(&mut self.met[at], true) {
            return Ok(Some(MismatchKind::Extra));
        }
        self.next = at + 1;
        let source = self.sources[at];
        let same = source.as_bytes() == target.as_bytes() || self.digest.is_some_and(|digest| digest(source) == digest(target));
        Ok((!same).then_some(MismatchKind::Different))
    }

    fn find(&mut self, id: Id<'_>) -> Result<Option<usize>> {
        if self.by_id.is_none() {
            self.by_id = Some(self.sources.iter().enumerate().map(|(at, doc)| Ok((id_of(doc)?, at))).collect::<Result<_>>()?);
        }
        Ok(self.by_id.as_ref().and_then(|m| m.get(&id)).copied())
    }

    /// What the target did not bring.
    pub(super) fn missing(self) -> impl Iterator<Item = &'a RawDocument> {
        let met = self.met;
        self.sources.iter().zip(met).filter(|(_, met)| !met).map(|(doc, _)| *doc)
    }
}

/// In what two documents differ first: names of fields, never values.
pub(super) fn describe(source: &RawDocument, target: &RawDocument) -> String {
    difference("", source, target).unwrap_or_else(|| "bytes differ".into())
}

fn difference(path: &str, source: &RawDocument, target: &RawDocument) -> Option<String> {
    let (ours, theirs): (Vec<_>, Vec<_>) = (raw::elements(source).collect(), raw::elements(target).collect());
    let name = |e: &raw::Element<'_>| format!("{path}{}", String::from_utf8_lossy(e.name));
    let has = |all: &[raw::Element<'_>], e: &raw::Element<'_>| all.iter().any(|o| o.name == e.name);
    if let Some(e) = ours.iter().find(|e| !has(&theirs, e)) {
        return Some(format!("field `{}` missing on target", name(e)));
    }
    if let Some(e) = theirs.iter().find(|e| !has(&ours, e)) {
        return Some(format!("field `{}` on target only", name(e)));
    }
    if !ours.iter().map(|e| e.name).eq(theirs.iter().map(|e| e.name)) {
        let place = if path.is_empty() { String::new() } else { format!(" within `{}`", path.trim_end_matches('.')) };
        return Some(format!("field order differs{place}"));
    }
    let (ours, theirs) = ours.iter().zip(&theirs).find(|(a, b)| a != b)?;
    if ours.tag != theirs.tag {
        return Some(format!("type of `{}` differs", name(ours)));
    }
    let nested = ours.document().zip(theirs.document()).and_then(|(a, b)| difference(&format!("{}.", name(ours)), a, b));
    Some(nested.unwrap_or_else(|| format!("value of `{}` differs", name(ours))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, rawdoc};

    /// Mismatches by `_id` as text, sorted.
    fn compare(source: &[RawDocumentBuf], target: &[RawDocumentBuf]) -> Vec<(MismatchKind, String)> {
        let sources: Vec<&RawDocument> = source.iter().map(|d| &**d).collect();
        let mut comparison = Comparison::new(&sources, None);
        let mut found = Vec::new();
        let id = |d: &RawDocument| format!("{:?}", d.get("_id").unwrap().unwrap());
        for doc in target {
            found.extend(comparison.meet(doc).unwrap().map(|kind| (kind, id(doc))));
        }
        found.extend(comparison.missing().map(|doc| (MismatchKind::Missing, id(doc))));
        found.sort();
        found
    }
    fn kinds(source: &[RawDocumentBuf], target: &[RawDocumentBuf]) -> Vec<MismatchKind> {
        compare(source, target).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn equal_missing_extra_different() {
        use MismatchKind::{Different, Extra, Missing};
        let [a, b, c] = [1, 2, 3].map(|n| rawdoc! {"_id": n, "x": n});
        let all = [a.clone(), b.clone(), c.clone()];
        assert_eq!(kinds(&all, &all), []);
        assert_eq!(kinds(&[], &[]), []);
        assert_eq!(kinds(&all, &all[1..]), [Missing]);
        assert_eq!(kinds(&all, &[a.clone(), c.clone()]), [Missing]);
        assert_eq!(kinds(&all[..2], &all), [Extra]);
        assert_eq!(kinds(&all, &[a.clone(), rawdoc! {"_id": 2, "x": 2_i64}, c.clone()]), [Different]);
        assert_eq!(kinds(&[], &all), [Extra; 3]);
        assert_eq!(kinds(&all, &[]), [Missing; 3]);
        assert_eq!(kinds(&all, &[c, b, a]), [], "order is the server's business");
    }

    #[test]
    fn field_order_matters() {
        assert_eq!(kinds(&[rawdoc! {"_id": 1, "a": 1, "b": 2}], &[rawdoc! {"_id": 1, "b": 2, "a": 1}]), [MismatchKind::Different]);
    }

    #[test]
    fn field_order_can_be_left_out_at_any_depth() {
        let digest = digest_of(true);
        let a = rawdoc! {"_id": 1, "a": {"x": 1, "y": [1, {"p": 1, "q": 2}]}, "b": 2};
        assert_eq!(digest(&a), digest(&rawdoc! {"b": 2, "a": {"y": [1, {"q": 2, "p": 1}], "x": 1}, "_id": 1}));
        for other in [
            rawdoc! {"_id": 1, "a": {"x": 1, "y": [{"p": 1, "q": 2}, 1]}, "b": 2},
            rawdoc! {"_id": 1, "a": {"x": 1_i64, "y": [1, {"p": 1, "q": 2}]}, "b": 2},
            rawdoc! {"_id": 1, "a": {"x": 1, "y": [1, {"p": 2, "q": 1}]}, "b": 2},
        ] {
            assert_ne!(digest(&a), digest(&other));
        }
        let sources: Vec<&RawDocument> = vec![&a];
        let swapped = rawdoc! {"_id": 1, "b": 2, "a": {"x": 1, "y": [1, {"p": 1, "q": 2}]}};
        assert_eq!(Comparison::new(&sources, Some(digest)).meet(&swapped).unwrap(), None);
        assert_eq!(Comparison::new(&sources, None).meet(&swapped).unwrap(), Some(MismatchKind::Different));
    }

    #[test]
    fn numeric_ids_of_other_types_are_not_passed_over() {
        let found = kinds(&[rawdoc! {"_id": 1}], &[rawdoc! {"_id": 1_i64}]);
        assert_eq!(found, [MismatchKind::Missing, MismatchKind::Extra], "the recheck makes one Different of them");
    }

    #[test]
    fn pairs_do_not_cancel_out() {
        let [a, b, z] = [1, 2, 3].map(|n| rawdoc! {"_id": n});
        let found = kinds(&[a.clone(), b.clone()], &[a.clone(), b.clone(), z.clone(), z]);
        assert_eq!(found, [MismatchKind::Extra; 2]);
        assert_eq!(kinds(&[a.clone(), b.clone()], &[a.clone(), b, a]), [MismatchKind::Extra]);
    }

    #[test]
    fn a_description_names_fields_and_no_values() {
        let base = rawdoc! {"_id": 1, "a": 5, "b": {"c": "s", "d": [1, 2]}};
        for (other, wanted) in [
            (rawdoc! {"_id": 1, "a": 5_i64, "b": {"c": "s", "d": [1, 2]}}, "type of `a` differs"),
            (rawdoc! {"_id": 1, "a": 6, "b": {"c": "s", "d": [1, 2]}}, "value of `a` differs"),
            (rawdoc! {"_id": 1, "b": {"c": "s", "d": [1, 2]}, "a": 5}, "field order differs"),
            (rawdoc! {"_id": 1, "a": 5}, "field `b` missing on target"),
            (rawdoc! {"_id": 1, "a": 5, "b": {"c": "s", "d": [1, 2]}, "e": 1}, "field `e` on target only"),
            (rawdoc! {"_id": 1, "a": 5, "b": {"c": "s", "d": [1, 3]}}, "value of `b.d.1` differs"),
            (rawdoc! {"_id": 1, "a": 5, "b": {"d": [1, 2], "c": "s"}}, "field order differs within `b`"),
            (rawdoc! {"_id": 1_i64, "a": 5, "b": {"c": "s", "d": [1, 2]}}, "type of `_id` differs"),
        ] {
            assert_eq!(describe(&base, &other), wanted);
        }
    }
}
