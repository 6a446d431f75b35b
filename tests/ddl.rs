//! Structural changes, while copying and while tailing, with the process killed in the middle.

mod real {
    use crate::support::{Ferry, Pair, run};
    use bson::{Document, doc};
    use mongodb::Client;
    use testbed::{DataSet, fill};

    async fn on(client: &Client, db: &str, command: Document) {
        run(client, db, command).await;
    }

    async fn insert(client: &Client, db: &str, coll: &str, ids: std::ops::Range<i32>) {
        let documents: Vec<Document> = ids.map(|n| doc! {"_id": n, "a": n, "b": n % 7, "text": "x".repeat(200)}).collect();
        on(client, db, doc! {"insert": coll, "documents": documents}).await;
    }

    /// What is there before.
    async fn before(client: &Client) {
        fill(client, DataSet { documents: 20_000, ..DataSet::default() }).await.unwrap();
        for coll in ["dropped", "recreated", "renamed", "over", "under", "moved", "indexed", "modified", "untouched"] {
            insert(client, "ddl", coll, 0..2_000).await;
        }
        on(client, "ddl", doc! {"createIndexes": "indexed", "indexes": [
            {"key": {"b": 1}, "name": "old"}, {"key": {"a": 1}, "name": "ttl", "expireAfterSeconds": 1_000_000}, {"key": {"a": -1}, "name": "seen"},
        ]})
        .await;
        on(client, "ddl", doc! {"create": "view", "viewOn": "untouched", "pipeline": [{"$match": {"b": 1}}]}).await;
        on(client, "ddl", doc! {"create": "view_dropped", "viewOn": "untouched", "pipeline": []}).await;
        insert(client, "gone", "a", 0..500).await;
        insert(client, "gone", "b", 0..500).await;
    }

    /// Every change that the server reports, with writes before and behind it.
    async fn change(client: &Client) {
        on(client, "ddl", doc! {"drop": "dropped"}).await;
        on(client, "ddl", doc! {"drop": "recreated"}).await;
        insert(client, "ddl", "recreated", 5_000..5_100).await;
        insert(client, "ddl", "renamed", 5_000..5_010).await;
        on(client, "admin", doc! {"renameCollection": "ddl.renamed", "to": "ddl.renamed_once"}).await;
        insert(client, "ddl", "renamed_once", 6_000..6_010).await;
        on(client, "admin", doc! {"renameCollection": "ddl.renamed_once", "to": "ddl.renamed_twice"}).await;
        insert(client, "ddl", "renamed_twice", 7_000..7_010).await;
        // The name is free again, and used again.
        insert(client, "ddl", "renamed", 8_000..8_010).await;
        on(client, "admin", doc! {"renameCollection": "ddl.over", "to": "ddl.under", "dropTarget": true}).await;
        on(client, "admin", doc! {"renameCollection": "ddl.moved", "to": "ddl2.moved"}).await;
        insert(client, "ddl2", "moved", 5_000..5_010).await;
        on(client, "ddl", doc! {"aggregate": "untouched", "pipeline": [{"$match": {"b": 2}}, {"$out": "out"}], "cursor": {}}).await;
        on(client, "ddl", doc! {"aggregate": "untouched", "pipeline": [{"$match": {"b": 3}}, {"$out": "out"}], "cursor": {}}).await;
        on(
            client,
            "ddl",
            doc! {"aggregate": "untouched", "pipeline": [{"$match": {"b": 4}}, {"$merge": {"into": "merged"}}], "cursor": {}},
        )
        .await;
        on(client, "ddl", doc! {"createIndexes": "indexed", "indexes": [{"key": {"a": 1, "b": -1}, "name": "new", "unique": true}]}).await;
        on(client, "ddl", doc! {"dropIndexes": "indexed", "index": "old"}).await;
        on(client, "ddl", doc! {"collMod": "indexed", "index": {"name": "ttl", "expireAfterSeconds": 2_000_000}}).await;
        on(client, "ddl", doc! {"collMod": "indexed", "index": {"name": "seen", "hidden": true}}).await;
        on(client, "ddl", doc! {"collMod": "modified", "validator": {"a": {"$gte": 100}}, "validationLevel": "moderate"}).await;
        on(client, "ddl", doc! {"insert": "modified", "documents": [{"_id": -1, "a": 1}], "bypassDocumentValidation": true}).await;
        on(client, "ddl", doc! {"create": "made", "capped": true, "size": 1 << 20, "max": 100}).await;
        on(client, "ddl", doc! {"create": "collated", "collation": {"locale": "en", "strength": 2}}).await;
        on(client, "ddl", doc! {"insert": "collated", "documents": [{"_id": "K"}, {"_id": "other"}]}).await;
        on(client, "ddl", doc! {"delete": "collated", "deletes": [{"q": {"_id": "K"}, "limit": 1}]}).await;
        on(client, "ddl", doc! {"insert": "collated", "documents": [{"_id": "k", "again": true}]}).await;
        on(client, "ddl", doc! {"collMod": "view", "viewOn": "untouched", "pipeline": [{"$match": {"b": 2}}]}).await;
        on(client, "ddl", doc! {"drop": "view_dropped"}).await;
        // A view's name, used by a collection.
        insert(client, "ddl", "view_dropped", 0..10).await;
        on(client, "ddl", doc! {"create": "view_made", "viewOn": "view", "pipeline": [{"$project": {"a": 1}}]}).await;
        on(client, "gone", doc! {"dropDatabase": 1}).await;
        insert(client, "gone", "a", 9_000..9_010).await;
    }

    async fn finish(pair: Pair, mut ferry: Ferry) {
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_change_of_structure_arrives_while_tailing() {
        let pair = Pair::start().await;
        before(&pair.from).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        change(&pair.from).await;
        finish(pair, ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_change_of_structure_arrives_while_tailing_with_a_kill_in_the_middle() {
        let pair = Pair::start().await;
        before(&pair.from).await;
        let mut ferry = pair.ferry(&["--checkpoint-interval", "60s"]);
        ferry.wait_for_phase("tailing").await;
        change(&pair.from).await;
        // Some of it is applied and none of it saved: the replay meets a target that is further on.
        ferry.wait_for("some of the changes", |s| s["events"]["ddl"].as_u64() > Some(8)).await;
        ferry.kill_9();
        ferry.restart();
        finish(pair, ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_change_of_structure_arrives_while_copying_with_a_kill_in_the_middle() {
        let pair = Pair::start().await;
        before(&pair.from).await;
        let mut ferry = pair.ferry(&["--partition-size", "1MiB", "--copy-partitions", "1", "--copy-writers", "1"]);
        ferry.wait_for("the copy to begin", |s| s["phase"] == "copying").await;
        change(&pair.from).await;
        ferry.kill_9();
        ferry.restart();
        ferry.wait_for_phase("tailing").await;
        finish(pair, ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_stream_does_not_show_halts_with_a_reason() {
        let pair = Pair::start().await;
        insert(&pair.from, "ddl", "plain", 0..100).await;
        let mut ferry = pair.ferry(&["--on-halt", "exit"]);
        ferry.wait_for_phase("tailing").await;
        on(&pair.from, "ddl", doc! {"convertToCapped": "plain", "size": 1 << 20}).await;
        assert_eq!(ferry.wait_exit().await, 4, "{}", ferry.log());
        assert!(ferry.log().contains("convertToCapped") && ferry.log().contains("ddl.plain"), "{}", ferry.log());
        pair.end().await;
    }
}
