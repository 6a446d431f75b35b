//! The way back where a side is a sharded cluster, or both: for every pair of topologies that the tests beside this one leave out.

mod real {
    use crate::support::{Ferry, run, whole_machine};
    use bson::{Document, doc};
    use mongodb::Client;
    use serde_json::Value;
    use std::time::Duration;
    use testbed::{
        Options, ReplicaSet, ShardedCluster, connect, end,
        parity::{Difference, Kind},
        sharded,
    };
    use tokio::time::sleep;

    /// A cluster of either kind.
    enum Side {
        Set(Box<ReplicaSet>),
        Sharded(Box<ShardedCluster>),
    }

    impl Side {
        async fn set(name: &str) -> Self {
            Side::Set(Box::new(ReplicaSet::start(Options { name: name.into(), ..Options::default() }).await.unwrap()))
        }
        async fn sharded() -> Self {
            Side::Sharded(Box::new(ShardedCluster::start(sharded::Options::default()).await.unwrap()))
        }
        fn uri(&self) -> String {
            match self {
                Side::Set(set) => set.uri(),
                Side::Sharded(cluster) => cluster.uri(),
            }
        }
    }

    /// What the application has before anything begins.
    async fn fill(client: &Client) {
        let many: Vec<_> = (0..2_000).map(|n| doc! {"_id": n, "n": n % 400, "code": n, "text": "x".repeat(200)}).collect();
        client.database("shop").collection::<Document>("items").insert_many(many).await.unwrap();
        run(client, "shop", doc! {"createIndexes": "items", "indexes": [{"key": {"n": 1, "code": 1}, "name": "code", "unique": true}]})
            .await;
        let codes: Vec<_> = (0..50).map(|n| doc! {"_id": n, "code": n, "at": bson::DateTime::now()}).collect();
        client.database("shop").collection::<Document>("codes").insert_many(codes).await.unwrap();
        let indexes = vec![
            doc! {"key": {"code": 1}, "name": "by code", "unique": true},
            doc! {"key": {"at": 1}, "name": "by age", "expireAfterSeconds": 1_000_000},
        ];
        run(client, "shop", doc! {"createIndexes": "codes", "indexes": indexes}).await;
        run(client, "shop", doc! {"insert": "gone", "documents": [{"_id": 0}]}).await;
        run(client, "shop", doc! {"create": "cheap", "viewOn": "codes", "pipeline": [{"$match": {"code": {"$lt": 5}}}]}).await;
    }

    /// What it does to its primary cluster: documents that go to other shards, structure, unique values that are swapped.
    async fn use_it(client: &Client, round: i32) {
        let items = client.database("shop").collection::<Document>("items");
        for id in 0..20 {
            let id = id + 20 * round;
            let found = items.find_one(doc! {"_id": id}).await.unwrap().unwrap();
            let n = found.get_i32("n").unwrap();
            // A chunk that moved a moment ago: the statement is repeated by its writer.
            for attempt in 0.. {
                match items.update_one(doc! {"_id": id, "n": n}, doc! {"$set": {"n": 399 - n, "round": round}}).await {
                    Ok(_) => break,
                    Err(error) => assert!(attempt < 20, "{error}"),
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        items.delete_many(doc! {"_id": {"$gte": 1_900 - 100 * round, "$lt": 1_950 - 100 * round}}).await.unwrap();
        items.insert_one(doc! {"_id": format!("new{round}"), "n": 7, "code": -round}).await.unwrap();
        let swap = doc! {"update": "codes", "updates": [
            {"q": {"_id": 1}, "u": {"$set": {"code": -1}}},
            {"q": {"_id": 2}, "u": {"$set": {"code": 1 + 1000 * round}}},
            {"q": {"_id": 1}, "u": {"$set": {"code": 2 + 1000 * round}}},
        ]};
        run(client, "shop", swap).await;
        let made = format!("made{round}");
        run(client, "shop", doc! {"insert": &made, "documents": [{"_id": 1, "a": 1}]}).await;
        run(client, "shop", doc! {"createIndexes": &made, "indexes": [{"key": {"a": 1}, "name": "a", "unique": true}]}).await;
        run(client, "admin", doc! {"renameCollection": format!("shop.{made}"), "to": format!("shop.kept{round}")}).await;
        run(client, "shop", doc! {"collMod": "codes", "index": {"name": "by age", "expireAfterSeconds": 1_000_000 + round}}).await;
        run(client, "shop", doc! {"drop": "gone"}).await;
        run(client, "shop", doc! {"insert": "gone", "documents": [{"_id": round}]}).await;
    }

    /// Two clusters that a migration goes between, and back.
    struct Bed {
        _clusters: [Side; 2],
        from: Client,
        to: Client,
        ferry: Ferry,
    }

    impl Bed {
        async fn start(source: Side, target: Side, options: &[&str]) -> Self {
            let (from, to) = (connect(&source.uri()).await.unwrap(), connect(&target.uri()).await.unwrap());
            if let Side::Sharded(_) = source {
                run(&from, "admin", doc! {"shardCollection": "shop.items", "key": {"n": 1}}).await;
                run(&from, "admin", doc! {"split": "shop.items", "middle": {"n": 200}}).await;
                run(&from, "admin", doc! {"moveChunk": "shop.items", "find": {"n": 300}, "to": "shard1"}).await;
            }
            fill(&from).await;
            let ferry = Ferry::start(&source.uri(), &target.uri(), options);
            Self { _clusters: [source, target], from, to, ferry }
        }

        async fn hand_over(&mut self) {
            self.ferry.cutover(&[]).await.expect(0, "cutover");
            assert_eq!(self.ferry.wait_exit().await, 0, "{}", self.ferry.log());
            self.assert_equal().await;
        }

        async fn assert_equal(&self) {
            let report = testbed::compare(&self.from, &self.to, testbed::parity::everything).await.unwrap();
            // A shard key's index stays where only one side is sharded.
            let is_shard_keys = |d: &Difference| matches!(d.kind, Kind::ExtraIndex | Kind::MissingIndex) && d.namespace == "shop.items";
            let other: Vec<_> = report.differences.iter().filter(|d| !is_shard_keys(d)).collect();
            assert!(other.is_empty(), "{other:#?}\n{}", self.ferry.log());
            let (ours, theirs) = report.documents();
            assert!(ours > 1_700 && ours == theirs, "{ours} and {theirs} documents");
        }

        /// There by `cutover --then-reverse`, and back by a cutover of the way back, with a kill in between.
        async fn there_and_back(&mut self) {
            self.ferry.wait_for_phase("tailing").await;
            use_it(&self.from, 1).await;
            self.ferry.wait_until_caught_up(&self.from).await;
            self.ferry.cutover(&["--then-reverse"]).await.expect(0, "cutover --then-reverse");
            self.ferry.wait_for("the way back", turned(1)).await;
            use_it(&self.to, 2).await;
            self.ferry.kill_9();
            use_it(&self.to, 3).await;
            self.ferry.restart();
            let status = self.ferry.wait_for("the way back", turned(1)).await;
            // But for a collection that has taken another's name while nobody followed: a router does not tell by which way.
            assert!(status["copy"]["documents"].as_u64().unwrap() <= 1, "a way back copies nothing: {status:#}");
            self.ferry.wait_until_caught_up(&self.to).await;
            self.ferry.verb(&["verify"]).await.expect(0, "verify of the way back");
            self.hand_over().await;
        }

        /// Forward once more, by `reverse`.
        async fn there_again(&mut self) {
            use_it(&self.from, 4).await;
            self.ferry.restart_as("reverse");
            self.ferry.wait_for("the way there again", turned(2)).await;
            self.ferry.kill_9();
            use_it(&self.from, 5).await;
            self.ferry.restart_as("reverse");
            self.ferry.wait_for("the way there again", turned(2)).await;
            self.ferry.wait_until_caught_up(&self.from).await;
            self.hand_over().await;
        }

        async fn end(self) {
            end(self.from).await;
            end(self.to).await;
        }
    }

    fn turned(turn: u64) -> impl Fn(&Value) -> bool {
        move |s| s["direction"]["turn"] == turn && s["phase"] == "tailing" && s["can_cut_over"] == true
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn between_a_replica_set_and_a_sharded_cluster() {
        let _machine = whole_machine().await;
        let (source, target) = tokio::join!(Side::set("source"), Side::sharded());
        let mut bed = Bed::start(source, target, &["--shard", "shop.items=n:1"]).await;
        bed.there_and_back().await;
        bed.there_again().await;
        run(&bed.to, "shop", doc! {"insert": "codes", "documents": [{"_id": "open"}]}).await;
        bed.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn between_a_sharded_cluster_and_a_replica_set() {
        let _machine = whole_machine().await;
        let (source, target) = tokio::join!(Side::sharded(), Side::set("target"));
        let mut bed = Bed::start(source, target, &[]).await;
        bed.there_and_back().await;
        run(&bed.from, "shop", doc! {"insert": "codes", "documents": [{"_id": "open"}]}).await;
        bed.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn between_two_sharded_clusters() {
        let _machine = whole_machine().await;
        let (source, target) = tokio::join!(Side::sharded(), Side::sharded());
        let mut bed = Bed::start(source, target, &[]).await;
        bed.there_and_back().await;
        run(&bed.from, "shop", doc! {"insert": "codes", "documents": [{"_id": "open"}]}).await;
        bed.end().await;
    }
}
