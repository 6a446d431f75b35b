//! The floor: documents that are encoded already, inserted over as many connections, with nothing else done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::failure::{Failure, Result};
use crate::meter::{Cpu, Meter};
use crate::wire::{self, Command};

/// The collections of a database, with their secondary indexes.
pub type Indexes = Vec<(String, Vec<Document>)>;

/// Index builds at the same time: mongoferry's default.
const BUILDS: usize = 2;

/// Reads all collections into memory, ready to be sent. A batch of one collection is followed by one of the next, so
/// that the writers are not all in one place: measured, this is no slower than one collection after the other.
pub async fn encode(client: &Client, database: &str, collections: &[String], batch: u32) -> Result<Vec<Command>> {
    let mut reads = JoinSet::new();
    for (n, collection) in collections.iter().enumerate() {
        let (client, database, collection) = (client.clone(), database.to_string(), collection.clone());
        reads.spawn(async move {
            let place = (database.as_str(), collection.as_str());
            Ok::<_, Failure>((n, wire::inserts(&client, place, place, batch, i64::MAX as u64).await?))
        });
    }
    let mut all: Vec<VecDeque<Command>> = collections.iter().map(|_| VecDeque::new()).collect();
    while let Some(read) = reads.join_next().await {
        let (n, commands) = read.expect("a reader does not panic")?;
        all[n] = commands.into();
    }
    let mut mixed = Vec::new();
    while all.iter().any(|commands| !commands.is_empty()) {
        mixed.extend(all.iter_mut().filter_map(VecDeque::pop_front));
    }
    Ok(mixed)
}

/// Makes the collections, as mongoferry does before it copies.
pub async fn create(client: &Client, database: &str, collections: &[String]) -> Result<()> {
    for collection in collections {
        client.database(database).run_command(doc! { "create": collection }).await?;
    }
    Ok(())
}

/// Sends all commands over this many connections; answers the seconds and what was used meanwhile.
pub async fn send(client: &Client, commands: Vec<Command>, connections: usize, meter: Meter) -> Result<(f64, Cpu)> {
    let queue = Arc::new(Mutex::new(commands.into_iter()));
    let begin = Arc::new(Barrier::new(connections + 1));
    let mut writers = JoinSet::new();
    for _ in 0..connections {
        let (client, queue, begin) = (client.clone(), queue.clone(), begin.clone());
        writers.spawn(async move {
            // All at once, so that each opens a connection.
            let ready = client.database("admin").run_command(doc! { "ping": 1 }).await;
            begin.wait().await;
            ready?;
            loop {
                let next = queue.lock().expect("no writer panics").next();
                let Some(command) = next else { return Ok::<_, Failure>(()) };
                wire::send(&client, command).await?;
            }
        });
    }
    begin.wait().await;
    let (started, before) = (Instant::now(), meter.read());
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer does not panic")?;
    }
    Ok((started.elapsed().as_secs_f64(), meter.since(before)))
}

/// Builds indexes, one command for each collection; answers the seconds.
pub async fn build(client: &Client, database: &str, indexes: &Indexes) -> Result<f64> {
    let (started, places) = (Instant::now(), Arc::new(Semaphore::new(BUILDS)));
    let mut builds = JoinSet::new();
    for (collection, specs) in indexes.iter().filter(|(_, specs)| !specs.is_empty()).cloned() {
        let (database, places) = (client.database(database), places.clone());
        builds.spawn(async move {
            let _place = places.acquire().await;
            let command = doc! { "createIndexes": collection, "indexes": specs, "writeConcern": { "w": "majority" } };
            database.run_command(command).await
        });
    }
    while let Some(built) = builds.join_next().await {
        built.expect("a build does not panic")?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The secondary indexes that there are.
pub async fn indexes(client: &Client, database: &str, collections: &[String]) -> Result<Indexes> {
    let mut all = Vec::new();
    for collection in collections {
        let reply = client.database(database).run_command(doc! { "listIndexes": collection }).await?;
        let listed = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let listed = listed.map_err(|error| Failure::new(format!("listing indexes: {error}")))?;
        let specs = listed.iter().filter_map(|spec| spec.as_document()).filter(|spec| !matches!(spec.get_str("name"), Ok("_id_")));
        all.push((collection.clone(), specs.cloned().collect()));
    }
    Ok(all)
}

/// Drops all secondary indexes.
pub async fn drop_indexes(client: &Client, database: &str, collections: &[String]) -> Result<()> {
    for collection in collections {
        client.database(database).run_command(doc! { "dropIndexes": collection, "index": "*" }).await?;
    }
    Ok(())
}
