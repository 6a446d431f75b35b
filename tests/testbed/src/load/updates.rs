//! The updates of the load: each a modification that fits any document of [`documents`](super::documents).

use mongodb::bson::{Bson, Document, doc};
use rand::Rng;
use rand::rngs::StdRng;

use super::counts::Kind;
use super::documents;
use crate::text;

/// The statements of one update command for these documents; more than one each for [`Kind::Reorder`].
pub fn statements(rng: &mut StdRng, kind: Kind, ids: &[Bson]) -> Vec<Document> {
    let mut statements = Vec::with_capacity(ids.len());
    for id in ids {
        match kind {
            Kind::Truncate => statements.push(statement(id, truncation(rng))),
            Kind::Pipeline => statements.push(statement(id, pipeline(rng))),
            Kind::Replace => statements.push(statement(id, documents::body(rng).into())),
            Kind::Hot => statements.push(statement(id, hot(rng))),
            Kind::Reorder => {
                let (field, value) = movable(rng);
                statements.push(statement(id, doc! { "$unset": { field: "" } }.into()));
                statements.push(statement(id, doc! { "$set": { field: value } }.into()));
            }
            _ => statements.push(statement(id, operators(rng).into())),
        }
    }
    statements
}

fn statement(id: &Bson, update: Bson) -> Document {
    doc! { "q": { "_id": id }, "u": update }
}

fn operators(rng: &mut StdRng) -> Document {
    let n = rng.random_range(0..1000);
    match rng.random_range(0..16) {
        0 => doc! { "$set": { "profile.address.city": text::words(rng, 12), "rev": n } },
        1 => doc! { "$inc": { "profile.counters.visits": 1, "profile.counters.clicks": 2_i64, "rev": 1 } },
        2 => doc! { "$push": { "log": n } },
        3 => doc! { "$unset": { "note": "" }, "$set": { "active": n % 2 == 0 } },
        4 => doc! { "$set": { "note": { "by": n, "text": text::words(rng, 30) } } },
        5 => doc! { "$set": { format!("days.{}", n % 20): n } },
        6 => doc! { "$set": { "items.0.quantity": n, "items.0.price": f64::from(n) / 4.0 } },
        7 => doc! { "$set": { "grid.1.0": n } },
        8 => doc! { "$push": { "items.0.tags": { "$each": [format!("tag {n}")], "$slice": -8 } } },
        // Beyond the end: the server fills the gap with nulls.
        9 => doc! { "$set": { format!("log.{}", n % 16): n } },
        10 => doc! { "$pop": { "log": -1 }, "$currentDate": { "seen": true } },
        11 => doc! { "$pull": { "log": { "$lt": n / 4 } } },
        12 => doc! { "$rename": { "profile.address.zip": "profile.zip" } },
        13 => doc! { "$unset": { format!("days.{}", n % 20): "" }, "$mul": { "price": 1.01 } },
        14 => doc! { "$unset": { "items.0.tags": "" }, "$set": { "text": text::words(rng, 200) } },
        _ => doc! { "$addToSet": { "log": n }, "$min": { "rev": n }, "$set": { "fresh.deep.path": n } },
    }
}

fn truncation(rng: &mut StdRng) -> Bson {
    let n = rng.random_range(0..1000);
    match rng.random_range(0..6) {
        0 => doc! { "$push": { "log": { "$each": [], "$slice": 3 } } }.into(),
        1 => doc! { "$push": { "items": { "$each": [], "$slice": 1 } } }.into(),
        2 => doc! { "$push": { "log": { "$each": [n, n + 1], "$position": 0, "$slice": 6 } } }.into(),
        3 => stages([doc! { "$set": { "log": { "$slice": ["$log", 2] } } }]),
        // Shorter and changed at once: what `$set` and `truncatedArrays` must do together.
        4 => stages([doc! { "$set": { "log": { "$concatArrays": [[n], { "$slice": ["$log", 2] }] }, "rev": n } }]),
        _ => stages([doc! { "$set": { "grid": [[n]], "items": { "$slice": ["$items", 2] } } }]),
    }
}

fn pipeline(rng: &mut StdRng) -> Bson {
    let n = rng.random_range(0..1000);
    match rng.random_range(0..6) {
        0 => {
            let turned = doc! { "$arrayToObject": { "$reverseArray": { "$objectToArray": "$$ROOT" } } };
            stages([doc! { "$replaceWith": turned }])
        }
        1 => stages([doc! { "$unset": ["name", "profile.address"] }]),
        2 => stages([doc! { "$set": { "total": { "$sum": "$log" }, "rev": { "$add": ["$rev", 1] } } }, doc! { "$unset": "key" }]),
        3 => stages([doc! { "$replaceWith": { "$mergeObjects": [{ "rev": 1 }, "$$ROOT", { "name": n }] } }]),
        4 => stages([doc! { "$set": { "items": { "$reverseArray": "$items" }, "last": "$$NOW" } }]),
        _ => stages([doc! { "$set": { "profile": { "zip": n, "counters": { "clicks": n, "visits": 1 } } } }]),
    }
}

fn hot(rng: &mut StdRng) -> Bson {
    let n = rng.random_range(0..1000);
    match rng.random_range(0..6) {
        0 | 1 => doc! { "$inc": { "rev": 1, "profile.counters.visits": 1 } }.into(),
        2 => doc! { "$push": { "log": { "$each": [n], "$slice": -20 } } }.into(),
        3 => doc! { "$set": { "text": text::words(rng, 300), "items.0.quantity": n } }.into(),
        4 => truncation(rng),
        _ => documents::body(rng).into(),
    }
}

/// A field that nothing else depends on, and a value for it.
fn movable(rng: &mut StdRng) -> (&'static str, Bson) {
    match rng.random_range(0..3) {
        0 => ("name", text::words(rng, 16).into()),
        1 => ("price", rng.random_range(0.0..100.0_f64).into()),
        _ => ("active", rng.random::<bool>().into()),
    }
}

fn stages(stages: impl IntoIterator<Item = Document>) -> Bson {
    stages.into_iter().map(Bson::Document).collect::<Vec<_>>().into()
}
