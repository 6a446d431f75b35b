//! Memory stays within its budget, whatever the documents are.

mod real {
    use crate::support::{Ferry, Pair, full};
    use bson::{doc, spec::BinarySubtype};
    use std::fs;
    use testbed::{DataSet, Options, fill};

    /// The default of `--memory`, which bounds the whole process in these tests.
    const BUDGET: u64 = 512 << 20;

    /// The largest resident size that the process ever had, in bytes.
    fn peak(ferry: &Ferry) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", ferry.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    async fn copied_within_budget(pair: &Pair) -> Ferry {
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        assert!(peak(&ferry) < BUDGET, "the peak is {} MiB", peak(&ferry) >> 20);
        ferry
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_documents_are_copied_within_the_budget() {
        let pair = Pair::start().await;
        let documents = if full("MEMORY") { 1_000_000 } else { 100_000 };
        fill(&pair.from, DataSet { documents, ..DataSet::default() }).await.unwrap();
        let mut ferry = copied_within_budget(&pair).await;
        eprintln!("{documents} documents: the peak is {} MiB", peak(&ferry) >> 20);
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_largest_documents_are_copied_and_followed_within_the_budget() {
        let pair =
            Pair::with(Options { oplog_mb: 2048, cache_gb: 1.0, ..Options::default() }, Options { cache_gb: 1.0, ..Options::default() })
                .await;
        let documents = if full("MEMORY") { 200 } else { 40 };
        let large = |id: i32, byte: u8| {
            let bytes = vec![byte; (16 << 20) - 64];
            doc! {"_id": id, "payload": bson::Binary { subtype: BinarySubtype::Generic, bytes }}
        };
        let coll = pair.from.database("big").collection::<bson::Document>("files");
        for id in 0..documents {
            coll.insert_one(large(id, 1)).await.unwrap();
        }
        let mut ferry = copied_within_budget(&pair).await;
        for id in 0..documents / 4 {
            coll.replace_one(doc! {"_id": id}, large(id, 2)).await.unwrap();
            coll.insert_one(large(1_000 + id, 3)).await.unwrap();
        }
        ferry.wait_until_caught_up(&pair.from).await;
        assert!(peak(&ferry) < BUDGET, "the peak is {} MiB", peak(&ferry) >> 20);
        eprintln!("{documents} documents of 16 MiB: the peak is {} MiB", peak(&ferry) >> 20);
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }
}
