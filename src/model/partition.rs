//! The unit of copying and comparing: a range of `_id` of one collection.

use super::{CollectionUuid, raw};
use bson::RawDocumentBuf;

/// A document `{_id: …}` that bounds a range, in the server's order of all BSON types.
pub type Bound = RawDocumentBuf;

/// Which partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// Of which collection of the source.
    pub collection: CollectionUuid,
    /// Counting from 0 in key order.
    pub number: u32,
}

/// A half-open range of `_id`, and how far it has come.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Which.
    pub id: PartitionId,
    /// First key that belongs to it; `None`: from the beginning.
    pub min: Option<Bound>,
    /// First key that does not; `None`: to the end, `MaxKey` included.
    pub max: Option<Bound>,
    /// Last key that is durably on the target; reading goes on *at* it, which costs one duplicate.
    pub after: Option<Bound>,
    /// Whether all of it is durable.
    pub done: bool,
    /// Documents made durable so far.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Partition {
    /// The partitions that cover a collection, between the given bounds.
    #[must_use]
    pub fn cover(collection: CollectionUuid, bounds: Vec<Bound>) -> Vec<Partition> {
        let mut min = None;
        let mut cover = Vec::with_capacity(bounds.len() + 1);
        for (number, max) in (0..).zip(bounds.into_iter().map(Some).chain([None])) {
            let next = max.clone();
            cover.push(Partition { id: PartitionId { collection, number }, min, max, after: None, done: false, documents: 0, bytes: 0 });
            min = next;
        }
        cover
    }

    /// Where reading begins or goes on.
    #[must_use]
    pub fn from(&self) -> Option<&Bound> {
        self.after.as_ref().or(self.min.as_ref())
    }
}

/// In how many partitions a collection of so many bytes is split: one per `per_partition` bytes, at least
/// one, at most 4,096.
#[must_use]
pub fn split_count(bytes: u64, per_partition: u64) -> u32 {
    u32::try_from(bytes.div_ceil(per_partition.max(1)).clamp(1, 4096)).unwrap_or(4096)
}

/// `{_id: …}` of a document, as a bound.
#[must_use]
pub(crate) fn bound_of(doc: &bson::RawDocument) -> Option<Bound> {
    let id = raw::get(doc, "_id")?;
    let mut b = raw::Builder::with_capacity(id.value.len() + 8);
    b.element(id);
    Some(b.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn partitions_cover_the_key_space_exactly_once() {
        let bounds = vec![rawdoc! {"_id": 1}, rawdoc! {"_id": "a"}];
        let cover = Partition::cover(CollectionUuid([0; 16]), bounds.clone());
        assert_eq!(cover.len(), 3);
        assert_eq!((cover[0].min.as_ref(), cover[2].max.as_ref()), (None, None));
        for pair in cover.windows(2) {
            assert_eq!(pair[0].max, pair[1].min);
        }
    }

    #[test]
    fn a_few_large_or_one_small() {
        assert_eq!(split_count(0, 64), 1);
        assert_eq!(split_count(65, 64), 2);
        assert_eq!(split_count(u64::MAX, 64), 4096);
    }
}
