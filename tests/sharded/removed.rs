//! Shards that leave the source and the target while we run.

mod real {
    use crate::support::{DEADLINE, Ferry, run, seed, whole_machine};
    use bson::{DateTime, Document, doc};
    use mongodb::Client;
    use std::time::Duration;
    use testbed::{Load, LoadOptions, Options, ReplicaSet, ShardedCluster, connect, end, sharded};
    use tokio::time::{Instant, sleep};

    /// What is sharded on the source, by what: the load writes to the first two.
    fn keys() -> [(&'static str, Document); 3] {
        [("load0.c0", doc! {"_id": "hashed"}), ("load1.c1", doc! {"_id": 1}), ("shop.ranges", doc! {"n": 1})]
    }

    async fn start(shards: usize) -> ShardedCluster {
        ShardedCluster::start(sharded::Options { shards, oplog_mb: 512, ..sharded::Options::default() }).await.unwrap()
    }

    /// `shop.ranges`, by `n`, on all of these shards; what is not sharded in `shop` lies on the last of them.
    async fn fill(source: &ShardedCluster, from: &Client) {
        let shards: Vec<String> = source.shards().iter().map(|shard| shard.options().name.clone()).collect();
        run(from, "admin", doc! {"enableSharding": "shop", "primaryShard": shards.last().unwrap()}).await;
        for (ns, key) in keys() {
            run(from, "admin", doc! {"shardCollection": ns, "key": key}).await;
        }
        let bounds = [100, 200, 300];
        for (n, at) in bounds.into_iter().enumerate() {
            run(from, "admin", doc! {"split": "shop.ranges", "middle": {"n": at}}).await;
            source.move_chunk("shop.ranges", doc! {"n": at}, &shards[n % shards.len()]).await.unwrap();
        }
        let shop = from.database("shop");
        let ranges = (0..4_000).map(|id| doc! {"_id": id, "n": id % 400, "text": "x".repeat(500)});
        shop.collection::<Document>("ranges").insert_many(ranges).await.unwrap();
        shop.collection::<Document>("plain").insert_many((0..500).map(|id| doc! {"_id": id, "n": 0})).await.unwrap();
        // What the migration parks until the cutover must not get lost when it is moved. The target has it on its last shard, too.
        run(from, "admin", doc! {"enableSharding": "small", "primaryShard": shards.last().unwrap()}).await;
        let indexes = vec![
            doc! {"key": {"k": 1}, "name": "unique", "unique": true},
            doc! {"key": {"at": 1}, "name": "ttl", "expireAfterSeconds": 1_000_000},
            doc! {"key": {"n": 1}, "name": "hidden", "hidden": true},
        ];
        run(from, "small", doc! {"createIndexes": "items", "indexes": indexes}).await;
        let items = (0..100).map(|id| doc! {"_id": id, "k": id, "n": 0, "at": DateTime::now()});
        from.database("small").collection::<Document>("items").insert_many(items).await.unwrap();
    }

    /// Waits until so many more operations were done than before.
    async fn more(load: &Load, operations: u64) {
        let (before, deadline) = (load.counts().operations, Instant::now() + DEADLINE);
        while load.counts().operations < before + operations {
            assert!(Instant::now() < deadline, "{:?}", load.counts());
            sleep(Duration::from_millis(50)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn shards_leave_both_clusters_while_we_copy_and_while_we_tail() {
        let seed = seed("shards removed");
        let _machine = whole_machine().await;
        let (mut source, mut target) = tokio::join!(start(3), start(3));
        let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
        fill(&source, &from).await;
        let load = Load::start(from.clone(), LoadOptions { seed, ops_per_second: 200, ..LoadOptions::default() });
        more(&load, 1_000).await;

        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--partition-size", "1MiB", "--verbose"]);
        ferry.wait_for_phase("copying").await;
        ferry.verb(&["set", "copy-rate=20kB/s"]).await.expect(0, "set");
        let (left, left_there) = tokio::join!(source.remove_shard("shard2"), target.remove_shard("shard2"));
        assert_eq!(ferry.status().await["phase"], "copying");
        let deadline = Instant::now() + DEADLINE;
        while !ferry.log().contains("their servers may be stopped shards=\"shard2\"") {
            assert!(Instant::now() < deadline, "the stream does not let go of it\n{}", ferry.log());
            sleep(Duration::from_millis(100)).await;
        }
        drop((left.unwrap(), left_there.unwrap()));
        ferry.verb(&["set", "copy-rate=unlimited"]).await.expect(0, "set");
        ferry.wait_for_phase("tailing").await;
        more(&load, 500).await;
        ferry.wait_until_caught_up(&from).await;

        // A database of the target is moved while nobody looks. The resume point is to be behind the removal.
        ferry.wait_until_ready().await;
        ferry.wait_until_caught_up(&from).await;
        ferry.signal("TERM");
        ferry.wait_exit().await;
        let small = to.database("config").collection::<Document>("databases").find_one(doc! {"_id": "small"}).await.unwrap().unwrap();
        // So that it is on the next one to leave, under another identity.
        let way: &[&str] = if small.get_str("primary").unwrap() == "shard1" { &["shard0", "shard1"] } else { &["shard1"] };
        for other in way {
            run(&to, "admin", doc! {"movePrimary": "small", "to": *other}).await;
        }
        ferry.restart();
        more(&load, 200).await;
        ferry.wait_until_caught_up(&from).await;

        let (drained, left_there) = tokio::join!(source.drain_shard("shard1"), target.remove_shard("shard1"));
        drained.unwrap();
        more(&load, 500).await;
        for (db, name) in [("shop", "plain"), ("small", "items")] {
            let coll = from.database(db).collection::<Document>(name);
            coll.update_many(doc! {"_id": {"$lt": 50}}, doc! {"$inc": {"n": 1}}).await.unwrap();
        }
        // What it had to tell is read: its servers may be stopped in the same moment.
        ferry.wait_until_caught_up(&from).await;
        drop((source.remove_shard("shard1").await.unwrap(), left_there.unwrap()));
        more(&load, 200).await;
        ferry.wait_until_caught_up(&from).await;
        assert!(ferry.log().contains("now=small.items"), "nothing was moved that it had made");
        let counts = load.stop().await;
        ferry.wait_until_caught_up(&from).await;
        eprintln!("{counts:?}");
        let (ours, theirs) = ferry.hand_over_stopped(&from, &to).await;
        assert!(ours > 4_000 && ours == theirs, "{ours} documents on the source, {theirs} on the target");
        end(from).await;
        end(to).await;
    }

    /// Writes to both shards, in one statement each.
    async fn touch(from: &Client, round: i32) {
        let ranges = from.database("shop").collection::<Document>("ranges");
        ranges.update_many(doc! {"_id": {"$lt": 400}}, doc! {"$set": {"round": round}}).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_shard_that_left_with_what_was_not_read_yet_is_told_and_others_are_not() {
        let _machine = whole_machine().await;
        let options = Options { name: "target".into(), ..Options::default() };
        let (mut source, target) = tokio::join!(start(3), ReplicaSet::start(options));
        let target = target.unwrap();
        let (from, to) = (source.client().await.unwrap(), connect(&target.uri()).await.unwrap());
        fill(&source, &from).await;
        let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--verbose"]);
        ferry.wait_for_phase("tailing").await;

        // What it had to tell was read before it left, though it left while nobody followed.
        touch(&from, 1).await;
        source.drain_shard("shard2").await.unwrap();
        ferry.wait_until_caught_up(&from).await;
        // What was moved is copied anew, and holds the resume point until then.
        ferry.wait_until_ready().await;
        ferry.wait_until_caught_up(&from).await;
        ferry.signal("TERM");
        ferry.wait_exit().await;
        touch(&from, 2).await;
        drop(source.remove_shard("shard2").await.unwrap());
        ferry.restart();
        ferry.wait_until_caught_up(&from).await;

        // Nobody follows while it is written to and drained.
        ferry.signal("TERM");
        ferry.wait_exit().await;
        touch(&from, 3).await;
        drop(source.remove_shard("shard1").await.unwrap());
        ferry.restart();
        let halted = ferry.wait_for("a halt", |status| status["activity"] == "halted").await;
        let reason = halted["reason"].as_str().unwrap();
        assert!(reason.contains("lost the shard shard1 after"), "{halted:#}");
        assert!(halted["remedy"].as_str().unwrap().contains("--restart-from-scratch"), "{halted:#}");
        ferry.kill_9();
        ferry.restart_with(&["--restart-from-scratch", "--drop-target-namespaces"]);
        ferry.wait_for_phase("tailing").await;
        let (ours, theirs) = ferry.hand_over_stopped(&from, &to).await;
        assert!(ours == 4_600 && ours == theirs, "{ours} documents on the source, {theirs} on the target");
        end(from).await;
        end(to).await;
    }
}
