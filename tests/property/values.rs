//! Names and values at random, of every type that BSON has.

use crate::scenarios::notation::Node;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

/// An object of the notation, in the order written.
macro_rules! fields {
    ($($name:literal : $value:expr),* $(,)?) => {
        crate::scenarios::notation::Node::Fields(vec![$(($name.to_owned(), crate::scenarios::notation::Node::from($value))),*])
    };
}
pub(super) use fields;

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Node {
    fn from(n: i64) -> Self {
        Self::Whole(n)
    }
}

impl From<bool> for Node {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl<T: Into<Node>> From<Vec<T>> for Node {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Node>, const N: usize> From<[T; N]> for Node {
    fn from(items: [T; N]) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

/// An object with one field.
pub(super) fn field(name: impl Into<String>, value: impl Into<Node>) -> Node {
    Node::Fields(vec![(name.into(), value.into())])
}

/// One of them.
pub(super) fn one<T: Clone>(rng: &mut StdRng, of: &[T]) -> T {
    of.choose(rng).expect("there is something to choose from").clone()
}

/// Fields that many documents have, so that updates find something.
pub(super) const USUAL: [&str; 7] = ["n", "m", "s", "arr", "obj", "a", "b"];
/// Names that are only allowed below the top, or nearly nowhere.
const ODD: [&str; 14] = ["", ".", "x.y", "$price", "$set", "0", "1", "a.0", "$bytes:ff", "$bytes:c3", "имя", "_id", " ", "toJSON"];

/// A field's name.
fn name(rng: &mut StdRng, depth: u32) -> String {
    match rng.random_range(0..10) {
        0..5 => one(rng, &USUAL).to_owned(),
        // At the top a dollar is refused, and `_id` is what the document has anyway.
        5..8 => match one(rng, &ODD) {
            odd if depth == 0 && (odd.starts_with("$p") || odd.starts_with("$s") || odd == "_id") => "x.y".to_owned(),
            odd => odd.to_owned(),
        },
        _ => format!("f{}", rng.random_range(0..5)),
    }
}

/// A number: small ones in all four types, and those at the edges.
pub(super) fn number(rng: &mut StdRng) -> Node {
    let n = rng.random_range(-3..12_i64);
    match rng.random_range(0..9) {
        0..3 => n.into(),
        3 => field("$numberLong", n.to_string()),
        4 => field("$numberDouble", format!("{n}.0")),
        5 => field("$numberDecimal", one(rng, &[format!("{n}"), format!("{n}.0"), format!("{n}E+2")])),
        6 => field("$numberDouble", one(rng, &["NaN", "-0.0", "Infinity", "-Infinity", "5e-324", "0.1", "9007199254740993.0"])),
        7 => field("$numberDecimal", one(rng, &["NaN", "-0E-6176", "Infinity", "0.1", "9.999999999999999999999999999999999E+6144"])),
        _ => field("$numberLong", one(rng, &[i64::MAX, i64::MIN, 1 << 53]).to_string()),
    }
}

fn word(rng: &mut StdRng) -> Node {
    let words = ["", "a", "A", "K", "k", "NaN", "1", "слово", "ß", "a\u{0}b", "$s", "$bytes:ff80", "$bytes:eda080", "$bytes:610062"];
    one(rng, &words).into()
}

/// A value that is neither object nor array: every other type, deprecated ones included.
fn scalar(rng: &mut StdRng) -> Node {
    let id = format!("{:024x}", rng.random_range(0..20));
    let seconds = rng.random_range(0..3_i64);
    match rng.random_range(0..24) {
        0..6 => number(rng),
        6..10 => word(rng),
        10 => rng.random_bool(0.5).into(),
        11 => Node::Null,
        12 => field("$oid", id),
        13 => field("$date", field("$numberLong", one(rng, &["0", "-1", "1700000000000", "9223372036854775807"]))),
        14 | 15 => field("$timestamp", fields! {"t": seconds, "i": seconds}),
        16 => field("$minKey", 1_i64),
        17 => field("$maxKey", 1_i64),
        18 => field("$undefined", true),
        19 => field("$symbol", one(rng, &["", "s", "символ"])),
        20 => match rng.random_bool(0.5) {
            true => field("$code", "f()"),
            false => fields! {"$code": "f()", "$scope": fields!{"x": seconds}},
        },
        21 => field("$dbPointer", fields! {"$ref": "d.c", "$id": field("$oid", id)}),
        22 => field("$regularExpression", fields! {"pattern": one(rng, &["", "a/b", "^x$"]), "options": one(rng, &["", "i", "imsx"])}),
        _ => {
            let (base64, kind) =
                one(rng, &[("", "00"), ("AAEC", "00"), ("AgAAAAAB", "02"), ("AAAAAAAAAAAAAAAAAAAAAA==", "04"), ("/w==", "80")]);
            field("$binary", fields! {"base64": base64, "subType": kind})
        }
    }
}

/// Any value, to a depth of five levels from 0.
pub(super) fn value(rng: &mut StdRng, depth: u32) -> Node {
    match rng.random_range(0..10) {
        0 | 1 if depth < 5 => object(rng, depth + 1),
        2 if depth < 5 => array(rng, depth + 1),
        _ => scalar(rng),
    }
}

pub(super) fn array(rng: &mut StdRng, depth: u32) -> Node {
    Node::List((0..rng.random_range(0..6)).map(|_| value(rng, depth)).collect())
}

/// Adds a field whose name is new. A pipeline update of a document in which a name stands twice may end the server: the
/// difference that it writes to its oplog asserts that names are unique (seen on 6.0.5).
fn push(all: &mut Vec<(String, Node)>, name: String, value: Node) {
    if all.iter().all(|(known, _)| *known != name) {
        all.push((name, value));
    }
}

fn object(rng: &mut StdRng, depth: u32) -> Node {
    // The notation takes some names that come first for types: `ODD` has none of them.
    let mut all = Vec::new();
    for _ in 0..rng.random_range(0..5) {
        push(&mut all, name(rng, depth), value(rng, depth));
    }
    Node::Fields(all)
}

/// An `_id` from a small pool, so that most are met again; equal numbers of several types and equal words of several
/// cases are among them.
pub(super) fn id(rng: &mut StdRng) -> Node {
    match rng.random_range(0..20) {
        0..13 => rng.random_range(0..24_i64).into(),
        13..16 => number(rng),
        16 => word(rng),
        17 => match scalar(rng) {
            // A server takes neither of these as an `_id`.
            Node::Fields(fields) if matches!(fields[0].0.as_str(), "$undefined" | "$regularExpression") => Node::Null,
            other => other,
        },
        18 => fields! {"a": rng.random_range(0..3_i64), "b": number(rng)},
        _ => field(one(rng, &["", "x.y", "a"]), scalar(rng)),
    }
}

/// A document: most have the usual fields, in some order.
pub(super) fn document(rng: &mut StdRng, id: Option<Node>) -> Node {
    let mut all = Vec::new();
    if let Some(id) = id {
        all.push(("_id".to_owned(), id));
    }
    all.push(("n".to_owned(), number(rng)));
    if rng.random_bool(0.7) {
        all.push(("arr".to_owned(), array(rng, 1)));
    }
    if rng.random_bool(0.7) {
        all.push(("obj".to_owned(), object(rng, 1)));
    }
    for _ in 0..rng.random_range(0..4) {
        push(&mut all, name(rng, 0), value(rng, 1));
    }
    if rng.random_bool(0.1) {
        // `_id` need not come first.
        let (from, to) = (rng.random_range(0..all.len()), rng.random_range(0..all.len()));
        all.swap(from, to);
    }
    Node::Fields(all)
}

/// A document in which names stand twice, at the top and below.
pub(super) fn twice(rng: &mut StdRng) -> Node {
    let deep = Node::Fields(vec![("a".into(), value(rng, 2)), ("a".into(), value(rng, 2))]);
    let id = rng.random_range(0..12_i64);
    let mut fields = vec![("_id".to_owned(), id.into()), ("n".to_owned(), number(rng)), ("obj".to_owned(), deep)];
    fields.insert(rng.random_range(0..3), ("n".to_owned(), value(rng, 1)));
    Node::Fields(fields)
}
