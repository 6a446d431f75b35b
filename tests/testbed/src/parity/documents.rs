//! Pairing the documents of one collection.
//!
//! Both sides are read in `_id` order, batch by batch in step. A document waits, as the hash of its bytes, until the one
//! with the same `_id` comes from the other side; who still waits at the end is missing or extra. That needs no
//! knowledge of how the server orders values (collations, mixed types), and memory only for how far the sides drift
//! apart. `_id`s are paired by their bytes: an `_id` that turned from int to long counts as one missing and one extra.

use std::collections::{HashMap, HashSet};

use mongodb::Client;
use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};
use mongodb::raw_batch_cursor::RawBatch;
use xxhash_rust::xxh3::xxh3_128;

use super::catalog::Collection;
use super::reader::Reader;
use super::{Findings, Kind, Name, Pair, describe};
use crate::{Error, Result};

/// Changed documents that are read again to say what changed.
const DESCRIBED: usize = 20;

/// Documents read.
#[derive(Debug, Default)]
pub struct Counts {
    pub source: u64,
    pub target: u64,
}

/// An `_id`: its type byte and the bytes of its value.
type Id = Box<[u8]>;
type Waiting = HashMap<Id, u128>;

pub async fn compare(pair: &Pair<'_>, here: Option<&Collection>, there: Option<&Collection>, found: &mut Findings) -> Result<Counts> {
    let mut source = open(pair.source, pair.name, here).await?;
    let mut target = open(pair.target, pair.image, there).await?;
    let mut counts = Counts::default();
    let mut changed = Vec::new();
    let (mut only_source, mut only_target) = (Waiting::new(), Waiting::new());
    loop {
        let (left, right) = tokio::try_join!(source.next(), target.next())?;
        if left.is_none() && right.is_none() {
            break;
        }
        counts.source += take(left, &found.namespace, &mut only_source, &mut only_target, &mut changed)?;
        counts.target += take(right, &found.namespace, &mut only_target, &mut only_source, &mut changed)?;
    }

    changed.sort();
    for (n, id) in changed.iter().enumerate() {
        let detail = if n < DESCRIBED { what_changed(pair, id).await? } else { String::new() };
        found.add(Kind::ChangedDocument, Some(show(id)), detail);
    }
    for (kind, waiting) in [(Kind::MissingDocument, only_source), (Kind::ExtraDocument, only_target)] {
        let mut ids: Vec<Id> = waiting.into_keys().collect();
        ids.sort();
        for id in ids {
            found.add(kind, Some(show(&id)), String::new());
        }
    }
    Ok(counts)
}

/// Compares the order in which both sides give their documents. Said once, at the first place where it differs.
pub async fn compare_order(pair: &Pair<'_>, found: &mut Findings) -> Result<()> {
    let (source, target) = tokio::try_join!(order(pair.source, pair.name), order(pair.target, pair.image))?;
    // Where a document is missing, the order of the others is not the question.
    let same_documents = source.len() == target.len() && source.iter().collect::<HashSet<_>>() == target.iter().collect();
    if let Some(at) = source.iter().zip(&target).position(|(here, there)| here != there).filter(|_| same_documents) {
        let detail = format!("the document at place {at} stands elsewhere");
        found.add(Kind::ChangedOrder, Some(show(&source[at])), detail);
    }
    Ok(())
}

/// The `_id`s as they stand there.
async fn order(client: &Client, (database, name): &Name) -> Result<Vec<Id>> {
    let command = rawdoc! {
        "find": name.as_str(),
        "hint": { "$natural": 1 },
        "projection": { "_id": 1 },
        "readConcern": { "level": "majority" },
    };
    let mut ids = Vec::new();
    let mut reader = Reader::open(client, database, name, command).await?;
    while let Some(batch) = reader.next().await? {
        for value in batch.doc_slices()? {
            ids.extend(value.ok().and_then(|value| id(value.as_document()?)));
        }
    }
    Ok(ids)
}

async fn open(client: &Client, (database, name): &Name, collection: Option<&Collection>) -> Result<Reader> {
    let mut command = rawdoc! {
        "find": name.as_str(),
        "sort": { "_id": 1 },
        "allowDiskUse": true,
        "batchSize": 5000,
        "noCursorTimeout": true,
        "readConcern": { "level": "majority" },
    };
    // A clustered collection has no index to hint at, and neither has one that does not exist.
    if collection.is_some_and(|collection| collection.stores_documents && !collection.clustered) {
        command.append(mongodb::bson::raw::cstr!("hint"), rawdoc! { "_id": 1 });
    }
    Reader::open(client, database, name, command).await
}

/// Takes one side's batch: pairs what can be paired, lets the rest wait. Answers the number of documents.
fn take(batch: Option<RawBatch>, namespace: &str, own: &mut Waiting, other: &mut Waiting, changed: &mut Vec<Id>) -> Result<u64> {
    let Some(batch) = batch else { return Ok(0) };
    let mut count = 0;
    let broken = |reason: String| Error::ShortRead { namespace: namespace.into(), reason };
    for value in batch.doc_slices()? {
        let value = value.map_err(|error| broken(error.to_string()))?;
        let document = value.as_document().ok_or_else(|| broken("an item is no document".into()))?;
        let id = id(document).ok_or_else(|| broken("a document without _id".into()))?;
        let hash = xxh3_128(document.as_bytes());
        count += 1;
        match other.remove(&id) {
            Some(same) if same == hash => {}
            Some(_) => changed.push(id),
            None if own.insert(id, hash).is_some() => return Err(broken("the same _id twice".into())),
            None => {}
        }
    }
    Ok(count)
}

/// The type and value of `_id` as they stand in the document.
fn id(document: &RawDocument) -> Option<Id> {
    let mut offset = 4;
    for element in document.iter_elements() {
        let element = element.ok()?;
        let value = offset + 1 + element.key().as_str().len() + 1;
        let end = value + element.size();
        if element.key().as_str() == "_id" {
            let bytes = document.as_bytes();
            return Some([&bytes[offset..=offset], &bytes[value..end]].concat().into());
        }
        offset = end;
    }
    None
}

/// A document that has this `_id` and nothing else.
fn id_document(id: &Id) -> Option<RawDocumentBuf> {
    let length = i32::try_from(4 + 1 + 4 + id.len()).ok()?;
    let bytes = [&length.to_le_bytes(), &id[..1], b"_id\0", &id[1..], b"\0"].concat();
    RawDocumentBuf::from_bytes(bytes).ok()
}

/// Extended JSON, or hexadecimal digits for what has none (broken UTF-8).
fn show(id: &Id) -> String {
    let decoded = id_document(id).and_then(|document| mongodb::bson::Document::try_from(document.as_ref()).ok());
    match decoded.and_then(|mut document| document.remove("_id")) {
        Some(value) => value.into_canonical_extjson().to_string(),
        None => id.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

async fn what_changed(pair: &Pair<'_>, id: &Id) -> Result<String> {
    let (source, target) = tokio::try_join!(read_one(pair.source, pair.name, id), read_one(pair.target, pair.image, id))?;
    match (source, target) {
        (Some(source), Some(target)) => Ok(describe::documents(&source, &target)),
        _ => Ok("gone since it was read".into()),
    }
}

async fn read_one(client: &Client, (database, name): &Name, id: &Id) -> Result<Option<RawDocumentBuf>> {
    let Some(document) = id_document(id) else { return Ok(None) };
    let Ok(Some(value)) = document.get("_id") else { return Ok(None) };
    let mut equal = RawDocumentBuf::new();
    equal.append(mongodb::bson::raw::cstr!("$eq"), value);
    let command = rawdoc! {
        "find": name.as_str(),
        "filter": { "_id": equal },
        "limit": 1,
        "readConcern": { "level": "majority" },
    };
    Ok(Reader::open(client, database, name, command).await?.all().await?.pop())
}
