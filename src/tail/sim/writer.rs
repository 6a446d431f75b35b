//! The application: random changes to the source.

use crate::{
    model::{Namespace, raw},
    source::memory::{MemorySource, Moment},
};
use bson::{RawBson, RawDocument, RawDocumentBuf, rawdoc};
use rand::{Rng, rngs::StdRng};

const FIELDS: [&str; 4] = ["a", "b", "c", "d"];

/// One change, or a transaction of a few: changes of documents, and creations. `restless`: how often the structure changes.
pub(super) fn write(source: &MemorySource, r: &mut StdRng, restless: f64) {
    if r.random_bool(restless) {
        return structure(source, r);
    }
    source.write(|now| {
        let changes = if r.random_bool(0.15) { r.random_range(2..6) } else { 1 };
        for _ in 0..changes {
            change(now, r);
        }
    });
}

fn structure(source: &MemorySource, r: &mut StdRng) {
    let ns = name(r);
    match r.random_range(0..9) {
        0..2 => drop(source.write(|now| now.create(&ns, options(r)))),
        2..5 => drop(source.write(|now| now.rename(&ns, &name(r)))),
        5..7 => drop(source.write(|now| now.drop_collection(&ns))),
        // Dropped and made again.
        _ => {
            source.write(|now| now.drop_collection(&ns));
            source.write(|now| now.create(&ns, options(r)));
        }
    }
}

/// Some collections with some documents.
pub(super) fn begin(source: &MemorySource, r: &mut StdRng) {
    for _ in 0..r.random_range(0..5) {
        source.write(|now| now.create(&name(r), options(r)));
    }
    for _ in 0..r.random_range(0..60) {
        let ns = name(r);
        source.write(|now| now.put(&ns, document(r)));
    }
}

fn name(r: &mut StdRng) -> Namespace {
    Namespace::new(["p", "q"][r.random_range(0..2)], ["x", "y"][r.random_range(0..2)])
}

/// Now and then a collation, which makes all keys of the collection one.
fn options(r: &mut StdRng) -> RawDocumentBuf {
    if r.random_bool(0.2) {
        rawdoc! {"collation": {"locale": "de"}}
    } else {
        RawDocumentBuf::new()
    }
}

fn id(r: &mut StdRng) -> RawBson {
    let n = r.random_range(0..8);
    match r.random_range(0..10) {
        0 => RawBson::Int64(n),
        1 => RawBson::Double(f64::from(i32::try_from(n).unwrap())),
        2 => RawBson::String(format!("k{n}")),
        _ => RawBson::Int32(i32::try_from(n).unwrap()),
    }
}

fn document(r: &mut StdRng) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    b.element(raw::get(&rawdoc! {"_id": id(r)}, "_id").unwrap());
    let first = r.random_range(0..FIELDS.len());
    for n in 0..r.random_range(0..3) {
        b.i32(FIELDS[(first + n) % FIELDS.len()], r.random_range(0..1_000));
    }
    b.finish()
}

fn change(now: &mut Moment<'_>, r: &mut StdRng) {
    let ns = name(r);
    match r.random_range(0..100) {
        0..35 => {
            if now.named(&ns).is_none() {
                now.create(&ns, options(r));
            }
            now.put(&ns, document(r));
        }
        35..80 => with_id(r, |id, r| {
            let there = now.named(&ns).and_then(|uuid| now.state()[&uuid].documents.get(id).cloned());
            if let Some(doc) = there {
                now.diff(&ns, id, &diff(&doc, r));
            }
        }),
        _ => with_id(r, |id, _| now.delete(&ns, id)),
    }
}

fn with_id(r: &mut StdRng, f: impl FnOnce(raw::Element<'_>, &mut StdRng)) {
    let doc = rawdoc! {"_id": id(r)};
    f(raw::get(&doc, "_id").unwrap(), r);
}

/// As the server writes them: `u` for a field that is there, `i` for one that is not, and each value absolute.
fn diff(doc: &RawDocument, r: &mut StdRng) -> RawDocumentBuf {
    let (mut deleted, mut updated, mut inserted) = (raw::Builder::default(), raw::Builder::default(), raw::Builder::default());
    let first = r.random_range(0..FIELDS.len());
    for n in 0..r.random_range(1..3) {
        let field = FIELDS[(first + n) % FIELDS.len()];
        match (raw::get(doc, field).is_some(), r.random_bool(0.3)) {
            (true, true) => drop(deleted.bool(field, false)),
            (true, false) => drop(updated.i32(field, r.random_range(0..1_000))),
            (false, _) => drop(inserted.i32(field, r.random_range(0..1_000))),
        }
    }
    rawdoc! {"d": deleted.finish(), "u": updated.finish(), "i": inserted.finish()}
}
