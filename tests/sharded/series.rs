//! Time series of a sharded source, on one shard and on all of them, followed live to a sharded target.

mod real {
    use crate::support::{DEADLINE, Ferry, run, whole_machine};
    use bson::{DateTime, Document, doc};
    use mongodb::Client;
    use std::time::Duration;
    use testbed::{ShardedCluster, end, sharded};
    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};
    use tokio_util::sync::CancellationToken;

    /// Each series with its shard key.
    fn series() -> [(&'static str, Option<Document>); 6] {
        [
            ("plain", None),
            ("by_meta", Some(doc! {"m.d": 1})),
            ("by_time", Some(doc! {"t": 1})),
            ("by_both", Some(doc! {"m": 1, "t": 1})),
            ("hashed", Some(doc! {"m": "hashed"})),
            // Its one chunk stays where it is. A primary shard without chunks would not take a new granularity into its listing: only
            // the other shards do, and the cluster's own catalog (RAN on 6.0.5).
            ("coarser", Some(doc! {"m.d": 1})),
        ]
    }

    fn made(name: &str, key: Option<Document>) -> Document {
        let timeseries = doc! {"timeField": "t", "metaField": "m"};
        match key {
            Some(key) => doc! {"shardCollection": format!("shop.{name}"), "key": key, "timeseries": timeseries},
            None => doc! {"create": name, "timeseries": timeseries},
        }
    }

    async fn make(client: &Client, name: &str, key: Option<Document>) {
        let database = if key.is_some() { "admin" } else { "shop" };
        run(client, database, made(name, key)).await;
    }

    /// The moment `second` of the series.
    fn at(second: i64) -> DateTime {
        DateTime::from_millis(1_767_225_600_000 + second * 1_000)
    }

    fn measured(seconds: std::ops::Range<i64>) -> Vec<Document> {
        seconds.map(|k| doc! {"t": at(k * 60), "m": {"d": k % 5}, "v": k}).collect()
    }

    async fn insert(client: &Client, name: &str, seconds: std::ops::Range<i64>) {
        client.database("shop").collection::<Document>(name).insert_many(measured(seconds)).await.unwrap();
    }

    /// Measures until it is told to stop: into old buckets and new ones.
    async fn measure(client: Client, stop: CancellationToken) -> i64 {
        let mut n = 1_000;
        while !stop.is_cancelled() {
            for (name, _) in series() {
                insert(&client, name, n..n + 5).await;
            }
            n += 1;
            sleep(Duration::from_millis(20)).await;
        }
        n
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn series_are_followed_live_through_their_buckets_while_these_move() {
        let _machine = whole_machine().await;
        let options = || sharded::Options { oplog_mb: 512, ..sharded::Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(options()), ShardedCluster::start(options())).unwrap();
        let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
        for (name, key) in series() {
            make(&from, name, key).await;
            insert(&from, name, 0..400).await;
        }
        let buckets = |name: &str| format!("shop.system.buckets.{name}");
        for (name, middle) in [("by_meta", doc! {"meta.d": 2_i64}), ("by_time", doc! {"control.min.t": at(200 * 60)})] {
            run(&from, "admin", doc! {"split": buckets(name), "middle": middle}).await;
        }
        let moving = source.balance(&["by_meta", "by_time", "hashed"].map(buckets)).await.unwrap();
        let stop = CancellationToken::new();
        let mut measuring = JoinSet::new();
        measuring.spawn(measure(from.clone(), stop.clone()));

        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--verbose"]);
        ferry.wait_for_phase("tailing").await;
        let shop = from.database("shop");
        for (name, _) in series() {
            shop.collection::<Document>(name).delete_many(doc! {"m.d": 3_i64}).await.unwrap();
            run(&from, "shop", doc! {"collMod": name, "expireAfterSeconds": 360_000_000_i64}).await;
            let index = doc! {"createIndexes": name, "indexes": [{"key": {"m.d": 1, "t": -1}, "name": "both"}]};
            run(&from, "shop", index).await;
        }
        for name in ["plain", "by_meta", "by_time"] {
            let update = doc! {"q": {"m.d": 1_i64}, "u": {"$set": {"m.x": 1}}, "multi": true};
            run(&from, "shop", doc! {"update": name, "updates": [update]}).await;
        }
        ferry.kill_9();
        run(&from, "shop", doc! {"collMod": "coarser", "timeseries": {"granularity": "minutes"}}).await;
        ferry.restart();
        ferry.wait_for_phase("tailing").await;
        let (before, deadline) = (moving.moved(), Instant::now() + DEADLINE);
        while moving.moved() < before + 3 {
            assert!(Instant::now() < deadline, "{} chunks moved, {} refused", moving.moved(), moving.refused());
            sleep(Duration::from_millis(50)).await;
        }
        stop.cancel();
        assert!(measuring.join_next().await.unwrap().unwrap() > 1_020);
        let moved = moving.stop().await;
        eprintln!("{moved} chunks moved");
        // Dropped and made again, once more and once less sharded.
        for (name, key) in [("plain", Some(doc! {"m": 1})), ("by_both", None)] {
            run(&from, "shop", doc! {"drop": name}).await;
            make(&from, name, key).await;
            insert(&from, name, 0..50).await;
        }
        ferry.wait_until_caught_up(&from).await;
        ferry.hand_over_stopped(&from, &to).await;
        for (name, _) in series() {
            let count =
                async |client: &Client| client.database("shop").collection::<Document>(name).count_documents(doc! {}).await.unwrap();
            let (ours, theirs) = (count(&from).await, count(&to).await);
            assert!(ours >= 50 && ours == theirs, "{name}: {ours} and {theirs}");
        }
        end(from).await;
        end(to).await;
    }
}
