//! Somebody else changes the shard keys of a target while it is written to.

mod real {
    use crate::support::{DEADLINE, Ferry, METADATA, run, whole_machine};
    use bson::{Document, doc};
    use mongodb::Client;
    use rand::Rng;
    use serde_json::Value;
    use std::time::Duration;
    use testbed::parity::{Kind, everything};
    use testbed::{Options, ReplicaSet, ShardedCluster, connect, end, sharded};
    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;

    const DOCUMENTS: i32 = 1_000;
    const NAMES: [&str; 5] = ["refined", "resharded", "refined_id", "sharded", "by_id"];

    /// Changes every field that is, was or becomes part of a shard key, deletes, and brings back.
    async fn write(client: Client, stop: CancellationToken) -> u64 {
        let mut done = 0;
        while !stop.is_cancelled() {
            for name in NAMES {
                let coll = client.database("shop").collection::<Document>(name);
                let (id, to, kind) = {
                    let mut rng = rand::rng();
                    (rng.random_range(0..DOCUMENTS), rng.random_range(0..400), rng.random_range(0..12))
                };
                let q = doc! {"_id": id};
                let document = doc! {"_id": id, "n": to, "z": 400 - to, "again": true};
                match kind {
                    0 => drop(coll.delete_one(q).await.unwrap()),
                    1 | 2 => drop(coll.update_one(q, doc! {"$set": {"n": to}}).await.unwrap()),
                    3 | 4 => drop(coll.update_one(q, doc! {"$set": {"z": to}}).await.unwrap()),
                    5 => drop(coll.update_one(q, doc! {"$unset": {"z": 1}}).await.unwrap()),
                    6 | 7 => drop(coll.replace_one(q, document).upsert(true).await.unwrap()),
                    _ => drop(coll.update_one(q, doc! {"$inc": {"changes": 1}}).await.unwrap()),
                }
                done += 1;
            }
            sleep(Duration::from_millis(2)).await;
        }
        done
    }

    /// Waits until more has come.
    async fn more(ferry: &mut Ferry) {
        let applied = |status: &Value| status["events"]["applied"].as_u64().unwrap_or(0);
        let before = applied(&ferry.wait_for_phase("tailing").await);
        ferry.wait_for("more events", |status| applied(status) > before + 200).await;
    }

    async fn reshard(to: &Client, name: &str) {
        let key = doc! {"z": 1, "n": 1};
        run(to, "admin", doc! {"reshardCollection": format!("shop.{name}"), "key": key, "numInitialChunks": 4}).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn shard_keys_that_somebody_changes_on_the_target_are_learnt_again() {
        let _machine = whole_machine().await;
        let options = Options { name: "source".into(), oplog_mb: 1024, ..Options::default() };
        let (source, target) = tokio::try_join!(ReplicaSet::start(options), ShardedCluster::start(sharded::Options::default())).unwrap();
        let (from, to) = (connect(&source.uri()).await.unwrap(), target.client().await.unwrap());
        for name in NAMES.into_iter().chain(["idle"]) {
            let documents = (0..DOCUMENTS).map(|id| doc! {"_id": id, "n": id % 400, "z": id % 7});
            from.database("shop").collection::<Document>(name).insert_many(documents).await.unwrap();
            let indexes = ["n", "z"].map(|field| doc! {"key": {field: 1}, "name": field});
            let more = [doc! {"key": {"n": 1, "z": 1}, "name": "both"}, doc! {"key": {"_id": 1, "z": 1}, "name": "with_id"}];
            let indexes: Vec<Document> = indexes.into_iter().chain(more).collect();
            run(&from, "shop", doc! {"createIndexes": name, "indexes": indexes}).await;
        }
        let unique = vec![doc! {"key": {"z": 1, "n": 1, "_id": 1}, "name": "unique", "unique": true}];
        run(&from, "shop", doc! {"createIndexes": "idle", "indexes": unique}).await;
        let keys = ["shop.refined=n:1", "shop.resharded=n:1", "shop.refined_id=_id:1", "shop.by_id=_id:1", "shop.idle=z:1"];
        let keys: Vec<&str> = keys.iter().flat_map(|key| ["--shard", key]).chain(["--verbose"]).collect();
        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &keys);
        // With all indexes, which the new keys need.
        ferry.wait_until_ready().await;
        let stop = CancellationToken::new();
        let mut writing = JoinSet::new();
        writing.spawn(write(from.clone(), stop.clone()));

        run(&to, "admin", doc! {"refineCollectionShardKey": "shop.refined", "key": {"n": 1, "z": 1}}).await;
        run(&to, "admin", doc! {"refineCollectionShardKey": "shop.refined_id", "key": {"_id": 1, "z": 1}}).await;
        run(&to, "admin", doc! {"shardCollection": "shop.sharded", "key": {"n": 1}}).await;
        for name in ["refined", "sharded"] {
            for (at, shard) in [(200, "shard0"), (100, "shard1")] {
                let at = if name == "refined" {
                    doc! {"n": at, "z": 3}
                } else {
                    doc! {"n": at}
                };
                run(&to, "admin", doc! {"split": format!("shop.{name}"), "middle": at.clone()}).await;
                target.move_chunk(&format!("shop.{name}"), at, shard).await.unwrap();
            }
        }
        more(&mut ferry).await;
        // One is noticed by a write to it, and found again by the next start; one without either.
        reshard(&to, "resharded").await;
        more(&mut ferry).await;
        ferry.kill_9();
        ferry.restart();
        more(&mut ferry).await;
        reshard(&to, "idle").await;
        stop.cancel();
        assert!(writing.join_next().await.unwrap().unwrap() > 100);
        ferry.wait_until_caught_up(&from).await;
        let deadline = Instant::now() + DEADLINE;
        while !ferry.log().contains("looked again where a collection is ns=shop.idle") {
            assert!(Instant::now() < deadline, "nobody notices that an idle collection was resharded\n{}", ferry.log());
            sleep(Duration::from_millis(100)).await;
        }
        // The cluster's own log of it is kept for a while only.
        for name in ["resharded", "idle"] {
            let listed = run(&to, "shop", doc! {"listCollections": 1, "filter": {"name": name}}).await;
            let listed = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap()[0].as_document().unwrap();
            let saved = doc! {"target": format!("shop.{name}"), "target_uuid": listed.get_document("info").unwrap().get("uuid").unwrap()};
            let metadata = to.database(METADATA).collection::<Document>("collections");
            while metadata.find_one(saved.clone()).await.unwrap().is_none() {
                assert!(Instant::now() < deadline, "it is not saved what {name} became\n{}", ferry.log());
                sleep(Duration::from_millis(100)).await;
            }
        }
        ferry.cutover_and_end().await;
        let report = testbed::compare(&from, &to, everything).await.unwrap();
        let other: Vec<_> = report.differences.iter().filter(|d| d.kind != Kind::ExtraIndex).take(30).map(ToString::to_string).collect();
        assert!(other.is_empty(), "{}\n{}", other.join("\n"), ferry.log());
        end(from).await;
        end(to).await;
    }
}
