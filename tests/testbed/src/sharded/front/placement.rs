//! Where a collection lives, and the versions that a server is told so that it refuses when the front is behind.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::raw::cstr;
use mongodb::bson::{Binary, RawDocumentBuf, Timestamp, doc, rawdoc};
use tokio::time::sleep;

use super::cluster::Cluster;
use super::command::append_majority;
use super::failure::Failure;
use super::upstream::{Upstream, first_batch};

/// Attempts with a place that turned out to have changed. A chunk that is being handed over keeps writers waiting for
/// a second or so on the server already.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Database {
    pub primary: String,
    pub version: RawDocumentBuf,
}

#[derive(Debug)]
pub struct Placement {
    pub database: Database,
    pub sharded: Option<Sharded>,
}

#[derive(Debug)]
pub struct Sharded {
    pub uuid: Binary,
    pub key: RawDocumentBuf,
    pub epoch: ObjectId,
    pub timestamp: Timestamp,
    /// Of each shard that owns chunks.
    pub versions: BTreeMap<String, Timestamp>,
    /// The shard with the lowest chunk.
    pub lowest: String,
}

impl Placement {
    /// The shards that hold documents of the collection.
    pub fn shards(&self) -> Vec<&str> {
        match &self.sharded {
            Some(sharded) => sharded.versions.keys().map(String::as_str).collect(),
            None => vec![&self.database.primary],
        }
    }

    /// Adds what a shard checks before it does anything.
    pub fn append_versions(&self, shard: &str, command: &mut RawDocumentBuf) {
        let version = match &self.sharded {
            Some(sharded) => {
                let version = sharded.versions.get(shard).copied().unwrap_or(Timestamp { time: 0, increment: 0 });
                rawdoc! { "e": sharded.epoch, "t": sharded.timestamp, "v": version }
            }
            None => {
                command.append(cstr!("databaseVersion"), &self.database.version);
                let zero = Timestamp { time: 0, increment: 0 };
                rawdoc! { "e": ObjectId::from_bytes([0; 12]), "t": zero, "v": zero }
            }
        };
        command.append(cstr!("shardVersion"), version);
    }
}

impl Cluster {
    pub async fn database(&self, name: &str) -> Result<Option<Database>, Failure> {
        let find = doc! { "find": "databases", "filter": { "_id": name }, "limit": 1 };
        let reply = self.config.command("config", &find).await?;
        let found = first_batch(&reply)?;
        let Some(found) = found.first() else { return Ok(None) };
        let version = found.get_document("version")?.to_owned();
        Ok(Some(Database { primary: found.get_str("primary")?.into(), version }))
    }

    /// The database, made if there is none yet, on the shard that is named or the one the config server picks.
    pub async fn make_database(&self, name: &str, primary: Option<&str>) -> Result<Database, Failure> {
        loop {
            if let Some(database) = self.database(name).await? {
                return Ok(database);
            }
            let mut create = rawdoc! { "_configsvrCreateDatabase": name };
            if let Some(primary) = primary {
                create.append(cstr!("primaryShardId"), primary);
            }
            create.append(cstr!("$db"), "admin");
            append_majority(&mut create);
            self.config.run(create).await?;
        }
    }

    /// `None` if the database does not exist.
    pub async fn placement(&self, namespace: &str) -> Result<Option<Placement>, Failure> {
        let name = namespace.split('.').next().unwrap_or_default();
        let Some(database) = self.database(name).await? else { return Ok(None) };
        Ok(Some(Placement { database, sharded: self.sharded(namespace).await? }))
    }

    pub async fn sharded(&self, namespace: &str) -> Result<Option<Sharded>, Failure> {
        loop {
            let find = doc! { "find": "collections", "filter": { "_id": namespace }, "limit": 1 };
            let reply = self.config.command("config", &find).await?;
            let found = first_batch(&reply)?;
            let Some(found) = found.first() else { return Ok(None) };
            let uuid = found.get_binary("uuid")?.to_binary();
            let pipeline = vec![
                doc! { "$match": { "uuid": uuid.clone() } },
                doc! { "$sort": { "min": 1 } },
                doc! { "$group": { "_id": "$shard", "version": { "$max": "$lastmod" }, "min": { "$first": "$min" } } },
                doc! { "$sort": { "min": 1 } },
            ];
            let aggregate = doc! { "aggregate": "chunks", "pipeline": pipeline, "cursor": { "batchSize": 1000 } };
            let reply = self.config.command("config", &aggregate).await?;
            let (mut versions, mut lowest) = (BTreeMap::new(), None);
            for shard in first_batch(&reply)? {
                let name = shard.get_str("_id")?;
                lowest.get_or_insert_with(|| name.to_owned());
                versions.insert(name.to_owned(), shard.get_timestamp("version")?);
            }
            // Without chunks it has been dropped between the two questions.
            if let Some(lowest) = lowest {
                return Ok(Some(Sharded {
                    uuid,
                    key: found.get_document("key")?.to_owned(),
                    epoch: found.get_object_id("lastmodEpoch")?,
                    timestamp: found.get_timestamp("timestamp")?,
                    versions,
                    lowest,
                }));
            }
        }
    }
}

/// Does something that depends on a place, and does it again when a server says that the place has changed.
pub async fn while_stale<T>(mut attempt: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(failure) if failure.is_stale() => sleep(PAUSE).await,
            other => return other,
        }
    }
    attempt().await
}

/// Sends a command with a collection's versions to one of its shards.
pub async fn send_versioned(shard: &Upstream, placement: &Placement, mut command: RawDocumentBuf) -> Result<RawDocumentBuf, Failure> {
    placement.append_versions(&shard.name, &mut command);
    shard.run(command).await
}
