//! Document keys, and when two of them are the same to the server.

use super::raw::{self, Element, tag};
use bson::{RawDocument, RawDocumentBuf};
use std::cmp::Ordering;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A document key as a change event gives it: `_id`, and on a sharded collection the fields of the shard
/// key. Kept raw: an `_id` may hold what no typed value can.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentKey(RawDocumentBuf);

impl DocumentKey {
    /// From a `documentKey`; `None` where it has no `_id`.
    #[must_use]
    pub fn new(key: RawDocumentBuf) -> Option<Self> {
        raw::get(&key, "_id")?;
        Some(Self(key))
    }

    /// `{_id}` of a whole document; `None` where it has none.
    #[must_use]
    pub fn of(doc: &RawDocument) -> Option<Self> {
        let id = raw::get(doc, "_id")?;
        let mut key = raw::Builder::with_capacity(id.value.len() + 8);
        key.element(id);
        Some(Self(key.finish()))
    }

    /// The key as a filter: an `_id` never has an operator's name in it, since the server refuses
    /// `$`-names within `_id` (code 52, RAN on 6.0.5).
    #[must_use]
    pub fn as_raw(&self) -> &RawDocument {
        &self.0
    }

    /// The `_id`.
    #[must_use]
    pub fn id(&self) -> Element<'_> {
        raw::get(&self.0, "_id").expect("checked by the constructors")
    }

    /// See [`CanonicalKey`].
    #[must_use]
    pub fn canonical(&self) -> CanonicalKey {
        CanonicalKey::of(self.id())
    }
}

/// A digest that is equal for any two `_id`s which the server takes for equal under the simple collation:
/// `1`, `1.0`, `NumberLong(1)` and `NumberDecimal("1")` are one key. Different keys may rarely share a
/// digest (decimals that are nearest to the same double): so it chooses lanes and says what *may* have
/// been touched, and never proves that two keys are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalKey(pub u128);

impl CanonicalKey {
    /// Of one `_id`.
    #[must_use]
    pub fn of(id: Element<'_>) -> Self {
        let mut hasher = Xxh3::new();
        feed(&mut hasher, id.tag, id.value);
        Self(hasher.digest128())
    }

    /// For collections whose collation decides which keys are equal: all keys are taken for one.
    pub const ANY: CanonicalKey = CanonicalKey(0);

    /// Which of `lanes` it goes down.
    #[must_use]
    pub fn lane(self, lanes: usize) -> usize {
        (self.0 % lanes as u128) as usize
    }
}

fn feed(hasher: &mut Xxh3, kind: u8, value: &[u8]) {
    match kind {
        tag::INT32 => number(hasher, Number::Whole(i64::from(i32::from_le_bytes(value.try_into().unwrap_or_default())))),
        tag::INT64 => number(hasher, Number::Whole(i64::from_le_bytes(value.try_into().unwrap_or_default()))),
        tag::DOUBLE => number(hasher, Number::from_double(f64::from_le_bytes(value.try_into().unwrap_or_default()))),
        tag::DECIMAL => number(hasher, Number::from_decimal(value)),
        // Symbols compare with strings.
        tag::SYMBOL => plain(hasher, tag::STRING, value),
        tag::DOCUMENT | tag::ARRAY => {
            hasher.update(&[kind]);
            if let Ok(doc) = RawDocument::from_bytes(value) {
                for e in raw::elements(doc) {
                    hasher.update(e.name);
                    hasher.update(&[0]);
                    feed(hasher, e.tag, e.value);
                }
            }
            hasher.update(&[0]);
        }
        _ => plain(hasher, kind, value),
    }
}

fn plain(hasher: &mut Xxh3, kind: u8, value: &[u8]) {
    hasher.update(&[kind]);
    hasher.update(value);
}

enum Number {
    Whole(i64),
    Other(f64),
}

impl Number {
    fn from_double(value: f64) -> Self {
        // 2^63 is a double; i64::MAX is not.
        if value.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            return Number::Whole(value as i64);
        }
        Number::Other(if value.is_nan() { f64::NAN } else { value })
    }

    fn from_decimal(value: &[u8]) -> Self {
        let text = bson::Decimal128::from_bytes(value.try_into().unwrap_or_default()).to_string();
        match whole_decimal(&text) {
            Some(whole) => Number::Whole(whole),
            None => Number::from_double(text.parse().unwrap_or(f64::NAN)),
        }
    }
}

fn number(hasher: &mut Xxh3, number: Number) {
    match number {
        Number::Whole(v) => plain(hasher, tag::INT64, &v.to_le_bytes()),
        Number::Other(v) => plain(hasher, tag::DOUBLE, &v.to_le_bytes()),
    }
}

/// The exact value of a decimal's text (`-12.50E+3`) where it is whole and fits 64 bits.
fn whole_decimal(text: &str) -> Option<i64> {
    let (mantissa, exponent) = text.split_once(['E', 'e']).map_or((text, 0), |(m, e)| (m, e.parse().unwrap_or(i32::MAX)));
    let (sign, digits) = mantissa.strip_prefix('-').map_or((1, mantissa), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut value: i128 = digits.parse().ok()?;
    let mut exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if value == 0 {
        return Some(0);
    }
    while exponent.cmp(&0) != Ordering::Equal {
        if exponent > 0 {
            value = value.checked_mul(10)?;
            exponent -= 1;
        } else {
            if value % 10 != 0 {
                return None;
            }
            value /= 10;
            exponent += 1;
        }
    }
    i64::try_from(sign * value).ok()
}

/// Whether the server would change or refuse this document in a plain insert or replacement: a top-level
/// `Timestamp(0,0)` becomes "now", and a top-level name that begins with `$` is refused in a replacement
/// (RAN on 6.0.5). Such documents are written by a pipeline with `$literal`.
#[must_use]
pub fn odd_at_top(doc: &RawDocument) -> bool {
    raw::elements(doc).any(|e| is_odd(&e))
}

/// Whether an element at the top makes its document odd.
pub(super) fn is_odd(e: &Element<'_>) -> bool {
    e.name.first() == Some(&b'$') || (e.tag == tag::TIMESTAMP && e.value == [0; 8])
}

/// Whether a field name stands twice in one document, at any depth. A server lets them in, and is then no more to be
/// trusted with a diff of them: it leaves out both where the source left out one, and 6.0.5 ends by an invariant when
/// an update by a pipeline changes such a field (6.0.27 refuses that, code 7693400; RAN on both). Replacements are safe.
#[must_use]
pub fn repeats_a_name(doc: &RawDocument) -> bool {
    let mut names = Names::default();
    raw::elements(doc).any(|e| names.repeat(&e)) || names.repeated()
}

/// Fields of one document that are compared with each other; of more, the digests are sorted.
const FEW_FIELDS: usize = 32;

/// The names of one document's fields, as a walk comes by them.
#[derive(Default)]
pub(super) struct Names {
    few: [u64; FEW_FIELDS],
    n: usize,
    many: Vec<u64>,
}

impl Names {
    /// Whether this field, or one within it, surely repeats a name.
    pub(super) fn repeat(&mut self, e: &Element<'_>) -> bool {
        self.another(digest_of_name(e.name)) || repeats_within(e)
    }

    fn another(&mut self, digest: u64) -> bool {
        let Some(place) = self.few.get_mut(self.n) else {
            self.many.push(digest);
            return false;
        };
        *place = digest;
        self.n += 1;
        self.few[..self.n - 1].contains(&digest)
    }

    /// Whether any two are the same, at the end of the walk.
    pub(super) fn repeated(mut self) -> bool {
        if self.many.is_empty() {
            return false;
        }
        self.many.extend(self.few);
        self.many.sort_unstable();
        self.many.windows(2).any(|two| two[0] == two[1])
    }
}

fn repeats_within(e: &Element<'_>) -> bool {
    match (e.tag, e.document()) {
        (tag::DOCUMENT, Some(inner)) => repeats_a_name(inner),
        (_, Some(array)) => raw::elements(array).any(|item| repeats_within(&item)),
        _ => false,
    }
}

/// Short names are their own digest; comparing numbers is what makes this cheap. Two names of one digest count as one, which is safe.
fn digest_of_name(name: &[u8]) -> u64 {
    // A name holds no zero byte.
    if name.len() <= 8 { name.iter().rfold(0, |digest, &byte| digest << 8 | u64::from(byte)) } else { xxh3_64(name) }
}

/// Whether two `_id`s are the same bytes, type included.
#[must_use]
pub fn same_key(a: &DocumentKey, b: &DocumentKey) -> bool {
    let (a, b) = (a.id(), b.id());
    a.tag == b.tag && a.value == b.value
}

/// Whether the server surely takes two `_id`s for one, under any collation: the same bytes, or whole numbers of one value. A document
/// may change from one such to the other, in its place (RAN on 6.0.5: plain, capped and clustered, by replacement and by pipeline).
#[must_use]
pub fn surely_one(a: &DocumentKey, b: &DocumentKey) -> bool {
    same_key(a, b) || whole(a.id()).is_some_and(|n| whole(b.id()) == Some(n))
}

fn whole(id: Element<'_>) -> Option<i64> {
    let number = match id.tag {
        tag::INT32 | tag::INT64 => return id.integer(),
        tag::DOUBLE => Number::from_double(f64::from_le_bytes(id.value.try_into().ok()?)),
        tag::DECIMAL => Number::from_decimal(id.value),
        _ => return None,
    };
    match number {
        Number::Whole(n) => Some(n),
        Number::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, Decimal128, doc, rawdoc};

    fn key(id: impl Into<Bson>) -> CanonicalKey {
        let doc = RawDocumentBuf::try_from(&doc! {"_id": id.into()}).unwrap();
        DocumentKey::of(&doc).unwrap().canonical()
    }
    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse::<Decimal128>().unwrap())
    }

    #[test]
    fn equal_numbers_are_one_key_whatever_their_type() {
        for same in [
            vec![Bson::Int32(1), Bson::Int64(1), Bson::Double(1.0), decimal("1"), decimal("1.0"), decimal("10E-1")],
            vec![Bson::Double(0.0), Bson::Double(-0.0), Bson::Int32(0), decimal("-0"), decimal("0E+9")],
            vec![Bson::Double(0.5), decimal("0.5"), decimal("5E-1")],
            vec![Bson::Double(f64::NAN), Bson::Double(-f64::NAN), decimal("NaN")],
            vec![Bson::Double(f64::INFINITY), decimal("Infinity")],
            vec![Bson::Int64(1 << 62), Bson::Double((1_u64 << 62) as f64), decimal("4611686018427387904")],
            vec![Bson::Document(doc! {"a": 1}), Bson::Document(doc! {"a": 1.0})],
            vec![Bson::String("x".into()), Bson::Symbol("x".into())],
        ] {
            for other in &same {
                assert_eq!(key(same[0].clone()), key(other.clone()), "{:?} and {other:?}", same[0]);
            }
        }
    }

    #[test]
    fn keys_that_are_surely_one_are_the_same_bytes_or_whole_numbers_of_one_value() {
        let key = |id: Bson| DocumentKey::of(&RawDocumentBuf::try_from(&doc! {"_id": id}).unwrap()).unwrap();
        let one = |a: Bson, b: Bson| surely_one(&key(a), &key(b));
        assert!(one(Bson::Double(3.0), Bson::Int32(3)) && one(decimal("30E-1"), Bson::Int64(3)));
        assert!(one(Bson::String("K".into()), Bson::String("K".into())) && one(Bson::Double(0.5), Bson::Double(0.5)));
        assert!(!one(Bson::Double(0.1), decimal("0.1")), "they share a digest, and are two");
        assert!(!one(Bson::Int32(3), Bson::String("3".into())) && !one(Bson::Int32(3), Bson::Int32(4)));
        assert!(!one(Bson::String("K".into()), Bson::String("k".into())));
    }

    #[test]
    fn different_keys_differ() {
        let keys = [
            Bson::Int32(1),
            Bson::Int32(2),
            Bson::Double(1.5),
            Bson::String("1".into()),
            Bson::String("NaN".into()),
            Bson::Double(f64::NAN),
            Bson::Null,
            Bson::Boolean(false),
            Bson::MinKey,
            Bson::MaxKey,
            Bson::Document(doc! {}),
            Bson::Document(doc! {"a": 1, "b": 2}),
            Bson::Document(doc! {"b": 2, "a": 1}),
            Bson::Int64((1 << 62) + 1),
            Bson::Int64(1 << 62),
            decimal("0.1"),
        ];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert_ne!(key(a.clone()), key(b.clone()), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_seen_at_any_depth() {
        let doubled = |n: usize| {
            let mut b = raw::Builder::default();
            for i in 0..n {
                b.i32(&format!("f{i}"), 1);
            }
            b.i32(&format!("f{}", n / 2), 2);
            b.finish()
        };
        for n in [1, 5, FEW_FIELDS, FEW_FIELDS + 1, 3 * FEW_FIELDS] {
            let doc = doubled(n);
            assert!(repeats_a_name(&doc), "{n} fields");
            assert!(repeats_a_name(&rawdoc! {"a": [1, {"b": doc}]}), "{n} fields below");
        }
        let wide: bson::Document = (0..200).map(|n| (format!("f{n}"), Bson::Int32(n))).collect();
        let wide = RawDocumentBuf::try_from(&doc! {"f0": wide, "f1": [{"f0": 1}, {"f0": 1}]}).unwrap();
        assert!(!repeats_a_name(&wide));
    }

    #[test]
    fn odd_documents_are_seen_at_the_top_only() {
        let zero = bson::Timestamp { time: 0, increment: 0 };
        assert!(odd_at_top(&rawdoc! {"_id": 1, "t": zero}));
        assert!(odd_at_top(&rawdoc! {"_id": 1, "$price": 3}));
        assert!(!odd_at_top(&rawdoc! {"_id": 1, "a": {"t": zero, "$x": 1}, "x.y": 1, "t": bson::Timestamp { time: 1, increment: 0 }}));
    }
}
