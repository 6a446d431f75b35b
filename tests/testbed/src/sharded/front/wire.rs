//! The wire protocol: messages in and out, as bytes. No document is decoded here.
//!
//! `OP_MSG` with document sequences, and of the legacy messages the one that drivers still greet with (`OP_QUERY`). A
//! checksum is accepted and not looked at; this is a loopback connection. The layout is the protocol's specification's.

use std::io::{Error, ErrorKind, Result};

use mongodb::bson::{RawDocument, RawDocumentBuf};
use tokio::io::{AsyncRead, AsyncReadExt};

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;
const HEADER: usize = 16;
/// Bytes. The servers' own limit for a message, and room for what they add to a reply.
const LONGEST: usize = 64 * 1024 * 1024;
const CHECKSUM_PRESENT: u32 = 1;
const MORE_TO_COME: u32 = 2;

/// Documents that travel beside the command's body (a section of kind 1).
#[derive(Debug, Clone)]
pub struct Sequence {
    pub identifier: String,
    /// One BSON document after another.
    pub documents: Vec<u8>,
}

/// A message as it came.
#[derive(Debug)]
pub struct Message {
    pub id: i32,
    pub body: RawDocumentBuf,
    pub sequences: Vec<Sequence>,
    /// The sender does not wait for an answer.
    pub unanswered: bool,
    /// It is an `OP_QUERY`, and wants to be answered by an `OP_REPLY`.
    pub legacy: bool,
}

/// Reads one message; `None` when the peer has closed between two. Not cancel safe.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Message>> {
    let mut header = [0; HEADER];
    match stream.read_exact(&mut header).await {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let field = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let length = usize::try_from(field(0)).ok().filter(|length| (HEADER..=LONGEST).contains(length));
    let mut rest = vec![0; length.ok_or_else(|| malformed("its length"))? - HEADER];
    stream.read_exact(&mut rest).await?;
    let mut bytes = Bytes(&rest);
    match field(12) {
        OP_MSG => message(field(4), &mut bytes),
        OP_QUERY => query(field(4), &mut bytes),
        _ => Err(malformed("its operation code")),
    }
    .map(Some)
}

fn message(id: i32, bytes: &mut Bytes) -> Result<Message> {
    let flags = bytes.number()?;
    if flags & CHECKSUM_PRESENT != 0 {
        bytes.0 = bytes.0.split_last_chunk::<4>().ok_or_else(|| malformed("its checksum"))?.0;
    }
    let (mut body, mut sequences) = (None, Vec::new());
    while !bytes.0.is_empty() {
        match bytes.take(1)?[0] {
            0 => body = Some(bytes.document()?),
            1 => {
                let size = bytes.number()? as usize;
                let mut section = Bytes(bytes.take(size.checked_sub(4).ok_or_else(|| malformed("a section"))?)?);
                let identifier = section.text()?;
                sequences.push(Sequence { identifier, documents: section.0.to_vec() });
            }
            _ => return Err(malformed("a section's kind")),
        }
    }
    let body = body.ok_or_else(|| malformed("a missing body"))?;
    Ok(Message { id, body, sequences, unanswered: flags & MORE_TO_COME != 0, legacy: false })
}

fn query(id: i32, bytes: &mut Bytes) -> Result<Message> {
    bytes.number()?; // flags
    bytes.text()?; // the collection, `admin.$cmd`
    bytes.take(8)?; // numbers to skip and to return
    Ok(Message { id, body: bytes.document()?, sequences: Vec::new(), unanswered: false, legacy: true })
}

/// A command for a server, or an answer to a client's `OP_MSG`.
pub fn encode(id: i32, response_to: i32, body: &RawDocument, sequences: &[Sequence]) -> Vec<u8> {
    let size: usize = sequences.iter().map(|sequence| 6 + sequence.identifier.len() + sequence.documents.len()).sum();
    let mut bytes = header(id, response_to, OP_MSG, 5 + body.as_bytes().len() + size);
    bytes.extend([0; 4]); // flags
    bytes.push(0);
    bytes.extend(body.as_bytes());
    for sequence in sequences {
        let size = 5 + sequence.identifier.len() + sequence.documents.len();
        bytes.push(1);
        bytes.extend((size as u32).to_le_bytes());
        bytes.extend(sequence.identifier.as_bytes());
        bytes.push(0);
        bytes.extend(&sequence.documents);
    }
    bytes
}

/// An answer to an `OP_QUERY`.
pub fn encode_legacy(id: i32, response_to: i32, body: &RawDocument) -> Vec<u8> {
    let mut bytes = header(id, response_to, OP_REPLY, 20 + body.as_bytes().len());
    bytes.extend(8_u32.to_le_bytes()); // flags: can await
    bytes.extend([0; 8]); // no cursor
    bytes.extend([0; 4]); // from the first document on
    bytes.extend(1_u32.to_le_bytes()); // one document
    bytes.extend(body.as_bytes());
    bytes
}

/// The documents of a sequence.
pub fn documents(mut bytes: &[u8]) -> impl Iterator<Item = Result<&RawDocument>> {
    std::iter::from_fn(move || {
        let mut rest = Bytes(bytes);
        (!bytes.is_empty()).then(|| {
            let document = rest.raw_document();
            bytes = if document.is_ok() { rest.0 } else { &[] };
            document
        })
    })
}

fn header(id: i32, response_to: i32, operation: i32, rest: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + rest);
    bytes.extend(((HEADER + rest) as u32).to_le_bytes());
    for field in [id, response_to, operation] {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not a message of the wire protocol: {what}"))
}

/// What is left to be read of a message.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| malformed("it is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    /// Up to a zero byte.
    fn text(&mut self) -> Result<String> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or_else(|| malformed("a text without end"))?;
        let text = self.take(end + 1)?;
        String::from_utf8(text[..end].to_vec()).map_err(|_| malformed("a text that is not UTF-8"))
    }

    fn raw_document(&mut self) -> Result<&'a RawDocument> {
        let size = self.0.first_chunk::<4>().ok_or_else(|| malformed("a document"))?;
        let bytes = self.take(u32::from_le_bytes(*size) as usize)?;
        RawDocument::from_bytes(bytes).map_err(|_| malformed("a document"))
    }

    fn document(&mut self) -> Result<RawDocumentBuf> {
        self.raw_document().map(RawDocument::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::rawdoc;

    use super::*;

    #[tokio::test]
    async fn what_is_encoded_is_read_back_with_and_without_a_checksum() {
        let (first, second) = (rawdoc! { "_id": 1 }, rawdoc! { "_id": "two" });
        let sequence = Sequence { identifier: "documents".into(), documents: [first.as_bytes(), second.as_bytes()].concat() };
        let body = rawdoc! { "insert": "things", "$db": "shop" };
        let mut bytes = encode(7, 3, &body, std::slice::from_ref(&sequence));
        for checksum in [false, true] {
            if checksum {
                bytes[HEADER] = CHECKSUM_PRESENT as u8;
                bytes.extend([9; 4]);
                let length = (bytes.len() as u32).to_le_bytes();
                bytes[..4].copy_from_slice(&length);
            }
            let message = read(&mut bytes.as_slice()).await.unwrap().unwrap();
            assert_eq!((message.id, message.legacy, message.unanswered), (7, false, false));
            assert_eq!(message.body, body);
            assert_eq!(message.sequences[0].identifier, "documents");
            let read: Vec<_> = documents(&message.sequences[0].documents).map(Result::unwrap).collect();
            assert_eq!(read, [&*first, &*second]);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_and_an_end_is_an_end() {
        assert!(read(&mut [].as_slice()).await.unwrap().is_none());
        let good = encode(1, 0, &rawdoc! { "ping": 1 }, &[]);
        for cut in HEADER..good.len() {
            let mut bytes = good[..cut].to_vec();
            bytes[..4].copy_from_slice(&(cut as u32).to_le_bytes());
            assert!(read(&mut bytes.as_slice()).await.is_err(), "cut to {cut}");
        }
    }
}
