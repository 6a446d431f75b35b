//! In words: in what two documents differ.

use mongodb::bson::{Document, RawDocument, RawDocumentBuf};

use crate::{Error, Result};

/// Longest value shown, in bytes.
const SHOWN: usize = 200;

/// A document as extended JSON.
pub fn json(document: &RawDocument) -> String {
    match Document::try_from(document) {
        Ok(document) => short(mongodb::bson::Bson::Document(document).into_canonical_extjson().to_string()),
        Err(_) => "not decodable".into(),
    }
}

/// What changed between two documents whose bytes differ.
pub fn documents(here: &RawDocument, there: &RawDocument) -> String {
    match fields(here, there) {
        Err(_) => "not decodable".into(),
        Ok(found) if !found.is_empty() => found.join("; "),
        Ok(_) if here.as_bytes() == there.as_bytes() => "equal when read again".into(),
        Ok(_) => format!("the order of fields: {} became {}", names(here), names(there)),
    }
}

fn names(document: &RawDocument) -> String {
    let names: Vec<_> = document.iter().flatten().map(|(name, _)| name.as_str()).collect();
    names.join(", ")
}

/// The top-level fields that differ in presence or in the bytes of their value; their order does not count here, as
/// servers list options in any order.
pub fn fields(here: &RawDocument, there: &RawDocument) -> Result<Vec<String>> {
    let (ours, theirs) = (split(here)?, split(there)?);
    let mut found = Vec::new();
    for (name, value) in &ours {
        match theirs.iter().find(|(other, _)| other == name) {
            None => found.push(format!("{name} is missing, was {}", json(value))),
            Some((_, other)) if other != value => found.push(format!("{} became {}", json(value), json(other))),
            Some(_) => {}
        }
    }
    for (name, value) in &theirs {
        if !ours.iter().any(|(other, _)| other == name) {
            found.push(format!("{name} is extra: {}", json(value)));
        }
    }
    Ok(found)
}

/// Each field as a document of its own.
fn split(document: &RawDocument) -> Result<Vec<(String, RawDocumentBuf)>> {
    document
        .iter()
        .map(|field| {
            let (name, value) = field.map_err(|error| Error::BadReply(error.to_string()))?;
            let mut single = RawDocumentBuf::new();
            single.append(name, value);
            Ok((name.as_str().to_string(), single))
        })
        .collect()
}

fn short(mut text: String) -> String {
    if text.len() > SHOWN {
        let end = (0..=SHOWN).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
