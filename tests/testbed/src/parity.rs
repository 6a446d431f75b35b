//! The independent comparison: are two clusters equal, byte for byte?
//!
//! Everything is read from both sides, in full: every document of every selected collection, the collections' options,
//! their indexes, the order of documents in capped collections. Documents are equal when their bytes are, so the order of fields and the width of numbers count.
//! Shares no code with mongoferry's own verification.
//!
//! Both sides should be at rest. Under writes the answer is still true of what was read, but of no one moment. A
//! reading that stops early is an error, never "equal".

mod catalog;
mod describe;
mod documents;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mongodb::Client;
use serde::Serialize;

use crate::Result;
use catalog::{Collection, collections, indexes};

/// Differences listed per namespace and kind; the counts go on.
const LISTED: usize = 1000;

/// What is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    MissingCollection,
    ExtraCollection,
    /// The type or an option of the collection, or its `_id` index.
    ChangedOptions,
    MissingIndex,
    ExtraIndex,
    ChangedIndex,
    MissingDocument,
    ExtraDocument,
    ChangedDocument,
    /// A capped collection's documents stand in another order.
    ChangedOrder,
}

/// One difference; "missing" and "extra" are said of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The source's name; for extra collections the target's.
    pub namespace: String,
    pub kind: Kind,
    /// The document's `_id` in canonical extended JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What exactly, for people.
    pub detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.namespace, self.kind)?;
        if let Some(id) = &self.id {
            write!(f, " _id {id}")?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// What was read of one collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceReport {
    pub namespace: String,
    /// What it is called on the target.
    pub target_namespace: String,
    pub source_documents: u64,
    pub target_documents: u64,
    /// All of them, also those beyond what [`Report::differences`] lists.
    pub differences: u64,
}

/// The verdict with its coverage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub namespaces: Vec<NamespaceReport>,
    /// At most 1,000 of a namespace and kind.
    pub differences: Vec<Difference>,
}

impl Report {
    pub fn is_equal(&self) -> bool {
        self.namespaces.iter().all(|namespace| namespace.differences == 0)
    }

    /// Documents read on the source and the target.
    pub fn documents(&self) -> (u64, u64) {
        let total = |count: fn(&NamespaceReport) -> u64| self.namespaces.iter().map(count).sum();
        (total(|namespace| namespace.source_documents), total(|namespace| namespace.target_documents))
    }
}

/// Selects every collection, under its own name.
pub fn everything(database: &str, collection: &str) -> Option<(String, String)> {
    Some((database.into(), collection.into()))
}

/// Compares what `pick` selects: it answers, for a source's database and collection, their names on the target.
///
/// Never looked at: `admin`, `local`, `config`, `__mdb_internal*`, and `system.*` but for `system.js` and the buckets of
/// time series. A collection of the target is extra if it has no counterpart although its database has some, or
/// although `pick` would give it its own name.
pub async fn compare(source: &Client, target: &Client, pick: impl Fn(&str, &str) -> Option<(String, String)>) -> Result<Report> {
    let on_source = collections(source).await?;
    let mut on_target = collections(target).await?;

    let picked: Vec<_> = on_source
        .into_iter()
        .filter_map(|((database, name), collection)| {
            let image = pick(&database, &name)?;
            Some(((database, name), image, collection))
        })
        .collect();
    let databases: BTreeSet<String> = picked.iter().map(|(_, (database, _), _)| database.clone()).collect();

    let mut report = Report::default();
    for (name, image, collection) in &picked {
        let other = on_target.remove(image);
        let pair = Pair { source, target, name, image };
        pair.compare(Some(collection), other.as_ref(), &mut report).await?;
    }
    for (name, collection) in &on_target {
        let wanted = databases.contains(&name.0) || pick(&name.0, &name.1).as_ref() == Some(name);
        if wanted {
            let pair = Pair { source, target, name, image: name };
            pair.compare(None, Some(collection), &mut report).await?;
        }
    }
    Ok(report)
}

/// Database and collection.
type Name = (String, String);

/// One collection on both sides.
struct Pair<'a> {
    source: &'a Client,
    target: &'a Client,
    name: &'a Name,
    image: &'a Name,
}

impl Pair<'_> {
    async fn compare(&self, here: Option<&Collection>, there: Option<&Collection>, report: &mut Report) -> Result<()> {
        let mut found = Findings::new(format!("{}.{}", self.name.0, self.name.1));
        match (here, there) {
            (Some(_), None) => found.add(Kind::MissingCollection, None, String::new()),
            (None, Some(_)) => found.add(Kind::ExtraCollection, None, String::new()),
            (Some(here), Some(there)) => {
                for detail in describe::fields(&here.entry, &there.entry)? {
                    found.add(Kind::ChangedOptions, None, detail);
                }
                if here.stores_documents && there.stores_documents {
                    self.compare_indexes(&mut found).await?;
                }
            }
            (None, None) => {}
        }
        // A side that is absent reads as empty, so its documents count as missing or extra.
        let read = |side: Option<&Collection>| side.filter(|collection| collection.stores_documents).is_some();
        let counts =
            if read(here) || read(there) { documents::compare(self, here, there, &mut found).await? } else { documents::Counts::default() };
        if counts.source > 0 && here.zip(there).is_some_and(|(here, there)| here.capped && there.capped) {
            documents::compare_order(self, &mut found).await?;
        }
        report.namespaces.push(NamespaceReport {
            namespace: found.namespace,
            target_namespace: format!("{}.{}", self.image.0, self.image.1),
            source_documents: counts.source,
            target_documents: counts.target,
            differences: found.total,
        });
        report.differences.extend(found.listed);
        Ok(())
    }

    async fn compare_indexes(&self, found: &mut Findings) -> Result<()> {
        let here = indexes(self.source, self.name).await?;
        let mut there = indexes(self.target, self.image).await?;
        for (name, index) in &here {
            match there.remove(name) {
                None => found.add(Kind::MissingIndex, None, describe::json(index)),
                Some(other) => {
                    for detail in describe::fields(index, &other)? {
                        found.add(Kind::ChangedIndex, None, format!("{name}: {detail}"));
                    }
                }
            }
        }
        for index in there.values() {
            found.add(Kind::ExtraIndex, None, describe::json(index));
        }
        Ok(())
    }
}

/// The differences of one namespace: all counted, the first of each kind kept.
struct Findings {
    namespace: String,
    total: u64,
    by_kind: BTreeMap<Kind, usize>,
    listed: Vec<Difference>,
}

impl Findings {
    fn new(namespace: String) -> Findings {
        Findings { namespace, total: 0, by_kind: BTreeMap::new(), listed: Vec::new() }
    }

    fn add(&mut self, kind: Kind, id: Option<String>, detail: String) {
        self.total += 1;
        let count = self.by_kind.entry(kind).or_default();
        *count += 1;
        if *count <= LISTED {
            self.listed.push(Difference { namespace: self.namespace.clone(), kind, id, detail });
        }
    }
}
