//! Noise from people who change collections while others write to them.

use std::sync::Arc;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::counts::{Kind, Tally};
use super::documents;
use super::send::{is_blocked, is_transient};

const DATABASE: &str = "load0";
const COLLECTIONS: u32 = 5;
/// Between two commands.
const PAUSE: Duration = Duration::from_millis(150);

/// Runs random commands on a handful of collections until told to stop. That many of them fail (the collection exists,
/// or does not) is in the nature of the thing, so only what succeeds is counted.
pub async fn noise(client: Client, seed: u64, tally: Arc<Tally>, stopping: CancellationToken) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0xdd1);
    while !stopping.is_cancelled() {
        let (database, command) = command(&mut rng);
        match client.database(database).run_command(command).await {
            Ok(_) => tally.did(Kind::Ddl, 1),
            Err(error) if is_blocked(&error) => {
                tally.blocked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Err(error) if is_transient(&error) => {
                tally.retried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Err(_) => {}
        }
        tokio::select! {
            biased; // a stop wins over the next command
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn command(rng: &mut StdRng) -> (&'static str, Document) {
    let name = format!("ddl{}", rng.random_range(0..COLLECTIONS));
    let field = format!("f{}", rng.random_range(0..3));
    let index = format!("by {field}");
    let command = match rng.random_range(0..14) {
        0 => doc! { "create": name },
        1 => doc! { "create": name, "capped": true, "size": 1 << 20 },
        2 => doc! { "create": name, "validator": { "rev": { "$gte": 0 } }, "validationLevel": "moderate" },
        3 => doc! { "create": name, "collation": { "locale": "de", "strength": 2 } },
        4 => doc! { "drop": name },
        5 => {
            let other = format!("{DATABASE}.ddl{}", rng.random_range(0..COLLECTIONS));
            let drop = rng.random::<bool>();
            let from = format!("{DATABASE}.{name}");
            return ("admin", doc! { "renameCollection": from, "to": other, "dropTarget": drop });
        }
        6 => doc! { "createIndexes": name, "indexes": [{ "key": { field: 1 }, "name": index }] },
        7 => {
            let partial = doc! { "key": { field: -1 }, "name": index, "partialFilterExpression": { "rev": 0 } };
            doc! { "createIndexes": name, "indexes": [partial] }
        }
        8 => {
            let ttl = doc! { "key": { "created": 1 }, "name": "ttl", "expireAfterSeconds": 2_000_000_000 };
            doc! { "createIndexes": name, "indexes": [ttl] }
        }
        9 => doc! { "dropIndexes": name, "index": index },
        10 => doc! { "collMod": name, "index": { "name": index, "hidden": rng.random::<bool>() } },
        11 => {
            let seconds = rng.random_range(1_000_000_000..2_000_000_000);
            doc! { "collMod": name, "index": { "name": "ttl", "expireAfterSeconds": seconds } }
        }
        12 => doc! { "collMod": name, "validator": {}, "validationLevel": "off" },
        _ => {
            let documents: Vec<_> = (0..5).map(|n| documents::document(rng, n.into())).collect();
            doc! { "insert": name, "documents": documents, "ordered": false }
        }
    };
    (DATABASE, command)
}
