//! Histories at random: what happens to the source, and to mongoferry meanwhile.

use super::{
    structure::{measure, structure},
    updates::{ambiguous, insert, write},
    values::{field, fields, one},
};
use crate::scenarios::notation::Node;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::time::Duration;

/// The second database.
pub(super) const OTHER: &str = "{db}-other";
/// Where most things happen. Few, so that they meet.
pub(super) const COLLECTIONS: [&str; 6] = ["a", "b", "c", "log", "odd name. ", "имя"];

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// On the source: a command or a transaction, as a scenario writes them.
    Source(Node),
    /// mongoferry starts, with these arguments. Without this step, it does so in the end.
    Start(Vec<&'static str>),
    /// It is killed at once, and starts again.
    Kill,
    /// It is asked to end, and starts again.
    Terminate,
    Pause,
    Resume,
    /// From here on, inserts on the target are answered late, so that the copy lasts.
    Slow(Duration),
    /// No more.
    Fast,
    /// Some time passes.
    Wait(Duration),
    /// Until it tails.
    Tailing,
    /// Until everything is on the target.
    CaughtUp,
}

/// The history of a seed: at most so many steps on the source.
pub(super) fn history(seed: u64, steps: usize) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let rng = &mut rng;
    let mut all = Vec::new();
    let before = rng.random_range(steps / 6..steps / 2);
    if rng.random_bool(0.5) {
        all.push(Step::Source(bulk()));
    }
    all.extend((0..before).map(|_| Step::Source(source(rng))));
    if rng.random_bool(0.6) {
        all.push(Step::Slow(Duration::from_millis(rng.random_range(20..250))));
    }
    // Short replays and long ones; few lanes and many.
    let (interval, lanes) = (one(rng, &["100ms", "1s", "60s"]), one(rng, &["1", "3", "8"]));
    all.push(Step::Start(vec!["--partition-size", "1MiB", "--checkpoint-interval", interval, "--lanes", lanes]));
    // The rest comes in three parts: probably while copying, behind it, and at rest in between.
    let rest = steps - before;
    let copying = rng.random_range(0..=rest);
    all.extend((0..copying).flat_map(|_| some(rng)));
    all.push(Step::Fast);
    all.push(Step::Tailing);
    all.extend((copying..rest).flat_map(|_| some(rng)));
    all
}

/// A step on the source, rarely with one on mongoferry in front.
fn some(rng: &mut StdRng) -> Vec<Step> {
    let step = Step::Source(source(rng));
    let wait = Step::Wait(Duration::from_millis(rng.random_range(0..400)));
    match rng.random_range(0..400) {
        0..6 => vec![wait, Step::Kill, step],
        6 => vec![wait, Step::Terminate, step],
        7 => vec![Step::Pause, step],
        8..11 => vec![Step::Resume, step],
        11..20 => vec![wait, step],
        20..22 => vec![Step::CaughtUp, step],
        _ => vec![step],
    }
}

/// More than one partition holds.
fn bulk() -> Node {
    let document = fields! {"_id": fields!{"$n": 100_i64}, "n": fields!{"$n": 0_i64}, "arr": [1_i64, 2], "s": fields!{"$text": 2000_i64}};
    fields! {"insert": "a", "documents": fields!{"$times": 1500_i64, "of": document}}
}

/// A collection's name, and the database when it is the second one.
fn place(rng: &mut StdRng, command: impl FnOnce(&mut StdRng, &str) -> Node) -> Node {
    let coll = one(rng, &COLLECTIONS);
    let mut command = command(rng, coll);
    if let Node::Fields(fields) = &mut command
        && rng.random_bool(0.12)
        && fields[0].0 != "renameCollection"
        && !fields.iter().any(|(name, _)| name == "$db")
    {
        fields.push(("$db".to_owned(), OTHER.into()));
    }
    command
}

fn source(rng: &mut StdRng) -> Node {
    match rng.random_range(0..40) {
        0..6 => place(rng, structure),
        6..8 => place(rng, insert),
        8..10 => measure(rng),
        10..12 => transaction(rng),
        12 => ambiguous(rng),
        _ => place(rng, write),
    }
}

/// Several writes at one time, or none of them.
fn transaction(rng: &mut StdRng) -> Node {
    if rng.random_bool(0.03) {
        // More than one batch of events, all of one time.
        let changed = fields! {"update": "many", "updates": [fields!{"q": Node::Fields(Vec::new()), "u": fields!{"$set": fields!{"n": rng.random_range(0..9_i64)}}, "multi": true}]};
        let first = rng.random_range(0..4_i64) * 250;
        let document = fields! {"_id": fields!{"$n": first}, "s": fields!{"$text": 40_i64}};
        return field("$transaction", [changed, fields! {"insert": "many", "documents": fields!{"$times": 250_i64, "of": document}}]);
    }
    let commands: Vec<_> = (0..rng.random_range(2..7)).map(|_| place(rng, insert_or_change)).collect();
    field(if rng.random_bool(0.85) { "$transaction" } else { "$aborted" }, commands)
}

/// A write that rarely fails, since a failure ends the transaction.
fn insert_or_change(rng: &mut StdRng, coll: &str) -> Node {
    let n = rng.random_range(0..40_i64);
    match rng.random_range(0..4) {
        0 => {
            fields! {"insert": coll, "documents": [fields!{"_id": fields!{"in": "transaction", "n": rng.random_range(0..i64::MAX)}, "n": n}]}
        }
        1 => fields! {"delete": coll, "deletes": [fields!{"q": fields!{"_id": n}, "limit": 1_i64}]},
        2 => {
            fields! {"update": coll, "updates": [fields!{"q": fields!{"_id": n}, "u": [fields!{"$set": fields!{"n": n, "obj": fields!{"t": n}}}]}]}
        }
        _ => {
            fields! {"update": coll, "updates": [fields!{"q": fields!{"_id": fields!{"$lt": n}}, "u": fields!{"$set": fields!{"a": n}}, "multi": true}]}
        }
    }
}
