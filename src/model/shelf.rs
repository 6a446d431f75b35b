//! The documents of one collection in memory: what the in-memory bodies of the ports keep. Pure.
//!
//! Keys are equal and ordered as under the simple collation: numbers of different types are one key. Embedded documents and
//! other rare keys are ordered by their bytes, which is not the server's order, but an order.

use super::raw::{self, Element, tag};
use bson::{RawDocument, RawDocumentBuf};
use std::{collections::BTreeMap, ops::Bound};

/// Where an `_id` stands in the order of keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    class: u8,
    number: u64,
    bytes: Vec<u8>,
}

impl Place {
    /// Of an `_id`.
    #[must_use]
    pub fn of(id: Element<'_>) -> Self {
        let (class, number) = match id.tag {
            tag::MIN_KEY => (0, None),
            tag::NULL | tag::UNDEFINED => (1, None),
            tag::INT32 | tag::INT64 | tag::DOUBLE | tag::DECIMAL => (2, Some(number(id))),
            tag::STRING | tag::SYMBOL => (3, None),
            tag::MAX_KEY => (u8::MAX, None),
            other => (other.saturating_add(3).min(u8::MAX - 1), None),
        };
        let bytes = match (number, id.tag) {
            (Some(_), _) => Vec::new(),
            // The text without its length, which would come first in the order.
            (None, tag::STRING | tag::SYMBOL) => id.value.get(4..).unwrap_or_default().to_vec(),
            (None, _) => id.value.to_vec(),
        };
        Self { class, number: number.map_or(0, sortable), bytes }
    }

    /// Of a document's `_id`.
    #[must_use]
    pub fn of_document(doc: &RawDocument) -> Option<Self> {
        raw::get(doc, "_id").map(Self::of)
    }
}

fn number(id: Element<'_>) -> f64 {
    match id.tag {
        tag::INT32 => f64::from(i32::from_le_bytes(id.value.try_into().unwrap_or_default())),
        #[expect(clippy::cast_precision_loss, reason = "keys of tests are small")]
        tag::INT64 => i64::from_le_bytes(id.value.try_into().unwrap_or_default()) as f64,
        tag::DOUBLE => f64::from_le_bytes(id.value.try_into().unwrap_or_default()),
        _ => bson::Decimal128::from_bytes(id.value.try_into().unwrap_or_default()).to_string().parse().unwrap_or(f64::NAN),
    }
}

/// Bits that sort as the doubles do; NaN first, one zero.
fn sortable(value: f64) -> u64 {
    if value.is_nan() {
        return 0;
    }
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

#[derive(Debug, Clone)]
struct Kept {
    /// Counts insertions.
    number: u64,
    document: RawDocumentBuf,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    documents: BTreeMap<Place, Kept>,
    inserted: u64,
}

impl Shelf {
    /// Stores a document, in place of another of its key; says whether there was one. One without `_id` is left out.
    pub fn put(&mut self, document: RawDocumentBuf) -> bool {
        let Some(place) = Place::of_document(&document) else { return false };
        if let Some(kept) = self.documents.get_mut(&place) {
            kept.document = document;
            return true;
        }
        self.documents.insert(place, Kept { number: self.inserted, document });
        self.inserted += 1;
        false
    }

    /// The document of that key.
    #[must_use]
    pub fn get(&self, id: Element<'_>) -> Option<&RawDocumentBuf> {
        self.documents.get(&Place::of(id)).map(|kept| &kept.document)
    }

    /// Removes a document; says whether there was one.
    pub fn remove(&mut self, id: Element<'_>) -> bool {
        self.documents.remove(&Place::of(id)).is_some()
    }

    /// Applies a raw diff; says whether there was a document.
    pub fn diff(&mut self, id: Element<'_>, diff: &RawDocument) -> bool {
        match self.documents.get_mut(&Place::of(id)) {
            Some(kept) => {
                kept.document = apply_diff(&kept.document, diff);
                true
            }
            None => false,
        }
    }

    /// The first document in that range of keys.
    #[must_use]
    pub fn first(&self, from: Bound<&Place>) -> Option<(&Place, &RawDocumentBuf)> {
        self.documents.range::<Place, _>((from, Bound::Unbounded)).next().map(|(place, kept)| (place, &kept.document))
    }

    /// In the order of insertion, the first that was inserted as this number or later.
    #[must_use]
    pub fn first_inserted(&self, from: u64) -> Option<(u64, &RawDocumentBuf)> {
        let later = self.documents.values().filter(|kept| kept.number >= from);
        later.min_by_key(|kept| kept.number).map(|kept| (kept.number, &kept.document))
    }

    /// In the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = &RawDocumentBuf> {
        self.documents.values().map(|kept| &kept.document)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }
}

/// `{$v: 2, diff: {d: …, u: …, i: …}}` applied as the server does: `u` in place, or at the end where the field is missing; `i`
/// always at the end. Nested diffs and arrays are left out.
#[must_use]
pub fn apply_diff(doc: &RawDocument, diff: &RawDocument) -> RawDocumentBuf {
    let Some(diff) = raw::get(diff, "diff").and_then(|e| e.document()) else { return raw::owned(doc) };
    let part = |name: &str| -> Vec<Element<'_>> {
        raw::get(diff, name).and_then(|e| e.document()).map(|d| raw::elements(d).collect()).unwrap_or_default()
    };
    let (deleted, updated, inserted) = (part("d"), part("u"), part("i"));
    let named = |list: &[Element<'_>], e: &Element<'_>| list.iter().any(|other| other.name == e.name);
    let mut b = raw::Builder::with_capacity(doc.as_bytes().len() + diff.as_bytes().len());
    for e in raw::elements(doc).filter(|e| !named(&deleted, e) && !named(&inserted, e)) {
        b.element(updated.iter().find(|u| u.name == e.name).copied().unwrap_or(e));
    }
    for e in updated.iter().filter(|u| raw::elements(doc).all(|e| e.name != u.name)).chain(&inserted) {
        b.element(*e);
    }
    b.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn numbers_of_different_types_are_one_key_and_keys_have_an_order() {
        let mut shelf = Shelf::default();
        assert!(!shelf.put(rawdoc! {"_id": 1, "v": 1}));
        assert!(shelf.put(rawdoc! {"_id": 1.0, "v": 2}));
        for doc in [rawdoc! {"_id": "a"}, rawdoc! {"_id": -3_i64}, rawdoc! {"_id": bson::RawBson::MinKey}] {
            shelf.put(doc);
        }
        let all: Vec<_> = shelf.iter().cloned().collect();
        assert_eq!(
            all,
            [rawdoc! {"_id": bson::RawBson::MinKey}, rawdoc! {"_id": -3_i64}, rawdoc! {"_id": 1.0, "v": 2}, rawdoc! {"_id": "a"}]
        );
        assert_eq!(shelf.first_inserted(1).unwrap().1, &rawdoc! {"_id": "a"});
    }

    #[test]
    fn a_diff_keeps_the_order_of_fields_as_the_server_does() {
        let doc = rawdoc! {"_id": 1, "a": 1, "b": 1, "c": 1};
        let diff = rawdoc! {"$v": 2, "diff": {"d": {"c": false}, "u": {"a": 2, "x": 3}, "i": {"b": 4}}};
        assert_eq!(apply_diff(&doc, &diff), rawdoc! {"_id": 1, "a": 2, "x": 3, "b": 4});
    }
}
