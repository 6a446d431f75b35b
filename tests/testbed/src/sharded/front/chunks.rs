//! Sharding itself: which collections are sharded, and where their chunks lie.

use mongodb::bson::raw::{CStr, cstr};
use mongodb::bson::{RawArrayBuf, RawBson, RawDocument, RawDocumentBuf, doc, rawdoc};

use super::cluster::Cluster;
use super::command::{Command, append_majority, copy_fields};
use super::dispatch::ok;
use super::failure::{Answer, Code, Failure};
use super::keys;
use super::placement::{Sharded, while_stale};
use super::upstream::first_batch;

/// One chunk as `config.chunks` has it.
struct Chunk {
    min: RawDocumentBuf,
    max: RawDocumentBuf,
    shard: String,
}

impl Cluster {
    /// Runs the command under its internal name on the config server, and looks at the shards again.
    pub async fn on_config(&self, command: &Command, name: &CStr) -> Answer {
        let mut body = command.rewritten(name, command.value()?, &["writeConcern"])?;
        // The balancer's commands refuse a write concern, the others want this one.
        if !name.as_str().contains("Balancer") {
            append_majority(&mut body);
        }
        let reply = self.config.run(body).await?;
        if name.as_str().ends_with("Shard") {
            self.learn().await?;
        }
        if reply.get_str("state").is_ok_and(|state| state == "completed") {
            self.forget_removed().await?;
        }
        Ok(reply)
    }

    /// The shards' routing code is to forget what it believes of a shard that has left, as a `mongos` does by itself: else it refuses
    /// to route to where that shard was the primary (code 70, seen on 6.0.5).
    async fn forget_removed(&self) -> Result<(), Failure> {
        for shard in self.shards() {
            shard.command("admin", &doc! { "flushRouterConfig": 1 }).await?;
        }
        Ok(())
    }

    pub async fn list_shards(&self) -> Answer {
        let reply = self.config.command("config", &doc! { "find": "shards", "batchSize": 1000 }).await?;
        let shards: RawArrayBuf = first_batch(&reply)?.into_iter().map(RawDocument::to_owned).collect();
        Ok(rawdoc! { "shards": shards, "ok": 1.0 })
    }

    pub async fn enable_sharding(&self, command: &Command) -> Answer {
        self.make_database(command.text()?, command.body.get_str("primaryShard").ok()).await?;
        Ok(ok())
    }

    pub async fn shard_collection(&self, command: &Command) -> Answer {
        let (db, collection) = command.full_name()?;
        self.make_database(db, None).await?;
        let mut body = rawdoc! { "_shardsvrCreateCollection": collection, "$db": db };
        body.append(cstr!("shardKey"), command.body.get_document("key")?);
        body.append(cstr!("unique"), command.flag("unique"));
        body.append(cstr!("presplitHashedZones"), command.flag("presplitHashedZones"));
        let passed = ["numInitialChunks", "collation", "timeseries", "enforceUniquenessCheck", "implicitlyCreateIndex"];
        copy_fields(&command.body, &mut body, &passed)?;
        self.coordinated(db, body).await?;
        Ok(rawdoc! { "collectionsharded": command.text()?, "ok": 1.0 })
    }

    pub async fn refine_shard_key(&self, command: &Command) -> Answer {
        let (db, collection) = command.full_name()?;
        let mut body = rawdoc! { "_shardsvrRefineCollectionShardKey": collection, "$db": db };
        body.append(cstr!("newShardKey"), command.body.get_document("key")?);
        self.coordinated(db, body).await
    }

    pub async fn reshard_collection(&self, command: &Command) -> Answer {
        let (db, _) = command.full_name()?;
        let body = command.rewritten(cstr!("_shardsvrReshardCollection"), command.value()?, &["writeConcern"])?;
        self.coordinated(db, body).await
    }

    pub async fn move_primary(&self, command: &Command) -> Answer {
        let db = command.text()?;
        let mut body = rawdoc! { "_shardsvrMovePrimary": db, "$db": "admin" };
        body.append(cstr!("to"), command.body.get_str("to")?);
        self.coordinated(db, body).await
    }

    /// `moveChunk` moves the chunk that is named by a document in it or by its bounds, `moveRange` a range.
    pub async fn move_range(&self, command: &Command) -> Answer {
        let mut body = rawdoc! { "_configsvrMoveRange": command.text()? };
        if command.name == "moveChunk" {
            let chunk = self.chunk(command).await?;
            body.append(cstr!("min"), &chunk.min);
            body.append(cstr!("max"), &chunk.max);
            body.append(cstr!("toShard"), command.body.get_str("to")?);
            body.append(cstr!("waitForDelete"), command.flag("_waitForDelete") || command.flag("waitForDelete"));
            copy_fields(&command.body, &mut body, &["$db", "forceJumbo", "maxTimeMS"])?;
        } else {
            copy_fields(&command.body, &mut body, &["$db", "min", "max", "toShard", "waitForDelete", "forceJumbo", "maxTimeMS"])?;
        }
        append_majority(&mut body);
        self.config.run(body).await
    }

    pub async fn split(&self, command: &Command) -> Answer {
        while_stale(async || {
            let namespace = command.text()?;
            let sharded = self.known(namespace).await?;
            let chunk = self.chunk(command).await?;
            let shard = self.shard(&chunk.shard)?;
            let at = match command.body.get_document("middle") {
                Ok(middle) => middle.to_owned(),
                Err(_) => {
                    let mut ask = rawdoc! { "splitVector": namespace, "force": true, "$db": "admin" };
                    for (name, value) in [(cstr!("keyPattern"), &sharded.key), (cstr!("min"), &chunk.min), (cstr!("max"), &chunk.max)] {
                        ask.append(name, value);
                    }
                    let reply = shard.run(ask).await?;
                    let first = reply.get_array("splitKeys")?.into_iter().next().transpose()?;
                    let few = || Failure::new(Code::IllegalOperation, "the chunk has too few documents to be split");
                    first.and_then(|key| key.as_document()).ok_or_else(few)?.to_owned()
                }
            };
            let mut body = rawdoc! { "splitChunk": namespace, "from": chunk.shard.as_str(), "$db": "admin" };
            body.append(cstr!("keyPattern"), &sharded.key);
            body.append(cstr!("epoch"), sharded.epoch);
            body.append(cstr!("timestamp"), sharded.timestamp);
            body.append(cstr!("min"), &chunk.min);
            body.append(cstr!("max"), &chunk.max);
            body.append(cstr!("splitKeys"), RawArrayBuf::from_iter([at]));
            shard.run(body).await
        })
        .await
    }

    pub async fn merge_chunks(&self, command: &Command) -> Answer {
        let namespace = command.text()?;
        let sharded = self.known(namespace).await?;
        let first = command.body.get_array("bounds")?.into_iter().next().transpose()?;
        let first = first.and_then(|bound| bound.as_document()).ok_or_else(|| Failure::new(Code::BadValue, "bounds are two documents"))?;
        let chunk = self.chunk_from(&sharded, rawdoc! { "min": first.to_owned() }).await?;
        let mut body = rawdoc! { "mergeChunks": namespace, "$db": "admin" };
        body.append(cstr!("bounds"), command.body.get_array("bounds")?);
        body.append(cstr!("epoch"), sharded.epoch);
        body.append(cstr!("timestamp"), sharded.timestamp);
        self.shard(&chunk.shard)?.run(body).await
    }

    async fn known(&self, namespace: &str) -> Result<Sharded, Failure> {
        let missing = || Failure::new(Code::NamespaceNotFound, format!("{namespace} is not sharded"));
        self.sharded(namespace).await?.ok_or_else(missing)
    }

    /// The chunk that a command names by `find`, `middle` or `bounds`.
    async fn chunk(&self, command: &Command) -> Result<Chunk, Failure> {
        let sharded = self.known(command.text()?).await?;
        if let Ok(bounds) = command.body.get_array("bounds") {
            let bounds: Vec<RawBson> = bounds.into_iter().map(|bound| bound.map(RawBson::from)).collect::<Result<_, _>>()?;
            let [min, max] = <[RawBson; 2]>::try_from(bounds).map_err(|_| Failure::new(Code::BadValue, "bounds are two documents"))?;
            return self.chunk_from(&sharded, rawdoc! { "min": min, "max": max }).await;
        }
        let within = command.body.get_document("find").or_else(|_| command.body.get_document("middle"))?;
        let hashed = command.body.get_document("middle").is_ok();
        let key = keys::of_document(&sharded.key, within);
        let key = if hashed { self.chunk_of_hashed(&sharded, key).await? } else { self.chunk_of(&sharded, key).await? };
        self.chunk_from(&sharded, rawdoc! { "_id": key }).await
    }

    async fn chunk_from(&self, sharded: &Sharded, filter: RawDocumentBuf) -> Result<Chunk, Failure> {
        let mut all = rawdoc! { "uuid": sharded.uuid.clone() };
        for field in &filter {
            let (name, value) = field?;
            all.append(name, value);
        }
        let reply = self.config.run(rawdoc! { "find": "chunks", "filter": all, "limit": 1, "$db": "config" }).await?;
        let found = first_batch(&reply)?;
        let found = found.first().ok_or_else(|| Failure::new(Code::BadValue, "there is no such chunk"))?;
        Ok(Chunk {
            min: found.get_document("min")?.to_owned(),
            max: found.get_document("max")?.to_owned(),
            shard: found.get_str("shard")?.into(),
        })
    }
}
