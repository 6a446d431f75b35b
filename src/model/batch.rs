//! A batch of documents on its way to the target, and what one walk over it tells.

use super::{
    Bound, DocumentKey, bound_of,
    document::{Names, is_odd},
    raw,
};
use bson::{RawDocument, RawDocumentBuf};

/// Documents as they came from a cursor: a BSON array, never decoded. All that has to be known of each is learnt in one walk, since
/// a batch is larger than the caches of a core.
#[derive(Debug, Clone)]
pub struct Batch {
    array: RawDocumentBuf,
    last: Option<Bound>,
    count: u64,
    odd: bool,
    repeats: bool,
}

impl Batch {
    /// Walks over the documents of an array.
    #[must_use]
    pub fn new(array: RawDocumentBuf) -> Self {
        let (mut count, mut odd, mut repeats, mut last) = (0, false, false, None);
        for doc in documents(&array) {
            count += 1;
            last = Some(doc);
            let mut names = Names::default();
            for e in raw::elements(doc) {
                odd |= is_odd(&e);
                repeats |= names.repeat(&e);
            }
            repeats |= names.repeated();
        }
        let last = last.and_then(bound_of);
        Self { array, last, count, odd, repeats }
    }

    /// The array: a valid `documents` of an insert.
    #[must_use]
    pub fn array(&self) -> &RawDocument {
        &self.array
    }

    /// The documents, in their order.
    pub fn documents(&self) -> impl Iterator<Item = &RawDocument> {
        documents(&self.array)
    }

    /// Their keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = DocumentKey> {
        self.documents().filter_map(DocumentKey::of)
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the array.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.array.as_bytes().len() as u64
    }

    /// Where the last document lies: a scan goes on behind it.
    #[must_use]
    pub fn last(&self) -> Option<&Bound> {
        self.last.as_ref()
    }

    /// Whether any is [odd at the top](super::odd_at_top).
    #[must_use]
    pub fn has_odd(&self) -> bool {
        self.odd
    }

    /// Whether any [repeats a name](super::repeats_a_name).
    #[must_use]
    pub fn has_repeated_names(&self) -> bool {
        self.repeats
    }
}

fn documents(array: &RawDocument) -> impl Iterator<Item = &RawDocument> {
    raw::elements(array).filter_map(|e| e.document())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{odd_at_top, repeats_a_name};
    use bson::rawdoc;

    fn batch(documents: &[RawDocumentBuf]) -> Batch {
        let mut array = raw::Builder::default();
        for (n, doc) in documents.iter().enumerate() {
            array.doc(&n.to_string(), doc);
        }
        Batch::new(array.finish())
    }

    #[test]
    fn one_walk_tells_what_one_for_each_question_would() {
        let plain = rawdoc! {"_id": 1, "a": {"$b": [1, {"c": 1}]}};
        let odd = rawdoc! {"_id": 2, "$a": 1};
        let mut twice = raw::Builder::default();
        twice.i32("_id", 3).begin("a").i32("b", 1).i32("b", 2).end();
        let twice = twice.finish();
        for documents in
            [vec![], vec![plain.clone()], vec![odd.clone(), plain.clone()], vec![plain.clone(), twice.clone()], vec![twice, odd, plain]]
        {
            let batch = batch(&documents);
            assert_eq!(batch.len(), documents.len() as u64);
            assert_eq!(batch.is_empty(), documents.is_empty());
            assert_eq!(batch.has_odd(), documents.iter().any(|doc| odd_at_top(doc)));
            assert_eq!(batch.has_repeated_names(), documents.iter().any(|doc| repeats_a_name(doc)));
            assert_eq!(batch.last().cloned(), documents.last().and_then(|doc| bound_of(doc)));
            assert_eq!(batch.keys().count(), documents.len());
        }
    }
}
