//! Structural changes, while copying and while tailing, with the process killed in the middle.

mod real {
    use crate::support::{Ferry, Pair, run, seed, slow_down, speed_up};
    use bson::{Document, RawDocumentBuf, doc};
    use futures_util::TryStreamExt;
    use mongodb::Client;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::time::Duration;
    use testbed::{DataSet, fill};
    use tokio::time::sleep;
    use tokio_util::sync::CancellationToken;

    /// A command and its database.
    type Step = (&'static str, Document);

    fn on(database: &'static str, command: Document) -> Step {
        (database, command)
    }

    fn insert(database: &'static str, coll: &str, ids: std::ops::Range<i32>) -> Step {
        let documents: Vec<_> = ids.map(|n| doc! {"_id": n, "a": n, "b": n % 7, "text": "x".repeat(200)}).collect();
        on(database, doc! {"insert": coll, "documents": documents})
    }

    fn rename(from: &str, to: &str, drop_target: bool) -> Step {
        on("admin", doc! {"renameCollection": from, "to": to, "dropTarget": drop_target})
    }

    fn index(coll: &str, specs: Vec<Document>) -> Step {
        on("ddl", doc! {"createIndexes": coll, "indexes": specs})
    }

    fn modify(coll: &str, change: Document) -> Step {
        let mut command = doc! {"collMod": coll};
        command.extend(change);
        on("ddl", command)
    }

    fn aggregate(coll: &str, last: Document) -> Step {
        on("ddl", doc! {"aggregate": coll, "pipeline": [{"$match": {"b": {"$lt": 3}}}, last], "cursor": {}})
    }

    /// What is there before: a collection for each thing that will happen to one.
    fn before() -> Vec<Step> {
        let colls = [
            "dropped",
            "recreated",
            "often",
            "renamed",
            "over",
            "under",
            "moved",
            "moved_over",
            "swap_a",
            "swap_b",
            "indexed",
            "unique",
            "modified",
            "images",
            "out_over",
            "untouched",
        ];
        let mut steps: Vec<_> = colls.into_iter().map(|coll| insert("ddl", coll, 0..1_000)).collect();
        steps.extend([
            insert("ddl2", "overwritten", 0..100),
            index(
                "indexed",
                vec![
                    doc! {"key": {"b": 1}, "name": "old"},
                    doc! {"key": {"a": 1}, "name": "ttl", "expireAfterSeconds": 1_000_000},
                    doc! {"key": {"a": -1}, "name": "seen"},
                    doc! {"key": {"a": 1, "text": 1}, "name": "same name"},
                ],
            ),
            index("out_over", vec![doc! {"key": {"b": 1}, "name": "kept by $out"}]),
            index("unique", vec![doc! {"key": {"a": 1}, "name": "to be unique"}]),
            index("modified", vec![doc! {"key": {"b": 1}, "name": "one"}, doc! {"key": {"a": 1}, "name": "two"}]),
            on("ddl", doc! {"create": "capped", "capped": true, "size": 1 << 20}),
            insert("ddl", "capped", 0..300),
            on(
                "ddl",
                doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 1_000_000_i64},
            ),
            on("ddl", doc! {"insert": "clustered", "documents": [{"_id": bson::DateTime::now()}, {"_id": "never"}]}),
            on("ddl", doc! {"create": "view", "viewOn": "untouched", "pipeline": [{"$match": {"b": 1}}]}),
            on("ddl", doc! {"create": "view_dropped", "viewOn": "untouched", "pipeline": []}),
            insert("gone", "a", 0..500),
            insert("gone", "b", 0..500),
        ]);
        steps
    }

    /// Every change that the server reports, with writes before and behind it.
    fn changes() -> Vec<Step> {
        let mut steps = vec![
            on("ddl", doc! {"drop": "dropped"}),
            on("ddl", doc! {"drop": "recreated"}),
            insert("ddl", "recreated", 5_000..5_100),
            // Chains of names, with writes under each.
            insert("ddl", "renamed", 5_000..5_010),
            rename("ddl.renamed", "ddl.renamed_once", false),
            insert("ddl", "renamed_once", 6_000..6_010),
            rename("ddl.renamed_once", "ddl.renamed_twice", false),
            insert("ddl", "renamed_twice", 7_000..7_010),
            insert("ddl", "renamed", 8_000..8_010),
            rename("ddl.over", "ddl.under", true),
            insert("ddl", "under", 5_000..5_010),
            rename("ddl.swap_a", "ddl.swap", false),
            rename("ddl.swap_b", "ddl.swap_a", false),
            insert("ddl", "swap_a", 5_000..5_010),
            rename("ddl.swap", "ddl.swap_b", false),
            // Across databases the server copies under a name of its own.
            rename("ddl.moved", "ddl2.moved", false),
            insert("ddl2", "moved", 5_000..5_010),
            rename("ddl.moved_over", "ddl2.overwritten", true),
            aggregate("untouched", doc! {"$out": "out_new"}),
            aggregate("untouched", doc! {"$out": "out_over"}),
            aggregate("untouched", doc! {"$out": {"db": "ddl3", "coll": "out"}}),
            aggregate("untouched", doc! {"$merge": {"into": "merged"}}),
            on(
                "ddl",
                doc! {"mapReduce": "untouched", "map": "function() { emit(this.b, 1); }", "reduce": "function(k, v) { return Array.sum(v); }", "out": "reduced"},
            ),
            index("indexed", vec![doc! {"key": {"a": 1, "b": -1}, "name": "new", "unique": true}]),
            modify("indexed", doc! {"index": {"name": "seen", "hidden": true}}),
            on("ddl", doc! {"dropIndexes": "indexed", "index": "old"}),
            modify("indexed", doc! {"index": {"name": "ttl", "expireAfterSeconds": 2_000_000}}),
            on("ddl", doc! {"dropIndexes": "indexed", "index": "same name"}),
            index("indexed", vec![doc! {"key": {"text": 1}, "name": "same name", "partialFilterExpression": {"a": {"$gt": 5}}}]),
            index(
                "renamed_twice",
                vec![
                    doc! {"key": {"text": "text"}, "name": "words", "weights": {"text": 3}, "default_language": "english"},
                    doc! {"key": {"$**": 1}, "name": "all", "wildcardProjection": {"text": 0}},
                    doc! {"key": {"a": "hashed"}, "name": "hashed"},
                    doc! {"key": {"place": "2dsphere"}, "name": "place", "sparse": true},
                    doc! {"key": {"a": 1}, "name": "x".repeat(150), "collation": {"locale": "de", "strength": 1}},
                ],
            ),
            modify("indexed", doc! {"index": {"name": "seen", "hidden": false}}),
            modify("unique", doc! {"index": {"name": "to be unique", "prepareUnique": true}}),
            modify("unique", doc! {"index": {"name": "to be unique", "unique": true}}),
            on("ddl", doc! {"dropIndexes": "modified", "index": "*"}),
            modify("modified", doc! {"validator": {"a": {"$gte": 100}}, "validationLevel": "moderate"}),
            on("ddl", doc! {"insert": "modified", "documents": [{"_id": -1, "a": 1}], "bypassDocumentValidation": true}),
            modify("images", doc! {"changeStreamPreAndPostImages": {"enabled": true}}),
            on("ddl", doc! {"update": "images", "updates": [{"q": {}, "u": {"$inc": {"a": 1}}, "multi": true}]}),
            modify("clustered", doc! {"expireAfterSeconds": "off"}),
            modify("clustered", doc! {"expireAfterSeconds": 3_000_000_i64}),
            modify("capped", doc! {"cappedSize": 1 << 19, "cappedMax": 200}),
            insert("ddl", "capped", 1_000..1_300),
            on("ddl", doc! {"create": "made", "capped": true, "size": 1 << 20, "max": 100}),
            insert("ddl", "made", 0..150),
            on(
                "ddl",
                doc! {"create": "a name. with dots, пробел, 日本", "validator": {"$jsonSchema": {"required": ["a"]}}, "validationAction": "warn"},
            ),
            on("ddl", doc! {"create": "collated", "collation": {"locale": "en", "strength": 2}}),
            on("ddl", doc! {"insert": "collated", "documents": [{"_id": "K"}, {"_id": "other"}]}),
            on("ddl", doc! {"delete": "collated", "deletes": [{"q": {"_id": "K"}, "limit": 1}]}),
            on("ddl", doc! {"insert": "collated", "documents": [{"_id": "k", "again": true}]}),
            on("ddl", doc! {"insert": "system.js", "documents": [{"_id": "twice", "value": "function(x) { return 2 * x; }"}]}),
            // Views, and a view's name used by a collection.
            modify("view", doc! {"viewOn": "untouched", "pipeline": [{"$match": {"b": 2}}]}),
            on("ddl", doc! {"drop": "view_dropped"}),
            insert("ddl", "view_dropped", 0..10),
            on("ddl", doc! {"create": "view_made", "viewOn": "view", "pipeline": [{"$project": {"a": 1}}]}),
            on("ddl", doc! {"create": "view_collated", "viewOn": "untouched", "pipeline": [], "collation": {"locale": "sv"}}),
            on("ddl", doc! {"create": "view_dangling", "viewOn": "nothing", "pipeline": []}),
            on("ddl", doc! {"create": "view_short", "viewOn": "untouched", "pipeline": []}),
            on("ddl", doc! {"drop": "view_short"}),
            on("ddl", doc! {"create": "view_short", "viewOn": "merged", "pipeline": []}),
            on("gone", doc! {"dropDatabase": 1}),
            insert("gone", "a", 9_000..9_010),
        ];
        for n in 0..10 {
            steps.push(on("ddl", doc! {"drop": "often"}));
            steps.push(insert("ddl", "often", n * 100..n * 100 + 20));
            steps.push(index("often", vec![doc! {"key": {"a": 1}, "name": format!("index {n}")}]));
        }
        steps
    }

    async fn perform(client: &Client, steps: &[Step]) {
        for (database, command) in steps {
            run(client, database, command.clone()).await;
        }
    }

    /// A source with something to change.
    async fn prepared() -> Pair {
        let pair = Pair::start().await;
        fill(&pair.from, DataSet { documents: 4_000, ..DataSet::default() }).await.unwrap();
        perform(&pair.from, &before()).await;
        pair
    }

    async fn hand_over(pair: Pair, mut ferry: Ferry) {
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_change_of_structure_arrives_while_tailing() {
        let pair = prepared().await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        perform(&pair.from, &changes()).await;
        ferry.wait_until_caught_up(&pair.from).await;
        assert!(!ferry.log().contains("an index cannot be built"), "{}", ferry.log());
        hand_over(pair, ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_change_of_structure_arrives_while_tailing_with_a_kill_in_the_middle() {
        let mut rng = StdRng::seed_from_u64(seed("ddl while tailing"));
        let pair = prepared().await;
        // Nothing of it is saved: the replay meets a target that is further on, wherever the kill comes.
        let mut ferry = pair.ferry(&["--checkpoint-interval", "60s"]);
        ferry.wait_for_phase("tailing").await;
        let changes = changes();
        perform(&pair.from, &changes).await;
        let applied = rng.random_range(5..60);
        ferry.wait_for("some of the changes", |s| s["events"]["ddl"].as_u64() >= Some(applied)).await;
        ferry.kill_9();
        ferry.restart();
        hand_over(pair, ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_change_of_structure_arrives_while_copying_with_a_kill_in_the_middle() {
        let mut rng = StdRng::seed_from_u64(seed("ddl while copying"));
        let pair = prepared().await;
        slow_down(&pair.to, &["insert"], Duration::from_millis(400)).await;
        let mut ferry = pair.ferry(&["--partition-size", "1MiB", "--copy-partitions", "1", "--verbose"]);
        let copying = ferry.wait_for("some of the copy", |s| s["copy"]["collections_done"].as_u64() >= Some(1)).await;
        assert_eq!(copying["phase"], "copying", "{copying:#}");
        let changes = changes();
        let (first, rest) = changes.split_at(rng.random_range(1..changes.len()));
        perform(&pair.from, first).await;
        let still = ferry.status().await;
        assert_eq!(still["phase"], "copying", "{still:#}");
        ferry.kill_9();
        perform(&pair.from, rest).await;
        ferry.restart();
        speed_up(&pair.to).await;
        ferry.wait_for_phase("tailing").await;
        hand_over(pair, ferry).await;
    }

    /// Documents in the order of their insertion.
    async fn in_order(client: &Client, coll: &str) -> Vec<RawDocumentBuf> {
        let all = client.database("ddl").collection::<RawDocumentBuf>(coll);
        all.find(doc! {}).hint(mongodb::options::Hint::Keys(doc! {"$natural": 1})).await.unwrap().try_collect().await.unwrap()
    }

    /// Inserts into a capped collection until told to stop, so that it rolls over again and again.
    async fn roll_over(client: Client, coll: &'static str, stop: CancellationToken) {
        let log = client.database("ddl").collection::<Document>(coll);
        let mut n = 100_000;
        while !stop.is_cancelled() {
            let line = |n: i32| doc! {"_id": n, "line": "x".repeat(usize::try_from(n % 700).unwrap())};
            log.insert_many((n..n + 20).map(line)).await.unwrap();
            if n % 400 == 0 {
                // A hole, and a document that grows where it is.
                log.delete_one(doc! {"_id": n + 3}).await.unwrap();
                log.update_one(doc! {"_id": n + 5}, doc! {"$set": {"changed": true}}).await.unwrap();
            }
            n += 20;
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_capped_collection_that_rolls_over_keeps_its_order() {
        let mut rng = StdRng::seed_from_u64(seed("capped"));
        let pair = Pair::start().await;
        for (coll, size, max) in [("by_size", 200_000, i64::from(i32::MAX)), ("by_count", 1 << 22, 150)] {
            perform(&pair.from, &[on("ddl", doc! {"create": coll, "capped": true, "size": size, "max": max})]).await;
            perform(&pair.from, &[insert("ddl", coll, 0..1_000)]).await;
        }
        let stop = CancellationToken::new();
        let mut writers = tokio::task::JoinSet::new();
        writers.spawn(roll_over(pair.from.clone(), "by_size", stop.clone()));
        writers.spawn(roll_over(pair.from.clone(), "by_count", stop.clone()));
        // Replays are long, so that they meet documents that have rolled over.
        let mut ferry = pair.ferry(&["--checkpoint-interval", "3s"]);
        for _ in 0..4 {
            sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
            ferry.kill_9();
            ferry.restart();
        }
        ferry.wait_for_phase("tailing").await;
        sleep(Duration::from_secs(1)).await;
        stop.cancel();
        writers.join_all().await;
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.cutover_and_end().await;
        for coll in ["by_size", "by_count"] {
            let (there, here) = (in_order(&pair.from, coll).await, in_order(&pair.to, coll).await);
            let ids = |all: &[RawDocumentBuf]| all.iter().map(|d| d.get_i32("_id").unwrap()).collect::<Vec<_>>();
            assert_eq!(ids(&there), ids(&here), "{coll}");
            assert_eq!(there, here, "{coll}");
        }
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn documents_that_the_stream_does_not_show_are_copied() {
        let pair = Pair::start().await;
        let filled = ["plain", "large", "cloned"].map(|coll| insert("ddl", coll, 0..3_000));
        perform(&pair.from, &filled).await;
        perform(&pair.from, &[insert("other", "in", 0..20_000), insert("other", "in_capped", 0..500), insert("other", "gone", 0..50)])
            .await;
        perform(&pair.from, &[on("other", doc! {"createIndexes": "in", "indexes": [{"key": {"a": 1}, "name": "a"}]})]).await;
        let mut ferry = pair.ferry(&["--include", "ddl.*"]);
        ferry.wait_for_phase("tailing").await;
        perform(
            &pair.from,
            &[
                on("ddl", doc! {"convertToCapped": "plain", "size": 100_000}),
                on("ddl", doc! {"convertToCapped": "large", "size": 1 << 24}),
                insert("ddl", "large", 5_000..5_010),
                on("ddl", doc! {"cloneCollectionAsCapped": "cloned", "toCollection": "clone", "size": 1 << 24}),
                insert("ddl", "clone", 5_000..5_010),
                on("other", doc! {"convertToCapped": "in_capped", "size": 50_000}),
                rename("other.in_capped", "ddl.in_capped", false),
                insert("ddl", "in_capped", 5_000..5_010),
                rename("other.gone", "ddl.gone", false),
                on("ddl", doc! {"drop": "gone"}),
                rename("other.in", "ddl.in", false),
                on("ddl", doc! {"update": "in", "updates": [{"q": {"b": 3}, "u": {"$set": {"seen": true}}, "multi": true}]}),
                on("ddl", doc! {"delete": "in", "deletes": [{"q": {"b": 4}, "limit": 0}]}),
                insert("ddl", "in", 50_000..50_100),
            ],
        )
        .await;
        ferry.kill_9();
        ferry.restart();
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.wait_for("everything is copied", |s| s["can_cut_over"] == true).await;
        ferry.cutover_and_end().await;
        for coll in ["plain", "large", "clone", "in_capped"] {
            assert_eq!(in_order(&pair.from, coll).await, in_order(&pair.to, coll).await, "{coll}");
        }
        run(&pair.from, "admin", doc! {"setUserWriteBlockMode": 1, "global": false}).await;
        run(&pair.from, "other", doc! {"dropDatabase": 1}).await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_structural_change_does_not_wait_for_index_builds() {
        let pair = Pair::start().await;
        for coll in ["renamed", "modified", "dropped", "unindexed"] {
            perform(&pair.from, &[insert("ddl", coll, 0..500)]).await;
        }
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        let hang = |mode: &'static str| run(&pair.to, "admin", doc! {"configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode});
        hang("alwaysOn").await;
        for coll in ["renamed", "modified", "dropped", "unindexed"] {
            let two = vec![doc! {"key": {"a": 1}, "name": "a"}, doc! {"key": {"b": 1}, "name": "b"}];
            perform(&pair.from, &[index(coll, two)]).await;
        }
        ferry.wait_for("builds under way", |s| s["unfinished_indexes"].as_array().is_some_and(|all| all.len() == 8)).await;
        let told = |s: &serde_json::Value| s["unfinished_indexes"].as_array().unwrap().iter().filter(|i| i["state"] == "building").count();
        let building =
            ferry.wait_for("how far they are", |s| told(s) > 0 && s["unfinished_indexes"].to_string().contains("\"progress\":1")).await;
        assert!(told(&building) <= 4, "two indexes each of as many collections as may be built at a time: {building:#}");
        let changes = [
            rename("ddl.renamed", "ddl.renamed_by_now", false),
            modify("modified", doc! {"validator": {"a": {"$gte": 0}}}),
            on("ddl", doc! {"drop": "dropped"}),
            on("ddl", doc! {"dropIndexes": "unindexed", "index": "a"}),
            index("unindexed", vec![doc! {"key": {"a": -1}, "name": "a"}]),
        ];
        perform(&pair.from, &changes).await;
        // The builds that began anew hang as well; the stream goes on all the same.
        ferry.wait_until_caught_up(&pair.from).await;
        hang("off").await;
        ferry.wait_for("the builds", |s| s["can_cut_over"] == true).await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }
}
