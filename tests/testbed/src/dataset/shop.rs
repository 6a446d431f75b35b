//! What a shop stores.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::raw::cstr;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::text::{self, words};

/// The kinds of collections.
#[derive(Debug, Clone, Copy)]
pub enum Subject {
    Customers,
    Orders,
    Payments,
    Events,
}

/// 2023-11-14, in seconds since 1970.
const OPENING: i64 = 1_700_000_000;
/// 2100-01-01, in milliseconds since 1970.
const FAR_FUTURE: i64 = 4_102_444_800_000;

impl Subject {
    pub const ALL: [Subject; 4] = [Subject::Customers, Subject::Orders, Subject::Payments, Subject::Events];

    pub fn name(self) -> &'static str {
        match self {
            Subject::Customers => "customers",
            Subject::Orders => "orders",
            Subject::Payments => "payments",
            Subject::Events => "events",
        }
    }

    /// The secondary index, one of each sort.
    pub fn index(self) -> Document {
        match self {
            Subject::Customers => doc! { "key": { "email": 1 }, "name": "email", "unique": true },
            Subject::Orders => doc! { "key": { "customer": 1, "placedAt": -1 }, "name": "customer_placedAt" },
            Subject::Payments => doc! {
                "key": { "status": 1, "at": 1 },
                "name": "open",
                "partialFilterExpression": { "status": "open" },
            },
            Subject::Events => doc! { "key": { "expiresAt": 1 }, "name": "ttl", "expireAfterSeconds": 0 },
        }
    }

    /// The document of this number. Its length varies around `approx_bytes` by half.
    pub fn document(self, rng: &mut SmallRng, seed: u64, number: u64, approx_bytes: usize) -> RawDocumentBuf {
        let at = DateTime::from_millis(1000 * (OPENING + number as i64) + rng.random_range(0..1000));
        let mut document = match self {
            Subject::Customers => customer(rng, seed, number, at),
            Subject::Orders => order(rng, seed, number, at),
            Subject::Payments => payment(rng, number, at),
            Subject::Events => event(rng, seed, number, at),
        };
        let rest = approx_bytes.saturating_sub(document.as_bytes().len());
        let length = rng.random_range(rest / 2..=rest + rest / 2).min(text::LONGEST);
        document.append(cstr!("note"), words(rng, length));
        document
    }
}

fn one_of(rng: &mut SmallRng, words: &[&'static str]) -> &'static str {
    words[rng.random_range(0..words.len())]
}

/// Sorted by number, as ObjectIds are by time.
fn object_id(seed: u64, number: u64) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&(OPENING as u32).wrapping_add((number >> 16) as u32).to_be_bytes());
    bytes[4..10].copy_from_slice(&seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[..6]);
    bytes[10..].copy_from_slice(&(number as u16).to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn customer(rng: &mut SmallRng, seed: u64, number: u64, at: DateTime) -> RawDocumentBuf {
    let (name, street) = (words(rng, 18), words(rng, 20));
    rawdoc! {
        "_id": object_id(seed, number),
        "email": format!("customer{number}@shop.example"),
        "name": name,
        "since": at,
        "address": {
            "street": street,
            "zip": rng.random_range(10_000..99_999),
            "location": { "type": "Point", "coordinates": [rng.random_range(-180.0..180.0), rng.random_range(-90.0..90.0)] },
        },
        "points": rng.random_range(0..100_000_i64),
        "newsletter": rng.random::<bool>(),
        "tags": ["web", "returning"],
    }
}

fn order(rng: &mut SmallRng, seed: u64, number: u64, at: DateTime) -> RawDocumentBuf {
    let mut lines = RawArrayBuf::new();
    let mut total = 0.0;
    for _ in 0..rng.random_range(1..5) {
        let (quantity, cents) = (rng.random_range(1..5), rng.random_range(100..50_000));
        total += f64::from(quantity * cents) / 100.0;
        lines.push(rawdoc! {
            "sku": rng.random_range(0..50_000),
            "quantity": quantity,
            "price": f64::from(cents) / 100.0,
        });
    }
    let customer = object_id(seed, rng.random_range(0..=number));
    rawdoc! {
        "_id": number as i64,
        "customer": customer,
        "placedAt": at,
        "status": one_of(rng, &["placed", "paid", "packed", "shipped", "delivered"]),
        "lines": lines,
        "total": total,
        "shipping": { "carrier": "post", "express": rng.random::<bool>(), "track": null },
    }
}

fn payment(rng: &mut SmallRng, number: u64, at: DateTime) -> RawDocumentBuf {
    rawdoc! {
        "_id": format!("pay_{number:012}"),
        "order": rng.random_range(0..=number) as i64,
        "at": at,
        "amount": { "currency": "EUR", "cents": rng.random_range(100..200_000_i64) },
        "method": one_of(rng, &["card", "transfer", "wallet"]),
        "status": one_of(rng, &["open", "done", "done", "done", "failed"]),
        "attempts": rng.random_range(1..4),
    }
}

fn event(rng: &mut SmallRng, seed: u64, number: u64, at: DateTime) -> RawDocumentBuf {
    let session = Binary { subtype: BinarySubtype::Uuid, bytes: rng.random::<[u8; 16]>().to_vec() };
    let page = words(rng, 12);
    rawdoc! {
        "_id": object_id(seed, number),
        "session": session,
        "type": one_of(rng, &["view", "click", "search", "cart"]),
        "at": at,
        "expiresAt": DateTime::from_millis(FAR_FUTURE),
        "data": { "page": page, "milliseconds": rng.random_range(0..5000), "scroll": rng.random::<f64>() },
    }
}
