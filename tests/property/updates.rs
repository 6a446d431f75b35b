//! Writes at random: inserts, deletes, replacements, classic and pipeline updates.

use super::values::{USUAL, array, document, field, fields, id, number, one, twice, value};
use crate::scenarios::notation::Node;
use rand::{Rng, rngs::StdRng};

/// A write command on a collection.
pub(super) fn write(rng: &mut StdRng, coll: &str) -> Node {
    match rng.random_range(0..10) {
        0..3 => insert(rng, coll),
        3 => {
            let delete = |rng: &mut StdRng| {
                let many = rng.random_bool(0.1);
                fields! {"q": filter(rng, many), "limit": i64::from(!many)}
            };
            let deletes: Vec<_> = (0..rng.random_range(1..4)).map(|_| delete(rng)).collect();
            fields! {"delete": coll, "deletes": deletes, "ordered": false}
        }
        4 => {
            // The same key with another type, or in another case.
            let (before, after) = (id(rng), id(rng));
            fields! {"findAndModify": coll, "query": field("_id", before), "update": document(rng, Some(after)), "upsert": true}
        }
        _ => {
            let updates: Vec<_> = (0..rng.random_range(1..6)).map(|_| update(rng)).collect();
            fields! {"update": coll, "updates": updates, "ordered": false}
        }
    }
}

/// New documents, some of which are there already.
pub(super) fn insert(rng: &mut StdRng, coll: &str) -> Node {
    let document = |rng: &mut StdRng| {
        let id = rng.random_bool(0.9).then(|| id(rng));
        document(rng, id)
    };
    let documents: Vec<_> = (0..rng.random_range(1..12)).map(|_| document(rng)).collect();
    fields! {"insert": coll, "documents": documents, "ordered": false, "bypassDocumentValidation": rng.random_bool(0.5)}
}

/// Documents with names that stand twice: in a collection of their own, without pipelines.
pub(super) fn ambiguous(rng: &mut StdRng) -> Node {
    let key = field("_id", rng.random_range(0..12_i64));
    match rng.random_range(0..4) {
        0 => fields! {"delete": "twice", "deletes": [fields!{"q": key, "limit": 1_i64}]},
        1 => fields! {"update": "twice", "updates": [fields!{"q": key, "u": fields!{"$set": field(one(rng, &["m", "s"]), value(rng, 1))}}]},
        _ => fields! {"insert": "twice", "documents": [twice(rng), twice(rng)], "ordered": false},
    }
}

fn filter(rng: &mut StdRng, many: bool) -> Node {
    match (many, rng.random_range(0..4)) {
        (true, 0) => Node::Fields(Vec::new()),
        (true, 1) => field("n", fields! {"$gt": number(rng)}),
        (true, _) => field("_id", fields! {"$mod": [one(rng, &[2_i64, 3, 5]), 0]}),
        (false, 0) => field("n", fields! {"$lte": number(rng)}),
        (false, _) => field("_id", id(rng)),
    }
}

fn update(rng: &mut StdRng) -> Node {
    let many = rng.random_bool(0.15);
    let (mut query, upsert) = (filter(rng, many), rng.random_bool(0.2));
    let mut rest = Vec::new();
    let change = match rng.random_range(0..20) {
        0..3 if !many => document(rng, None),
        3..9 => pipeline(rng),
        9 => {
            rest.push((
                "arrayFilters".to_owned(),
                Node::from([fields! {"e": fields!{"$type": one(rng, &["number", "string", "object"])}}]),
            ));
            field(one(rng, &["$set", "$max"]), field("arr.$[e]", value(rng, 2)))
        }
        10 => {
            if let Node::Fields(query) = &mut query {
                query.push(("arr".to_owned(), fields! {"$elemMatch": fields!{"$type": one(rng, &["number", "string"])}}));
            }
            return fields! {"q": query, "u": field("$set", field("arr.$", value(rng, 2))), "multi": many};
        }
        _ => classic(rng),
    };
    let mut statement = vec![
        ("q".to_owned(), query),
        ("u".to_owned(), change),
        ("multi".to_owned(), many.into()),
        ("upsert".to_owned(), (upsert && !many).into()),
    ];
    statement.append(&mut rest);
    Node::Fields(statement)
}

/// A path that some documents have.
fn path(rng: &mut StdRng) -> String {
    let at = rng.random_range(0..8);
    match rng.random_range(0..9) {
        0..4 => one(rng, &USUAL).to_owned(),
        4 => format!("arr.{at}"),
        5 => format!("obj.{}", one(rng, &["0", "1", "n", "f1", "имя", "new"])),
        6 => format!("obj.arr.{at}"),
        7 => format!("arr.{at}.n"),
        _ => format!("f{}", rng.random_range(0..5)),
    }
}

/// One or two operators of the classic kind, on paths that do not collide.
fn classic(rng: &mut StdRng) -> Node {
    let mut operators = vec![operator(rng)];
    if rng.random_bool(0.4) {
        operators.push(operator(rng));
    }
    let (first, second) = (operators[0].0.clone(), operators.get(1).map(|o| o.0.clone()));
    if Some(first) == second {
        operators.truncate(1);
    }
    Node::Fields(operators)
}

fn operator(rng: &mut StdRng) -> (String, Node) {
    let (operator, change) = match rng.random_range(0..15) {
        0..4 => ("$set", field(path(rng), value(rng, 1))),
        4 => {
            let (a, b) = (path(rng), path(rng));
            ("$set", Node::Fields(vec![(a, value(rng, 1)), (b, value(rng, 1))]))
        }
        5 | 6 => ("$unset", field(path(rng), "")),
        7 => ("$inc", field("n", number(rng))),
        8 => ("$push", field(one(rng, &["arr", "obj.arr"]), push(rng))),
        9 => ("$pull", field("arr", fields! {"$in": [value(rng, 2), number(rng)]})),
        10 => ("$rename", field(one(rng, &["a", "b", "obj.n", "n"]), one(rng, &["c", "obj.moved", "s", "m"]))),
        11 => (one(rng, &["$min", "$max", "$mul"]), field("n", number(rng))),
        12 => ("$bit", field("n", field(one(rng, &["and", "or", "xor"]), 5_i64))),
        13 => ("$pop", field("arr", one(rng, &[1_i64, -1]))),
        _ => ("$currentDate", field("d", fields! {"$type": one(rng, &["date", "timestamp"])})),
    };
    (operator.to_owned(), change)
}

fn push(rng: &mut StdRng) -> Node {
    let mut modifiers = vec![("$each".to_owned(), array(rng, 2))];
    if rng.random_bool(0.5) {
        modifiers.push(("$slice".to_owned(), rng.random_range(-4..5_i64).into()));
    }
    if rng.random_bool(0.5) {
        modifiers.push(("$position".to_owned(), rng.random_range(-3..4_i64).into()));
    }
    if rng.random_bool(0.2) {
        modifiers.push(("$sort".to_owned(), one(rng, &[1_i64, -1]).into()));
    }
    Node::Fields(modifiers)
}

/// What only a pipeline can: names with dots and dollars, truncation, another order, `Timestamp(0,0)` at the top.
fn pipeline(rng: &mut StdRng) -> Node {
    Node::List((0..rng.random_range(1..4)).map(|_| stage(rng)).collect())
}

fn stage(rng: &mut StdRng) -> Node {
    let literal = |value: Node| field("$literal", value);
    let array_of = |path: &str| fields! {"$cond": [field("$isArray", path), Node::from(path), Node::List(Vec::new())]};
    match rng.random_range(0..9) {
        0 | 1 => field("$set", field(one(rng, &["n", "a", "b", "obj.x", "arr.n"]), literal(value(rng, 1)))),
        2 => field("$unset", one(rng, &["a", "b", "obj.0", "arr.n", "n"])),
        3 => {
            let (both, more) = (array_of("$arr"), literal(array(rng, 2)));
            let sides = if rng.random_bool(0.5) { [both, more] } else { [more, both] };
            field("$set", field("arr", fields! {"$concatArrays": sides}))
        }
        4 => {
            // Truncated, and what is left may have changed.
            let kept = fields! {"$slice": Node::from(vec![array_of("$arr"), Node::from(rng.random_range(1..4_i64))])};
            field("$set", field("arr", kept))
        }
        5 => {
            let with = fields! {"field": literal(one(rng, &["$price", "x.y", "$a.b", ".", ""]).into()), "input": "$$ROOT", "value": literal(value(rng, 1))};
            field("$replaceWith", fields! {"$setField": with})
        }
        6 => {
            let without = fields! {"field": literal(one(rng, &["$price", "x.y", "n"]).into()), "input": "$$ROOT"};
            field("$replaceWith", fields! {"$unsetField": without})
        }
        // The same fields in another order, around a new one.
        7 => field(
            "$replaceWith",
            fields! {"$mergeObjects": [fields!{"_id": "$_id", "z": "$n"}, fields!{"obj": "$obj", "t": literal(fields!{"$timestamp": fields!{"t": 0_i64, "i": 0_i64}})}, Node::from("$$ROOT")]},
        ),
        _ => field("$replaceWith", fields! {"$mergeObjects": [literal(document(rng, None)), fields!{"_id": "$_id"}]}),
    }
}
