//! From a scenario's text to raw BSON commands. What may be written is told in `README.md` beside this file.
//!
//! No `Document` and no JSON map in between: both know a name once, and only names and strings in UTF-8.

use bson::{Bson, RawDocumentBuf};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// JSON as it stands there: fields in their order, a name as often as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Whole(i64),
    Real(f64),
    Text(String),
    List(Vec<Node>),
    Fields(Vec<(String, Node)>),
}

/// Values that extended JSON writes as an object.
const TYPES: [&str; 16] = [
    "$oid",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$uuid",
    "$date",
    "$timestamp",
    "$regularExpression",
    "$minKey",
    "$maxKey",
    "$undefined",
    "$symbol",
    "$code",
    "$dbPointer",
];

/// In front of a name or string: its bytes, in hexadecimal digits.
const BYTES: &str = "$bytes:";
/// What generated text consists of; no log and no metric may ever show it.
pub const CANARY: &str = "canary ";

/// What placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `{db}`: the scenario's database.
    pub db: &'a str,
    /// `{n}` and `$n`: the number of the innermost round.
    pub n: i64,
}

/// The values of a text, one behind the other; lines that begin with `#` are comments.
///
/// # Errors
/// The reason in words, with what follows the last good value.
pub fn parse(text: &str) -> Result<Vec<Node>, String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect();
    let mut values = serde_json::Deserializer::from_str(&code).into_iter::<Node>();
    let mut found = Vec::new();
    while let Some(value) = values.next() {
        let rest = || code[values.byte_offset()..].trim_start().chars().take(80).collect::<String>();
        found.push(value.map_err(|e| format!("{e}; behind value {}: {}", found.len(), rest()))?);
    }
    Ok(found)
}

/// A command, or another document.
///
/// # Errors
/// The reason in words.
pub fn document(fields: &[(String, Node)], scope: Scope<'_>) -> Result<RawDocumentBuf, String> {
    RawDocumentBuf::from_bytes(body(fields.iter().map(|(name, value)| (name.as_str(), value)), scope)?).map_err(|e| e.to_string())
}

impl Node {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Node> {
        let Node::Fields(fields) = self else { return None };
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Text, with its placeholders filled in.
    pub fn text(&self, scope: Scope<'_>) -> Option<String> {
        let Node::Text(text) = self else { return None };
        Some(filled(text, scope))
    }

    pub fn whole(&self) -> Option<i64> {
        let Node::Whole(n) = self else { return None };
        Some(*n)
    }

    pub fn list(&self) -> Option<&[Node]> {
        let Node::List(items) = self else { return None };
        Some(items)
    }

    /// As `serde_json` has it, for the types of extended JSON.
    fn json(&self, scope: Scope<'_>) -> serde_json::Value {
        match self {
            Node::Null => serde_json::Value::Null,
            Node::Bool(b) => (*b).into(),
            Node::Whole(n) => (*n).into(),
            Node::Real(n) => (*n).into(),
            Node::Text(text) => filled(text, scope).into(),
            Node::List(items) => items.iter().map(|item| item.json(scope)).collect(),
            Node::Fields(fields) => fields.iter().map(|(name, value)| (name.clone(), value.json(scope))).collect(),
        }
    }

    /// Type byte and bytes.
    fn value(&self, scope: Scope<'_>) -> Result<(u8, Vec<u8>), String> {
        Ok(match self {
            Node::Null => (0x0A, Vec::new()),
            Node::Bool(b) => (0x08, vec![u8::from(*b)]),
            Node::Whole(n) => match i32::try_from(*n) {
                Ok(n) => (0x10, n.to_le_bytes().to_vec()),
                Err(_) => (0x12, n.to_le_bytes().to_vec()),
            },
            Node::Real(n) => (0x01, n.to_le_bytes().to_vec()),
            Node::Text(text) => (0x02, string(&bytes(text, scope)?)?),
            Node::List(items) => (0x04, array(items, |item, _| item.value(scope))?),
            Node::Fields(fields) => match fields.first() {
                Some((name, first)) if name.starts_with('$') => match self.generated(name, first, scope)? {
                    Some(value) => value,
                    None => (0x03, body(fields.iter().map(|(name, value)| (name.as_str(), value)), scope)?),
                },
                _ => (0x03, body(fields.iter().map(|(name, value)| (name.as_str(), value)), scope)?),
            },
        })
    }

    /// A type of extended JSON, or one of our own generators; `None` for a document like any other.
    fn generated(&self, name: &str, first: &Node, scope: Scope<'_>) -> Result<Option<(u8, Vec<u8>)>, String> {
        if TYPES.contains(&name) {
            return typed(&self.json(scope)).map(Some);
        }
        let count = || first.whole().ok_or_else(|| format!("`{name}` wants a whole number"));
        let of = || self.get("of").ok_or_else(|| format!("`{name}` wants an `of`"));
        Ok(Some(match name {
            "$n" => Node::Whole(scope.n + count()?).value(scope)?,
            "$text" => {
                let size = usize::try_from(count()?).map_err(|e| e.to_string())?;
                (0x02, string(&CANARY.bytes().cycle().take(size).collect::<Vec<_>>())?)
            }
            "$times" => {
                let rounds: Vec<i64> = (0..count()?).collect();
                let of = of()?;
                (0x04, array(&rounds, |n, _| of.value(Scope { n: *n, ..scope }))?)
            }
            "$fields" => {
                let (of, mut elements) = (of()?, Vec::new());
                for n in 0..count()? {
                    let (tag, value) = of.value(Scope { n, ..scope })?;
                    element(&mut elements, tag, format!("f{n}").as_bytes(), &value)?;
                }
                (0x03, framed(elements)?)
            }
            "$nested" => {
                let mut value = of()?.value(scope)?;
                for _ in 0..count()? {
                    let mut elements = Vec::new();
                    element(&mut elements, value.0, b"a", &value.1)?;
                    value = (0x03, framed(elements)?);
                }
                value
            }
            _ => return Ok(None),
        }))
    }
}

/// By the driver's own reading of extended JSON.
fn typed(json: &serde_json::Value) -> Result<(u8, Vec<u8>), String> {
    let value: Bson = serde_json::from_value(json.clone()).map_err(|e| format!("{json}: {e}"))?;
    if matches!(value, Bson::Document(_)) {
        return Err(format!("{json} is no value of extended JSON"));
    }
    let mut single = bson::Document::new();
    single.insert("", value);
    let bytes = RawDocumentBuf::try_from(&single).map_err(|e| e.to_string())?.into_bytes();
    // int32 length, type, empty name; at the end a zero
    Ok((bytes[4], bytes[6..bytes.len() - 1].to_vec()))
}

fn filled(text: &str, scope: Scope<'_>) -> String {
    text.replace("{db}", scope.db).replace("{n}", &scope.n.to_string())
}

fn bytes(text: &str, scope: Scope<'_>) -> Result<Vec<u8>, String> {
    let Some(digits) = text.strip_prefix(BYTES) else { return Ok(filled(text, scope).into_bytes()) };
    let pair = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len()).step_by(2).map(|at| pair(at).ok_or_else(|| format!("`{text}` is not hexadecimal"))).collect()
}

fn body<'a>(fields: impl Iterator<Item = (&'a str, &'a Node)>, scope: Scope<'_>) -> Result<Vec<u8>, String> {
    let mut elements = Vec::new();
    for (name, value) in fields {
        let (tag, value) = value.value(scope)?;
        element(&mut elements, tag, &bytes(name, scope)?, &value)?;
    }
    framed(elements)
}

fn array<T>(items: &[T], value: impl Fn(&T, usize) -> Result<(u8, Vec<u8>), String>) -> Result<Vec<u8>, String> {
    let mut elements = Vec::new();
    for (n, item) in items.iter().enumerate() {
        let (tag, value) = value(item, n)?;
        element(&mut elements, tag, n.to_string().as_bytes(), &value)?;
    }
    framed(elements)
}

fn element(into: &mut Vec<u8>, tag: u8, name: &[u8], value: &[u8]) -> Result<(), String> {
    if name.contains(&0) {
        return Err("a name with a zero byte".into());
    }
    into.push(tag);
    into.extend_from_slice(name);
    into.push(0);
    into.extend_from_slice(value);
    Ok(())
}

fn framed(elements: Vec<u8>) -> Result<Vec<u8>, String> {
    Ok([length(elements.len() + 5)?.as_slice(), &elements, &[0]].concat())
}

fn string(bytes: &[u8]) -> Result<Vec<u8>, String> {
    Ok([length(bytes.len() + 1)?.as_slice(), bytes, &[0]].concat())
}

fn length(n: usize) -> Result<[u8; 4], String> {
    i32::try_from(n).map(i32::to_le_bytes).map_err(|e| e.to_string())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_bool<E>(self, b: bool) -> Result<Node, E> {
                Ok(Node::Bool(b))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Node, E> {
                Ok(Node::Whole(n))
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<Node, E> {
                i64::try_from(n).map(Node::Whole).map_err(E::custom)
            }
            fn visit_f64<E>(self, n: f64) -> Result<Node, E> {
                Ok(Node::Real(n))
            }
            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Node::Fields(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[test]
fn a_scenarios_text_says_every_byte() {
    let raw = |text: &str| {
        let nodes = parse(text).unwrap();
        let [Node::Fields(fields)] = nodes.as_slice() else { panic!("{nodes:?}") };
        document(fields, Scope { db: "shop", n: 7 }).unwrap()
    };
    let hex = |text: &str| raw(text).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex("# twice\n{\"a\": 1,\n \"a\": 2}"), "13000000 10610001000000 10610002000000 00".replace(' ', ""));
    assert_eq!(hex(r#"{"$bytes:ff": "$bytes:c328"}"#), "0f000000 02ff00 03000000c32800 00".replace(' ', ""));
    assert_eq!(hex(r#"{"": {"$undefined": true}}"#), "07000000060000");
    let plain = raw(r#"{"a": "{db}.x{n}", "b": {"$n": 1}, "c": {"$times": 2, "of": {"$n": 0}}, "d": {"$nested": 2, "of": 1.0}}"#);
    assert_eq!(plain, bson::rawdoc! {"a": "shop.x7", "b": 8, "c": [0, 1], "d": {"a": {"a": 1.0}}});
    let typed = raw(r#"{"a": {"$numberLong": "1"}, "b": {"$fields": 1, "of": 3000000000}, "c": {"$set": {"x": 1}}, "d": {"$text": 3}}"#);
    assert_eq!(typed, bson::rawdoc! {"a": 1_i64, "b": {"f0": 3_000_000_000_i64}, "c": {"$set": {"x": 1}}, "d": "can"});
    assert!(parse("{\"a\": 1} {\"b\": }").unwrap_err().contains("behind value 1"));
}
