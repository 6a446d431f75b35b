//! A document that is read again may have a field name twice before the stream has told so.

mod real {
    use crate::support::{Ferry, run, whole_machine};
    use bson::{Document, RawDocumentBuf, cstr, doc, rawdoc};
    use testbed::{Options, ReplicaSet, ShardedCluster, connect, end, sharded};

    const DOCUMENTS: i32 = 40;
    /// What comes between in the stream: enough for a lane to be done with what was before.
    const BETWEEN: i32 = 6_000;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_deletion_that_is_looked_up_brings_no_repeated_name_where_none_is_expected() {
        let _machine = whole_machine().await;
        let target = Options { name: "target".into(), ..Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(sharded::Options::default()), ReplicaSet::start(target)).unwrap();
        let (from, to) = (source.client().await.unwrap(), connect(&target.uri()).await.unwrap());
        let shop = from.database("shop");
        let odd = shop.collection::<RawDocumentBuf>("odd");
        odd.insert_many((0..DOCUMENTS).map(|n| rawdoc! {"_id": n, "a": 1, "b": 1})).await.unwrap();
        run(&from, "shop", doc! {"insert": "between", "documents": [{"_id": "first"}]}).await;
        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--verbose"]);
        ferry.wait_until_ready().await;
        ferry.kill_9();
        odd.delete_many(doc! {}).await.unwrap();
        shop.collection::<Document>("between").insert_many((0..BETWEEN).map(|n| doc! {"_id": n, "text": "x".repeat(200)})).await.unwrap();
        // Only a pipeline writes the second half, and the server would make a diff of it.
        let repeating = |n: i32| {
            let mut document = rawdoc! {"_id": n, "c": 1};
            if n % 2 == 0 {
                document.append(cstr!("$price"), n);
            }
            document.append(cstr!("c"), 2);
            document
        };
        odd.insert_many((0..DOCUMENTS).map(repeating)).await.unwrap();
        ferry.restart();
        let (documents, there) = ferry.hand_over_stopped(&from, &to).await;
        assert!(documents > 6_000 && documents == there, "{documents} documents on the source, {there} on the target");
        end(from).await;
        end(to).await;
    }
}
