//! Collections and indexes as the servers list them, less what may rightly differ.

use std::collections::BTreeMap;

use mongodb::Client;
use mongodb::bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::Name;
use super::reader::Reader;
use crate::{Error, Result};

/// A collection, a view or a time series.
pub struct Collection {
    /// Its type, options and `_id` index.
    pub entry: RawDocumentBuf,
    /// Views and time series show what other collections store.
    pub stores_documents: bool,
    /// Sorted by `_id` itself, without an index on it.
    pub clustered: bool,
    /// Its documents stand in the order of their insertion.
    pub capped: bool,
}

/// All user collections, by name.
pub async fn collections(client: &Client) -> Result<BTreeMap<Name, Collection>> {
    let mut found = BTreeMap::new();
    for database in client.list_database_names().await? {
        if matches!(database.as_str(), "admin" | "local" | "config") || database.starts_with("__mdb_internal") {
            continue;
        }
        let command = rawdoc! { "listCollections": 1, "cursor": {} };
        for entry in Reader::open(client, &database, "$cmd.listCollections", command).await?.all().await? {
            let name = entry.get_str("name").map_err(bad)?.to_string();
            if is_data(&name) {
                found.insert((database.clone(), name), collection(&entry)?);
            }
        }
    }
    Ok(found)
}

/// The indexes of a collection, by name.
pub async fn indexes(client: &Client, (database, name): &Name) -> Result<BTreeMap<String, RawDocumentBuf>> {
    let command = rawdoc! { "listIndexes": name.as_str(), "cursor": {} };
    let mut found = BTreeMap::new();
    for index in Reader::open(client, database, name, command).await?.all().await? {
        // A clustered collection itself: not every version lists it alike, and its options tell the same.
        if index.get_bool("clustered").unwrap_or(false) {
            continue;
        }
        let name = index.get_str("name").map_err(bad)?.to_string();
        found.insert(name, comparable(&index)?);
    }
    Ok(found)
}

fn is_data(name: &str) -> bool {
    !name.starts_with("system.") || name == "system.js" || name.starts_with("system.buckets.")
}

fn collection(entry: &RawDocument) -> Result<Collection> {
    let mut kept = RawDocumentBuf::new();
    for field in ["type", "options"] {
        if let Some(value) = entry.get(field).map_err(bad)? {
            kept.append(mongodb::bson::raw::CString::try_from(field)?, value);
        }
    }
    if let Ok(index) = entry.get_document("idIndex") {
        kept.append(mongodb::bson::raw::cstr!("idIndex"), comparable(index)?);
    }
    let options = entry.get_document("options").map_err(bad)?;
    Ok(Collection {
        stores_documents: entry.get_str("type").map_err(bad)? == "collection",
        clustered: options.get("clusteredIndex").map_err(bad)?.is_some(),
        capped: options.get_bool("capped").unwrap_or(false),
        entry: kept,
    })
}

/// Old servers put the namespace into index specifications, and it differs when a collection is renamed on the way. Those
/// before 5.0 keep a time to live in the numeric type it was given in; later ones make an `int` of it.
fn comparable(index: &RawDocument) -> Result<RawDocumentBuf> {
    let mut kept = RawDocumentBuf::new();
    for field in index {
        let (key, value) = field.map_err(bad)?;
        match (key.as_str(), value) {
            ("ns", _) => {}
            ("expireAfterSeconds", RawBsonRef::Int64(seconds)) if i32::try_from(seconds).is_ok() => kept.append(key, seconds as i32),
            ("expireAfterSeconds", RawBsonRef::Double(seconds)) if f64::from(seconds as i32) == seconds => kept.append(key, seconds as i32),
            _ => kept.append(key, value),
        }
    }
    Ok(kept)
}

fn bad(error: impl std::fmt::Display) -> Error {
    Error::BadReply(error.to_string())
}
