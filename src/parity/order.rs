//! In which range a key lies, where we can tell as the server would under the simple collation; elsewhere nobody guesses.

use crate::model::{
    Bound,
    raw::{self, Element, tag},
};
use std::cmp::Ordering;

/// The number of the range, of those that `bounds` (ascending) end and begin; `None` where we cannot tell.
pub(super) fn range_of(bounds: &[Bound], id: Element<'_>) -> Option<usize> {
    let (mut low, mut high) = (0, bounds.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let bound = raw::get(&bounds[middle], "_id")?;
        match compare(id, bound)? {
            Ordering::Less => high = middle,
            Ordering::Equal | Ordering::Greater => low = middle + 1,
        }
    }
    Some(low)
}

/// In the server's order: types first, by rank.
fn compare(a: Element<'_>, b: Element<'_>) -> Option<Ordering> {
    let (of_a, of_b) = (rank(a.tag)?, rank(b.tag)?);
    if of_a != of_b {
        return Some(of_a.cmp(&of_b));
    }
    match a.tag {
        tag::MIN_KEY | tag::MAX_KEY | tag::NULL => Some(Ordering::Equal),
        tag::INT32 | tag::INT64 => Some(whole(a)?.cmp(&whole(b)?)),
        // Without its length and its end.
        tag::STRING if b.tag == tag::STRING => Some(a.value.get(4..)?.cmp(b.value.get(4..)?)),
        tag::OBJECT_ID | tag::BOOL => Some(a.value.cmp(b.value)),
        tag::DATE => Some(i64::from_le_bytes(a.value.try_into().ok()?).cmp(&i64::from_le_bytes(b.value.try_into().ok()?))),
        tag::BINARY => {
            let parts = |e: Element<'_>| Some((u32::from_le_bytes(e.value.get(..4)?.try_into().ok()?), e.value.get(4..)?.to_vec()));
            Some(parts(a)?.cmp(&parts(b)?))
        }
        _ => None,
    }
}

fn whole(e: Element<'_>) -> Option<i64> {
    match e.tag {
        tag::INT32 => Some(i64::from(i32::from_le_bytes(e.value.try_into().ok()?))),
        tag::INT64 => Some(i64::from_le_bytes(e.value.try_into().ok()?)),
        _ => None,
    }
}

fn rank(tag: u8) -> Option<u8> {
    Some(match tag {
        tag::MIN_KEY => 0,
        tag::NULL => 1,
        tag::INT32 | tag::INT64 | tag::DOUBLE | tag::DECIMAL => 2,
        tag::STRING | tag::SYMBOL => 3,
        tag::DOCUMENT => 4,
        tag::BINARY => 6,
        tag::OBJECT_ID => 7,
        tag::BOOL => 8,
        tag::DATE => 9,
        tag::TIMESTAMP => 10,
        tag::MAX_KEY => 12,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, RawDocumentBuf, doc, oid::ObjectId};

    fn bound(id: impl Into<Bson>) -> Bound {
        RawDocumentBuf::try_from(&doc! {"_id": id.into()}).unwrap()
    }
    fn place(bounds: &[Bound], id: impl Into<Bson>) -> Option<usize> {
        let key = bound(id);
        range_of(bounds, raw::get(&key, "_id").unwrap())
    }

    #[test]
    fn keys_of_common_types_are_placed() {
        let bounds = [bound(10), bound("m"), bound(ObjectId::from_bytes([5; 12])), bound(bson::DateTime::from_millis(0))];
        for (id, range) in [
            (Bson::MinKey, 0),
            (Bson::Int64(-5), 0),
            (Bson::Int64(10), 1),
            (Bson::String("a".into()), 1),
            (Bson::String("m".into()), 2),
            (Bson::String("mm".into()), 2),
            (Bson::ObjectId(ObjectId::from_bytes([4; 12])), 2),
            (Bson::ObjectId(ObjectId::from_bytes([5; 12])), 3),
            (Bson::DateTime(bson::DateTime::from_millis(-1)), 3),
            (Bson::DateTime(bson::DateTime::from_millis(1)), 4),
            (Bson::MaxKey, 4),
        ] {
            assert_eq!(place(&bounds, id.clone()), Some(range), "{id}");
        }
        let binary = |bytes: &[u8]| bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: bytes.to_vec() };
        assert_eq!(place(&[bound(binary(&[9, 9]))], binary(&[1, 1, 1])), Some(1), "longer ones come later");
    }

    #[test]
    fn nobody_guesses() {
        assert_eq!(place(&[bound(10)], 9.5), None);
        assert_eq!(place(&[bound(doc! {"a": 1})], doc! {"a": 2}), None);
        assert_eq!(place(&[bound(doc! {"a": 1})], 5), Some(0), "of another type than the bound");
        assert_eq!(place(&[], 9.5), Some(0));
    }
}
