//! Pairs of server versions: a whole migration for each, and what `check` says of it.

mod real {
    use crate::support::{Ferry, Pair, golden, run, seed, slow_down, speed_up, told};
    use bson::{Document, doc};
    use mongodb::Client;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::{fmt::Write as _, time::Duration};
    use testbed::{DataSet, Load, LoadOptions, Options, Version, fill};
    use tokio::{
        task::JoinSet,
        time::{Instant, sleep},
    };
    use tokio_util::sync::CancellationToken;

    /// How long a change of structure may take to arrive, on a machine with other work.
    const SECONDS: Duration = Duration::from_secs(30);

    fn documents(ids: std::ops::Range<i32>) -> Vec<Document> {
        ids.map(|n| doc! {"_id": n, "a": n, "b": n % 7, "text": "x".repeat(100)}).collect()
    }

    async fn perform(client: &Client, steps: Vec<(&str, Document)>) {
        for (database, command) in steps {
            run(client, database, command).await;
        }
    }

    /// A collection for each thing that will happen to one.
    async fn prepare(client: &Client) {
        fill(client, DataSet { documents: 6_000, ..DataSet::default() }).await.unwrap();
        for coll in
            ["dropped", "recreated", "renamed", "over", "under", "swap_a", "swap_b", "indexed", "modified", "taken", "moved", "converted"]
        {
            run(client, "ddl", doc! {"insert": coll, "documents": documents(0..200)}).await;
        }
        let specs = [
            doc! {"key": {"b": 1}, "name": "old"},
            doc! {"key": {"a": 1}, "name": "ttl", "expireAfterSeconds": 1_000_000},
            doc! {"key": {"a": -1}, "name": "seen"},
            doc! {"key": {"a": 1, "b": 1}, "name": "same name"},
        ];
        let steps = vec![
            ("ddl", doc! {"createIndexes": "indexed", "indexes": specs.to_vec()}),
            ("ddl", doc! {"create": "view", "viewOn": "indexed", "pipeline": [{"$match": {"b": 1}}]}),
            ("ddl", doc! {"create": "view_dropped", "viewOn": "indexed", "pipeline": []}),
            ("ddl", doc! {"create": "view_other", "viewOn": "indexed", "pipeline": []}),
            ("ddl", doc! {"create": "capped", "capped": true, "size": 1 << 20}),
            ("gone", doc! {"insert": "a", "documents": documents(0..50)}),
            ("gone", doc! {"create": "view", "viewOn": "a", "pipeline": []}),
        ];
        perform(client, steps).await;
    }

    fn rename(from: &str, to: &str, drop_target: bool) -> (&'static str, Document) {
        ("admin", doc! {"renameCollection": from, "to": to, "dropTarget": drop_target})
    }

    fn insert(coll: &str, ids: std::ops::Range<i32>) -> (&'static str, Document) {
        ("ddl", doc! {"insert": coll, "documents": documents(ids)})
    }

    /// Changes that leave traces among the documents.
    fn changes() -> Vec<(&'static str, Document)> {
        let mut steps = vec![
            ("ddl", doc! {"drop": "dropped"}),
            ("ddl", doc! {"drop": "recreated"}),
            insert("recreated", 5_000..5_100),
            insert("renamed", 5_000..5_010),
            rename("ddl.renamed", "ddl.renamed_once", false),
            insert("renamed_once", 6_000..6_010),
            rename("ddl.renamed_once", "ddl.renamed_twice", false),
            insert("renamed_twice", 7_000..7_010),
            insert("renamed", 8_000..8_010),
            rename("ddl.over", "ddl.under", true),
            insert("under", 5_000..5_010),
            rename("ddl.swap_a", "ddl.swap", false),
            rename("ddl.swap_b", "ddl.swap_a", false),
            insert("swap_a", 5_000..5_010),
            rename("ddl.swap", "ddl.swap_b", false),
            ("ddl", doc! {"aggregate": "indexed", "pipeline": [{"$match": {"b": {"$lt": 3}}}, {"$out": "out_new"}], "cursor": {}}),
            ("ddl", doc! {"aggregate": "indexed", "pipeline": [{"$match": {"b": 4}}, {"$out": "taken"}], "cursor": {}}),
            ("ddl", doc! {"aggregate": "indexed", "pipeline": [{"$match": {"b": 99}}, {"$out": "out_empty"}], "cursor": {}}),
            // A view's name used by a collection, and by a view again.
            ("ddl", doc! {"drop": "view_dropped"}),
            insert("view_dropped", 0..10),
            rename("ddl.view_dropped", "ddl.was_a_view", false),
            ("ddl", doc! {"create": "view_dropped", "viewOn": "was_a_view", "pipeline": []}),
            ("ddl", doc! {"create": "collated", "collation": {"locale": "en", "strength": 2}}),
            ("ddl", doc! {"insert": "collated", "documents": [{"_id": "K"}, {"_id": "other"}]}),
            ("ddl", doc! {"delete": "collated", "deletes": [{"q": {"_id": "K"}, "limit": 1}]}),
            ("ddl", doc! {"insert": "collated", "documents": [{"_id": "k", "again": true}]}),
            insert("capped", 0..300),
            // Their documents come without events.
            rename("ddl.moved", "ddl2.moved", false),
            ("ddl2", doc! {"insert": "moved", "documents": documents(5_000..5_010)}),
            ("ddl", doc! {"convertToCapped": "converted", "size": 1 << 20}),
            ("ddl", doc! {"cloneCollectionAsCapped": "modified", "toCollection": "cloned", "size": 1 << 20}),
            insert("converted", 5_000..5_010),
            ("gone", doc! {"dropDatabase": 1}),
            ("gone", doc! {"insert": "a", "documents": documents(9_000..9_010)}),
        ];
        for n in 0..5 {
            steps.push(("ddl", doc! {"drop": "recreated"}));
            steps.push(insert("recreated", n * 100..n * 100 + 20));
            steps.push(("ddl", doc! {"createIndexes": "recreated", "indexes": [{"key": {"a": 1}, "name": format!("index {n}")}]}));
        }
        steps
    }

    /// Changes that no document tells of.
    fn silent_changes() -> Vec<(&'static str, Document)> {
        vec![
            ("ddl", doc! {"create": "empty", "capped": true, "size": 1 << 20, "max": 100}),
            ("ddl", doc! {"create": "checked", "validator": {"$jsonSchema": {"required": ["a"]}}, "validationAction": "warn"}),
            ("ddl", doc! {"createIndexes": "indexed", "indexes": [{"key": {"a": 1, "b": -1}, "name": "new", "unique": true}]}),
            ("ddl", doc! {"dropIndexes": "indexed", "index": "old"}),
            ("ddl", doc! {"dropIndexes": "indexed", "index": "same name"}),
            ("ddl", doc! {"createIndexes": "indexed", "indexes": [{"key": {"text": 1}, "name": "same name", "sparse": true}]}),
            ("ddl", doc! {"collMod": "indexed", "index": {"name": "seen", "hidden": true}}),
            ("ddl", doc! {"collMod": "indexed", "index": {"name": "ttl", "expireAfterSeconds": 2_000_000}}),
            ("ddl", doc! {"collMod": "modified", "validator": {"a": {"$gte": 0}}, "validationLevel": "moderate"}),
            ("ddl", doc! {"collMod": "view", "viewOn": "indexed", "pipeline": [{"$match": {"b": 2}}]}),
            ("ddl", doc! {"create": "view_made", "viewOn": "view", "pipeline": [{"$project": {"a": 1}}]}),
            ("ddl", doc! {"drop": "view_other"}),
            ("ddl", doc! {"create": "view_other", "viewOn": "modified", "pipeline": [], "collation": {"locale": "sv"}}),
        ]
    }

    /// What `check` says, without what differs from run to run.
    async fn checked(pair: &Pair, of: &str) {
        let report = told(&["check", "--source", &pair.source.uri(), "--target", &pair.target.uri(), "--output", "json"]).await;
        let report = report.expect(0, "a pair that can be migrated").json();
        let mut text = String::new();
        for finding in report["findings"].as_array().unwrap() {
            let what = finding["what"].as_str().unwrap();
            if !what.starts_with("the oplog of the source holds") {
                let hint = finding["hint"].as_str().map(|hint| format!("\n    {hint}")).unwrap_or_default();
                writeln!(text, "{}: {what}{hint}", finding["level"].as_str().unwrap()).unwrap();
            }
        }
        golden(&format!("versions/{of}.txt"), &text);
    }

    async fn core(source: Version, target: Version) {
        let of = format!("{source}-to-{target}");
        let seed = seed(&of);
        let mut rng = StdRng::seed_from_u64(seed);
        // Whether a structural change must be looked for, and the fence be the operator's word.
        let old = source < Version::V6_0_5;
        let pair = Pair::with(Options { version: source, ..Options::default() }, Options { version: target, ..Options::default() }).await;
        prepare(&pair.from).await;
        checked(&pair, &of).await;
        let load =
            Load::start(pair.from.clone(), LoadOptions { seed, ops_per_second: 150, threads: 2, ddl: true, ..LoadOptions::default() });

        slow_down(&pair.to, &["insert"], Duration::from_millis(100)).await;
        let mut ferry = pair.ferry(&["--partition-size", "1MiB", "--copy-partitions", "1"]);
        ferry.wait_for("some of the copy", |s| s["copy"]["collections_done"].as_u64() >= Some(1)).await;
        let all = changes();
        let (first, rest) = all.split_at(rng.random_range(1..all.len()));
        perform(&pair.from, first.to_vec()).await;
        ferry.kill_9();
        perform(&pair.from, rest.to_vec()).await;
        ferry.restart();
        speed_up(&pair.to).await;
        ferry.wait_for_phase("catching_up").await;
        silent(&pair, &mut ferry, &mut rng).await;
        let counts = load.stop().await;
        assert_eq!(counts.errors, 0, "{counts:?}");
        arrived(&pair, &mut ferry).await;

        // With nobody writing, the last changes of structure: they must be on the target at the cutover.
        ferry.wait_until_ready().await;
        ferry.verb(&["verify"]).await.expect(0, "both sides are equal");
        if old {
            let refused = ferry.verb(&["cutover", "--yes"]).await.expect(1, "a source that cannot be fenced");
            assert!(refused.stdout.contains("--writes-stopped"), "{refused:?}");
        } else {
            // Listed as an index by either version, by the newer with the collection's time.
            let made = doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true, "name": "own"}, "expireAfterSeconds": 9_000_000};
            perform(&pair.from, vec![("ddl", made)]).await;
        }
        perform(
            &pair.from,
            vec![
                ("ddl", doc! {"create": "last", "collation": {"locale": "de"}}),
                ("ddl", doc! {"createIndexes": "last", "indexes": [{"key": {"a": 1}, "name": "last", "unique": true}]}),
                ("ddl", doc! {"collMod": "modified", "validator": {"a": {"$gte": -1}}}),
            ],
        )
        .await;
        let stopped: &[&str] = if old { &["--writes-stopped"] } else { &[] };
        let told = ferry.cutover(stopped).await;
        assert_eq!(told.code, 0, "the cutover failed: {told:?}\n{}", ferry.log());
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        pair.assert_equal().await;
        pair.end().await;
    }

    /// Changes of structure alone, with a kill in their middle.
    async fn silent(pair: &Pair, ferry: &mut Ferry, rng: &mut StdRng) {
        let all = silent_changes();
        let (first, rest) = all.split_at(rng.random_range(1..all.len()));
        perform(&pair.from, first.to_vec()).await;
        ferry.kill_9();
        perform(&pair.from, rest.to_vec()).await;
        ferry.restart();
        ferry.wait_for_phase("catching_up").await;
    }

    /// Everything without documents comes by itself within seconds, once the tail has caught up.
    async fn arrived(pair: &Pair, ferry: &mut Ferry) {
        ferry.wait_until_caught_up(&pair.from).await;
        let names = |client: Client| async move { client.database("ddl").list_collection_names().await.unwrap() };
        let deadline = Instant::now() + SECONDS;
        for wanted in ["empty", "checked", "view_made", "view_other", "out_empty"] {
            while !names(pair.to.clone()).await.iter().any(|name| name == wanted) {
                assert!(Instant::now() < deadline, "`{wanted}` does not arrive\n{}", ferry.log());
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_pair_cannot_do_is_refused_before_the_start() {
        let old = Options { version: Version::V4_4_2, ..Options::default() };
        let pair = Pair::with(old, Options::default()).await;
        let index = |spec: Document| doc! {"createIndexes": "some", "indexes": [spec]};
        let cases = [
            ("haystack", index(doc! {"key": {"at": "geoHaystack", "a": 1}, "name": "hay", "bucketSize": 1})),
            ("timeless", index(doc! {"key": {"at": 1}, "name": "timeless", "expireAfterSeconds": f64::NAN})),
            ("javascript", doc! {"insert": "system.js", "documents": [{"_id": "one", "value": "function() { return 1; }"}]}),
        ];
        for (name, command) in cases {
            run(&pair.from, "shop", command).await;
            let refused = told(&["check", "--source", &pair.source.uri(), "--target", &pair.target.uri(), "--output", "json"]).await;
            let report = refused.expect(4, name).json();
            let findings = report["findings"].as_array().unwrap();
            let error = findings.iter().find(|f| f["level"] == "error").unwrap_or_else(|| panic!("no error: {report:#}"));
            golden(
                &format!("versions/refused-{name}.txt"),
                &format!("{}\n    {}\n", error["what"].as_str().unwrap(), error["hint"].as_str().unwrap()),
            );
            run(&pair.from, "shop", doc! {"dropDatabase": 1}).await;
        }
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_source_that_tells_no_diffs_can_be_cut_over_under_load() {
        let pair = Pair::with(Options { version: Version::V5_0_4, ..Options::default() }, Options::default()).await;
        run(&pair.from, "shop", doc! {"insert": "orders", "documents": documents(0..500)}).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        // Each of these is read again, at a time when the next one has been written already.
        let (stop, writer) = (CancellationToken::new(), pair.from.clone());
        let stopped = stop.clone();
        let mut writes = JoinSet::new();
        writes.spawn(async move {
            let mut rounds = 0;
            while !stopped.is_cancelled() {
                let update = doc! {"q": {"_id": {"$mod": [5, rounds % 5]}}, "u": {"$inc": {"a": 1}}, "multi": true};
                run(&writer, "shop", doc! {"update": "orders", "updates": [update]}).await;
                rounds += 1;
            }
        });
        ferry.wait_until_ready().await;
        stop.cancel();
        writes.join_all().await;
        let told = ferry.cutover(&["--writes-stopped"]).await.expect(0, "cutover");
        assert!(told.stdout.contains("committed"), "{told:?}");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn from_4_4_2_to_6_0_5() {
        core(Version::V4_4_2, Version::V6_0_5).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn from_5_0_4_to_6_0_5() {
        core(Version::V5_0_4, Version::V6_0_5).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn from_6_0_5_to_6_0_5() {
        core(Version::V6_0_5, Version::V6_0_5).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn from_6_0_5_to_6_0_27() {
        core(Version::V6_0_5, Version::V6_0_27).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn from_6_0_27_to_6_0_5() {
        core(Version::V6_0_27, Version::V6_0_5).await;
    }
}
