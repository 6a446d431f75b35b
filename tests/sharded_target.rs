//! From a replica set to a sharded cluster.

mod real {
    use crate::support::{Ferry, alone, seed, told};
    use bson::{Document, doc};
    use futures_util::TryStreamExt;
    use mongodb::Client;
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;
    use testbed::sharded::{Options as Sharded, ShardedCluster};
    use testbed::{
        DataSet, Load, LoadOptions, Options, ReplicaSet, connect, end, fill,
        parity::{Kind, everything},
    };
    use tokio::sync::SemaphorePermit;
    use tokio::time::{Instant, sleep};

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
            let alone = alone().await;
            let source = Options { name: "source".into(), oplog_mb: 2048, ..Options::default() };
            let (source, target) =
                tokio::try_join!(ReplicaSet::start(source), ShardedCluster::start(Sharded { shards, ..Sharded::default() })).unwrap();
            let (from, to) = (connect(&source.uri()).await.unwrap(), connect(&target.uri()).await.unwrap());
            Self { source, target, from, to, _alone: alone }
        }

        fn ferry(&self, more: &[&str]) -> Ferry {
            Ferry::start(&self.source.uri(), &self.target.uri(), more)
        }

        async fn check(&self, more: &[&str]) -> crate::support::Told {
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
        fill(&clusters.from, DataSet { documents: 12_000, seed, ..DataSet::default() }).await.unwrap();
        let load = Load::start(clusters.from.clone(), LoadOptions { seed, ops_per_second: 800, ..LoadOptions::default() });
        let deadline = Instant::now() + crate::support::DEADLINE;
        while load.counts().operations < 4_000 {
            assert!(Instant::now() < deadline, "no load: {:?}", load.counts());
            sleep(Duration::from_millis(50)).await;
        }
        let keys: Vec<&str> = KEYS.iter().flat_map(|key| ["--shard", key]).collect();
        let mut ferry = clusters.ferry(&[&keys[..], &["--partition-size", "1MiB", "--verbose"]].concat());
        for phase in ["copying", "copying", "tailing"] {
            let status = ferry.wait_for_phase(phase).await;
            eprintln!("killed while {}", status["phase"]);
            ferry.kill_9();
            ferry.restart();
        }
        ferry.wait_for_phase("tailing").await;
        for key in KEYS {
            let (ns, _) = key.split_once('=').unwrap();
            let chunks = clusters.chunks(ns).await;
            assert_eq!(chunks.len(), 2, "{ns} lies on few shards: {chunks:?}");
        }
        // More changes behind the kills; the fence stops the load.
        let before = load.counts().operations;
        let deadline = Instant::now() + crate::support::DEADLINE;
        while load.counts().operations < before + 2_000 {
            assert!(Instant::now() < deadline, "no load: {:?}", load.counts());
            sleep(Duration::from_millis(50)).await;
        }
        ferry.cutover_and_end().await;
        let counts = load.stop().await;
        eprintln!("load: {} operations", counts.operations);
        assert_eq!(counts.errors, 0, "{counts:?}");
        clusters.assert_equal(&["load0.c0", "load0.c2", "load1.c1", "shop.orders"]).await;
        clusters.end().await;
    }
}
