//! Zones that change on the source while we run: they are not carried over, but told with what mends them.

mod real {
    use crate::support::{Ferry, run, told, whole_machine};
    use bson::{Bson, Document, doc};
    use futures_util::TryStreamExt;
    use mongodb::Client;
    use regex::Regex;
    use serde_json::Value;
    use testbed::{ShardedCluster, end, parity, sharded};

    const NS: &str = "shop.zoned";

    async fn give(client: &Client, min: i32, max: i32, zone: impl Into<Bson>) {
        run(client, "admin", doc! {"updateZoneKeyRange": NS, "min": {"n": min}, "max": {"n": max}, "zone": zone.into()}).await;
    }

    /// Bounds and zones.
    async fn ranges(client: &Client) -> Vec<(Document, Document, String)> {
        let found = client.database("config").collection::<Document>("tags").find(doc! {"ns": NS}).await.unwrap();
        let found: Vec<Document> = found.try_collect().await.unwrap();
        let bound = |range: &Document, name: &str| range.get_document(name).unwrap().clone();
        found.iter().map(|range| (bound(range, "min"), bound(range, "max"), range.get_str("tag").unwrap().to_owned())).collect()
    }

    /// What a verification tells of zones.
    fn details(report: &Value, within: &str) -> Vec<String> {
        let found = report[within].as_array().unwrap().iter().filter(|found| found["kind"] == "sharding");
        found.map(|found| found["detail"].as_str().unwrap().to_owned()).collect()
    }

    /// Does in the place of an operator what a report tells: the ranges, which it does not name, are those that differ.
    async fn mend(from: &Client, to: &Client, detail: &str) {
        let (ours, theirs) = (ranges(from).await, ranges(to).await);
        let told = Regex::new("sh\\.([a-zA-Z]+)\\((\"[a-z.]+\", MIN, MAX|SHARD)(?:, )?(?:\"([a-z]+)\")?\\)").unwrap();
        let zone = Regex::new("zone `([a-z]+)`").unwrap().captures(detail).unwrap()[1].to_owned();
        let mut done = 0;
        for command in told.captures_iter(detail) {
            done += 1;
            assert!(command.get(3).is_none_or(|named| named.as_str() == zone), "{detail}");
            match &command[1] {
                "addShardToZone" => drop(run(to, "admin", doc! {"addShardToZone": "shard0", "zone": &zone}).await),
                "removeRangeFromZone" => {
                    for (min, max, _) in theirs.iter().filter(|range| range.2 == zone && !ours.contains(range)) {
                        let none = Bson::Null;
                        run(to, "admin", doc! {"updateZoneKeyRange": NS, "min": min, "max": max, "zone": none}).await;
                    }
                }
                "updateZoneKeyRange" => {
                    for (min, max, _) in ours.iter().filter(|range| range.2 == zone && !theirs.contains(range)) {
                        run(to, "admin", doc! {"updateZoneKeyRange": NS, "min": min, "max": max, "zone": &zone}).await;
                    }
                }
                other => panic!("{other} in {detail}"),
            }
        }
        assert!(done > 0, "nothing is told that mends it: {detail}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn zones_that_change_while_we_run_are_told_with_what_mends_them_and_bar_no_cutover() {
        let _machine = whole_machine().await;
        let start = || ShardedCluster::start(sharded::Options::default());
        let (source, target) = tokio::try_join!(start(), start()).unwrap();
        let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
        run(&from, "admin", doc! {"addShardToZone": "shard0", "zone": "east"}).await;
        give(&from, 0, 100, "east").await;
        run(&from, "admin", doc! {"shardCollection": NS, "key": {"n": 1}}).await;
        let zoned = from.database("shop").collection::<Document>("zoned");
        zoned.insert_many((0..600).map(|id| doc! {"_id": id, "n": id})).await.unwrap();
        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &[]);
        ferry.wait_until_ready().await;
        assert_eq!(ranges(&to).await, ranges(&from).await);

        // One range is another one now, one is new, and one is of a zone that the target does not know.
        give(&from, 0, 100, Bson::Null).await;
        give(&from, 0, 50, "east").await;
        give(&from, 200, 300, "east").await;
        run(&from, "admin", doc! {"addShardToZone": "shard1", "zone": "north"}).await;
        give(&from, 400, 500, "north").await;
        zoned.insert_one(doc! {"_id": "late", "n": 250}).await.unwrap();
        let shown = |status: &Value| status["verification"]["warnings"].as_array().is_some_and(|found| found.len() == 2);
        let status = ferry.wait_for("both zones to be told", shown).await;
        let warned = status["verification"]["warnings"].to_string();
        assert!(warned.contains("zone `east`: 2 of its 2 ranges missing on target, 1 on target only"), "{warned}");
        assert!(warned.contains("zone `north`: 1 of its 1 ranges missing on target"), "{warned}");
        let verified = ferry.verb(&["verify", "--output", "json"]).await.expect(0, "verify").json();
        let warnings = details(&verified, "warnings");
        assert_eq!(warnings.len(), 2, "{verified:#}");
        for detail in &warnings {
            mend(&from, &to, detail).await;
        }
        assert_eq!(ranges(&to).await, ranges(&from).await);
        let verified = ferry.verb(&["verify", "--output", "json"]).await.expect(0, "verify").json();
        assert_eq!(details(&verified, "warnings"), [""; 0], "{verified:#}");

        // One that is told bars no cutover.
        give(&from, 200, 300, Bson::Null).await;
        let shown = |status: &Value| status["verification"]["warnings"].to_string().contains("0 of its 1 ranges missing");
        ferry.wait_for("the zone to be told", shown).await;
        let done = ferry.cutover(&["--writes-stopped"]).await.expect(0, "cutover");
        assert_eq!(ferry.wait_exit().await, 0, "{done:?}\n{}", ferry.log());
        let report = testbed::compare(&from, &to, parity::everything).await.unwrap();
        assert!(report.is_equal(), "{:?}", report.differences);
        assert_eq!(report.documents(), (601, 601));
        let alone = ["verify", "--source", &source.uri(), "--target", &target.uri(), "--output", "json"];
        let found = details(&told(&alone).await.expect(1, "verify alone").json(), "differences");
        assert_eq!(found.len(), 1, "{found:?}");
        mend(&from, &to, &found[0]).await;
        told(&alone).await.expect(0, "verify alone, mended");
        end(from).await;
        end(to).await;
    }
}
