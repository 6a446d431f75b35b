//! Moving chunks, dying routers, lost primaries.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use tokio::time::timeout;

use super::streams::watch;
use super::*;
use crate::{Load, LoadOptions};

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
    let start = watch(&client, None).await.resume_token();
    let load = Load::start(client.clone(), options);
    let balancer = cluster.balance(&[names.clone(), vec!["shop.users".into()]].concat()).await.unwrap();
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

    // What the stream tells of inserts and deletes, those of transactions over both shards included, is what is there.
    users.insert_one(doc! { "_id": "the end" }).await.unwrap();
    cluster.move_clocks().await.unwrap();
    let mut left: BTreeMap<String, i64> = BTreeMap::new();
    let mut stream = watch(&client, start).await;
    loop {
        let event = timeout(Duration::from_secs(60), stream.try_next()).await.expect("no event").unwrap().unwrap();
        let ns = event.get_document("ns").unwrap();
        let name = format!("{}.{}", ns.get_str("db").unwrap(), ns.get_str("coll").unwrap());
        match event.get_str("operationType").unwrap() {
            "insert" => *left.entry(name).or_default() += 1,
            "delete" => *left.entry(name).or_default() -= 1,
            _ => continue,
        }
        if event.get_document("documentKey").unwrap().get_str("_id").is_ok_and(|id| id == "the end") {
            break;
        }
    }
    for name in &names {
        let (database, collection) = name.split_once('.').unwrap();
        let found = client.database(database).collection::<Document>(collection).count_documents(doc! {}).await.unwrap();
        assert_eq!(left[name], found as i64, "{name}");
    }
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
