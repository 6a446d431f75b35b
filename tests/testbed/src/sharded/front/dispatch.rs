//! Which command goes where: the front's table of commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mongodb::bson::raw::cstr;
use mongodb::bson::{DateTime, RawDocument, RawDocumentBuf, doc, rawdoc};
use tokio::sync::Mutex;

use super::access::{is_about_accounts, sent_on};
use super::cluster::Cluster;
use super::command::{Command, number};
use super::cursors::Home;
use super::failure::{Answer, Code, Failure};
use super::operations::asks_for_operations;
use super::placement::while_stale;
use super::stream::{MergedStream, change_stream};
use super::upstream::Upstream;

impl Cluster {
    /// Answers one command of a client. `client` numbers its connection.
    pub async fn answer(&self, client: usize, command: &Command) -> Answer {
        if command.is_in_transaction() {
            return self.in_transaction(client, command).await;
        }
        let on_config_server = ["config", "admin"].contains(&command.db.as_str());
        match command.name.as_str() {
            "hello" | "isMaster" | "ismaster" => Ok(self.hello(client)),
            "ping" | "refreshSessions" | "startSession" | "logout" | "flushRouterConfig" => Ok(ok()),
            "endSessions" => Ok(self.end_sessions(command)),
            "isdbgrid" => Ok(rawdoc! { "isdbgrid": 1, "hostname": "127.0.0.1", "ok": 1.0 }),

            "aggregate" if change_stream(command).is_some() => self.open_stream(command).await,
            "getMore" => self.get_more(command).await,
            "killCursors" => self.kill_cursors(command).await,
            "aggregate" if asks_for_operations(command) => self.current_operations(command).await,
            // Of no collection: `$documents`.
            "aggregate" if command.text().is_err() => self.routed(client, command).await,
            "find" | "aggregate" | "count" | "distinct" | "insert" | "update" | "delete" | "findAndModify" | "findandmodify"
            | "listCollections" | "listIndexes" | "create" | "createIndexes" | "dropIndexes" | "collStats" | "dbStats"
                if on_config_server =>
            {
                self.on_server(&self.config, command).await
            }
            "explain" if explains_write(command) => self.explain_write(command).await,
            "find" | "aggregate" | "insert" | "update" | "delete" | "explain" => self.routed(client, command).await,
            "count" => self.count(client, command).await,
            "distinct" => self.distinct(client, command).await,
            "findAndModify" | "findandmodify" => self.find_and_modify(command).await,

            "create" => self.create(command).await,
            "drop" => self.drop_collection(command).await,
            "dropDatabase" => self.drop_database(command).await,
            "renameCollection" => self.rename_collection(command).await,
            "collMod" => self.on_primary_shard(command, cstr!("_shardsvrCollMod")).await,
            "createIndexes" => self.create_indexes(command).await,
            "dropIndexes" | "deleteIndexes" => self.on_primary_shard(command, cstr!("_shardsvrDropIndexes")).await,
            "convertToCapped" | "mapReduce" | "mapreduce" | "splitVector" => self.on_unsharded(command).await,
            "listCollections" => self.list_collections(command).await,
            "listIndexes" => self.list_indexes(command).await,
            "listDatabases" => self.list_databases(command).await,
            "collStats" => self.collection_stats(command).await,
            "dbStats" => self.database_stats(command).await,

            "enableSharding" => self.enable_sharding(command).await,
            "shardCollection" => self.shard_collection(command).await,
            "reshardCollection" => self.reshard_collection(command).await,
            "refineCollectionShardKey" => self.refine_shard_key(command).await,
            "movePrimary" => self.move_primary(command).await,
            "moveChunk" | "moveRange" => self.move_range(command).await,
            "split" => self.split(command).await,
            "mergeChunks" => self.merge_chunks(command).await,
            "listShards" => self.list_shards().await,
            "addShard" => self.on_config(command, cstr!("_configsvrAddShard")).await,
            "removeShard" => self.on_config(command, cstr!("_configsvrRemoveShard")).await,
            "addShardToZone" => self.on_config(command, cstr!("_configsvrAddShardToZone")).await,
            "removeShardFromZone" => self.on_config(command, cstr!("_configsvrRemoveShardFromZone")).await,
            "updateZoneKeyRange" => self.on_config(command, cstr!("_configsvrUpdateZoneKeyRange")).await,
            "balancerStart" => self.on_config(command, cstr!("_configsvrBalancerStart")).await,
            "balancerStop" => self.on_config(command, cstr!("_configsvrBalancerStop")).await,
            "balancerStatus" => self.on_config(command, cstr!("_configsvrBalancerStatus")).await,
            "setUserWriteBlockMode" => self.on_config(command, cstr!("_configsvrSetUserWriteBlockMode")).await,
            "setFeatureCompatibilityVersion" => self.on_server(&self.config, command).await,

            "appendOplogNote" => self.append_oplog_note(command).await,
            "killOp" => self.kill_operation(command).await,
            "serverStatus" => self.server_status(client, command).await,
            "buildInfo" | "buildinfo" | "hostInfo" | "getParameter" | "connectionStatus" | "whatsmyuri" | "getCmdLineOpts" | "getLog" => {
                self.on_server(&self.router(client)?, command).await
            }
            name if is_about_accounts(name) => self.config.run(sent_on(command)?).await,
            name => Err(Failure::new(Code::CommandNotFound, format!("no such command: '{name}'"))),
        }
    }

    /// As a `mongos` says it: no set's name, and the word `isdbgrid`.
    fn hello(&self, client: usize) -> RawDocumentBuf {
        rawdoc! {
            "isWritablePrimary": true, "ismaster": true, "helloOk": true, "msg": "isdbgrid",
            "maxBsonObjectSize": 16 * 1024 * 1024, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
            "localTime": DateTime::now(), "logicalSessionTimeoutMinutes": 30, "connectionId": client as i32,
            "minWireVersion": 0, "maxWireVersion": self.wire_version.load(Ordering::Relaxed), "readOnly": false, "ok": 1.0,
        }
    }

    fn end_sessions(&self, command: &Command) -> RawDocumentBuf {
        let sessions = command.body.get_array("endSessions").into_iter().flatten().flatten();
        for session in sessions.filter_map(|session| session.as_document()) {
            self.retried.forget(session);
            self.transactions.forget(session);
        }
        ok()
    }

    /// By the shards' own routing code.
    pub async fn routed(&self, client: usize, command: &Command) -> Answer {
        let body = match command.name.as_str() {
            "find" => command.renamed(cstr!("clusterFind"))?,
            "insert" => command.renamed(cstr!("clusterInsert"))?,
            "update" => command.renamed(cstr!("clusterUpdate"))?,
            "delete" => command.renamed(cstr!("clusterDelete"))?,
            "explain" => explain(command)?,
            _ => command.renamed(cstr!("clusterAggregate"))?,
        };
        let write = ["insert", "update", "delete"].contains(&command.name.as_str()).then(|| command.session()).flatten();
        if let Some(write) = write {
            return self.retryable(client, command, body, write).await;
        }
        let router = self.router(client)?;
        let reply = self.asked(&router, command, &body).await?;
        self.cursors.remember(&reply, Home::Routed(router));
        Ok(reply)
    }

    /// Asks a shard's routing code, and again where it says that it is out of date. A `mongos` looks up again what it
    /// believed; a shard does not always: seen behind a rename onto another sharded collection (6.0.5).
    pub async fn asked(&self, router: &Upstream, command: &Command, body: &RawDocumentBuf) -> Answer {
        while_stale(async || {
            let answer = router.send(body.clone(), &command.sequences).await;
            if answer.as_ref().is_err_and(Failure::is_stale) {
                for name in [command.db.clone(), command.namespace()?] {
                    router.command("admin", &doc! { "flushRouterConfig": name }).await?;
                }
            }
            answer
        })
        .await
    }

    /// By one server, as it came.
    pub async fn on_server(&self, server: &Arc<Upstream>, command: &Command) -> Answer {
        let reply = server.send(command.plain()?, &command.sequences).await?;
        self.cursors.remember(&reply, Home::Server(server.clone()));
        Ok(reply)
    }

    async fn open_stream(&self, command: &Command) -> Answer {
        let mut stream = MergedStream::open(self, command).await?;
        let size = command.body.get_document("cursor").ok().and_then(|cursor| cursor.get("batchSize").ok().flatten());
        let released = stream.release(size.and_then(number).and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX))?;
        let (id, ended) = (self.next_cursor(), released.ended);
        let reply = released.reply(&stream, id, cstr!("firstBatch"));
        if ended {
            stream.close().await;
        } else {
            self.cursors.insert(id, Home::Merged(Arc::new(Mutex::new(stream))));
        }
        Ok(reply)
    }

    async fn get_more(&self, command: &Command) -> Answer {
        let id = command.number("getMore").unwrap_or_default();
        let not_found = || Failure::new(Code::CursorNotFound, format!("cursor id {id} not found"));
        match self.cursors.get(id).ok_or_else(not_found)? {
            Home::Routed(shard) => self.more_of(&shard, id, command.renamed(cstr!("clusterGetMore"))?).await,
            Home::Server(server) => self.more_of(&server, id, command.plain()?).await,
            Home::Merged(stream) => {
                let mut stream = stream.lock().await;
                let released = stream.more(self, command).await;
                if !matches!(&released, Ok(released) if !released.ended) {
                    self.cursors.remove(id);
                    stream.close().await;
                }
                Ok(released?.reply(&stream, id, cstr!("nextBatch")))
            }
        }
    }

    async fn more_of(&self, server: &Upstream, id: i64, body: RawDocumentBuf) -> Answer {
        let reply = server.run(body).await?;
        if reply.get_document("cursor")?.get_i64("id")? == 0 {
            self.cursors.remove(id);
        }
        Ok(reply)
    }

    async fn kill_cursors(&self, command: &Command) -> Answer {
        let (mut killed, mut unknown) = (mongodb::bson::RawArrayBuf::new(), mongodb::bson::RawArrayBuf::new());
        for id in command.body.get_array("cursors")?.into_iter().filter_map(|id| number(id.ok()?)) {
            match self.cursors.remove(id) {
                Some(Home::Routed(server) | Home::Server(server)) => {
                    // A server that has gone holds no cursor any more.
                    if server.has_primary() {
                        let _ = server.command(&command.db, &doc! { "killCursors": command.text()?, "cursors": [id] }).await;
                    }
                    killed.push(id);
                }
                Some(Home::Merged(stream)) => {
                    stream.lock().await.close().await;
                    killed.push(id);
                }
                None => unknown.push(id),
            }
        }
        let none = mongodb::bson::RawArrayBuf::new();
        Ok(rawdoc! { "cursorsKilled": killed, "cursorsNotFound": unknown, "cursorsAlive": none.clone(), "cursorsUnknown": none, "ok": 1.0 })
    }
}

pub fn ok() -> RawDocumentBuf {
    rawdoc! { "ok": 1.0 }
}

/// The explained command has another name on a shard, too.
fn explain(command: &Command) -> Result<RawDocumentBuf, Failure> {
    let inner: &RawDocument = command.body.get_document("explain")?;
    let mut renamed = RawDocumentBuf::new();
    for field in inner {
        let (key, value) = field?;
        let key = match key.as_str() {
            "find" => cstr!("clusterFind"),
            "aggregate" => cstr!("clusterAggregate"),
            _ => key,
        };
        renamed.append(key, value);
    }
    command.rewritten(cstr!("explain"), renamed, &[])
}

/// Whether it is a write that is to be explained. A shard that explains it under its routing name asks itself again, until
/// its stack is used up (RAN on 6.0.5).
fn explains_write(command: &Command) -> bool {
    let inner = command.body.get_document("explain").ok();
    let name = inner.and_then(|inner| inner.iter().next()).and_then(Result::ok).map(|(name, _)| name);
    name.is_some_and(|name| ["update", "delete"].contains(&name.as_str()))
}
