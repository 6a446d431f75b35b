//! Collections, indexes and databases: by the shards' own coordinators, on the database's primary shard.

use mongodb::bson::raw::{CStr, CString, cstr};
use mongodb::bson::{RawBson, RawDocumentBuf, rawdoc};

use super::cluster::Cluster;
use super::command::{Command, append_majority};
use super::cursors::Home;
use super::dispatch::ok;
use super::failure::{Answer, Code, Failure};
use super::placement::{Database, Placement, send_versioned, while_stale};

impl Cluster {
    /// Runs the command under its internal name where the database's coordinators run.
    pub async fn on_primary_shard(&self, command: &Command, name: &CStr) -> Answer {
        let body = command.rewritten(name, command.value()?, &["writeConcern"])?;
        self.coordinated(&command.db, body).await
    }

    /// Runs an internal command on the primary shard of a database, with the database's version.
    pub async fn coordinated(&self, db: &str, body: RawDocumentBuf) -> Answer {
        while_stale(async || {
            let database = self.existing(db).await?;
            let mut body = body.clone();
            append_majority(&mut body);
            body.append(cstr!("databaseVersion"), &database.version);
            self.shard(&database.primary)?.run(body).await
        })
        .await
    }

    pub async fn existing(&self, db: &str) -> Result<Database, Failure> {
        let missing = || Failure::new(Code::NamespaceNotFound, format!("database {db} not found"));
        self.database(db).await?.ok_or_else(missing)
    }

    pub async fn create(&self, command: &Command) -> Answer {
        while_stale(async || {
            let database = self.make_database(&command.db, None).await?;
            let mut body = command.plain()?;
            body.append(cstr!("databaseVersion"), &database.version);
            self.shard(&database.primary)?.run(body).await
        })
        .await
    }

    pub async fn drop_collection(&self, command: &Command) -> Answer {
        if self.database(&command.db).await?.is_none() {
            return Ok(rawdoc! { "info": "database does not exist", "ok": 1.0 });
        }
        let answer = self.on_primary_shard(command, cstr!("_shardsvrDropCollection")).await;
        match answer {
            Err(failure) if failure.code() == Code::NamespaceNotFound as i32 => Ok(ok()),
            answer => answer.map(|_| rawdoc! { "ns": command.namespace().unwrap_or_default(), "ok": 1.0 }),
        }
    }

    pub async fn drop_database(&self, command: &Command) -> Answer {
        if self.database(&command.db).await?.is_none() {
            return Ok(rawdoc! { "info": "database does not exist", "ok": 1.0 });
        }
        self.on_primary_shard(command, cstr!("_shardsvrDropDatabase")).await?;
        Ok(rawdoc! { "dropped": command.db.as_str(), "ok": 1.0 })
    }

    pub async fn rename_collection(&self, command: &Command) -> Answer {
        let (db, collection) = command.full_name()?;
        let mut body = command.rewritten(cstr!("_shardsvrRenameCollection"), collection, &["writeConcern", "$db"])?;
        body.append(cstr!("$db"), db);
        self.coordinated(db, body).await?;
        Ok(ok())
    }

    /// On every shard that holds documents. One that gets its first chunk meanwhile gets the indexes with it, unless
    /// it got them before: so the shards are looked up again until there is no new one.
    pub async fn create_indexes(&self, command: &Command) -> Answer {
        self.make_database(&command.db, None).await?;
        let mut replies: Vec<(String, RawDocumentBuf)> = Vec::new();
        loop {
            let (placement, _) = self.placed_or_buckets(command).await?;
            let left = placement.shards().into_iter().find(|shard| !replies.iter().any(|(done, _)| done == shard));
            let Some(name) = left else { break };
            let shard = self.shard(name)?;
            let reply = while_stale(async || {
                let (placement, body) = self.placed_or_buckets(command).await?;
                if !placement.shards().contains(&shard.name.as_str()) {
                    return Ok(ok()); // its last chunk has just gone
                }
                send_versioned(&shard, &placement, body).await
            });
            let reply = reply.await?;
            replies.push((shard.name.clone(), reply));
        }
        let mut raw = RawDocumentBuf::new();
        for (shard, reply) in &replies {
            raw.append(CString::try_from(self.shard(shard)?.connection_string())?, reply);
        }
        Ok(rawdoc! { "raw": raw, "ok": 1.0 })
    }

    async fn placed(&self, namespace: &str) -> Result<Placement, Failure> {
        let missing = || Failure::new(Code::NamespaceNotFound, format!("the database of {namespace} was not found"));
        self.placement(namespace).await?.ok_or_else(missing)
    }

    /// The same, and the command for a shard. A sharded time series is sharded by its buckets, and the shards want to be
    /// told these then.
    async fn placed_or_buckets(&self, command: &Command) -> Result<(Placement, RawDocumentBuf), Failure> {
        let mut placement = self.placed(&command.namespace()?).await?;
        if placement.sharded.is_none() {
            let buckets = format!("system.buckets.{}", command.text()?);
            placement.sharded = self.sharded(&format!("{}.{buckets}", command.db)).await?;
            if placement.sharded.is_some() {
                let name = CString::try_from(command.name.as_str())?;
                let mut body = command.rewritten(&name, buckets, &[])?;
                body.append(cstr!("isTimeseriesNamespace"), true);
                return Ok((placement, body));
            }
        }
        Ok((placement, command.plain()?))
    }

    /// Commands that only a collection on one shard takes. `splitVector` names its database, too.
    pub async fn on_unsharded(&self, command: &Command) -> Answer {
        let namespace = if command.name == "splitVector" { command.text()?.to_owned() } else { command.namespace()? };
        let reply = while_stale(async || {
            let placement = self.placed(&namespace).await?;
            if placement.sharded.is_some() {
                let message = format!("the front cannot do {} on a sharded collection", command.name);
                return Err(Failure::new(Code::IllegalOperation, message));
            }
            let shard = self.shard(&placement.database.primary)?;
            send_versioned(&shard, &placement, command.plain()?).await
        });
        reply.await
    }

    pub async fn list_collections(&self, command: &Command) -> Answer {
        let none = || {
            let cursor = rawdoc! { "id": 0_i64, "ns": format!("{}.$cmd.listCollections", command.db), "firstBatch": [] };
            rawdoc! { "cursor": cursor, "ok": 1.0 }
        };
        let reply = while_stale(async || {
            let Some(database) = self.database(&command.db).await? else { return Ok(none()) };
            let shard = self.shard(&database.primary)?;
            let mut body = command.plain()?;
            body.append(cstr!("databaseVersion"), &database.version);
            let reply = shard.run(body).await?;
            self.cursors.remember(&reply, Home::Server(shard));
            Ok(reply)
        });
        reply.await
    }

    pub async fn list_indexes(&self, command: &Command) -> Answer {
        let reply = while_stale(async || {
            let (placement, body) = self.placed_or_buckets(command).await?;
            let shard = match &placement.sharded {
                Some(sharded) => self.shard(&sharded.lowest)?,
                None => self.shard(&placement.database.primary)?,
            };
            let reply = send_versioned(&shard, &placement, body).await?;
            self.cursors.remember(&reply, Home::Server(shard));
            Ok(reply)
        });
        reply.await
    }

    /// On every shard, as its own command.
    pub async fn append_oplog_note(&self, command: &Command) -> Answer {
        let mut raw = RawDocumentBuf::new();
        for shard in self.shards() {
            let reply = shard.run(command.plain()?).await?;
            raw.append(CString::try_from(shard.name.as_str())?, RawBson::Document(reply));
        }
        Ok(rawdoc! { "raw": raw, "ok": 1.0 })
    }
}
