//! What a comparison found, in the form that people and scripts get.

use super::compare::MismatchKind;
use crate::{
    accounts::{How, Unequal},
    model::{ClusterTime, DocumentKey, Namespace},
};
use bson::{Bson, Document};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// In what the two sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A document is on the source only.
    Missing,
    /// A document is on the target only.
    Extra,
    /// A document has other bytes.
    Different,
    /// It changed on the source each time we looked, and was never seen equal.
    Unsettled,
    /// Options of a collection, or a view's definition.
    Options,
    /// An index.
    Index,
    /// A shard key, or a zone.
    Sharding,
    /// A collection is on the source only.
    CollectionMissing,
    /// A collection is on the target only.
    CollectionExtra,
}

impl DifferenceKind {
    /// As in the report.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            DifferenceKind::Missing => "missing",
            DifferenceKind::Extra => "extra",
            DifferenceKind::Different => "different",
            DifferenceKind::Unsettled => "unsettled",
            DifferenceKind::Options => "options",
            DifferenceKind::Index => "index",
            DifferenceKind::Sharding => "sharding",
            DifferenceKind::CollectionMissing => "collection_missing",
            DifferenceKind::CollectionExtra => "collection_extra",
        }
    }
}

impl From<MismatchKind> for DifferenceKind {
    fn from(kind: MismatchKind) -> Self {
        match kind {
            MismatchKind::Missing => DifferenceKind::Missing,
            MismatchKind::Extra => DifferenceKind::Extra,
            MismatchKind::Different => DifferenceKind::Different,
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// On the source; of an extra collection, on the target.
    #[serde(serialize_with = "as_text")]
    pub ns: Namespace,
    /// Which kind.
    pub kind: DifferenceKind,
    /// The document's `_id` as relaxed extended JSON, or its bytes in hexadecimal where that cannot be.
    pub id: Option<String>,
    /// In words. Names fields, never values.
    pub detail: String,
    /// The document's key, to look at it again; the target's own where a key of other bytes is the same to the server.
    #[serde(skip)]
    pub key: Option<DocumentKey>,
    /// The index, or the option, that it is about.
    #[serde(skip)]
    pub part: Option<String>,
}

impl Difference {
    /// One that is of no single document.
    pub(super) fn of(kind: DifferenceKind, ns: &Namespace, detail: String) -> Self {
        Self { ns: ns.clone(), kind, id: None, detail, key: None, part: None }
    }
}

/// What was found in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NamespaceReport {
    /// On the source.
    pub ns: String,
    /// On the target.
    pub target_ns: String,
    /// Documents of the source that were compared.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Differences, those not listed included.
    pub differences: u64,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// Collections whose documents were compared.
    pub collections: u64,
    /// Views and time series, compared by their options.
    pub views: u64,
    /// Indexes of the source that were compared.
    pub indexes: u64,
    /// Documents that were looked at again.
    pub rechecked: u64,
    /// Rounds of looking again.
    pub generations: u32,
    /// Whether documents were compared (or, before a seal, counted only).
    pub documents: bool,
    /// Whether documents whose fields are in another order count as different.
    pub field_order: bool,
    /// Whether shard keys and zones were compared: only between two sharded clusters.
    pub sharding: bool,
    /// Whether options that the target gets at the seal were excused.
    pub parked: bool,
}

/// The whole.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of the report's form: 1.
    pub format: u32,
    /// The verdict.
    pub equal: bool,
    /// Documents of the source that were compared.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By the source's name.
    pub namespaces: Vec<NamespaceReport>,
    /// At most as many as the settings allow.
    pub differences: Vec<Difference>,
    /// What is worth knowing, and says nothing against equality.
    pub warnings: Vec<Difference>,
    /// Whether there are more than are listed.
    pub truncated: bool,
    /// The source's time when the comparison began: what was written before it was compared.
    pub source_time: ClusterTime,
    /// How much was looked at.
    pub covered: Covered,
}

impl Report {
    /// With users and roles that differ.
    #[must_use]
    pub fn with_accounts(mut self, unequal: &[Unequal]) -> Self {
        for Unequal { name, how } in unequal {
            let ns = Namespace::new("admin", name.kind.collection());
            let (kind, where_) = match how {
                How::Missing => (DifferenceKind::Missing, "is on the source only"),
                How::Extra => (DifferenceKind::Extra, "is on the target only"),
                How::Different => (DifferenceKind::Different, "differs"),
            };
            let detail = format!("the {} {where_}", name.kind.label());
            match self.namespaces.iter_mut().find(|n| n.ns == ns.as_str()) {
                Some(known) => known.differences += 1,
                None => self.namespaces.push(NamespaceReport {
                    ns: ns.to_string(),
                    target_ns: ns.to_string(),
                    differences: 1,
                    ..NamespaceReport::default()
                }),
            }
            let id = Some(serde_json::Value::from(name.id.as_str()).to_string());
            self.differences.push(Difference { id, ..Difference::of(kind, &ns, detail) });
            self.equal = false;
        }
        self
    }

    /// The report as the command line and the endpoint give it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Gathers a report.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) namespaces: BTreeMap<Namespace, NamespaceReport>,
    pub(super) differences: Vec<Difference>,
    pub(super) warnings: Vec<Difference>,
    /// Mismatches that were found but, for want of room, not looked at again.
    pub(super) overflow: u64,
    pub(super) covered: Covered,
}

impl Draft {
    pub(super) fn namespace(&mut self, ns: &Namespace, target: &Namespace) -> &mut NamespaceReport {
        let fresh = || NamespaceReport { ns: ns.to_string(), target_ns: target.to_string(), ..NamespaceReport::default() };
        self.namespaces.entry(ns.clone()).or_insert_with(fresh)
    }

    pub(super) fn finish(mut self, max_listed: usize, source_time: ClusterTime) -> Report {
        for difference in &self.differences {
            let ns = difference.ns.clone();
            self.namespaces
                .entry(ns.clone())
                .or_insert_with(|| NamespaceReport { ns: ns.to_string(), target_ns: ns.to_string(), ..NamespaceReport::default() })
                .differences += 1;
        }
        let sum = |of: fn(&NamespaceReport) -> u64| self.namespaces.values().map(of).sum();
        let (documents, bytes) = (sum(|n| n.documents), sum(|n| n.bytes));
        let equal = self.differences.is_empty() && self.overflow == 0;
        let truncated = self.differences.len() > max_listed || self.overflow > 0;
        self.differences.truncate(max_listed);
        self.warnings.truncate(max_listed);
        Report {
            format: 1,
            equal,
            documents,
            bytes,
            namespaces: self.namespaces.into_values().collect(),
            differences: self.differences,
            warnings: self.warnings,
            truncated,
            source_time,
            covered: self.covered,
        }
    }
}

/// An `_id` for people.
pub(super) fn id_text(key: &DocumentKey) -> String {
    let decoded = Document::try_from(key.as_raw()).ok().and_then(|d| d.get("_id").cloned());
    match decoded {
        // JSON has no such numbers.
        Some(Bson::Double(n)) if !n.is_finite() => {
            let name = if n.is_nan() {
                "NaN"
            } else if n > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            format!("{{\"$numberDouble\":\"{name}\"}}")
        }
        Some(id) => serde_json::to_string(&id).unwrap_or_else(|_| hex(key)),
        None => hex(key),
    }
}

fn hex(key: &DocumentKey) -> String {
    key.id().value.iter().map(|b| format!("{b:02x}")).collect()
}

fn as_text<S: Serializer>(ns: &Namespace, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(ns.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, doc, rawdoc};
    use serde_json::json;

    #[test]
    fn counts_all_and_lists_a_few() {
        let ns = Namespace::new("d", "c");
        let mut draft = Draft::default();
        draft.namespace(&ns, &Namespace::new("e", "c")).documents = 9;
        draft.differences = vec![Difference::of(DifferenceKind::CollectionExtra, &ns, "x".into()); 3];
        let report = draft.finish(2, ClusterTime { t: 1, i: 2 });
        assert!(!report.equal && report.truncated);
        let json = report.to_json();
        assert_eq!(json["namespaces"], json!([{"ns": "d.c", "target_ns": "e.c", "documents": 9, "bytes": 0, "differences": 3}]));
        assert_eq!(json["differences"][1], json!({"ns": "d.c", "kind": "collection_extra", "id": null, "detail": "x"}));
        assert_eq!((json["format"].clone(), json["differences"].as_array().unwrap().len()), (json!(1), 2));
        assert!(Draft::default().finish(2, ClusterTime::default()).equal);
        let overflown = Draft { overflow: 1, ..Draft::default() };
        assert!(!overflown.finish(2, ClusterTime::default()).equal, "what was not looked at again is not equal");
    }

    #[test]
    fn labels_are_what_is_serialized() {
        for kind in [DifferenceKind::Missing, DifferenceKind::Unsettled, DifferenceKind::CollectionMissing, DifferenceKind::CollectionExtra]
        {
            assert_eq!(json!(kind), json!(kind.label()));
        }
    }

    #[test]
    fn ids_are_extended_json_or_hexadecimal() {
        let text = |id: Bson| id_text(&DocumentKey::new(RawDocumentBuf::try_from(&doc! {"_id": id}).unwrap()).unwrap());
        assert_eq!(text(Bson::Int32(7)), "7");
        assert_eq!(text(Bson::Double(f64::NAN)), r#"{"$numberDouble":"NaN"}"#);
        assert_eq!(text(Bson::String("a".into())), "\"a\"");
        assert_eq!(text(Bson::MaxKey), r#"{"$maxKey":1}"#);
        let mut broken = rawdoc! {"_id": "zz"}.into_bytes();
        broken[13] = 0xff;
        let broken = DocumentKey::new(RawDocumentBuf::from_bytes(broken).unwrap()).unwrap();
        assert_eq!(id_text(&broken), "03000000ff7a00");
    }
}
