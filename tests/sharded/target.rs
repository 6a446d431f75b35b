//! From a replica set to a sharded cluster.

mod real {
    use crate::support::{DEADLINE, Ferry, Told, run, seed, told, whole_machine};
    use bson::{Bson, Document, Regex, doc};
    use futures_util::TryStreamExt;
    use mongodb::Client;
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;
    use testbed::sharded::{Options as Sharded, ShardedCluster};
    use testbed::{
        Catch, DataSet, Load, LoadOptions, Options, ReplicaSet, Trap, Version, connect, end, fill,
        parity::{Kind, everything},
    };
    use tokio::sync::SemaphorePermit;
    use tokio::time::{Instant, sleep, timeout};

    /// Both clusters, each with a client.
    struct Clusters {
        source: ReplicaSet,
        target: ShardedCluster,
        from: Client,
        to: Client,
        _alone: SemaphorePermit<'static>,
    }

    impl Clusters {
        async fn start(shards: usize) -> Self {
            let alone = whole_machine().await;
            let source = Options { name: "source".into(), oplog_mb: 2048, ..Options::default() };
            let (source, target) =
                tokio::try_join!(ReplicaSet::start(source), ShardedCluster::start(Sharded { shards, ..Sharded::default() })).unwrap();
            let (from, to) = (connect(&source.uri()).await.unwrap(), connect(&target.uri()).await.unwrap());
            Self { source, target, from, to, _alone: alone }
        }

        fn ferry(&self, more: &[&str]) -> Ferry {
            Ferry::start(&self.source.uri(), &self.target.uri(), more)
        }

        async fn check(&self, more: &[&str]) -> Told {
            told(&[&["check", "--source", &self.source.uri(), "--target", &self.target.uri()], more].concat()).await
        }

        /// How many chunks of a collection each shard has.
        async fn chunks(&self, ns: &str) -> BTreeMap<String, usize> {
            let config = self.to.database("config");
            let found = config.collection::<Document>("collections").find_one(doc! {"_id": ns}).await.unwrap();
            let uuid = found.unwrap_or_else(|| panic!("{ns} is not sharded")).get("uuid").unwrap().clone();
            let chunks = config.collection::<Document>("chunks").find(doc! {"uuid": uuid}).await.unwrap();
            let chunks: Vec<Document> = chunks.try_collect().await.unwrap();
            let mut counts = BTreeMap::new();
            for chunk in chunks {
                *counts.entry(chunk.get_str("shard").unwrap().to_owned()).or_default() += 1;
            }
            counts
        }

        /// Byte for byte, save for the indexes that the shard keys of the target need.
        async fn assert_equal(&self, supporting: &[&str]) {
            let report = testbed::compare(&self.from, &self.to, everything).await.unwrap();
            let (extra, other): (Vec<_>, Vec<_>) = report.differences.iter().partition(|d| d.kind == Kind::ExtraIndex);
            let extra: BTreeSet<&str> = extra.iter().map(|d| d.namespace.as_str()).collect();
            let other: Vec<_> = other.iter().take(30).map(ToString::to_string).collect();
            assert!(other.is_empty(), "differences such as\n{}", other.join("\n"));
            assert_eq!(extra.into_iter().collect::<Vec<_>>(), supporting, "collections with an index of their own on the target");
            let (ours, theirs) = report.documents();
            assert!(ours > 0 && ours == theirs, "{ours} documents on the source, {theirs} on the target");
        }

        async fn end(self) {
            end(self.from).await;
            end(self.to).await;
        }
    }

    /// Keys whose values the load changes all the time (`rev`, the city), one that never changes, one by ranges of `_id`.
    const KEYS: [&str; 5] = [
        "load0.c0=rev:1",
        "load0.c2=_id:hashed",
        "load1.c1=profile.address.city:1,_id:1",
        "shop.orders=customer:1,placedAt:1",
        "shop.payments=_id:1",
    ];

    #[tokio::test(flavor = "multi_thread")]
    async fn documents_follow_their_shard_keys_through_load_and_kills() {
        let seed = seed("sharded target");
        let clusters = Clusters::start(2).await;
        fill(&clusters.from, DataSet { documents: 8_000, seed, ..DataSet::default() }).await.unwrap();
        let load = Load::start(clusters.from.clone(), LoadOptions { seed, ops_per_second: 400, ..LoadOptions::default() });
        let deadline = Instant::now() + crate::support::DEADLINE;
        while load.counts().operations < 3_000 {
            assert!(Instant::now() < deadline, "no load: {:?}", load.counts());
            sleep(Duration::from_millis(50)).await;
        }
        let keys: Vec<&str> = KEYS.iter().flat_map(|key| ["--shard", key]).collect();
        let mut ferry = clusters.ferry(&[&keys[..], &["--partition-size", "1MiB", "--verbose"]].concat());
        ferry.wait_for_phase("copying").await;
        let names: Vec<String> = KEYS.iter().map(|key| key.split_once('=').unwrap().0.to_owned()).collect();
        for ns in &names {
            let chunks = clusters.chunks(ns).await;
            assert_eq!(chunks.len(), 2, "{ns} lies on few shards: {chunks:?}");
        }
        // From here on, chunks move at random.
        let balancer = clusters.target.balance(&names).await.unwrap();
        for phase in ["copying", "copying", "catching_up"] {
            let status = ferry.wait_for_phase(phase).await;
            eprintln!("killed while {}", status["phase"]);
            ferry.kill_9();
            ferry.restart();
        }
        ferry.wait_for_phase("catching_up").await;
        // More changes behind the kills.
        let before = load.counts().operations;
        let deadline = Instant::now() + crate::support::DEADLINE;
        while load.counts().operations < before + 1_500 {
            assert!(Instant::now() < deadline, "no load: {:?}", load.counts());
            sleep(Duration::from_millis(50)).await;
        }
        // While shard keys change, documents are read again, and the target is ahead of the stream.
        let counts = load.stop().await;
        let moved = balancer.stop().await;
        eprintln!("load: {} operations, {moved} chunks moved", counts.operations);
        assert!(moved > 0, "no chunk moved");
        ferry.cutover_and_end().await;
        assert_eq!(counts.errors, 0, "{counts:?}");
        clusters.assert_equal(&["load0.c0", "load0.c2", "load1.c1", "shop.orders"]).await;
        clusters.end().await;
    }

    fn values() -> Vec<Option<Bson>> {
        let regex = Regex { pattern: "x".try_into().unwrap(), options: "i".try_into().unwrap() };
        vec![
            None,
            Some(Bson::Null),
            Some(Bson::Int32(7)),
            Some(Bson::Int64(7)),
            Some(Bson::Double(7.0)),
            Some(Bson::Int32(150)),
            Some(Bson::Double(f64::NAN)),
            Some("text".into()),
            Some(doc! {"x": 1}.into()),
            Some(Bson::RegularExpression(regex)),
            Some(Bson::MinKey),
        ]
    }

    fn document(id: i32, value: Option<Bson>, n: i32) -> Document {
        let mut document = doc! {"_id": id, "n": n};
        if let Some(value) = value {
            document.insert("c", value);
        }
        document
    }

    async fn update(client: &Client, statements: Vec<Document>) {
        let reply = run(client, "shop", doc! {"update": "items", "updates": statements}).await;
        assert!(reply.get_i32("n").unwrap() > 0);
    }

    /// From every value to every other, by updates, replacements and new documents.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_document_is_on_one_shard_whatever_becomes_of_its_shard_key() {
        let clusters = Clusters::start(2).await;
        let pairs: Vec<_> = values().into_iter().flat_map(|from| values().into_iter().map(move |to| (from.clone(), to))).collect();
        let (mut id, mut documents) = (0, Vec::new());
        for (from, _) in pairs.iter().cycle().take(3 * pairs.len()) {
            documents.push(document(id, from.clone(), 0));
            id += 1;
        }
        // So that there is something to split by.
        documents.extend((0..300).map(|n| document(10_000 + n, Some(n.into()), 0)));
        let items = clusters.from.database("shop").collection::<Document>("items");
        items.insert_many(documents).await.unwrap();
        let mut ferry = clusters.ferry(&["--shard", "shop.items=c:1"]);
        ferry.wait_for_phase("tailing").await;
        assert!(clusters.chunks("shop.items").await.values().sum::<usize>() > 4);

        let mut id = 0;
        for way in 0..3 {
            for (_, to) in &pairs {
                let change = match (way, to) {
                    (0, Some(to)) => doc! {"q": {"_id": id}, "u": [{"$set": {"c": {"$literal": to}}}]},
                    (0, None) => doc! {"q": {"_id": id}, "u": {"$unset": {"c": 1}}},
                    (1, to) => doc! {"q": {"_id": id}, "u": document(id, to.clone(), 1)},
                    (_, to) => {
                        items.delete_one(doc! {"_id": id}).await.unwrap();
                        items.insert_one(document(id, to.clone(), 2)).await.unwrap();
                        doc! {"q": {"_id": id}, "u": {"$inc": {"n": 1}}}
                    }
                };
                // And an update behind it that leaves the key alone.
                update(&clusters.from, vec![change, doc! {"q": {"_id": id}, "u": {"$set": {"m": way}}}]).await;
                id += 1;
            }
        }
        for id in (0..id).step_by(5) {
            items.delete_one(doc! {"_id": id}).await.unwrap();
        }
        ferry.wait_until_caught_up(&clusters.from).await;
        ferry.verb(&["verify"]).await.expect(0, "both sides are equal");
        // Somebody puts a document on a second shard: only a look at all shards tells.
        let mut other = 0;
        loop {
            other += 10;
            assert!(other < 300, "all of them lie on one shard");
            let stray = doc! {"insert": "items", "documents": [document(10_000, Some(other.into()), 0)]};
            // On the shard where it is, its `_id` is taken.
            if clusters.to.database("shop").run_command(stray).await.unwrap().get_i32("n").unwrap() == 1 {
                break;
            }
        }
        let told = ferry.verb(&["verify"]).await.expect(1, "a document stands on two shards");
        assert!(told.stdout.contains("10000"), "{told:?}");
        // The next change of it leaves one.
        update(&clusters.from, vec![doc! {"q": {"_id": 10_000}, "u": {"$set": {"c": 5, "m": 1}}}]).await;
        ferry.wait_until_caught_up(&clusters.from).await;
        ferry.verb(&["verify"]).await.expect(0, "both sides are equal again");
        // What no shard key can hold is told, and goes on once it is mended.
        items.insert_one(doc! {"_id": 20_000, "c": [1, 2]}).await.unwrap();
        let halted = Instant::now() + crate::support::DEADLINE;
        while ferry.look().await.is_none_or(|status| status["activity"] != "halted") {
            assert!(Instant::now() < halted, "a document without a shard key does not halt it");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(ferry.log().contains("its shard key holds an array"), "{}", ferry.log());
        items.delete_one(doc! {"_id": 20_000}).await.unwrap();
        ferry.verb(&["resume"]).await.expect(0, "it goes on");
        ferry.cutover_and_end().await;
        clusters.assert_equal(&["shop.items"]).await;
        clusters.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn structural_changes_keep_what_is_sharded_sharded() {
        let clusters = Clusters::start(2).await;
        let from = &clusters.from;
        let shop = from.database("shop");
        let numbered = |range: std::ops::Range<i32>| range.map(|n| doc! {"_id": n, "a": n % 50, "u": n}).collect::<Vec<_>>();
        for name in ["orders", "unique", "plain"] {
            shop.collection::<Document>(name).insert_many(numbered(0..400)).await.unwrap();
        }
        let index = |key: Document, name: &str, more: Document| {
            let mut index = doc! {"key": key, "name": name};
            index.extend(more);
            index
        };
        let unique = vec![
            index(doc! {"a": 1, "u": 1}, "fits", doc! {"unique": true}),
            index(doc! {"u": 1}, "does not", doc! {"unique": true}),
            index(doc! {"u": -1, "a": 1}, "plain", doc! {}),
        ];
        run(from, "shop", doc! {"createIndexes": "unique", "indexes": unique}).await;
        run(from, "shop", doc! {"createIndexes": "orders", "indexes": [index(doc! {"a": 1}, "own", doc! {})]}).await;

        let keys = ["--shard", "shop.orders=a:1", "--shard", "shop.unique=a:1,_id:1"];
        let no = clusters.check(&[&keys[..], &["--shard", "shop.nothing=_id:1"]].concat()).await;
        assert!(no.code == 2 && format!("{}{}", no.stdout, no.stderr).contains("--shard shop.nothing"), "{no:?}");
        let (source, shard) = (clusters.source.uri(), clusters.target.shards()[0].uri());
        let no = told(&["check", "--source", &source, "--target", &shard, "--shard", "shop.orders=a:1"]).await;
        assert!(no.code == 2 && format!("{}{}", no.stdout, no.stderr).contains("needs a sharded cluster"), "{no:?}");
        let checked = clusters.check(&["--shard", "shop.orders=a:1", "--shard", "shop.unique=a:1"]).await.expect(0, "it can be done");
        assert!(checked.stdout.contains("`does not` of `shop.unique` cannot be unique"), "{checked:?}");
        assert!(!checked.stdout.contains("`fits`"), "{checked:?}");

        let mut ferry = clusters.ferry(&["--shard", "shop.orders=a:1", "--shard", "shop.unique=a:1"]);
        ferry.wait_for_phase("tailing").await;
        // Dropped and made anew, filled by `$out`, renamed away, and another renamed into the name.
        shop.collection::<Document>("orders").drop().await.unwrap();
        shop.collection::<Document>("orders").insert_many(numbered(0..100)).await.unwrap();
        ferry.wait_until_caught_up(from).await;
        assert!(!clusters.chunks("shop.orders").await.is_empty());
        let out = doc! {"aggregate": "plain", "pipeline": [{"$match": {"u": {"$lt": 300}}}, {"$out": "orders"}], "cursor": {}};
        run(from, "shop", out).await;
        run(from, "shop", doc! {"update": "orders", "updates": [{"q": {}, "u": {"$inc": {"a": 60}}, "multi": true}]}).await;
        ferry.wait_until_caught_up(from).await;
        assert!(!clusters.chunks("shop.orders").await.is_empty(), "what came by `$out`");
        run(from, "admin", doc! {"renameCollection": "shop.orders", "to": "shop.moved"}).await;
        run(from, "admin", doc! {"renameCollection": "shop.plain", "to": "shop.orders"}).await;
        for name in ["moved", "orders"] {
            let updates = vec![
                doc! {"q": {"_id": {"$lt": 50}}, "u": {"$inc": {"a": 1}}, "multi": true},
                doc! {"q": {"_id": {"$gte": 50}}, "u": {"$set": {"b": 1}}, "multi": true},
            ];
            run(from, "shop", doc! {"update": name, "updates": updates}).await;
            shop.collection::<Document>(name).delete_many(doc! {"u": {"$gt": 250}}).await.unwrap();
        }
        let more = vec![
            index(doc! {"t": 1}, "ttl", doc! {"expireAfterSeconds": 3_600}),
            index(doc! {"a": 1, "b": 1}, "hidden", doc! {"hidden": true}),
            index(doc! {"a": 1, "u": -1}, "unique", doc! {"unique": true}),
        ];
        run(from, "shop", doc! {"createIndexes": "moved", "indexes": more}).await;
        run(from, "shop", doc! {"dropIndexes": "unique", "index": "plain"}).await;
        run(from, "shop", doc! {"collMod": "moved", "index": {"name": "hidden", "hidden": false}, "validator": {"u": {"$gte": 0}}}).await;
        ferry.wait_until_caught_up(from).await;
        for ns in ["shop.moved", "shop.orders"] {
            assert!(!clusters.chunks(ns).await.is_empty(), "{ns}");
        }
        // One index cannot be unique: that shuts a gate, and it can be waived.
        ferry.wait_for("the index that cannot be", |status| status["gates"].to_string().contains("does not")).await;
        let told = ferry.verb(&["cutover", "--yes"]).await;
        assert!(told.code == 1 && told.stdout.contains("does not"), "{told:?}");
        let others = |gate: &Value| gate["open"] == true || gate["name"] == "indexes";
        ferry.wait_for("the other gates", |status| status["gates"].as_array().is_some_and(|gates| gates.iter().all(others))).await;
        ferry.verb(&["cutover", "--yes", "--waive-index", "shop.unique:does not"]).await.expect(0, "the cutover");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        let report = testbed::compare(&clusters.from, &clusters.to, everything).await.unwrap();
        let found: BTreeSet<_> = report.differences.iter().map(|d| (d.namespace.as_str(), d.kind)).collect();
        let wanted = [("shop.moved", Kind::ExtraIndex), ("shop.orders", Kind::ExtraIndex), ("shop.unique", Kind::MissingIndex)];
        assert!(found.is_subset(&wanted.into()) && found.contains(&wanted[2]), "{:#?}", report.differences);
        assert_eq!(report.documents().0, report.documents().1);
        clusters.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_to_another_database_leaves_nothing_behind_where_we_die_on_the_way() {
        let clusters = Clusters::start(2).await;
        let trap = Trap::start(clusters.target.uri().trim_start_matches("mongodb://").trim_end_matches('/')).await.unwrap();
        for name in ["moving", "moved"] {
            let documents = (0..100).map(|id| doc! {"_id": id, "of": name});
            clusters.from.database("shop").collection::<Document>(name).insert_many(documents).await.unwrap();
        }
        let target = format!("mongodb://{}/", trap.addr());
        let mut ferry = Ferry::start(&clusters.source.uri(), &target, &["--rename", "shop.moved=other.moved", "--verbose"]);
        ferry.wait_until_ready().await;
        // A router does not rename across databases: it is dropped there, and copied under its new name.
        trap.set(&[b"drop\0", b"moving\0"], Catch::Request);
        let renamed = doc! {"renameCollection": "shop.moving", "to": "shop.moved", "dropTarget": true};
        run(&clusters.from, "admin", renamed).await;
        timeout(DEADLINE, trap.caught()).await.expect("it is dropped");
        ferry.kill_9();
        trap.release();
        ferry.restart();
        ferry.wait_for_phase("tailing").await;
        ferry.wait_until_caught_up(&clusters.from).await;
        let left = clusters.to.database("shop").list_collection_names().await.unwrap();
        assert!(left.is_empty(), "{left:?} is left\n{}", ferry.log());
        ferry.cutover_and_end().await;
        let other = |database: &str, coll: &str| Some((if coll == "moved" { "other" } else { database }.into(), coll.into()));
        let report = testbed::compare(&clusters.from, &clusters.to, other).await.unwrap();
        assert!(report.is_equal() && report.documents().0 == 100, "{:?}\n{}", report.differences, ferry.log());
        clusters.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_index_of_a_hashed_shard_key_stays_also_where_the_server_would_let_it_go() {
        let _alone = whole_machine().await;
        let newer = Sharded { version: Version::V6_0_27, ..Sharded::default() };
        let (source, target) = tokio::try_join!(ReplicaSet::start(Options::default()), ShardedCluster::start(newer)).unwrap();
        let (from, to) = (connect(&source.uri()).await.unwrap(), connect(&target.uri()).await.unwrap());
        run(&from, "shop", doc! {"insert": "items", "documents": [{"_id": 1}, {"_id": 2}]}).await;
        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--shard", "shop.items=_id:hashed"]);
        ferry.wait_until_ready().await;
        run(&from, "shop", doc! {"createIndexes": "items", "indexes": [{"key": {"_id": "hashed"}, "name": "mine"}]}).await;
        ferry.wait_until_caught_up(&from).await;
        run(&from, "shop", doc! {"dropIndexes": "items", "index": "mine"}).await;
        ferry.cutover_and_end().await;
        for shard in target.shards() {
            let shard = connect(&shard.uri()).await.unwrap();
            let names = shard.database("shop").collection::<Document>("items").list_index_names().await.unwrap();
            assert!(names.iter().any(|name| name.ends_with("hashed") || name == "mine"), "{names:?}\n{}", ferry.log());
            end(shard).await;
        }
        end(from).await;
        end(to).await;
    }
}
