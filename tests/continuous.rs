//! The verification that goes on beside the tail.

mod real {
    use crate::support::{Pair, run};
    use bson::{Document, doc};
    use serde_json::Value;
    use testbed::DataSet;
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    /// Differences that persist, as text, sorted.
    fn told(status: &Value) -> Vec<String> {
        let listed = status["verification"]["listed_differences"].as_array().cloned().unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
        let mut all: Vec<_> =
            listed.iter().map(|d| format!("{} {} {} {}", text(&d["ns"]), text(&d["kind"]), text(&d["id"]), text(&d["detail"]))).collect();
        all.sort();
        all
    }

    fn is_verified(status: &Value) -> bool {
        status["verification"]["state"] == "verified"
    }

    async fn fill(pair: &Pair) {
        let numbered: Vec<_> = (0..100).map(|n| doc! {"_id": n, "a": n, "b": "text"}).collect();
        for coll in ["byte", "type", "order", "missing", "extra", "idtype", "calm"] {
            pair.on_source("v", doc! {"insert": coll, "documents": numbered.clone()}).await;
        }
        for command in [
            doc! {"create": "collated", "collation": {"locale": "en", "strength": 2}},
            doc! {"insert": "collated", "documents": [{"_id": "a"}, {"_id": "K"}, {"_id": "z"}]},
            doc! {"create": "capped", "capped": true, "size": 100_000},
            doc! {"insert": "capped", "documents": [{"_id": 2, "x": 1}, {"_id": 1, "x": 1}]},
            doc! {"createIndexes": "byte", "indexes": [
                {"key": {"a": 1}, "name": "a_1", "sparse": true}, {"key": {"b": 1, "a": 1}, "name": "gone"},
                {"key": {"at": 1}, "name": "ttl", "expireAfterSeconds": 3600},
            ]},
            doc! {"create": "checked", "validator": {"a": {"$gt": 1}}},
            doc! {"create": "view", "viewOn": "byte", "pipeline": [{"$match": {"a": 1}}]},
            doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m"}},
            doc! {"insert": "series", "documents": [
                {"t": bson::DateTime::from_millis(1_000), "m": 1, "v": 1}, {"t": bson::DateTime::from_millis(9_000_000_000), "m": 2, "v": 1},
            ]},
        ] {
            pair.on_source("v", command).await;
        }
    }

    /// What somebody else does to the target.
    async fn tamper(pair: &Pair) {
        let set = |coll: &str, id: bson::Bson, to: Document| doc! {"update": coll, "updates": [{"q": {"_id": id}, "u": to}]};
        let delete = |coll: &str, id: bson::Bson| doc! {"delete": coll, "deletes": [{"q": {"_id": id}, "limit": 1}]};
        for command in [
            set("byte", 50.into(), doc! {"a": 50, "b": "texT"}),
            set("type", 36.into(), doc! {"a": 36_i64, "b": "text"}),
            set("order", 37.into(), doc! {"b": "text", "a": 37}),
            delete("missing", 73.into()),
            doc! {"insert": "extra", "documents": [{"_id": 40.5}]},
            delete("idtype", 60.into()),
            doc! {"insert": "idtype", "documents": [{"_id": 60_i64, "a": 60, "b": "text"}]},
            delete("collated", "K".into()),
            doc! {"insert": "collated", "documents": [{"_id": "k"}]},
            set("capped", 2.into(), doc! {"x": 2}),
            doc! {"delete": "system.buckets.series", "deletes": [{"q": {"meta": 2}, "limit": 1}]},
            doc! {"dropIndexes": "byte", "index": ["a_1", "gone"]},
            doc! {"createIndexes": "byte", "indexes": [{"key": {"a": 1}, "name": "a_1"}, {"key": {"z": 1}, "name": "more"}]},
            doc! {"collMod": "checked", "validator": {"a": {"$gt": 2}}},
            doc! {"collMod": "view", "viewOn": "byte", "pipeline": [{"$match": {"a": 2}}]},
        ] {
            pair.on_target("v", command).await;
        }
    }

    /// Without the `_id` of buckets, which is another each time.
    fn wanted() -> Vec<&'static str> {
        vec![
            "v.byte different 50 value of `b` differs",
            "v.byte index - index `a_1`: `sparse` missing on target",
            "v.byte index - index `gone` missing on target",
            "v.byte index - index `more` on target only",
            "v.capped different 2 value of `x` differs",
            "v.checked options - option `validator` differs",
            "v.collated different \"K\" value of `_id` differs",
            "v.extra extra 40.5 not on the source",
            "v.idtype different 60 type of `_id` differs",
            "v.missing missing 73 not on the target",
            "v.order different 37 field order differs",
            "v.system.buckets.series missing",
            "v.type different 36 type of `a` differs",
            "v.view options - option `pipeline` differs",
        ]
    }

    fn shortened(told: &[String]) -> Vec<&str> {
        let short =
            |t: &str| if t.starts_with("v.system.buckets.series missing") { "v.system.buckets.series missing".len() } else { t.len() };
        told.iter().map(|t| &t[..short(t)]).collect()
    }

    /// Writes to one collection until it is told to stop.
    fn write_all_the_time(pair: &Pair) -> (JoinSet<()>, CancellationToken) {
        let (source, stop) = (pair.from.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            for n in (0_i32..).take_while(|_| !stopped.is_cancelled()) {
                run(&source, "v", doc! {"update": "calm", "updates": [{"q": {"_id": n % 100}, "u": {"$set": {"n": n}}}]}).await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        (task, stop)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_somebody_does_to_the_target_is_found_listed_and_mended() {
        let pair = Pair::start().await;
        fill(&pair).await;
        let mut ferry = pair.ferry(&["--verify-every", "1s"]);
        let first = ferry.wait_for("everything to be verified", is_verified).await;
        assert_eq!((&first["verification"]["documents"], &first["verification"]["pending"]), (&707.into(), &0.into()), "{first:#}");
        assert!(first["verification"]["proved_cluster_time"].is_object(), "{first:#}");
        let (writer, stop) = write_all_the_time(&pair);
        tamper(&pair).await;
        let found = ferry.wait_for("all differences", |s| told(s).len() >= wanted().len()).await;
        assert_eq!(shortened(&told(&found)), wanted());
        assert_eq!((&found["verification"]["state"], &found["can_cut_over"]), (&"different".into(), &false.into()));
        let metrics = ferry.metrics().await;
        assert!(metrics.contains("mongoferry_mismatches{kind=\"missing\"} 2"), "{metrics}");
        stop.cancel();
        writer.join_all().await;

        let mended = ferry.verb(&["verify", "--repair", "--output", "json"]).await.expect(0, "verify --repair").json();
        assert_eq!(mended["repaired"]["mended"], wanted().len(), "{:#}", mended["repairs"]);
        assert_eq!((&mended["equal"], &mended["repaired"]["came_back"]), (&true.into(), &0.into()), "{mended:#}");
        ferry.wait_for("everything to be verified again", is_verified).await;

        // Somebody does not stop. What is gone from a capped collection cannot be put back.
        pair.on_target("v", doc! {"update": "byte", "updates": [{"q": {"_id": 50}, "u": {"b": "texT"}}]}).await;
        pair.on_target("v", doc! {"delete": "capped", "deletes": [{"q": {"_id": 1}, "limit": 1}]}).await;
        let back = told(&ferry.wait_for("it to be found again", |s| told(s).len() == 2).await);
        assert!(back[0].contains("somebody else writes to the target"), "{back:#?}");
        let repair = ferry.verb(&["verify", "--repair"]).await.expect(1, "a difference is left");
        assert!(repair.stdout.contains("mended 1 of 2") && repair.stdout.contains("it had come back"), "{repair:?}");
        assert!(repair.stdout.contains("keeps the order of insertion"), "{repair:?}");
        // The server writes defaults down when a validator is changed, and nobody can take them back.
        for coll in ["capped", "checked"] {
            pair.on_source("v", doc! {"drop": coll}).await;
        }
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.verb(&["verify"]).await.expect(0, "verify");
        let cut = ferry.cutover_and_end().await;
        assert!(cut.stdout.contains("documents are proved equal"), "{cut:?}");
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_cutover_proves_what_was_touched_until_the_fence() {
        let pair = Pair::start().await;
        fill(&pair).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for("everything to be verified", is_verified).await;

        // The tail does not see what somebody does to a document, but the next change of it has it looked at.
        pair.on_target("v", doc! {"update": "calm", "updates": [{"q": {"_id": 7}, "u": {"$set": {"b": "texT"}}}]}).await;
        let touch = |n: i32| doc! {"update": "calm", "updates": [{"q": {"_id": n}, "u": {"$set": {"touched": n}}}]};
        pair.on_source("v", touch(7)).await;
        let found = ferry.wait_for("the difference", |s| !told(s).is_empty()).await;
        assert_eq!(told(&found), ["v.calm different 7 value of `b` differs"]);
        ferry.verb(&["cutover", "--yes"]).await.expect(1, "with a difference");
        ferry.verb(&["cutover", "--yes", "--accept-unproved-documents"]).await.expect(1, "a known difference is not accepted");
        pair.on_target("v", doc! {"update": "calm", "updates": [{"q": {"_id": 7}, "u": {"$set": {"b": "text"}}}]}).await;
        ferry.wait_for("it to be gone", is_verified).await;

        // Written to until it is fenced.
        let writer = pair.from.clone();
        let mut writes = JoinSet::new();
        writes.spawn(async move {
            let mut written = 0;
            for n in 0_i32.. {
                let command = doc! {"update": "calm", "updates": [{"q": {"_id": n % 100}, "u": {"$set": {"n": n}}}]};
                match writer.database("v").run_command(command).await {
                    Ok(reply) if !reply.contains_key("writeErrors") => written += 1,
                    _ => break,
                }
            }
            written
        });
        let cut = ferry.cutover(&["--output", "json"]).await.expect(0, "cutover").json();
        let proof = &cut["details"]["proof"];
        assert_eq!((&proof["complete"], &proof["documents"]), (&true.into(), &707.into()), "{cut:#}");
        assert!(proof["seconds"].is_number() && cut["message"].as_str().unwrap().contains("proved equal"), "{cut:#}");
        assert!(writes.join_all().await[0] > 0);
        assert_eq!(ferry.wait_exit().await, 0);
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_kill_in_the_middle_costs_only_what_was_touched() {
        let pair = Pair::start().await;
        let set = DataSet { documents: 12_000, approx_bytes: 1_000, ..DataSet::default() };
        let filled = testbed::fill(&pair.from, set).await.unwrap();
        let mut ferry = pair.ferry(&["--partition-size", "1MiB", "--verify-rate", "1MiB"]);
        let proved = |status: &Value| {
            let all = status["verification"]["collections"].as_array().cloned().unwrap_or_default();
            all.iter().map(|c| c["partitions_proved"].as_u64().unwrap()).sum::<u64>()
        };
        let before = ferry.wait_for("some partitions to be proved", |s| proved(s) >= 6).await;
        assert_eq!(before["verification"]["state"], "pending", "{:#}", before["verification"]);
        let gate = before["gates"].as_array().unwrap().iter().find(|g| g["name"] == "parity").unwrap().clone();
        assert_eq!(gate["open"], false, "{gate}");
        ferry.kill_9();
        ferry.restart_with(&["--partition-size", "1MiB"]);
        let after = ferry.wait_for("everything to be verified", is_verified).await;
        assert_eq!(after["verification"]["documents"], filled.documents, "{:#}", after["verification"]);
        let metrics = ferry.metrics().await;
        let line = metrics.lines().find(|l| l.starts_with("mongoferry_verified_documents_total ")).unwrap();
        let compared: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(compared + 2_000 < filled.documents, "{compared} of {} were compared again", filled.documents);

        // What was written while nobody noted it makes every proof void.
        ferry.kill_9();
        ferry.restart_with(&["--verify-continuous", "off"]);
        let off = ferry.wait_until_ready().await;
        assert_eq!(off["verification"]["state"], "off");
        pair.on_source("later", doc! {"insert": "late", "documents": [{"_id": 1}]}).await;
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.kill_9();
        ferry.restart_with(&[]);
        let anew = ferry.wait_for("everything to be verified", is_verified).await;
        assert_eq!(anew["verification"]["documents"], filled.documents + 1, "{:#}", anew["verification"]);
        let log = ferry.log();
        let last = log.lines().rfind(|line| line.contains("partitions to be verified")).unwrap();
        assert!(!last.contains("unproved=0"), "{last}");
        let cut = ferry.cutover_and_end().await;
        assert!(cut.stdout.contains("proved equal"), "{cut:?}");
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_verification_the_cutover_says_so() {
        let pair = Pair::start().await;
        fill(&pair).await;
        let mut ferry = pair.ferry(&["--verify-continuous", "off"]);
        let cut = ferry.cutover_and_end().await;
        assert!(cut.stdout.contains("NOT all documents are proved equal: verification is off"), "{cut:?}");
        pair.end().await;
    }
}
