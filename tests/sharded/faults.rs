//! Faults on the side of a sharded target: its router dies, its shards lose their primaries.

mod real {
    use crate::support::{Ferry, no_slowness, run, slowness, whole_machine};
    use bson::{Document, doc};
    use mongodb::Client;
    use rand::Rng;
    use serde_json::Value;
    use std::time::Duration;
    use testbed::{Load, LoadOptions, ShardedCluster, end, sharded};
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    const DOCUMENTS: i32 = 6_000;
    const VALUES: i32 = 400;

    /// Changes shard keys, deletes and brings back; a few of them in the same moment as any fault.
    async fn wander(client: Client, stop: CancellationToken) -> u64 {
        let ranges = client.database("shop").collection::<Document>("ranges");
        let mut done = 0;
        while !stop.is_cancelled() {
            let (id, to, kind) = {
                let mut rng = rand::rng();
                (rng.random_range(0..DOCUMENTS), rng.random_range(0..VALUES), rng.random_range(0..10))
            };
            let found = ranges.find_one(doc! {"_id": id}).await.unwrap();
            let key = found.as_ref().map(|found| doc! {"_id": id, "n": found.get_i32("n").unwrap()});
            let outcome = match (key, kind) {
                (Some(key), 0) => ranges.delete_one(key).await.map(drop),
                (Some(key), 1..5) => ranges.update_one(key, doc! {"$set": {"n": to}}).await.map(drop),
                (Some(key), _) => ranges.update_one(key, doc! {"$inc": {"changes": 1}}).await.map(drop),
                (None, _) => ranges.insert_one(doc! {"_id": id, "n": to}).await.map(drop),
            };
            // Somebody else may have been faster; nothing is at fault on this side.
            done += u64::from(outcome.is_ok());
        }
        done
    }

    /// Whoever inserts: a shard sees the router's name, not ours.
    fn slow_inserts() -> Document {
        let mut slow = slowness(&["clusterInsert", "insert"], Duration::from_millis(200));
        let data = slow.get_document_mut("data").unwrap();
        data.remove("appName");
        data.insert("failInternalCommands", true);
        slow
    }

    async fn set_slowness(target: &ShardedCluster, how: Document) {
        for shard in target.shards() {
            for n in 0..shard.addresses().len() {
                shard.admin(n, how.clone()).await.unwrap();
            }
        }
    }

    /// Waits until more has come to the target than when this was called.
    async fn goes_on(ferry: &mut Ferry, behind: &str) {
        let done = |s: &Value| s["copy"]["documents"].as_u64().unwrap_or(0) + s["events"]["applied"].as_u64().unwrap_or(0);
        let before = done(&ferry.status().await);
        let status = ferry.wait_for("more to come to the target", |s| done(s) > before + 50).await;
        assert_eq!(status["activity"], "running", "{status:#}");
        eprintln!("{behind}: {} with {} retries", status["phase"], status["retries"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_death_of_the_targets_router_and_elections_of_its_shards_cost_time_only() {
        let _machine = whole_machine().await;
        let options = |nodes_per_shard| sharded::Options { nodes_per_shard, oplog_mb: 512, ..sharded::Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(options(1)), ShardedCluster::start(options(3))).unwrap();
        let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
        run(&from, "admin", doc! {"shardCollection": "shop.ranges", "key": {"n": 1}}).await;
        run(&from, "admin", doc! {"shardCollection": "load0.c0", "key": {"_id": "hashed"}}).await;
        for at in [100, 200, 300] {
            run(&from, "admin", doc! {"split": "shop.ranges", "middle": {"n": at}}).await;
        }
        let ranges = from.database("shop").collection::<Document>("ranges");
        ranges.insert_many((0..DOCUMENTS).map(|id| doc! {"_id": id, "n": id % VALUES, "text": "x".repeat(1_000)})).await.unwrap();
        let load = Load::start(from.clone(), LoadOptions { ops_per_second: 200, ..LoadOptions::default() });
        let stop = CancellationToken::new();
        let mut wanderers = JoinSet::new();
        wanderers.spawn(wander(from.clone(), stop.clone()));

        // So slow that every fault finds it copying, whichever node is the primary by then.
        set_slowness(&target, slow_inserts()).await;
        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--partition-size", "1MiB", "--copy-partitions", "1", "--verbose"]);
        ferry.wait_for("some of the copy", |s| s["copy"]["documents"].as_u64() > Some(0)).await;
        target.stop_router().await;
        target.start_router().await.unwrap();
        goes_on(&mut ferry, "its router died while copying").await;
        target.shards()[0].step_down().await.unwrap();
        target.shards()[1].step_down().await.unwrap();
        goes_on(&mut ferry, "its shards stepped down while copying").await;
        let status = ferry.status().await;
        assert_eq!(status["phase"], "copying", "the faults came too late: {status:#}");

        set_slowness(&target, no_slowness()).await;
        ferry.wait_for_phase("tailing").await;
        target.stop_router().await;
        target.start_router().await.unwrap();
        goes_on(&mut ferry, "its router died while tailing").await;
        let primary = target.shards()[0].primary().await.unwrap();
        target.shards()[0].kill(primary);
        target.shards()[1].step_down().await.unwrap();
        goes_on(&mut ferry, "a primary was killed, another stepped down while tailing").await;
        target.shards()[0].restart(primary).await.unwrap();
        target.shards()[0].all_members_ready().await.unwrap();
        goes_on(&mut ferry, "all are back").await;

        stop.cancel();
        let wandered: u64 = wanderers.join_all().await.iter().sum();
        let counts = load.stop().await;
        assert!(wandered > 100 && counts.errors == 0, "{wandered}, {counts:?}");
        ferry.wait_until_caught_up(&from).await;
        let documents = ferry.hand_over_stopped(&from, &to).await;
        assert!(documents.0 > 5_000, "{documents:?}");
        end(from).await;
        end(to).await;
    }
}
