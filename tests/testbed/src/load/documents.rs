//! The documents of the load, 300 bytes to 2 KB, and their `_id`s.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc};
use rand::Rng;
use rand::rngs::StdRng;

use crate::text;

/// The `_id`s of the documents that all workers update.
pub fn hot_ids() -> impl Iterator<Item = Bson> {
    (0..6).map(|n| format!("hot {n}").into())
}

/// A new `_id`: an ObjectId, an int, a long, a string or a document. Unique for a worker, its counter and a seed, but
/// for the ints, which other runs may have used.
pub fn id(rng: &mut StdRng, worker: u32, counter: u32) -> Bson {
    let both = counter.wrapping_mul(64).wrapping_add(worker % 64);
    match rng.random_range(0..10) {
        0..4 => ObjectId::from_bytes(rng.random()).into(),
        4..6 => Bson::Int32((both & 0x7fff_ffff) as i32),
        6 => Bson::Int64(rng.random()),
        7 | 8 => format!("{:016x}-{worker}-{counter}", rng.random::<u64>()).into(),
        _ => doc! { "tenant": rng.random_range(0..100), "n": rng.random::<i64>() }.into(),
    }
}

/// All of a document but its `_id`. The arrays `items`, `log` and `grid` and the numbers are always there, so that no
/// update of [`updates`](super::updates) can fail on a document of this shape or one changed by the others.
pub fn body(rng: &mut StdRng) -> Document {
    let items: Vec<_> = (0..rng.random_range(1..6)).map(|_| Bson::Document(item(rng))).collect();
    let log: Vec<i32> = (0..rng.random_range(0..10)).map(|_| rng.random_range(0..1000)).collect();
    let mut document = doc! {
        "rev": 0,
        "name": text::words(rng, 24),
        "price": f64::from(rng.random_range(0..100_000)) / 100.0,
        "stock": rng.random::<i64>(),
        "created": DateTime::from_millis(1_600_000_000_000 + rng.random_range(0..200_000_000_000)),
        "active": rng.random::<bool>(),
        "note": null,
        "profile": {
            "address": { "city": text::words(rng, 10), "zip": rng.random_range(10_000..99_999), "geo": [1.5, -0.25] },
            "counters": { "visits": 0, "clicks": 0_i64 },
        },
        "days": { "0": 1, "1": 2, "10": 3 },
        "items": items,
        "log": log,
        "grid": [[1, 2], [3, 4]],
    };
    match rng.random_range(0..4) {
        0 => _ = document.insert("odd", doc! { "dotted.name": 1, "": "empty", "ünïcode": [null, { "a.b": 2 }] }),
        1 => {
            let bytes = (0..32).map(|_| rng.random()).collect();
            document.insert("key", Binary { subtype: BinarySubtype::Generic, bytes });
        }
        _ => {}
    }
    let length = rng.random_range(0..1300);
    document.insert("text", text::words(rng, length));
    document
}

/// A whole document.
pub fn document(rng: &mut StdRng, id: Bson) -> Document {
    let mut document = doc! { "_id": id };
    document.extend(body(rng));
    document
}

fn item(rng: &mut StdRng) -> Document {
    doc! {
        "sku": rng.random_range(0..10_000),
        "quantity": 1,
        "price": rng.random_range(1..50_000) as f64 / 100.0,
        "tags": ["new", "sale"],
    }
}
