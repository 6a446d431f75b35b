//! From a sharded cluster to another one with more shards, while chunks move on both.

mod real {
    use crate::support::{DEADLINE, Ferry, full, run, seed, told, whole_machine};
    use bson::{Document, doc};
    use futures_util::TryStreamExt;
    use mongodb::Client;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::{collections::BTreeSet, time::Duration};
    use testbed::{DataSet, Load, LoadOptions, ShardedCluster, end, fill, parity, sharded};
    use tokio::time::{Instant, sleep};

    /// What is sharded on the source, by what: the load writes to the first two.
    fn keys() -> [(&'static str, Document); 5] {
        [
            ("load0.c0", doc! {"_id": "hashed"}),
            ("load1.c1", doc! {"_id": 1}),
            ("shop.ranges", doc! {"n": 1}),
            ("filled.orders", doc! {"_id": "hashed"}),
            ("filled.events", doc! {"_id": 1}),
        ]
    }

    /// How hard it is; `MONGOFERRY_TEST_FULL_KILL=1` for the long form.
    struct Form {
        kills: u32,
        documents: u64,
        ops_per_second: u32,
    }

    const USUAL: Form = Form { kills: 2, documents: 8_000, ops_per_second: 300 };
    const LONG: Form = Form { kills: 20, documents: 80_000, ops_per_second: 2_200 };

    async fn shards_of(client: &Client, ns: &str) -> BTreeSet<String> {
        let config = client.database("config");
        let found = config.collection::<Document>("collections").find_one(doc! {"_id": ns}).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("{ns} is not sharded"));
        let chunks = config.collection::<Document>("chunks").find(doc! {"uuid": found.get("uuid").unwrap()}).await.unwrap();
        let chunks: Vec<Document> = chunks.try_collect().await.unwrap();
        chunks.iter().map(|chunk| chunk.get_str("shard").unwrap().to_owned()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_layout_is_taken_over_and_nothing_is_lost_through_load_moves_and_kills() {
        let seed = seed("sharded to sharded");
        let (form, mut rng) = (if full("KILL") { LONG } else { USUAL }, StdRng::seed_from_u64(seed));
        let _machine = whole_machine().await;
        let options = |shards| sharded::Options { shards, oplog_mb: 1024, ..sharded::Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(options(2)), ShardedCluster::start(options(3))).unwrap();
        let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
        for (ns, key) in keys() {
            run(&from, "admin", doc! {"shardCollection": ns, "key": key}).await;
        }
        for at in [100, 200, 300] {
            run(&from, "admin", doc! {"split": "shop.ranges", "middle": {"n": at}}).await;
        }
        let ranges = from.database("shop").collection::<Document>("ranges");
        ranges.insert_many((0..4_000).map(|id| doc! {"_id": id, "n": id % 400, "text": "x".repeat(500)})).await.unwrap();
        let unique = vec![doc! {"key": {"n": 1, "_id": 1}, "name": "unique", "unique": true}];
        run(&from, "shop", doc! {"createIndexes": "ranges", "indexes": unique}).await;
        let set = DataSet { database: "filled".into(), documents: form.documents, seed, indexes: false, ..DataSet::default() };
        fill(&from, set).await.unwrap();
        let load = Load::start(from.clone(), LoadOptions { seed, ops_per_second: form.ops_per_second, ..LoadOptions::default() });
        let names: Vec<String> = keys().iter().map(|(ns, _)| (*ns).to_owned()).collect();
        // Where a collection is to be split is told by its documents.
        while from.database("load1").collection::<Document>("c1").estimated_document_count().await.unwrap() < 500 {
            sleep(Duration::from_millis(100)).await;
        }
        let moving = source.balance(&names).await.unwrap();

        // So slow that half of the kills find it copying.
        let rate = format!("copy-rate={}kB/s", 1_000 * form.documents / 2_000 / u64::from(form.kills));
        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--partition-size", "1MiB", "--verbose"]);
        ferry.wait_for_phase("copying").await;
        ferry.verb(&["set", &rate]).await.expect(0, "set");
        for (ns, _) in keys() {
            assert_eq!(shards_of(&to, ns).await.len(), 3, "{ns} does not lie on all shards of the target");
        }
        let moving_there = target.balance(&names).await.unwrap();
        for n in 0..form.kills {
            let behind = if n < form.kills / 2 { "copying" } else { "tailing" };
            if n == form.kills / 2 {
                ferry.status().await;
                ferry.verb(&["set", "copy-rate=unlimited"]).await.expect(0, "set");
            }
            let status = ferry.wait_for_phase(behind).await;
            // The moment is what is at random here; nothing waits for it.
            sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
            ferry.kill_9();
            let moved = (moving.moved(), moving_there.moved());
            eprintln!("kill {n} hit {} at {} documents, {moved:?} chunks moved", status["phase"], status["copy"]["documents"]);
            ferry.restart();
        }
        ferry.wait_for_phase("tailing").await;
        // Keys that change take documents to other shards, on both sides.
        for n in 0..40 {
            let moved = ranges.update_one(doc! {"_id": n, "n": n}, doc! {"$set": {"n": 399 - n}}).await;
            eprintln!("{n}: {}", moved.is_ok());
        }
        ranges.delete_many(doc! {"_id": {"$gte": 3_900}}).await.unwrap();
        let (before, deadline) = (load.counts().operations, Instant::now() + DEADLINE);
        while load.counts().operations < before + 500 || moving.moved() < 4 || moving_there.moved() < 4 {
            assert!(Instant::now() < deadline, "{:?}, {} and {} chunks moved", load.counts(), moving.moved(), moving_there.moved());
            sleep(Duration::from_millis(100)).await;
        }
        let counts = load.stop().await;
        ferry.wait_until_caught_up(&from).await;
        let moved = (moving.stop().await, moving_there.stop().await);
        let (operations, rate) = (counts.operations, counts.operations_per_second);
        eprintln!("{operations} operations, {rate:.0} a second, {} refused; {moved:?} chunks moved", counts.errors);
        let (ours, theirs) = ferry.hand_over_stopped(&from, &to).await;
        assert!(ours > 3_000 && ours == theirs, "{ours} documents on the source, {theirs} on the target");
        end(from).await;
        end(to).await;
    }

    /// Shard keys and zones that a report tells, by namespace.
    fn sharding_told(verified: &crate::support::Told, within: &str) -> Vec<String> {
        let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
        assert_eq!(report["covered"]["sharding"], true, "{report:#}");
        let mut found: Vec<_> = report[within].as_array().unwrap().iter().filter(|d| d["kind"] == "sharding").collect();
        found.sort_by_key(|d| d["ns"].to_string());
        found.iter().map(|d| format!("{} {}", d["ns"].as_str().unwrap(), d["detail"].as_str().unwrap())).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn zones_are_carried_over_to_shards_that_are_in_them_or_have_the_same_names() {
        let _machine = whole_machine().await;
        let options = |shards| sharded::Options { shards, ..sharded::Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(options(2)), ShardedCluster::start(options(3))).unwrap();
        let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
        for (zone, shard, min, max) in [("east", "shard1", 0, 100), ("west", "shard0", 100, 200)] {
            run(&from, "admin", doc! {"addShardToZone": shard, "zone": zone}).await;
            run(&from, "admin", doc! {"updateZoneKeyRange": "shop.zoned", "min": {"n": min}, "max": {"n": max}, "zone": zone}).await;
        }
        run(&from, "admin", doc! {"shardCollection": "shop.zoned", "key": {"n": 1}}).await;
        let zoned = from.database("shop").collection::<Document>("zoned");
        zoned.insert_many((0..900).map(|id| doc! {"_id": id, "n": id % 300})).await.unwrap();
        run(&from, "admin", doc! {"split": "shop.zoned", "middle": {"n": 50}}).await;
        let unique = doc! {"shardCollection": "shop.unique", "key": {"k": 1}, "unique": true};
        run(&from, "admin", unique).await;
        run(&from, "shop", doc! {"insert": "unique", "documents": [{"_id": 1, "k": 1}, {"_id": 2, "k": 2}]}).await;
        run(&from, "admin", doc! {"shardCollection": "shop.refined", "key": {"k": 1}}).await;
        run(&from, "shop", doc! {"insert": "refined", "documents": [{"_id": 1, "k": 1}]}).await;
        run(&from, "admin", doc! {"shardCollection": "shop.other", "key": {"_id": "hashed"}}).await;
        run(&from, "shop", doc! {"insert": "other", "documents": [{"_id": 1, "a": 1}]}).await;
        run(&from, "shop", doc! {"createIndexes": "other", "indexes": [{"key": {"a": 1}, "name": "a_1"}]}).await;
        // Somebody decided otherwise for the target.
        run(&to, "admin", doc! {"addShardToZone": "shard2", "zone": "east"}).await;

        let checked = told(&["check", "--source", &source.uri(), "--target", &target.uri()]).await.expect(0, "check");
        assert!(checked.stdout.contains("the zone `east` of `shop.zoned` is carried over to the shards that are in it"), "{checked:?}");
        assert!(checked.stdout.contains("the zone `west` of `shop.zoned` is carried over to `shard0`, as on the source"), "{checked:?}");
        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--shard", "shop.other=a:1"]);
        ferry.wait_for_phase("tailing").await;
        let chunks = to.database("config").collection::<Document>("chunks").find(doc! {}).sort(doc! {"min": 1}).await.unwrap();
        let chunks: Vec<Document> = chunks.try_collect().await.unwrap();
        let shards_between = |low: i32, high: i32| -> BTreeSet<&str> {
            let within = |chunk: &&Document| {
                let n = chunk.get_document("min").ok().and_then(|min| min.get_i32("n").ok());
                n.is_some_and(|n| (low..high).contains(&n))
            };
            chunks.iter().filter(within).map(|chunk| chunk.get_str("shard").unwrap()).collect()
        };
        assert_eq!(shards_between(0, 100), BTreeSet::from(["shard2"]), "{chunks:#?}");
        assert_eq!(shards_between(100, 200), BTreeSet::from(["shard0"]), "{chunks:#?}");
        zoned.insert_one(doc! {"_id": "late", "n": 7}).await.unwrap();
        ferry.wait_until_caught_up(&from).await;
        let verified = ferry.verb(&["verify", "--output", "json"]).await.expect(0, "verify");
        assert_eq!(sharding_told(&verified, "warnings"), [""; 0], "{verified:?}");

        // Both are changed while the migration runs: that is told, and nothing is barred by it.
        run(&to, "admin", doc! {"updateZoneKeyRange": "shop.zoned", "min": {"n": 0}, "max": {"n": 100}, "zone": null}).await;
        run(&from, "shop", doc! {"createIndexes": "refined", "indexes": [{"key": {"k": 1, "_id": 1}, "name": "k_1__id_1"}]}).await;
        run(&from, "admin", doc! {"refineCollectionShardKey": "shop.refined", "key": {"k": 1, "_id": 1}}).await;
        let shown = |s: &serde_json::Value| s["verification"]["warnings"].as_array().is_some_and(|found| found.len() == 2);
        let status = ferry.wait_for("both to be told", shown).await;
        let warned = status["verification"]["warnings"].to_string();
        assert!(
            warned.contains("zone `east`: 1 of its 1 ranges missing on target") && warned.contains("refineCollectionShardKey"),
            "{warned}"
        );
        assert!(ferry.verb(&["status"]).await.stdout.contains("do not stand in the way"));
        let verified = ferry.verb(&["verify", "--output", "json"]).await.expect(0, "verify");
        assert_eq!(sharding_told(&verified, "warnings").len(), 2, "{verified:?}");
        let done = ferry.cutover(&["--writes-stopped"]).await;
        assert_eq!(done.code, 0, "the cutover failed: {done:?}\n{}", ferry.log());
        let report = testbed::compare(&from, &to, parity::everything).await.unwrap();
        assert!(report.is_equal(), "{:?}", report.differences);
        assert_eq!(report.documents(), (905, 905));

        // Alone, it is a difference, with what mends it.
        let uris = [source.uri(), target.uri()];
        let alone = ["verify", "--source", &uris[0], "--target", &uris[1], "--output", "json"];
        let found = told(&alone).await.expect(1, "verify alone");
        let differences = sharding_told(&found, "differences");
        assert_eq!(differences.len(), 3, "{differences:#?}");
        assert!(differences[0].starts_with("shop.other sharded by {_id: \"hashed\"} on the source and by {a: 1} on the target"));
        assert!(differences[1].starts_with("shop.refined sharded by {k: 1, _id: 1} on the source and by {k: 1} on the target"));
        assert!(differences[2].starts_with("shop.zoned zone `east`"), "{differences:#?}");
        told(&[&alone[..], &["--ignore-sharding"]].concat()).await.expect(0, "without shard keys and zones");
        // By the commands that were told.
        run(&to, "admin", doc! {"updateZoneKeyRange": "shop.zoned", "min": {"n": 0}, "max": {"n": 100}, "zone": "east"}).await;
        run(&to, "admin", doc! {"refineCollectionShardKey": "shop.refined", "key": {"k": 1, "_id": 1}}).await;
        let found = told(&alone).await.expect(1, "one is left");
        assert_eq!(sharding_told(&found, "differences"), differences[..1], "{found:?}");
        end(from).await;
        end(to).await;
    }
}
