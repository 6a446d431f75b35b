//! The verification that goes on beside the tail.

mod real {
    use crate::support::{Ferry, Pair, run};
    use bson::{Document, doc};
    use serde_json::Value;

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
    fn write_all_the_time(pair: &Pair) -> (tokio::task::JoinHandle<()>, tokio_util::sync::CancellationToken) {
        let (source, stop) = (pair.from.clone(), tokio_util::sync::CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
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
        let mut ferry: Ferry = pair.ferry(&["--verify-every", "1s"]);
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
        writer.await.unwrap();
        ferry.kill_9();
        pair.end().await;
    }
}
