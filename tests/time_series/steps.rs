//! What is done to series: commands, and lists of them.

use crate::support::run;
use bson::{Bson, DateTime, Document, doc};
use mongodb::Client;
use rand::{Rng, SeedableRng, distr::Alphanumeric, rngs::StdRng};

/// A command and its database.
pub type Step = (&'static str, Document);

/// When the measurements begin.
pub const BEGIN: i64 = 1_700_000_000_000;

pub fn on(database: &'static str, command: Document) -> Step {
    (database, command)
}

pub fn ts(command: Document) -> Step {
    on("ts", command)
}

pub fn create(name: &str, more: Document) -> Step {
    let mut command = doc! {"create": name, "timeseries": {"timeField": "t", "metaField": "m"}};
    command.extend(more);
    ts(command)
}

pub fn modify(name: &str, change: Document) -> Step {
    let mut command = doc! {"collMod": name};
    command.extend(change);
    ts(command)
}

pub fn index(name: &str, specs: Vec<Document>) -> Step {
    ts(doc! {"createIndexes": name, "indexes": specs})
}

/// A value of any type, one after the other: buckets do not like that.
pub fn mixed(n: i64) -> Bson {
    match n % 7 {
        0 => Bson::Int64(n),
        1 => format!("text {n}").into(),
        2 => Bson::Array(vec![n.into(), "x".into()]),
        3 => doc! {"a": n, "b": {"c": [1, 2]}}.into(),
        4 => Bson::Null,
        5 => Bson::Double(f64::NAN),
        _ => Bson::Int32(7),
    }
}

/// Measurements of ten hosts, a minute apart.
pub fn measured(minutes: std::ops::Range<i64>, value: impl Fn(i64) -> Bson) -> Vec<Document> {
    let one = |n: i64| doc! {"t": DateTime::from_millis(BEGIN + n * 60_000), "m": {"host": n % 10}, "v": value(n), "x.y": n};
    minutes.map(one).collect()
}

pub fn insert(name: &str, minutes: std::ops::Range<i64>) -> Step {
    ts(doc! {"insert": name, "documents": measured(minutes, Bson::Int64), "ordered": false})
}

pub fn insert_mixed(name: &str, minutes: std::ops::Range<i64>) -> Step {
    ts(doc! {"insert": name, "documents": measured(minutes, mixed), "ordered": false})
}

/// Of whole buckets: a server of 6.0 deletes and updates by the metadata alone.
pub fn delete(name: &str, host: i64) -> Step {
    ts(doc! {"delete": name, "deletes": [{"q": {"m.host": host}, "limit": 0}]})
}

pub fn update(name: &str, host: i64) -> Step {
    let change = doc! {"$set": {"m.seen.at": ["here", host]}};
    ts(doc! {"update": name, "updates": [{"q": {"m.host": host}, "u": change, "multi": true}]})
}

/// So much that it is copied in several partitions: text that does not compress.
pub fn bulky() -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(7);
    let mut text = || (0..150).map(|_| char::from(rng.sample(Alphanumeric))).collect::<String>();
    let mut batch = |from: i64| {
        let documents: Vec<_> =
            (from..from + 1_000).map(|n| doc! {"t": DateTime::from_millis(BEGIN + n * 1_000), "m": n % 40, "v": text(), "n": n}).collect();
        ts(doc! {"insert": "bulky", "documents": documents, "ordered": false})
    };
    (0..20).map(|n| batch(n * 1_000)).collect()
}

/// Every kind of index that a series can have, and one that only its buckets know.
pub fn indexes(name: &str) -> [Step; 2] {
    let of_series = vec![
        doc! {"key": {"m.host": 1, "t": -1}, "name": "host and time"},
        doc! {"key": {"v": 1}, "name": "measured"},
        doc! {"key": {"m.host": 1}, "name": "partial", "partialFilterExpression": {"m.host": {"$gt": 5}}},
        doc! {"key": {"m.rack": -1}, "name": "sparse", "sparse": true, "collation": {"locale": "de", "strength": 1}},
        doc! {"key": {"m.where": "2dsphere"}, "name": "where"},
        doc! {"key": {"place": "2dsphere"}, "name": "place"},
        doc! {"key": {"m.zone": 1}, "name": "unseen", "hidden": true},
    ];
    let of_buckets = vec![doc! {"key": {"control.count": 1}, "name": "direct"}];
    [index(name, of_series), index(&format!("system.buckets.{name}"), of_buckets)]
}

pub fn before() -> Vec<Step> {
    let mut steps = vec![
        create("load", doc! {"expireAfterSeconds": 1_000_000_000_i64}),
        ts(doc! {"create": "plain", "timeseries": {"timeField": "t"}}),
        create("collated", doc! {"collation": {"locale": "en", "strength": 2}}),
        create("engine", doc! {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zlib"}}}),
        ts(doc! {"create": "a name. with dots, 日本", "timeseries": {"timeField": "t", "metaField": "m", "granularity": "hours"}}),
        ts(doc! {"insert": "becomes_series", "documents": [{"_id": 1}]}),
        ts(doc! {"create": "view", "viewOn": "load", "pipeline": [{"$match": {"v": {"$gt": 5}}}]}),
        ts(doc! {"insert": "system.js", "documents": [{"_id": "once", "value": "function() {}"}, {"_id": "gone", "value": 1}]}),
    ];
    for name in ["coarser", "dropped", "recreated", "often", "becomes_plain", "becomes_view", "indexed", "live", "bulky"] {
        steps.push(create(name, doc! {}));
    }
    for name in ["load", "plain", "engine", "coarser", "dropped", "recreated", "often", "becomes_plain", "becomes_view", "indexed"] {
        steps.push(insert(name, 0..300));
    }
    steps.push(insert_mixed("collated", 0..200));
    steps.push(insert_mixed("a name. with dots, 日本", 0..200));
    steps.extend(bulky());
    steps.extend(indexes("indexed"));
    steps.extend([
        on("gone", doc! {"create": "series", "timeseries": {"timeField": "t"}}),
        on("gone", doc! {"insert": "series", "documents": measured(0..50, mixed)}),
        on("gone", doc! {"create": "view", "viewOn": "series", "pipeline": []}),
        on("gone", doc! {"insert": "system.js", "documents": [{"_id": "f", "value": 1}]}),
    ]);
    steps
}

/// What happens to them, with writes before and behind it.
pub fn changes() -> Vec<Step> {
    let mut steps = Vec::new();
    for name in ["load", "plain", "engine", "coarser", "a name. with dots, 日本"] {
        steps.extend([insert(name, 200..400), insert_mixed(name, 300..500), insert(name, 100..150)]);
    }
    // An index of a measurement takes no arrays.
    steps.push(insert("indexed", 200..500));
    steps.extend([delete("load", 3), update("load", 4), delete("bulky", 7), insert_mixed("load", 400..450), update("indexed", 5)]);
    steps.extend(["minutes", "hours"].into_iter().flat_map(|granularity| {
        [modify("coarser", doc! {"timeseries": {"granularity": granularity}}), insert("coarser", 500..900), update("coarser", 6)]
    }));
    steps.extend([
        modify("load", doc! {"expireAfterSeconds": 900_000_000_i64}),
        modify("engine", doc! {"expireAfterSeconds": 800_000_000_i64, "timeseries": {"granularity": "minutes"}}),
        modify("plain", doc! {"expireAfterSeconds": 900_000_000_i64}),
        modify("plain", doc! {"expireAfterSeconds": "off"}),
        modify("plain", doc! {}),
        index("load", vec![doc! {"key": {"t": 1, "m.host": -1}, "name": "new"}]),
        modify("indexed", doc! {"index": {"name": "measured", "hidden": true}}),
        modify("indexed", doc! {"index": {"keyPattern": {"m.zone": 1}, "hidden": false}}),
        ts(doc! {"dropIndexes": "indexed", "index": "partial"}),
        index("indexed", vec![doc! {"key": {"t": -1}, "name": "partial"}]),
        ts(doc! {"drop": "dropped"}),
        ts(doc! {"drop": "recreated"}),
        ts(
            doc! {"create": "recreated", "timeseries": {"timeField": "at", "granularity": "minutes"}, "expireAfterSeconds": 1_000_000_000_i64},
        ),
        ts(doc! {"insert": "recreated", "documents": [{"at": DateTime::from_millis(BEGIN), "other": 1}]}),
        create("made", doc! {"collation": {"locale": "sv"}}),
        insert_mixed("made", 0..120),
        delete("made", 2),
        // One name, of one kind and then of the other.
        ts(doc! {"drop": "becomes_plain"}),
        ts(doc! {"insert": "becomes_plain", "documents": [{"_id": 1, "no": "series"}]}),
        ts(doc! {"drop": "becomes_view"}),
        ts(doc! {"create": "becomes_view", "viewOn": "load", "pipeline": []}),
        ts(doc! {"drop": "becomes_series"}),
        create("becomes_series", doc! {}),
        insert("becomes_series", 0..20),
        ts(doc! {"drop": "view"}),
        create("view", doc! {}),
        insert("view", 0..20),
    ]);
    for n in 0..6 {
        steps.push(ts(doc! {"drop": "often"}));
        steps.push(create(
            "often",
            if n % 2 == 0 {
                doc! {"expireAfterSeconds": 1_000_000_000_i64}
            } else {
                doc! {}
            },
        ));
        steps.extend([insert_mixed("often", n * 50..n * 50 + 60), delete("often", n)]);
        steps.push(index("often", vec![doc! {"key": {"m.host": 1}, "name": format!("index {n}")}]));
    }
    steps.extend([
        ts(doc! {"update": "system.js", "updates": [{"q": {"_id": "once"}, "u": {"$set": {"value": "function() { return 1; }"}}}]}),
        ts(doc! {"delete": "system.js", "deletes": [{"q": {"_id": "gone"}, "limit": 1}]}),
        index("system.js", vec![doc! {"key": {"value": 1}, "name": "by value"}]),
        on("functions", doc! {"insert": "system.js", "documents": [{"_id": "f", "value": 1}]}),
        on("admin", doc! {"renameCollection": "functions.system.js", "to": "functions.kept"}),
        on("functions", doc! {"insert": "system.js", "documents": [{"_id": "g", "value": 2}]}),
        // Functions cannot be dropped but with their database.
        on("gone", doc! {"dropDatabase": 1}),
        on("gone", doc! {"create": "series", "timeseries": {"timeField": "t"}}),
        on("gone", doc! {"insert": "series", "documents": measured(100..130, mixed)}),
    ]);
    steps
}

pub async fn perform(client: &Client, steps: &[Step]) {
    for (database, command) in steps {
        run(client, database, command.clone()).await;
    }
}
