//! Capped collections across a crash: what is applied twice does not change their order.

mod real {
    use crate::support::Pair;
    use bson::{Document, doc};

    #[tokio::test(flavor = "multi_thread")]
    async fn documents_that_came_back_keep_their_place_when_they_are_applied_again() {
        let pair = Pair::start().await;
        let ids = |ids: std::ops::Range<i32>| ids.map(|n| doc! {"_id": n}).collect::<Vec<Document>>();
        pair.on_source("d", doc! {"create": "log", "capped": true, "size": 1 << 20}).await;
        pair.on_source("d", doc! {"insert": "log", "documents": ids(0..50)}).await;
        // Nothing is saved in between, so that everything is applied once more.
        let mut ferry = pair.ferry(&["--checkpoint-interval", "60s"]);
        ferry.wait_until_ready().await;
        for n in 0..10 {
            pair.on_source("d", doc! {"delete": "log", "deletes": [{"q": {"_id": n}, "limit": 1}]}).await;
            pair.on_source("d", doc! {"insert": "log", "documents": [{"_id": n}, {"_id": 100 + n}]}).await;
        }
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.kill_9();
        pair.on_source("d", doc! {"insert": "log", "documents": ids(200..220)}).await;
        ferry.restart();
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }
}
