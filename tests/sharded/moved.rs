//! A database that goes to another shard and comes back while nobody follows.

mod real {
    use crate::support::{Ferry, run, whole_machine};
    use bson::{DateTime, Document, doc};
    use mongodb::Client;
    use testbed::{Options, ReplicaSet, ShardedCluster, connect, end, sharded};

    async fn move_to(on: &Client, shard: &str) {
        run(on, "admin", doc! {"movePrimary": "shop", "to": shard}).await;
    }

    async fn rename(on: &Client, from: &str, to: &str) {
        run(on, "admin", doc! {"renameCollection": format!("shop.{from}"), "to": format!("shop.{to}")}).await;
    }

    async fn fill(on: &Client, name: &str) {
        on.database("shop").collection(name).insert_many((0..50).map(|n| doc! {"_id": n, "of": name})).await.unwrap();
        let index = doc! {"key": {"of": 1, "_id": -1}, "name": "of", "unique": true};
        run(on, "shop", doc! {"createIndexes": name, "indexes": [index]}).await;
    }

    async fn write(on: &Client, name: &str, round: i32) {
        let coll = on.database("shop").collection::<Document>(name);
        coll.update_many(doc! {"_id": {"$lt": 20}}, doc! {"$set": {"round": round}}).await.unwrap();
        coll.delete_one(doc! {"_id": 40 + round}).await.unwrap();
        coll.insert_one(doc! {"_id": 100 + round}).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn collections_that_were_moved_twice_while_nobody_followed_are_copied_as_they_are() {
        let _machine = whole_machine().await;
        let target = Options { name: "target".into(), ..Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(sharded::Options::default()), ReplicaSet::start(target)).unwrap();
        let (from, to) = (source.client().await.unwrap(), connect(&target.uri()).await.unwrap());
        run(&from, "admin", doc! {"enableSharding": "shop", "primaryShard": "shard0"}).await;
        let names = ["written", "quiet", "renamed", "renamed_twice", "renamed_at_last", "dropped", "again", "swap_a", "swap_b"];
        for name in names {
            fill(&from, name).await;
        }
        run(&from, "shop", doc! {"create": "empty"}).await;
        run(&from, "shop", doc! {"create": "capped", "capped": true, "size": 100_000}).await;
        fill(&from, "capped").await;
        run(&from, "shop", doc! {"create": "view", "viewOn": "quiet", "pipeline": []}).await;
        run(&from, "shop", doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m"}}).await;
        let measure = async |n: i64| {
            let series = from.database("shop").collection::<Document>("series");
            series.insert_many((0..20).map(|m| doc! {"t": DateTime::from_millis(n * 1_000 + m), "m": m % 3})).await.unwrap();
        };
        measure(0).await;
        run(&from, "admin", doc! {"shardCollection": "shop.sharded", "key": {"_id": "hashed"}}).await;
        from.database("shop").collection("sharded").insert_many((0..50).map(|n| doc! {"_id": n})).await.unwrap();

        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--verbose"]);
        ferry.wait_until_ready().await;
        ferry.kill_9();
        write(&from, "written", 0).await;
        move_to(&from, "shard1").await;
        write(&from, "written", 1).await;
        write(&from, "sharded", 1).await;
        from.database("shop").collection::<Document>("capped").insert_one(doc! {"_id": "between"}).await.unwrap();
        measure(1).await;
        rename(&from, "renamed", "other_name").await;
        rename(&from, "renamed_twice", "for_a_while").await;
        run(&from, "shop", doc! {"drop": "dropped"}).await;
        run(&from, "shop", doc! {"drop": "again"}).await;
        fill(&from, "again").await;
        fill(&from, "made").await;
        for (a, b) in [("swap_a", "swap"), ("swap_b", "swap_a"), ("swap", "swap_b")] {
            rename(&from, a, b).await;
        }
        move_to(&from, "shard0").await;
        write(&from, "written", 2).await;
        rename(&from, "for_a_while", "renamed_twice").await;
        rename(&from, "renamed_at_last", "other_name_at_last").await;
        measure(2).await;

        ferry.restart();
        ferry.wait_for_phase("tailing").await;
        ferry.wait_until_caught_up(&from).await;
        let (documents, there) = ferry.hand_over_stopped(&from, &to).await;
        assert!(documents > 500 && documents == there, "{documents} documents on the source, {there} on the target");
        end(from).await;
        end(to).await;
    }
}
