//! `kill -9` at any moment costs time and nothing else.

mod real {
    use crate::support::{DEADLINE, Ferry, METADATA, Pair, full, reached, seed, slow_down, speed_up};
    use bson::{Bson, Document, doc};
    use futures_util::TryStreamExt;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use serde_json::Value;
    use std::time::Duration;
    use testbed::{DataSet, Load, LoadOptions, Options, fill};
    use tokio::time::{Instant, sleep};

    /// Kills of a usual run, and of a long one (`MONGOFERRY_TEST_FULL_KILL=1`).
    const KILLS: u32 = 4;
    const MANY_KILLS: u32 = 20;
    /// How long the tail may take to keep up with the load.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// Operations on the source before the copy begins, so that it finds documents that change while it reads them.
    const BEFORE: u64 = 8_000;

    /// What is durable of the copy of the pre-filled collections.
    #[derive(Debug, Default, PartialEq, PartialOrd, Clone)]
    struct Durable {
        partitions_done: u64,
        documents: i64,
    }

    impl Durable {
        async fn read(pair: &Pair) -> Self {
            let metadata = pair.to.database(METADATA);
            let entries = metadata.collection::<Document>("collections").find(doc! {"ns": {"$regex": "^shop\\."}}).await.unwrap();
            let ids: Vec<Bson> = entries.map_ok(|e| e.get("_id").unwrap().clone()).try_collect().await.unwrap();
            let found = metadata.collection::<Document>("partitions").find(doc! {"_id.collection": {"$in": ids}}).await.unwrap();
            let partitions: Vec<Document> = found.try_collect().await.unwrap();
            Self {
                partitions_done: partitions.iter().filter(|p| p.get_bool("done").unwrap()).count() as u64,
                documents: partitions.iter().map(|p| p.get_i64("documents").unwrap()).sum(),
            }
        }
    }

    /// The phase as saved.
    async fn phase(pair: &Pair) -> String {
        let record = pair.record().await;
        record.map_or("none".into(), |r| r.get_document("phase").unwrap().get_str("phase").unwrap().to_owned())
    }

    /// When a kill comes: somewhere behind this.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Behind {
        Start,
        Copying,
        Tailing,
    }

    async fn kill_at_random(ferry: &mut Ferry, behind: Behind, rng: &mut StdRng) {
        let within = match behind {
            Behind::Start => 1500,
            Behind::Copying => {
                ferry.wait_for_phase("copying").await;
                2500
            }
            Behind::Tailing => {
                ferry.wait_for_phase("tailing").await;
                1500
            }
        };
        // The moment is what is at random here; nothing waits for it.
        sleep(Duration::from_millis(rng.random_range(0..within))).await;
        ferry.kill_9();
    }

    /// Waits for a state. A machine that is too busy for the load never gets there: then it goes on without.
    async fn keep_up(ferry: &mut Ferry, load: &mut Option<Load>, what: &str, wanted: impl Fn(&Value) -> bool) {
        if ferry.wait_within(PATIENCE, what, wanted).await.is_err() {
            eprintln!("this machine cannot keep up with the load, which ends here");
            finish(load.take()).await;
        }
    }

    async fn finish(load: Option<Load>) {
        if let Some(load) = load {
            let counts = load.stop().await;
            eprintln!("load: {} operations, {:.0} a second", counts.operations, counts.operations_per_second);
            assert_eq!(counts.errors, 0, "{counts:?}");
        }
    }

    async fn killed_again_and_again(test: &str, ddl: bool) {
        let seed = seed(test);
        let mut rng = StdRng::seed_from_u64(seed);
        let kills = if full("KILL") { MANY_KILLS } else { KILLS };
        // Large, so that the headroom stays ample whatever the load writes.
        let pair = Pair::alone(Options { oplog_mb: 2048, ..Options::default() }, Options::default()).await;
        let set = DataSet { documents: 40_000, seed, ..DataSet::default() };
        fill(&pair.from, set).await.unwrap();
        let options = LoadOptions { seed, ops_per_second: 2_200, threads: 8, ddl, ..LoadOptions::default() };
        let mut load = Some(Load::start(pair.from.clone(), options));
        let operations = |load: &Option<Load>| load.as_ref().map_or(0, |load| load.counts().operations);
        let deadline = Instant::now() + DEADLINE;
        while operations(&load) < BEFORE {
            assert!(Instant::now() < deadline, "no load: {} operations", operations(&load));
            sleep(Duration::from_millis(50)).await;
        }

        // So slow that half of the kills find it copying.
        slow_down(&pair.to, &["insert"], Duration::from_millis(u64::from(kills) * 100)).await;
        let mut ferry = pair.ferry(&["--partition-size", "1MiB", "--copy-partitions", "2", "--verbose"]);
        let (mut durable, mut phases) = (Durable::default(), Vec::new());
        for n in 0..kills {
            let behind = match n {
                0 => Behind::Start,
                n if n <= kills / 2 => Behind::Copying,
                _ => Behind::Tailing,
            };
            if behind == Behind::Tailing {
                speed_up(&pair.to).await;
                keep_up(&mut ferry, &mut load, "tailing", |status| reached(status, "tailing")).await;
            }
            kill_at_random(&mut ferry, behind, &mut rng).await;
            let now = Durable::read(&pair).await;
            assert!(now.partitions_done >= durable.partitions_done && now.documents >= durable.documents, "{durable:?} became {now:?}");
            durable = now;
            phases.push(phase(&pair).await);
            eprintln!("{test}: kill {n} behind {behind:?} hit {} with {durable:?}", phases[n as usize]);
            ferry.restart();
            let status = ferry.status().await;
            assert!(status["copy"]["documents"].as_i64() >= Some(durable.documents), "the copy fell back: {status:#}");
        }
        for wanted in ["copying", "tailing"] {
            assert!(phases.iter().any(|phase| phase == wanted), "no kill hit {wanted}: {phases:?}");
        }

        keep_up(&mut ferry, &mut load, "gates", |status| status["can_cut_over"] == true).await;
        // The fence stops the load.
        ferry.cutover_and_end().await;
        finish(load).await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_kill_at_any_moment_loses_nothing() {
        killed_again_and_again("kill", false).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_kill_at_any_moment_loses_nothing_while_collections_come_and_go() {
        killed_again_and_again("kill with ddl", true).await;
    }
}
