//! Transactions, and the updates that need one.

use super::*;

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
