//! From the bytes of a change event to a [`ChangeEvent`]: pure and total. Only the header is decoded.
//!
//! Shapes as RAN on 6.0.5 with `showExpandedEvents`, `showRawUpdateDescription` and `showSystemEvents`;
//! the manual's "Change Events" page describes them.

use crate::{
    error::{Error, Result},
    model::{
        Change, ChangeEvent, ClusterTime, CollectionUuid, Ddl, DocumentKey, IndexSpec, Namespace, Position, ResumeToken, Write, WriteOp,
        raw::{self, Element, tag},
    },
};
use bson::{RawDocument, RawDocumentBuf};
use std::collections::HashMap;

/// Names seen, so that an event costs no allocation for its namespace.
#[derive(Debug, Default)]
pub struct Names(HashMap<Vec<u8>, Namespace>);

/// Names kept at most; a source with more simply allocates again.
const MAX_NAMES: usize = 10_000;

impl Names {
    fn namespace(&mut self, ns: &RawDocument) -> Option<Namespace> {
        if let Some(known) = self.0.get(ns.as_bytes()) {
            return Some(known.clone());
        }
        let found = Namespace::new(raw::get(ns, "db")?.str()?, raw::get(ns, "coll")?.str()?);
        if self.0.len() >= MAX_NAMES {
            self.0.clear();
        }
        self.0.insert(ns.as_bytes().to_vec(), found.clone());
        Some(found)
    }
}

#[derive(Default)]
struct Header<'a> {
    id: Option<Element<'a>>,
    operation: Option<&'a str>,
    time: Option<ClusterTime>,
    ns: Option<&'a RawDocument>,
    uuid: Option<CollectionUuid>,
    key: Option<&'a RawDocument>,
    document: Option<&'a RawDocument>,
    diff: Option<&'a RawDocument>,
    description: Option<&'a RawDocument>,
    to: Option<&'a RawDocument>,
}

/// Where documents lie on a sharded cluster, not what there is. RAN on 6.0.5: `shardCollection` and `migrate…`, the
/// latter by `showSystemEvents`; the others come from later servers (their `document_source_change_stream.h`). A
/// collection gets another UUID by `reshardCollection`, which 6.0.5 tells by nothing: see [`super::mongo`].
const PLACEMENT: [&str; 7] = [
    "shardCollection",
    "refineCollectionShardKey",
    "reshardCollection",
    "migrateChunkToNewShard",
    "migrateLastChunkFromShard",
    "reshardBegin",
    "reshardDoneCatchUp",
];

/// # Errors
/// [`Error::Unsupported`] for an operation type we do not replicate; [`Error::Bug`] for an event without
/// what its type must have.
pub fn decode(event: &RawDocument, names: &mut Names) -> Result<ChangeEvent> {
    let mut h = Header::default();
    for e in raw::elements(event) {
        match e.name {
            b"_id" => h.id = Some(e),
            b"operationType" => h.operation = e.str(),
            b"clusterTime" => h.time = e.timestamp().map(|(t, i)| ClusterTime { t, i }),
            b"ns" => h.ns = e.document(),
            b"collectionUUID" => h.uuid = uuid(e),
            b"documentKey" => h.key = e.document(),
            b"fullDocument" => h.document = e.document(),
            b"rawUpdateDescription" => h.diff = e.document(),
            b"operationDescription" => h.description = e.document(),
            b"to" => h.to = e.document(),
            _ => {}
        }
    }
    let operation = h.operation.ok_or_else(|| missing("operationType"))?;
    let token = h.id.and_then(|e| e.document()).ok_or_else(|| missing("_id"))?;
    let time = h.time.ok_or_else(|| missing("clusterTime"))?;
    let position = Position { token: ResumeToken(raw::owned(token)), time };
    let change = change(operation, &h, names)?;
    Ok(ChangeEvent { position, change, bytes: event.as_bytes().len() })
}

fn change(operation: &str, h: &Header<'_>, names: &mut Names) -> Result<Change> {
    if operation == "dropDatabase" {
        let db = h.ns.and_then(|ns| raw::get(ns, "db")).and_then(|e| e.str()).ok_or_else(|| missing("ns.db"))?;
        return Ok(Change::Ddl(Ddl::DropDatabase { db: db.to_owned() }));
    }
    let ns = names.namespace(h.ns.ok_or_else(|| missing("ns"))?).ok_or_else(|| missing("ns.db or ns.coll"))?;
    if ns.is_internal() && operation != "rename" {
        return Ok(Change::Idle);
    }
    if PLACEMENT.contains(&operation) {
        return Ok(Change::Idle);
    }
    let uuid = h.uuid;
    let options = || h.description.map(raw::owned).ok_or_else(|| missing("operationDescription"));
    let op = match operation {
        // A stream that had to leave the documents out, for one that was too large.
        "insert" => h.document.map_or(WriteOp::Reread, |doc| WriteOp::Insert(raw::owned(doc))),
        "replace" => h.document.map_or(WriteOp::Reread, |doc| WriteOp::Replace(raw::owned(doc))),
        "update" => h.diff.map_or(WriteOp::Reread, |diff| WriteOp::Diff(raw::owned(diff))),
        "delete" => WriteOp::Delete,
        "create" => return Ok(Change::Ddl(Ddl::Create { ns, uuid, options: with_id_index(uuid, options()?) })),
        "drop" => return Ok(Change::Ddl(Ddl::Drop { ns, uuid })),
        "rename" => {
            let to = names.namespace(h.to.ok_or_else(|| missing("to"))?).ok_or_else(|| missing("to.db or to.coll"))?;
            let dropped = h.description.and_then(|d| raw::get(d, "dropTarget")).and_then(self::uuid);
            return Ok(Change::Ddl(Ddl::Rename { from: ns, to, uuid, dropped }));
        }
        "createIndexes" => return Ok(Change::Ddl(Ddl::CreateIndexes { ns, uuid, indexes: indexes(&options()?) })),
        "dropIndexes" => {
            let names = indexes(&options()?).iter().map(|i| i.name().to_owned()).collect();
            return Ok(Change::Ddl(Ddl::DropIndexes { ns, uuid, names }));
        }
        "modify" => return Ok(Change::Ddl(Ddl::Modify { ns, uuid, options: options()? })),
        other => {
            return Err(Error::Unsupported {
                what: format!("the operation `{other}` on the source"),
                ns: Some(ns.to_string()),
                hint: "this version does not replicate it; exclude the namespace, or copy again after it: `mongoferry run --restart-from-scratch`".into(),
            });
        }
    };
    // Of a sharded collection it has the fields of the shard key besides, as they were before the event.
    let twins = h.key.is_some_and(|key| raw::elements(key).nth(1).is_some());
    let key = h.key.and_then(DocumentKey::of).ok_or_else(|| missing("documentKey"))?;
    Ok(Change::Write(Write { ns, uuid, key, twins, op }))
}

/// An index on `_id` of version 1 is told by telling of none (RAN on 6.0.5).
fn with_id_index(uuid: Option<CollectionUuid>, options: RawDocumentBuf) -> RawDocumentBuf {
    let known = ["idIndex", "clusteredIndex"].iter().any(|option| raw::get(&options, option).is_some());
    if uuid.is_none() || known {
        return options;
    }
    let mut b = raw::Builder::default();
    for e in raw::elements(&options) {
        b.element(e);
    }
    b.begin("idIndex").i32("v", 1).begin("key").i32("_id", 1).end().str("name", "_id_").end();
    b.finish()
}

fn uuid(e: Element<'_>) -> Option<CollectionUuid> {
    // int32 length, subtype, sixteen bytes
    (e.tag == tag::BINARY && e.value.len() == 21).then(|| CollectionUuid(e.value[5..].try_into().unwrap_or_default()))
}

fn indexes(description: &RawDocumentBuf) -> Vec<IndexSpec> {
    let Some(array) = raw::get(description, "indexes").and_then(|e| e.document()) else { return Vec::new() };
    raw::elements(array).filter_map(|e| e.document()).map(|spec| IndexSpec(raw::owned(spec))).collect()
}

fn missing(field: &str) -> Error {
    Error::Bug(format!("a change event without `{field}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Binary, Timestamp, rawdoc, spec::BinarySubtype};
    use proptest::prelude::*;

    fn uuid_of(byte: u8) -> Binary {
        Binary { subtype: BinarySubtype::Uuid, bytes: vec![byte; 16] }
    }
    fn event(operation: &str, rest: RawDocumentBuf) -> RawDocumentBuf {
        let mut b = raw::Builder::default();
        let head = rawdoc! {"_id": {"_data": "82"}, "operationType": operation, "clusterTime": Timestamp { time: 7, increment: 2 }, "ns": {"db": "shop", "coll": "a.b"}, "collectionUUID": uuid_of(1)};
        for e in raw::elements(&head).chain(raw::elements(&rest)) {
            b.element(e);
        }
        b.finish()
    }
    fn decoded(operation: &str, rest: RawDocumentBuf) -> Change {
        decode(&event(operation, rest), &mut Names::default()).unwrap().change
    }

    #[test]
    fn an_update_carries_its_raw_diff() {
        let change = decoded("update", rawdoc! {"documentKey": {"_id": 1}, "rawUpdateDescription": {"$v": 2, "diff": {"u": {"a": 1}}}});
        let Change::Write(Write { ns, uuid, op: WriteOp::Diff(diff), .. }) = change else { panic!("{change:?}") };
        assert_eq!((ns.as_str(), uuid), ("shop.a.b", Some(CollectionUuid([1; 16]))));
        assert_eq!(diff, rawdoc! {"$v": 2, "diff": {"u": {"a": 1}}});
    }

    #[test]
    fn a_document_is_known_by_its_id_wherever_it_lies() {
        let change = decoded("delete", rawdoc! {"documentKey": {"n": 5, "_id": "x"}});
        let Change::Write(Write { key, .. }) = change else { panic!("{change:?}") };
        assert_eq!(key.as_raw(), &*rawdoc! {"_id": "x"});
    }

    #[test]
    fn an_update_without_one_is_read_again() {
        assert!(matches!(decoded("update", rawdoc! {"documentKey": {"_id": 1}}), Change::Write(Write { op: WriteOp::Reread, .. })));
    }

    #[test]
    fn a_rename_tells_whom_it_replaced() {
        let change = decoded("rename", rawdoc! {"to": {"db": "shop", "coll": "z"}, "operationDescription": {"dropTarget": uuid_of(9)}});
        let Change::Ddl(Ddl::Rename { to, dropped, .. }) = change else { panic!("{change:?}") };
        assert_eq!((to.as_str(), dropped), ("shop.z", Some(CollectionUuid([9; 16]))));
    }

    #[test]
    fn an_index_on_id_that_is_not_told_is_of_version_1() {
        let options = |description: RawDocumentBuf| {
            let change = decoded("create", rawdoc! {"operationDescription": description});
            let Change::Ddl(Ddl::Create { options, .. }) = change else { panic!("{change:?}") };
            options
        };
        assert_eq!(options(rawdoc! {"capped": true}), rawdoc! {"capped": true, "idIndex": {"v": 1, "key": {"_id": 1}, "name": "_id_"}});
        for told in [rawdoc! {"idIndex": {"v": 2}}, rawdoc! {"clusteredIndex": true}] {
            assert_eq!(options(told.clone()), told);
        }
    }

    #[test]
    fn what_we_do_not_know_is_refused_by_name() {
        let error = decode(&event("startIndexBuild", rawdoc! {}), &mut Names::default()).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { what, ns: Some(ns), .. } if what.contains("startIndexBuild") && ns == "shop.a.b"));
    }

    #[test]
    fn where_documents_lie_changes_nothing() {
        for operation in PLACEMENT {
            assert!(matches!(decoded(operation, rawdoc! {"operationDescription": {"shardId": "shard1"}}), Change::Idle), "{operation}");
        }
    }

    #[test]
    fn the_servers_own_namespaces_are_passed_over() {
        let own = rawdoc! {"_id": {"_data": "82"}, "operationType": "insert", "clusterTime": Timestamp { time: 1, increment: 1 }, "ns": {"db": "__mdb_internal_x", "coll": "a"}};
        assert!(matches!(decode(&own, &mut Names::default()).unwrap().change, Change::Idle));
    }

    proptest! {
        #[test]
        fn never_panics_on_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 5..300)) {
            let n = i32::try_from(bytes.len()).unwrap().to_le_bytes();
            bytes[..4].copy_from_slice(&n);
            *bytes.last_mut().unwrap() = 0;
            let _ = decode(&raw::from_bytes(bytes), &mut Names::default());
        }
    }
}
