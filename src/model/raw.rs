//! BSON as bytes: walking and building documents without ever decoding a value.
//!
//! Documents may hold what no typed reader accepts: invalid UTF-8, duplicate names, deprecated types. On
//! the path from the source's cursor to the target's write they stay bytes; only element headers are read.
//! Layout: the BSON specification 1.1 (bsonspec.org).

use super::CollectionUuid;
use bson::{RawDocument, RawDocumentBuf};

/// Of a binary that is a UUID, by the BSON specification.
const UUID_SUBTYPE: u8 = 4;

/// Element types that we tell apart.
pub mod tag {
    #![allow(missing_docs, reason = "the names are those of the BSON specification")]
    pub const DOUBLE: u8 = 0x01;
    pub const STRING: u8 = 0x02;
    pub const DOCUMENT: u8 = 0x03;
    pub const ARRAY: u8 = 0x04;
    pub const BINARY: u8 = 0x05;
    pub const UNDEFINED: u8 = 0x06;
    pub const OBJECT_ID: u8 = 0x07;
    pub const BOOL: u8 = 0x08;
    pub const DATE: u8 = 0x09;
    pub const NULL: u8 = 0x0a;
    pub const REGEX: u8 = 0x0b;
    pub const DB_POINTER: u8 = 0x0c;
    pub const CODE: u8 = 0x0d;
    pub const SYMBOL: u8 = 0x0e;
    pub const CODE_WITH_SCOPE: u8 = 0x0f;
    pub const INT32: u8 = 0x10;
    pub const TIMESTAMP: u8 = 0x11;
    pub const INT64: u8 = 0x12;
    pub const DECIMAL: u8 = 0x13;
    pub const MIN_KEY: u8 = 0xff;
    pub const MAX_KEY: u8 = 0x7f;
}

/// One element: type, name and value, all as they lie in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// See [`tag`].
    pub tag: u8,
    /// Without the closing NUL; perhaps not UTF-8.
    pub name: &'a [u8],
    /// As long as its type says.
    pub value: &'a [u8],
}

impl<'a> Element<'a> {
    /// The value, where it is a string of valid UTF-8.
    #[must_use]
    pub fn str(&self) -> Option<&'a str> {
        (self.tag == tag::STRING).then(|| std::str::from_utf8(&self.value[4..self.value.len() - 1]).ok()).flatten()
    }

    /// The value, where it is a document or an array.
    #[must_use]
    pub fn document(&self) -> Option<&'a RawDocument> {
        matches!(self.tag, tag::DOCUMENT | tag::ARRAY).then(|| RawDocument::from_bytes(self.value).ok()).flatten()
    }

    /// The value, where it is a boolean.
    #[must_use]
    pub fn bool(&self) -> Option<bool> {
        (self.tag == tag::BOOL).then(|| self.value[0] != 0)
    }

    /// The value, where it is a number that is one: less its fraction.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self.tag {
            tag::INT32 => Some(i64::from(i32::from_le_bytes(self.value.try_into().ok()?))),
            tag::INT64 => Some(i64::from_le_bytes(self.value.try_into().ok()?)),
            // Not of NaN: a time to live of NaN is for ever on some servers, and none at all on others.
            #[expect(clippy::cast_possible_truncation, reason = "the server writes counts as doubles; they are whole")]
            tag::DOUBLE => Some(f64::from_le_bytes(self.value.try_into().ok()?)).filter(|n| n.is_finite()).map(|n| n as i64),
            _ => None,
        }
    }

    /// The value, where it is a timestamp: (seconds, increment).
    #[must_use]
    pub fn timestamp(&self) -> Option<(u32, u32)> {
        let bits = (self.tag == tag::TIMESTAMP).then(|| u64::from_le_bytes(self.value.try_into().unwrap_or_default()))?;
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the 64 bits")]
        Some(((bits >> 32) as u32, bits as u32))
    }
}

/// Walks the elements of a document or array. Ends early, with [`Elements::broken`] set, at the first byte
/// that makes no sense.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
    broken: bool,
}

/// The elements of `doc`.
#[must_use]
pub fn elements(doc: &RawDocument) -> Elements<'_> {
    let bytes = doc.as_bytes();
    Elements { rest: bytes.get(4..bytes.len().saturating_sub(1)).unwrap_or(&[]), broken: bytes.len() < 5 }
}

impl Elements<'_> {
    /// Whether the walk ended before the document did.
    #[must_use]
    pub fn broken(&self) -> bool {
        self.broken
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let found = split_element(self.rest);
        match found {
            Some((element, rest)) => {
                self.rest = rest;
                Some(element)
            }
            None => {
                self.broken = true;
                self.rest = &[];
                None
            }
        }
    }
}

fn split_element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, after) = bytes.split_first()?;
    let end = after.iter().position(|&b| b == 0)?;
    let (name, body) = (&after[..end], &after[end + 1..]);
    let length = value_length(tag, body)?;
    (length <= body.len()).then(|| (Element { tag, name, value: &body[..length] }, &body[length..]))
}

/// Bytes that a value of this type takes at the head of `body`.
fn value_length(tag: u8, body: &[u8]) -> Option<usize> {
    let prefixed = |extra: usize| {
        let length = i32::from_le_bytes(body.get(..4)?.try_into().ok()?);
        usize::try_from(length).ok()?.checked_add(extra)
    };
    Some(match tag {
        tag::UNDEFINED | tag::NULL | tag::MIN_KEY | tag::MAX_KEY => 0,
        tag::BOOL => 1,
        tag::INT32 => 4,
        tag::DOUBLE | tag::DATE | tag::TIMESTAMP | tag::INT64 => 8,
        tag::OBJECT_ID => 12,
        tag::DECIMAL => 16,
        tag::STRING | tag::CODE | tag::SYMBOL => prefixed(4).filter(|&n| n >= 5)?,
        tag::BINARY => prefixed(5)?,
        tag::DB_POINTER => prefixed(16)?,
        tag::DOCUMENT | tag::ARRAY | tag::CODE_WITH_SCOPE => prefixed(0).filter(|&n| n >= 5)?,
        tag::REGEX => {
            let pattern = body.iter().position(|&b| b == 0)? + 1;
            pattern + body[pattern..].iter().position(|&b| b == 0)? + 1
        }
        _ => return None,
    })
}

/// The first element of that name.
#[must_use]
pub fn get<'a>(doc: &'a RawDocument, name: &str) -> Option<Element<'a>> {
    elements(doc).find(|e| e.name == name.as_bytes())
}

/// Builds a document by appending; nested ones are opened and closed in place.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    open: Vec<usize>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::with_capacity(128)
    }
}

impl Builder {
    /// Empty, with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + 5);
        buffer.extend_from_slice(&[0; 4]);
        Self { bytes: buffer, open: vec![0] }
    }

    fn header(&mut self, tag: u8, name: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
    }

    /// Appends a value as it came.
    pub fn value(&mut self, name: &str, tag: u8, value: &[u8]) -> &mut Self {
        self.header(tag, name.as_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    /// Appends an element as it came, name included.
    pub fn element(&mut self, element: Element<'_>) -> &mut Self {
        self.header(element.tag, element.name);
        self.bytes.extend_from_slice(element.value);
        self
    }

    /// Appends a string.
    pub fn str(&mut self, name: &str, text: &str) -> &mut Self {
        self.header(tag::STRING, name.as_bytes());
        self.bytes.extend_from_slice(&length(text.len() + 1));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self
    }

    /// Appends a collection's identity.
    pub fn uuid(&mut self, name: &str, CollectionUuid(bytes): CollectionUuid) -> &mut Self {
        let mut value = [16, 0, 0, 0, UUID_SUBTYPE].to_vec();
        value.extend_from_slice(&bytes);
        self.value(name, tag::BINARY, &value)
    }

    /// Appends a 32-bit integer.
    pub fn i32(&mut self, name: &str, value: i32) -> &mut Self {
        self.value(name, tag::INT32, &value.to_le_bytes())
    }

    /// Appends a 64-bit integer.
    pub fn i64(&mut self, name: &str, value: i64) -> &mut Self {
        self.value(name, tag::INT64, &value.to_le_bytes())
    }

    /// Appends a boolean.
    pub fn bool(&mut self, name: &str, value: bool) -> &mut Self {
        self.value(name, tag::BOOL, &[u8::from(value)])
    }

    /// Appends a timestamp.
    pub fn timestamp(&mut self, name: &str, t: u32, i: u32) -> &mut Self {
        self.value(name, tag::TIMESTAMP, &(u64::from(t) << 32 | u64::from(i)).to_le_bytes())
    }

    /// Appends a whole document.
    pub fn doc(&mut self, name: &str, doc: &RawDocument) -> &mut Self {
        self.value(name, tag::DOCUMENT, doc.as_bytes())
    }

    /// Opens a document; what follows goes in it until [`Builder::end`].
    pub fn begin(&mut self, name: &str) -> &mut Self {
        self.nest(tag::DOCUMENT, name)
    }

    /// Opens an array; the caller names its elements "0", "1", …
    pub fn begin_array(&mut self, name: &str) -> &mut Self {
        self.nest(tag::ARRAY, name)
    }

    fn nest(&mut self, tag: u8, name: &str) -> &mut Self {
        self.header(tag, name.as_bytes());
        self.open.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
        self
    }

    /// Closes what was opened last.
    pub fn end(&mut self) -> &mut Self {
        self.bytes.push(0);
        if let Some(start) = self.open.pop() {
            let size = length(self.bytes.len() - start);
            self.bytes[start..start + 4].copy_from_slice(&size);
        }
        self
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= 4
    }

    /// Closes everything that is open and gives the document.
    #[must_use]
    pub fn finish(mut self) -> RawDocumentBuf {
        while !self.open.is_empty() {
            self.end();
        }
        from_bytes(self.bytes)
    }
}

fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).expect("no document of ours reaches 2 GiB").to_le_bytes()
}

/// Owned bytes as a document.
///
/// # Panics
/// Where length and closing byte disagree with the bytes: they came from a document, so they do not.
#[must_use]
pub fn from_bytes(bytes: Vec<u8>) -> RawDocumentBuf {
    RawDocumentBuf::from_bytes(bytes).expect("built with its length and closing byte")
}

/// A copy that is no larger than it must be.
#[must_use]
pub fn owned(doc: &RawDocument) -> RawDocumentBuf {
    from_bytes(doc.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;
    use proptest::prelude::*;

    #[test]
    fn builds_what_the_library_builds() {
        let mut b = Builder::default();
        b.str("insert", "c")
            .bool("ordered", false)
            .begin_array("documents")
            .doc("0", &rawdoc! {"_id": 1})
            .end()
            .i64("n", 5)
            .timestamp("ts", 7, 9);
        let theirs = rawdoc! {"insert": "c", "ordered": false, "documents": [{"_id": 1}], "n": 5_i64, "ts": bson::Timestamp { time: 7, increment: 9 }};
        assert_eq!(b.finish(), theirs);
    }

    #[test]
    fn walks_every_type() {
        let mut b = Builder::default();
        let values: [(u8, &[u8]); 12] = [
            (tag::DOUBLE, &[0; 8]),
            (tag::STRING, b"\x02\0\0\0\xff\0"),
            (tag::BINARY, b"\x01\0\0\0\x02z"),
            (tag::UNDEFINED, b""),
            (tag::OBJECT_ID, &[1; 12]),
            (tag::REGEX, b"a\0ix\0"),
            (tag::DB_POINTER, b"\x02\0\0\0a\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            (tag::CODE_WITH_SCOPE, b"\x10\0\0\0\x02\0\0\0a\0\x05\0\0\0\0\0"),
            (tag::DECIMAL, &[9; 16]),
            (tag::MIN_KEY, b""),
            (tag::MAX_KEY, b""),
            (tag::SYMBOL, b"\x01\0\0\0\0"),
        ];
        for (tag, value) in values {
            b.value("same", tag, value);
        }
        let doc = b.finish();
        let mut walk = elements(&doc);
        let seen: Vec<_> = walk.by_ref().map(|e| (e.tag, e.value)).collect();
        assert_eq!(seen, values);
        assert!(!walk.broken());
    }

    proptest! {
        #[test]
        fn never_panics_on_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 5..200)) {
            let n = bytes.len();
            bytes[..4].copy_from_slice(&length(n));
            bytes[n - 1] = 0;
            let doc = from_bytes(bytes);
            for e in elements(&doc) { let _ = (e.str(), e.document(), e.integer(), e.bool(), e.timestamp()); }
        }
    }
}
