//! Structure at random: collections of every kind, indexes, views, whole databases.

use super::{
    history::{COLLECTIONS, OTHER},
    values::{field, fields, number, one},
};
use crate::scenarios::notation::Node;
use rand::{Rng, rngs::StdRng};

/// Adds fields to a command.
fn with(command: Node, mut more: Vec<(&str, Node)>) -> Node {
    let Node::Fields(mut all) = command else { return command };
    all.extend(more.drain(..).map(|(name, value)| (name.to_owned(), value)));
    Node::Fields(all)
}

/// A command on structure.
pub(super) fn structure(rng: &mut StdRng, coll: &str) -> Node {
    match rng.random_range(0..40) {
        0..6 => create(rng, coll),
        6..9 => fields! {"drop": coll},
        9..14 => rename(rng, coll),
        14..23 => create_index(rng, coll),
        23..27 => {
            fields! {"dropIndexes": coll, "index": one(rng, &["*", "up", "down", "unique", "ttl", "hashed", "all", "twice", "words", "place", "collated"])}
        }
        27..32 => modify(rng, coll),
        32..34 => view(rng, coll),
        34..38 => aggregate(rng, coll),
        38 if rng.random_bool(0.5) => {
            fields! {"cloneCollectionAsCapped": coll, "toCollection": one(rng, &["log", "cloned"]), "size": one(rng, &[1_i64 << 14, 1 << 20])}
        }
        38 => fields! {"convertToCapped": coll, "size": one(rng, &[1_i64 << 16, 1 << 20])},
        _ => fields! {"dropDatabase": 1_i64, "$db": OTHER},
    }
}

/// A collection of some kind.
fn create(rng: &mut StdRng, coll: &str) -> Node {
    let options = match rng.random_range(0..9) {
        0 => vec![],
        1 | 2 => vec![
            ("capped", true.into()),
            ("size", one(rng, &[4096_i64, 1 << 16, 1 << 20]).into()),
            ("max", one(rng, &[7_i64, 40, 1000]).into()),
        ],
        3 => vec![("collation", collation(rng))],
        4 => vec![
            ("validator", validator(rng)),
            ("validationLevel", one(rng, &["strict", "moderate"]).into()),
            ("validationAction", one(rng, &["error", "warn"]).into()),
        ],
        5 | 6 => vec![("clusteredIndex", fields! {"key": fields!{"_id": 1_i64}, "unique": true, "name": one(rng, &["_id_", "by id"])})],
        7 => vec![("changeStreamPreAndPostImages", fields! {"enabled": true})],
        _ => return time_series(rng),
    };
    with(fields! {"create": coll}, options)
}

fn collation(rng: &mut StdRng) -> Node {
    fields! {"locale": one(rng, &["en", "de", "sv"]), "strength": rng.random_range(1..4_i64)}
}

fn validator(rng: &mut StdRng) -> Node {
    one(
        rng,
        &[
            field("n", fields! {"$gte": 0_i64}),
            fields! {"$jsonSchema": fields!{"required": ["n"]}},
            field("arr", fields! {"$exists": true}),
        ],
    )
}

/// The series itself; its measurements come with [`measure`].
fn time_series(rng: &mut StdRng) -> Node {
    let series = fields! {"timeField": "t", "metaField": "m", "granularity": one(rng, &["seconds", "minutes"])};
    fields! {"create": "series", "timeseries": series}
}

/// Measurements, or their end.
pub(super) fn measure(rng: &mut StdRng) -> Node {
    if rng.random_bool(0.15) {
        return fields! {"delete": "series", "deletes": [fields!{"q": fields!{"m": rng.random_range(0..3_i64)}, "limit": 0_i64}]};
    }
    let first = 1_700_000_000_000 + rng.random_range(0..20_i64) * 600_000;
    let mut measurement = |n: i64| {
        let time = field("$date", field("$numberLong", (first + n * 7_000).to_string()));
        fields! {"t": time, "m": rng.random_range(0..3_i64), "v": number(rng)}
    };
    let documents: Vec<_> = (0..12).map(&mut measurement).collect();
    fields! {"insert": "series", "documents": documents, "ordered": false}
}

fn rename(rng: &mut StdRng, coll: &str) -> Node {
    let mut database = || if rng.random_bool(0.15) { OTHER } else { "{db}" };
    let (from, to) = (database(), database());
    fields! {
        "renameCollection": format!("{from}.{coll}"), "to": format!("{to}.{}", one(rng, &COLLECTIONS)), "dropTarget": rng.random_bool(0.6),
    }
}

/// An index; its name follows from its kind, so that others find it.
fn create_index(rng: &mut StdRng, coll: &str) -> Node {
    let key = |name: &str, kind: Node| field(name, kind);
    let direction = one(rng, &[Node::from(1), field("$numberDouble", "1.0"), field("$numberLong", "1")]);
    let index = match rng.random_range(0..13) {
        0 => fields! {"key": key("n", direction), "name": "up"},
        1 => fields! {"key": fields!{"n": -1_i64, "arr": 1_i64}, "name": "down"},
        2 => fields! {"key": key("_unique", 1.into()), "name": "unique", "unique": true, "sparse": true},
        3 => {
            fields! {"key": key("s", 1.into()), "name": "unique", "unique": true, "partialFilterExpression": fields!{"s": fields!{"$type": "string"}}}
        }
        4 => fields! {"key": key("d", 1.into()), "name": "ttl", "expireAfterSeconds": one(rng, &[1_000_000_i64, 2_000_000_000])},
        5 => fields! {"key": key("b", 1.into()), "name": "hidden", "hidden": true},
        6 => fields! {"key": key("m", "hashed".into()), "name": "hashed"},
        7 => fields! {"key": key("$**", 1.into()), "name": "all", "wildcardProjection": fields!{"obj": 0_i64}},
        8 => fields! {"key": key("s", "text".into()), "name": "words", "weights": fields!{"s": 3_i64}, "default_language": "none"},
        9 => fields! {"key": key("place", "2dsphere".into()), "name": "place"},
        10 => fields! {"key": key("s", 1.into()), "name": "collated", "collation": collation(rng)},
        11 => fields! {"key": fields!{"a": -1_i64}, "name": "twice", "partialFilterExpression": fields!{"n": fields!{"$gt": 3_i64}}},
        _ => fields! {"key": fields!{"a": 1_i64}, "name": "twice", "sparse": true},
    };
    fields! {"createIndexes": coll, "indexes": [index]}
}

fn modify(rng: &mut StdRng, coll: &str) -> Node {
    let index = |name: &str, change: &str, to: Node| Node::Fields(vec![("name".into(), name.into()), (change.into(), to)]);
    let change = match rng.random_range(0..10) {
        0 => vec![("index", index(one(rng, &["up", "down", "hidden", "all"]), "hidden", rng.random_bool(0.5).into()))],
        1 => vec![("index", index("ttl", "expireAfterSeconds", one(rng, &[2_000_000_i64, 1_999_999_999]).into()))],
        2 => vec![("index", index("up", "prepareUnique", true.into()))],
        3 => vec![("index", index("up", "unique", true.into()))],
        4 | 5 => vec![("validator", validator(rng)), ("validationAction", one(rng, &["error", "warn"]).into())],
        6 => vec![("validator", Node::Fields(Vec::new()))],
        7 => vec![("changeStreamPreAndPostImages", fields! {"enabled": rng.random_bool(0.5)})],
        8 => vec![("cappedMax", one(rng, &[5_i64, 30, 0]).into())],
        _ => return fields! {"collMod": "series", "timeseries": fields!{"granularity": one(rng, &["minutes", "hours"])}},
    };
    with(fields! {"collMod": coll}, change)
}

fn view(rng: &mut StdRng, coll: &str) -> Node {
    let pipeline = [fields! {"$match": fields!{"n": number(rng)}}];
    match rng.random_range(0..17) {
        // All of them; no stream tells that.
        0 => fields! {"drop": "system.views"},
        1..5 => fields! {"collMod": "view", "viewOn": coll, "pipeline": pipeline},
        5..9 => fields! {"drop": "view"},
        9..13 => fields! {"create": "view", "viewOn": coll, "pipeline": pipeline, "collation": collation(rng)},
        _ => fields! {"create": one(rng, &["view", "view 2"]), "viewOn": one(rng, &[coll, "view"]), "pipeline": pipeline},
    }
}

/// Results that the server writes by itself.
fn aggregate(rng: &mut StdRng, coll: &str) -> Node {
    let into = one(rng, &COLLECTIONS);
    let last = match rng.random_range(0..4) {
        0 | 1 => field("$out", into),
        2 => field("$out", fields! {"db": OTHER, "coll": into}),
        _ => field("$merge", fields! {"into": into, "whenMatched": one(rng, &["replace", "merge", "keepExisting"])}),
    };
    fields! {"aggregate": coll, "pipeline": [field("$match", field("_id", fields! {"$gt": 3_i64})), last], "cursor": Node::Fields(Vec::new())}
}
