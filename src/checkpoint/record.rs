//! The saved forms, pinned by tests: the migration's record typed, collections and partitions raw, since
//! options, index specifications and `_id`s are.

use crate::{
    catalog::{Entry, State},
    model::{
        Activity, ClusterTime, CollectionKind, CollectionUuid, Fingerprint, IndexSpec, KeptSettings, Namespace, Partition, PartitionId,
        Phase, Position, ResumeToken, raw,
    },
};
use bson::{Document, RawDocument, RawDocumentBuf};
use serde::{Deserialize, Serialize};

/// Grows when a saved form changes its meaning; a newer one is refused.
pub const FORMAT: u32 = 1;

/// The record of a migration: one document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Identity of this migration, made at its first start.
    pub id: String,
    /// What may not change.
    pub fingerprint: Fingerprint,
    /// How far the data has come.
    pub phase: Phase,
    /// Whether we are at work.
    pub activity: Activity,
    /// Operation time of the source before anything was read.
    pub start_at: ClusterTime,
    /// Operation time of the source after its collections were listed.
    pub listed_until: ClusterTime,
    /// Resume token of the saved resume point; nothing before the stream was first open.
    pub resume_token: Option<Document>,
    /// Its cluster time.
    pub resume_time: ClusterTime,
    /// Whether the user write block of the source is ours to lift.
    pub fenced: bool,
    /// What the last cutover was about to do, by its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What a way back begins with; saved by the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// Which migration this one is the way back of; none for one that began with a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<WayBack>,
    /// What an operator has set while it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<KeptSettings>,
}

/// The moment at which the target was handed to the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Cluster time of the *target*: nobody but us has written to it before, and whoever writes to it later, does so
    /// at a later time.
    pub at: ClusterTime,
    /// Whether the operator wants the way back to begin at once.
    pub then_reverse: bool,
    /// Indexes that the target does without: see [`crate::model::index_title`].
    #[serde(default)]
    pub waived: Vec<String>,
}

/// A migration that follows the new primary cluster back to the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayBack {
    /// Identity of the migration whose commit it began with.
    pub of: String,
    /// How often the direction has changed since the first migration: of two records the newer has more.
    pub turn: u32,
    /// Whether users are kept from writing to the target by a block that is ours to lift at the commit.
    pub target_fenced: bool,
}

impl Record {
    /// How often the direction has changed: 0 for a migration that began with a copy.
    #[must_use]
    pub fn turn(&self) -> u32 {
        self.way_back.as_ref().map_or(0, |way| way.turn)
    }

    /// The saved resume point.
    #[must_use]
    pub fn resume_point(&self) -> Option<Position> {
        let token = RawDocumentBuf::try_from(self.resume_token.as_ref()?).ok()?;
        Some(Position { token: ResumeToken(token), time: self.resume_time })
    }
}

pub(super) fn uuid(doc: &RawDocument, name: &str) -> Option<CollectionUuid> {
    raw::get(doc, name)?.value.get(5..21)?.try_into().ok().map(CollectionUuid)
}

fn text<'a>(doc: &'a RawDocument, name: &str) -> Option<&'a str> {
    raw::get(doc, name)?.str()
}

fn document(doc: &RawDocument, name: &str) -> Option<RawDocumentBuf> {
    raw::get(doc, name)?.document().map(raw::owned)
}

fn count(doc: &RawDocument, name: &str) -> Option<u64> {
    raw::get(doc, name)?.integer()?.try_into().ok()
}

fn kind_label(kind: CollectionKind) -> &'static str {
    match kind {
        CollectionKind::Collection => "collection",
        CollectionKind::View => "view",
        CollectionKind::TimeSeries => "timeseries",
    }
}

/// A collection as saved.
pub(super) fn from_entry(entry: &Entry) -> RawDocumentBuf {
    let mut b = raw::Builder::with_capacity(512);
    b.uuid("_id", entry.uuid);
    b.str("ns", entry.ns.as_str()).str("target", entry.target.as_str());
    if let Some(uuid) = entry.target_uuid {
        b.uuid("target_uuid", uuid);
    }
    b.str("kind", kind_label(entry.kind)).bool("capped", entry.capped).str("state", entry.state.label());
    if entry.repeats {
        b.bool("repeats", true);
    }
    b.timestamp("known_at", entry.known_at.t, entry.known_at.i).timestamp("read_from", entry.read_from.t, entry.read_from.i);
    b.doc("options", &entry.options);
    b.begin_array("indexes");
    for (n, spec) in entry.indexes.values().enumerate() {
        b.doc(&n.to_string(), &spec.0);
    }
    b.end();
    b.finish()
}

/// And back; `None` where it is none of ours.
pub(super) fn to_entry(doc: &RawDocument) -> Option<Entry> {
    let kind = match text(doc, "kind")? {
        "view" => CollectionKind::View,
        "timeseries" => CollectionKind::TimeSeries,
        _ => CollectionKind::Collection,
    };
    let time = |name| raw::get(doc, name)?.timestamp().map(|(t, i)| ClusterTime { t, i });
    let specs = raw::get(doc, "indexes")?.document()?;
    let specs = raw::elements(specs).filter_map(|e| e.document()).map(|d| IndexSpec(raw::owned(d)));
    Some(Entry {
        uuid: uuid(doc, "_id")?,
        ns: Namespace::parse(text(doc, "ns")?)?,
        target: Namespace::parse(text(doc, "target")?)?,
        target_uuid: uuid(doc, "target_uuid"),
        kind,
        capped: raw::get(doc, "capped")?.bool()?,
        repeats: raw::get(doc, "repeats").and_then(|e| e.bool()).unwrap_or(false),
        state: State::parse(text(doc, "state")?)?,
        known_at: time("known_at")?,
        read_from: time("read_from")?,
        options: document(doc, "options")?,
        indexes: specs.map(|spec| (spec.name().to_owned(), spec)).collect(),
        built: std::collections::BTreeSet::new(),
        failed: std::collections::BTreeMap::new(),
    })
}

/// A partition as saved.
pub(super) fn from_partition(p: &Partition) -> RawDocumentBuf {
    let mut b = raw::Builder::with_capacity(256);
    b.begin("_id");
    b.uuid("collection", p.id.collection);
    b.i64("number", i64::from(p.id.number)).end();
    for (name, bound) in [("min", &p.min), ("max", &p.max), ("after", &p.after)] {
        if let Some(bound) = bound {
            b.doc(name, bound);
        }
    }
    b.bool("done", p.done).i64("documents", p.documents.cast_signed()).i64("bytes", p.bytes.cast_signed());
    b.finish()
}

/// And back; `None` where it is none of ours.
pub(super) fn to_partition(doc: &RawDocument) -> Option<Partition> {
    let id = raw::get(doc, "_id")?.document()?;
    Some(Partition {
        id: PartitionId { collection: uuid(id, "collection")?, number: count(id, "number")?.try_into().ok()? },
        min: document(doc, "min"),
        max: document(doc, "max"),
        after: document(doc, "after"),
        done: raw::get(doc, "done")?.bool()?,
        documents: count(doc, "documents")?,
        bytes: count(doc, "bytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_partition_comes_back_as_it_was_saved_whatever_its_keys() {
        let mut id = raw::Builder::default();
        id.value("_id", raw::tag::STRING, b"\x03\0\0\0\xff\xfe\0");
        let p = Partition {
            id: PartitionId { collection: CollectionUuid([7; 16]), number: 3 },
            min: Some(rawdoc! {"_id": bson::RawBson::MinKey}),
            max: Some(id.finish()),
            after: None,
            done: false,
            documents: 5,
            bytes: 900,
        };
        let back = to_partition(&from_partition(&p)).unwrap();
        assert_eq!((back.id, back.min, back.max, back.after, back.documents), (p.id, p.min, p.max, p.after, 5));
    }

    #[test]
    fn a_collection_comes_back_as_it_was_saved() {
        let entry = Entry {
            uuid: CollectionUuid([1; 16]),
            ns: Namespace::new("shop", "a.b"),
            target: Namespace::new("store", "a.b"),
            target_uuid: Some(CollectionUuid([2; 16])),
            kind: CollectionKind::Collection,
            capped: true,
            repeats: true,
            state: State::Copying,
            known_at: ClusterTime { t: 5, i: 6 },
            read_from: ClusterTime { t: 7, i: 8 },
            options: rawdoc! {"capped": true, "size": 4096},
            indexes: [("a_1".to_owned(), IndexSpec(rawdoc! {"v": 2, "key": {"a": 1}, "name": "a_1", "unique": true}))].into(),
            built: ["a_1".to_owned()].into(),
            failed: std::collections::BTreeMap::new(),
        };
        let back = to_entry(&from_entry(&entry)).unwrap();
        assert_eq!((back.ns, back.target_uuid, back.indexes), (entry.ns, entry.target_uuid, entry.indexes));
        assert_eq!((back.known_at, back.read_from, back.repeats), (entry.known_at, entry.read_from, true));
        assert!(back.built.is_empty(), "what is built is found by looking");
    }

    #[test]
    fn the_wire_form_of_the_record_is_pinned() {
        let record = Record {
            format: FORMAT,
            id: "m".into(),
            fingerprint: Fingerprint {
                source: "s".into(),
                target: "t".into(),
                include: vec![],
                exclude: vec![],
                rename: vec![],
                shard: vec![],
                inverse: false,
            },
            phase: Phase::Tailing,
            activity: Activity::Running,
            start_at: ClusterTime { t: 1, i: 2 },
            listed_until: ClusterTime { t: 3, i: 4 },
            resume_token: None,
            resume_time: ClusterTime { t: 1, i: 2 },
            fenced: false,
            step: None,
            handover: None,
            way_back: None,
            settings: None,
        };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"format":1,"id":"m","fingerprint":{"source":"s","target":"t","include":[],"exclude":[],"rename":[]},"phase":{"phase":"tailing"},"activity":{"activity":"running"},"start_at":{"t":1,"i":2},"listed_until":{"t":3,"i":4},"resume_token":null,"resume_time":{"t":1,"i":2},"fenced":false}"#
        );
    }

    #[test]
    fn a_record_of_before_the_way_back_is_still_read() {
        let old = r#"{"format":1,"id":"m","fingerprint":{"source":"s","target":"t","include":[],"exclude":[],"rename":[]},"phase":{"phase":"committed","fence":{"t":1,"i":1}},"activity":{"activity":"running"},"start_at":{"t":1,"i":2},"listed_until":{"t":3,"i":4},"resume_token":null,"resume_time":{"t":1,"i":2},"fenced":true}"#;
        let record: Record = serde_json::from_str(old).unwrap();
        assert_eq!((record.turn(), record.handover, record.way_back), (0, None, None));
    }
}
