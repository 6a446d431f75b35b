use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::bson::{Bson, RawDocumentBuf, Timestamp, rawdoc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ResumeToken;
use mongodb::options::{ChangeStreamOptions, IndexOptions};
use mongodb::{IndexModel, bson};
use tokio::time::{Instant, timeout};

use super::*;
use crate::client::end;
use crate::testing::server_slot;
use crate::{Load, LoadOptions};

/// Two shards, and a client of their router.
async fn cluster() -> (ShardedCluster, Client) {
    let cluster = ShardedCluster::start(Options::default()).await.unwrap();
    let client = cluster.client().await.unwrap();
    (cluster, client)
}

/// `shop.<name>`, with four chunks on two shards.
async fn sharded(cluster: &ShardedCluster, client: &Client, name: &str) -> Collection<Document> {
    let shard = doc! { "shardCollection": format!("shop.{name}"), "key": { "_id": "hashed" }, "numInitialChunks": 4 };
    cluster.admin(shard).await.unwrap();
    client.database("shop").collection(name)
}

fn numbered(range: std::ops::Range<i32>) -> Vec<Document> {
    range.map(|n| doc! { "_id": n, "n": n }).collect()
}

/// How many documents each shard answers for itself, without its neighbours'.
async fn on_each_shard(cluster: &ShardedCluster, name: &str) -> Vec<u64> {
    let mut counts = Vec::new();
    for shard in cluster.shards() {
        let client = shard.client().await.unwrap();
        counts.push(client.database("shop").collection::<Document>(name).count_documents(doc! {}).await.unwrap());
        end(client).await;
    }
    counts
}

#[tokio::test]
async fn a_driver_sees_a_sharded_cluster_and_nothing_is_left_behind() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let hello = cluster.admin(doc! { "hello": 1 }).await.unwrap();
    assert_eq!(hello.get_str("msg").unwrap(), "isdbgrid");
    assert!(!hello.contains_key("setName") && hello.contains_key("operationTime") && hello.contains_key("$clusterTime"));

    let users = sharded(&cluster, &client, "users").await;
    let plain = client.database("shop").collection::<Document>("plain");
    for collection in [&users, &plain] {
        collection.insert_many(numbered(0..500)).await.unwrap();
        let id = |n| doc! { "_id": n };
        assert_eq!(collection.update_many(doc! {}, doc! { "$inc": { "n": 1 } }).await.unwrap().modified_count, 500);
        assert_eq!(collection.update_one(id(7), doc! { "$set": { "n": 0 } }).await.unwrap().modified_count, 1);
        assert_eq!(collection.replace_one(id(8), doc! { "m": 1 }).await.unwrap().modified_count, 1);
        assert_eq!(collection.delete_many(doc! { "n": { "$gt": 400 } }).await.unwrap().deleted_count, 100);
        let found = collection.find_one_and_update(id(9), doc! { "$set": { "n": -1 } }).await.unwrap().unwrap();
        assert_eq!(found.get_i32("n").unwrap(), 10);
        assert_eq!(collection.count_documents(doc! {}).await.unwrap(), 400);
        assert_eq!(collection.distinct("n", doc! { "_id": { "$lt": 10 } }).await.unwrap().len(), 9);
        let found: Vec<Document> =
            collection.find(doc! {}).batch_size(7).sort(doc! { "n": -1 }).await.unwrap().try_collect().await.unwrap();
        assert_eq!((found.len(), found[0].get_i32("n").unwrap()), (400, 400));
        // A session that wrote reads what it wrote.
        let mut session = client.start_session().causal_consistency(true).await.unwrap();
        collection.insert_one(doc! { "_id": "causal" }).session(&mut session).await.unwrap();
        assert!(collection.find_one(doc! { "_id": "causal" }).session(&mut session).await.unwrap().is_some());
    }
    let counts = on_each_shard(&cluster, "users").await;
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    assert!(on_each_shard(&cluster, "plain").await.contains(&0));
    assert_eq!(client.list_database_names().await.unwrap(), ["admin", "config", "shop"]);

    let folders: Vec<_> = cluster.shards().iter().chain([cluster.config()]).map(|set| set.folder().to_path_buf()).collect();
    let address = cluster.address();
    end(client).await;
    cluster.stop();
    assert!(folders.iter().all(|folder| !folder.exists()));
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "somebody still listens");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn collections_and_indexes_change_on_every_shard() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let users = sharded(&cluster, &client, "users").await;
    let shop = client.database("shop");
    shop.create_collection("plain").await.unwrap();
    users.insert_many(numbered(0..100)).await.unwrap();

    let index =
        |name: &str| IndexModel::builder().keys(doc! { "n": 1 }).options(IndexOptions::builder().name(name.to_owned()).build()).build();
    users.create_index(index("by n")).await.unwrap();
    shop.collection::<Document>("plain").create_index(index("by n")).await.unwrap();
    for shard in cluster.shards() {
        let direct = shard.client().await.unwrap();
        let names = direct.database("shop").collection::<Document>("users").list_index_names().await.unwrap();
        assert!(names.contains(&"by n".into()), "{names:?}");
        end(direct).await;
    }
    for name in ["users", "plain"] {
        shop.run_command(doc! { "collMod": name, "index": { "name": "by n", "hidden": true } }).await.unwrap();
        let indexes: Vec<IndexModel> = shop.collection::<Document>(name).list_indexes().await.unwrap().try_collect().await.unwrap();
        let hidden = indexes.iter().filter(|index| index.options.as_ref().is_some_and(|options| options.hidden == Some(true)));
        assert_eq!(hidden.count(), 1, "{name}");
        shop.collection::<Document>(name).drop_index("by n").await.unwrap();
        let new = format!("{name} renamed");
        cluster.admin(doc! { "renameCollection": format!("shop.{name}"), "to": format!("shop.{new}") }).await.unwrap();
        shop.collection::<Document>(name).insert_one(doc! { "_id": 1 }).await.unwrap();
    }
    let mut names = shop.list_collection_names().await.unwrap();
    names.sort();
    assert_eq!(names, ["plain", "plain renamed", "users", "users renamed"]);
    assert_eq!(shop.collection::<Document>("users renamed").count_documents(doc! {}).await.unwrap(), 100);

    // A time series that is sharded is sharded by its buckets.
    let series = doc! { "timeField": "at", "metaField": "meter" };
    cluster.admin(doc! { "shardCollection": "shop.readings", "key": { "meter": 1 }, "timeseries": series }).await.unwrap();
    let readings = shop.collection::<Document>("readings");
    readings.insert_one(doc! { "at": bson::DateTime::now(), "meter": 3 }).await.unwrap();
    readings.create_index(IndexModel::builder().keys(doc! { "meter": 1, "at": 1 }).build()).await.unwrap();
    assert_eq!(readings.list_index_names().await.unwrap().len(), 2);
    assert_eq!(readings.count_documents(doc! {}).await.unwrap(), 1);

    shop.collection::<Document>("users renamed").drop().await.unwrap();
    assert_eq!(on_each_shard(&cluster, "users renamed").await, [0, 0]);
    shop.drop().await.unwrap();
    assert_eq!(client.list_database_names().await.unwrap(), ["admin", "config"]);
    end(client).await;
}

#[tokio::test]
async fn chunks_split_move_and_obey_zones() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    cluster.admin(doc! { "enableSharding": "shop", "primaryShard": "shard0" }).await.unwrap();
    cluster.admin(doc! { "shardCollection": "shop.ranges", "key": { "n": 1 } }).await.unwrap();
    let ranges = client.database("shop").collection::<Document>("ranges");
    ranges.insert_many(numbered(0..100)).await.unwrap();
    assert_eq!(on_each_shard(&cluster, "ranges").await, [100, 0]);

    cluster.admin(doc! { "split": "shop.ranges", "middle": { "n": 30 } }).await.unwrap();
    cluster.admin(doc! { "split": "shop.ranges", "find": { "n": 60 } }).await.unwrap();
    cluster.move_chunk("shop.ranges", doc! { "n": 29 }, "shard1").await.unwrap();
    let chunks = client.database("config").collection::<Document>("chunks");
    assert_eq!(chunks.count_documents(doc! { "shard": "shard1" }).await.unwrap(), 1);
    assert_eq!(chunks.count_documents(doc! { "shard": "shard0" }).await.unwrap(), 2);
    assert_eq!(on_each_shard(&cluster, "ranges").await[1], 30);
    assert_eq!(ranges.count_documents(doc! {}).await.unwrap(), 100);
    let moved = doc! { "moveRange": "shop.ranges", "min": { "n": 0 }, "max": { "n": 30 }, "toShard": "shard0", "waitForDelete": true };
    cluster.admin(moved).await.unwrap();
    assert_eq!(on_each_shard(&cluster, "ranges").await[1], 0);

    cluster.admin(doc! { "addShardToZone": "shard1", "zone": "east" }).await.unwrap();
    let zone =
        doc! { "updateZoneKeyRange": "shop.zoned", "min": { "n": bson::Bson::MinKey }, "max": { "n": bson::Bson::MaxKey }, "zone": "east" };
    cluster.admin(zone).await.unwrap();
    cluster.admin(doc! { "shardCollection": "shop.zoned", "key": { "n": 1 } }).await.unwrap();
    client.database("shop").collection("zoned").insert_many(numbered(0..10)).await.unwrap();
    assert_eq!(on_each_shard(&cluster, "zoned").await, [0, 10]);

    cluster.admin(doc! { "reshardCollection": "shop.ranges", "key": { "_id": "hashed" }, "numInitialChunks": 4 }).await.unwrap();
    let counts = on_each_shard(&cluster, "ranges").await;
    assert!(counts.iter().all(|count| *count > 10) && counts.iter().sum::<u64>() == 100, "{counts:?}");
    let zoned = client.database("shop").collection::<Document>("zoned");
    zoned.create_index(IndexModel::builder().keys(doc! { "n": 1, "_id": 1 }).build()).await.unwrap();
    cluster.admin(doc! { "refineCollectionShardKey": "shop.zoned", "key": { "n": 1, "_id": 1 } }).await.unwrap();
    client.database("other").collection("things").insert_one(doc! { "_id": 1 }).await.unwrap();
    for to in ["shard0", "shard1"] {
        // A database's primary may be where it is to go; then it stays.
        cluster.admin(doc! { "movePrimary": "other", "to": to }).await.unwrap();
        let database = client.database("config").collection::<Document>("databases").find_one(doc! { "_id": "other" }).await.unwrap();
        assert_eq!(database.unwrap().get_str("primary").unwrap(), to);
        assert_eq!(client.database("other").collection::<Document>("things").count_documents(doc! {}).await.unwrap(), 1);
    }
    end(client).await;
}

#[tokio::test]
async fn transactions_commit_on_all_shards_or_on_none() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let users = sharded(&cluster, &client, "users").await;
    let plain = client.database("shop").collection::<Document>("plain");
    let mut session = client.start_session().await.unwrap();
    // Its first statement may make a collection. A later one may not: a snapshot of before would not have it.
    session.start_transaction().await.unwrap();
    plain.insert_one(doc! { "_id": "first" }).session(&mut session).await.unwrap();
    session.commit_transaction().await.unwrap();
    for (round, commit) in [true, false, true].into_iter().enumerate() {
        let base = 100 * round as i32;
        session.start_transaction().await.unwrap();
        users.insert_many(numbered(base..base + 50)).session(&mut session).await.unwrap();
        users.update_one(doc! { "_id": base + 3 }, doc! { "$set": { "n": -1 } }).session(&mut session).await.unwrap();
        users.update_many(doc! { "n": { "$gte": base + 40 } }, doc! { "$set": { "n": -2 } }).session(&mut session).await.unwrap();
        users.delete_one(doc! { "_id": base + 4 }).session(&mut session).await.unwrap();
        plain.insert_one(doc! { "_id": base }).session(&mut session).await.unwrap();
        let seen = users.find_one(doc! { "_id": base + 3 }).session(&mut session).await.unwrap().unwrap();
        assert_eq!(seen.get_i32("n").unwrap(), -1);
        assert_eq!(users.count_documents(doc! { "_id": { "$gte": base } }).await.unwrap(), 0, "seen from outside");
        if commit {
            session.commit_transaction().await.unwrap();
        } else {
            session.abort_transaction().await.unwrap();
        }
        let expected = if commit { 49 } else { 0 };
        assert_eq!(users.count_documents(doc! { "_id": { "$gte": base } }).await.unwrap(), expected);
        assert_eq!(users.count_documents(doc! { "_id": { "$gte": base }, "n": -2 }).await.unwrap(), if commit { 10 } else { 0 });
        assert_eq!(plain.count_documents(doc! { "_id": base }).await.unwrap(), u64::from(commit));
    }
    let counts = on_each_shard(&cluster, "users").await;
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

    // A document that changes its shard is deleted there and inserted here.
    cluster.admin(doc! { "shardCollection": "shop.ranges", "key": { "n": 1 } }).await.unwrap();
    cluster.admin(doc! { "split": "shop.ranges", "middle": { "n": 50 } }).await.unwrap();
    let ranges = client.database("shop").collection::<Document>("ranges");
    ranges.insert_many(numbered(0..100)).await.unwrap();
    let config = client.database("config");
    let database = config.collection::<Document>("databases").find_one(doc! { "_id": "shop" }).await.unwrap().unwrap();
    let other = if database.get_str("primary").unwrap() == "shard0" { "shard1" } else { "shard0" };
    cluster.move_chunk("shop.ranges", doc! { "n": 70 }, other).await.unwrap();
    let change = |from: i32, to: i32| (doc! { "n": from, "_id": from }, doc! { "$set": { "n": to } });
    let (query, update) = change(3, 73);
    assert_eq!(ranges.update_one(query, update).await.unwrap().modified_count, 1);
    session.start_transaction().await.unwrap();
    let (query, update) = change(4, 74);
    assert_eq!(ranges.update_one(query, update).session(&mut session).await.unwrap().modified_count, 1);
    session.commit_transaction().await.unwrap();
    assert_eq!(ranges.count_documents(doc! { "n": { "$in": [73, 74] } }).await.unwrap(), 4);
    let counts = on_each_shard(&cluster, "ranges").await;
    assert!(counts.contains(&52) && ranges.count_documents(doc! {}).await.unwrap() == 100, "{counts:?}");

    // One shard's refusal undoes the other's part.
    session.start_transaction().await.unwrap();
    assert!(users.insert_many(numbered(230..280)).session(&mut session).await.is_err());
    let _ = session.abort_transaction().await;
    assert_eq!(users.count_documents(doc! { "_id": { "$gte": 250 } }).await.unwrap(), 0);
    drop(session);
    end(client).await;
}

/// What a change stream has told, by replaying it.
#[derive(Default)]
struct Told {
    documents: BTreeMap<String, Document>,
    tokens: Vec<String>,
    times: Vec<Timestamp>,
    kinds: BTreeSet<String>,
}

impl Told {
    fn take(&mut self, event: &Document) {
        self.tokens.push(event.get_document("_id").unwrap().get_str("_data").unwrap().into());
        self.times.push(event.get_timestamp("clusterTime").unwrap());
        let kind = event.get_str("operationType").unwrap();
        self.kinds.insert(kind.into());
        let Ok(key) = event.get_document("documentKey") else { return };
        let key = key.to_string();
        match kind {
            "delete" => _ = self.documents.remove(&key),
            "update" => {
                let document = self.documents.get_mut(&key).expect("an update of a known document");
                document.extend(event.get_document("updateDescription").unwrap().get_document("updatedFields").unwrap().clone());
            }
            _ => _ = self.documents.insert(key, event.get_document("fullDocument").unwrap().clone()),
        }
    }
}

async fn watch(client: &Client, after: Option<ResumeToken>) -> ChangeStream<Document> {
    let mut options = ChangeStreamOptions::default();
    options.resume_after = after;
    options.show_expanded_events = Some(true);
    options.max_await_time = Some(Duration::from_millis(200));
    client.watch().with_options(options).await.unwrap().with_type()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_over_moving_chunks_tells_everything_once_and_in_order() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let users = sharded(&cluster, &client, "users").await;
    let mut stream = watch(&client, None).await;
    let start = stream.resume_token();

    let balancer = cluster.balance(&["shop.users".into()]).await.unwrap();
    let mut writes = tokio::task::JoinSet::new();
    for worker in 0..3 {
        let users = users.clone();
        writes.spawn(async move {
            for n in 0..200 {
                let id = doc! { "_id": format!("{worker}-{}", n % 70) };
                users.replace_one(id.clone(), doc! { "n": n }).upsert(true).await.unwrap();
                users.update_one(id.clone(), doc! { "$inc": { "m": 1 } }).await.unwrap();
                if n % 3 == 0 {
                    users.delete_one(id).await.unwrap();
                }
            }
        });
    }
    // 3 workers, 200 rounds: a replace and an update each, and 67 deletes.
    let expected = 3 * (400 + 67);
    let mut told = Told::default();
    let deadline = Instant::now() + Duration::from_secs(120);
    while told.tokens.len() < expected {
        assert!(Instant::now() < deadline, "{} of {expected} events", told.tokens.len());
        while let Some(ended) = writes.try_join_next() {
            ended.unwrap();
        }
        if writes.is_empty() {
            cluster.move_clocks().await.unwrap();
        }
        if let Some(event) = stream.next_if_any().await.unwrap() {
            told.take(&event);
            if told.tokens.len() % 100 == 0 {
                stream = watch(&client, stream.resume_token()).await;
            }
        }
    }
    let moved = balancer.stop().await;
    assert!(moved > 0, "no chunk was moved");

    assert!(told.tokens.is_sorted() && told.times.is_sorted());
    let distinct: BTreeSet<&String> = told.tokens.iter().collect();
    assert_eq!(distinct.len(), expected);
    assert_eq!(told.kinds, ["delete", "insert", "replace", "update"].map(String::from).into());
    let found: Vec<Document> = users.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    let found: BTreeMap<String, Document> = found.into_iter().map(|d| (doc! { "_id": d.get("_id").unwrap() }.to_string(), d)).collect();
    assert_eq!(told.documents, found);

    // From the beginning, the same again.
    cluster.move_clocks().await.unwrap();
    let mut again = watch(&client, start).await;
    let mut tokens = Vec::new();
    while tokens.len() < expected {
        let event = timeout(Duration::from_secs(30), again.try_next()).await.expect("no event for 30 s").unwrap().unwrap();
        tokens.push(event.get_document("_id").unwrap().get_str("_data").unwrap().to_owned());
    }
    assert_eq!(tokens, told.tokens);
    end(client).await;
}

#[tokio::test]
async fn a_quiet_stream_moves_on_and_its_options_reach_the_shards() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let users = sharded(&cluster, &client, "users").await;
    let options = doc! { "allChangesForCluster": true, "showExpandedEvents": true, "showRawUpdateDescription": true };
    let project = doc! { "$project": { "operationType": 1, "rawUpdateDescription": 1, "ns": 1 } };
    let command = doc! { "aggregate": 1, "pipeline": [{ "$changeStream": options }, project], "cursor": {} };
    let admin = client.database("admin");
    let reply = admin.run_command(command).await.unwrap();
    let cursor = reply.get_document("cursor").unwrap();
    let (id, promise) = (cursor.get_i64("id").unwrap(), cursor.get_document("postBatchResumeToken").unwrap().clone());

    // The shards' clocks move, without an event.
    let deadline = Instant::now() + Duration::from_secs(30);
    let more = async || {
        let reply = admin.run_command(doc! { "getMore": id, "collection": "$cmd.aggregate", "maxTimeMS": 200 }).await.unwrap();
        let cursor = reply.get_document("cursor").unwrap().clone();
        (cursor.get_array("nextBatch").unwrap().clone(), cursor.get_document("postBatchResumeToken").unwrap().clone())
    };
    loop {
        assert!(Instant::now() < deadline, "the promise does not move");
        // The first may land on the very tick that the stream starts at.
        cluster.move_clocks().await.unwrap();
        let (events, token) = more().await;
        assert!(events.is_empty(), "{events:?}");
        assert!(token.get_str("_data").unwrap() >= promise.get_str("_data").unwrap());
        if token != promise {
            break;
        }
    }
    users.insert_many(numbered(0..20)).await.unwrap();
    users.update_many(doc! {}, doc! { "$set": { "a.b": 1 } }).await.unwrap();
    let (mut kinds, mut diffs) = (Vec::new(), 0);
    while kinds.len() < 40 {
        assert!(Instant::now() < deadline, "{kinds:?}");
        cluster.move_clocks().await.unwrap();
        for event in more().await.0 {
            let Bson::Document(event) = event else { panic!("an event is a document") };
            kinds.push(event.get_str("operationType").unwrap().to_owned());
            diffs += usize::from(event.contains_key("rawUpdateDescription"));
            assert!(!event.contains_key("documentKey"), "projected away");
        }
    }
    assert_eq!(diffs, 20);
    admin.run_command(doc! { "killCursors": "$cmd.aggregate", "cursors": [id] }).await.unwrap();
    let gone = admin.run_command(doc! { "getMore": id, "collection": "$cmd.aggregate" }).await.unwrap_err();
    assert!(gone.to_string().contains("43"), "{gone}");
    end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_document_is_lost_or_counted_twice_while_chunks_move_under_load() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let options = LoadOptions { seed: 11, ops_per_second: 600, databases: 1, collections: 2, ..Default::default() };
    let names: Vec<String> = options.namespaces().iter().map(|(db, collection)| format!("{db}.{collection}")).collect();
    for name in &names {
        cluster.admin(doc! { "shardCollection": name, "key": { "_id": "hashed" }, "numInitialChunks": 6 }).await.unwrap();
    }
    let users = sharded(&cluster, &client, "users").await;
    users.insert_many(numbered(0..1000)).await.unwrap();
    let load = Load::start(client.clone(), options);
    let balancer = cluster.balance(&[names, vec!["shop.users".into()]].concat()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut inserted = 1000;
    while balancer.moved() < 6 || load.counts().operations < 2000 || load.counts().transactions == 0 {
        assert!(Instant::now() < deadline, "{} moved, {} refused, {:?}", balancer.moved(), balancer.refused(), load.counts());
        users.insert_one(doc! { "_id": inserted }).await.unwrap();
        inserted += 1;
        assert_eq!(users.count_documents(doc! {}).await.unwrap(), inserted as u64);
    }
    balancer.stop().await;
    let counts = load.stop().await;
    eprintln!("{counts:?}");
    assert_eq!(counts.errors, 0, "{counts:?}");
    end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_survive_a_router_that_dies_and_a_shard_without_primary() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let users = sharded(&cluster, &client, "users").await;
    users.insert_many(numbered(0..100)).await.unwrap();
    let mut stream = watch(&client, None).await;

    cluster.stop_router().await;
    assert!(std::net::TcpStream::connect(cluster.address()).is_err());
    cluster.start_router().await.unwrap();
    assert_eq!(users.count_documents(doc! {}).await.unwrap(), 100);
    users.insert_one(doc! { "_id": 100 }).await.unwrap();
    cluster.move_clocks().await.unwrap();
    let event = timeout(Duration::from_secs(60), stream.try_next()).await.expect("no event").unwrap().unwrap();
    assert_eq!(event.get_document("documentKey").unwrap().get_i32("_id").unwrap(), 100);

    let inserts: Vec<i32> = (101..160).collect();
    let writing = async {
        for id in &inserts {
            // Sent again, an insert may find itself done.
            let done = users.insert_one(doc! { "_id": id }).await;
            assert!(done.is_ok() || done.as_ref().unwrap_err().to_string().contains("11000"), "{done:?}");
        }
    };
    let stepping = async {
        for shard in cluster.shards() {
            shard.step_down().await.unwrap();
        }
    };
    tokio::join!(writing, stepping);
    assert_eq!(users.count_documents(doc! {}).await.unwrap(), 160);
    cluster.move_clocks().await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < inserts.len() {
        let event = timeout(Duration::from_secs(60), stream.try_next()).await.expect("no event").unwrap().unwrap();
        seen.insert(event.get_document("documentKey").unwrap().get_i32("_id").unwrap());
    }
    assert!(seen.iter().eq(&inserts));
    end(client).await;
}

#[tokio::test]
async fn documents_pass_through_the_router_byte_for_byte() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    sharded(&cluster, &client, "users").await;
    let users = client.database("shop").collection::<RawDocumentBuf>("users");
    // A name twice, a text that is not UTF-8, and a large one.
    let mut strange = rawdoc! { "_id": 1, "twice": 1, "text": "??" };
    strange.append(bson::raw::cstr!("twice"), 2.5);
    let mut bytes = strange.into_bytes();
    let at = bytes.windows(2).position(|pair| pair == b"??").unwrap();
    bytes[at..at + 2].copy_from_slice(&[0xff, 0xfe]);
    let strange = RawDocumentBuf::from_bytes(bytes).unwrap();
    let large = rawdoc! { "_id": 2, "text": "x".repeat(15 << 20) };
    users.insert_many([&strange, &large]).await.unwrap();
    for document in [&strange, &large] {
        let id = document.get("_id").unwrap().unwrap().as_i32().unwrap();
        let found = users.find_one(doc! { "_id": id }).await.unwrap().unwrap();
        assert!(found.as_bytes() == document.as_bytes(), "document {id} has changed");
    }
    end(client).await;
}
