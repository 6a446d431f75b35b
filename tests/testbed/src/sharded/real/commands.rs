//! What a client does, and what administrators do to its collections.

use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::bson::{self, RawDocumentBuf, rawdoc};
use mongodb::options::IndexOptions;

use super::*;

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
