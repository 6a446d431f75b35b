//! From a sharded cluster to a replica set, while chunks move.

mod real {
    use crate::support::{DEADLINE, Ferry, reached, run, seed, slow_down, speed_up, whole_machine};
    use bson::{Document, doc};
    use mongodb::{Client, Collection};
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use serde_json::Value;
    use std::time::Duration;
    use testbed::{Load, LoadOptions, Options, ReplicaSet, ShardedCluster, connect, end, parity, sharded};
    use tokio::{
        sync::SemaphorePermit,
        task::JoinSet,
        time::{Instant, sleep},
    };
    use tokio_util::sync::CancellationToken;

    /// Documents of the collection that is sharded by a range, and the values of its shard key.
    const DOCUMENTS: i32 = 6_000;
    const VALUES: i32 = 100;

    /// A sharded source and a target.
    struct Bed {
        source: ShardedCluster,
        target: ReplicaSet,
        from: Client,
        to: Client,
        _machine: SemaphorePermit<'static>,
    }

    impl Bed {
        async fn start(source: sharded::Options) -> Self {
            let machine = whole_machine().await;
            let target = Options { name: "target".into(), ..Options::default() };
            let (source, target) = tokio::try_join!(ShardedCluster::start(source), ReplicaSet::start(target)).unwrap();
            let (from, to) = (source.client().await.unwrap(), connect(&target.uri()).await.unwrap());
            Self { source, target, from, to, _machine: machine }
        }

        fn ferry(&self, more: &[&str]) -> Ferry {
            Ferry::start(&self.source.uri(), &self.target.uri(), more)
        }

        async fn admin(&self, command: Document) -> Document {
            run(&self.from, "admin", command).await
        }

        /// `shop.ranges`, by `n`, half of it on each shard, with documents.
        async fn ranges(&self) -> Collection<Document> {
            self.admin(doc! {"shardCollection": "shop.ranges", "key": {"n": 1}}).await;
            let ranges = self.from.database("shop").collection("ranges");
            for at in [VALUES / 4, VALUES / 2, 3 * VALUES / 4] {
                self.admin(doc! {"split": "shop.ranges", "middle": {"n": at}}).await;
            }
            let document = |id: i32| doc! {"_id": id, "n": id % VALUES, "text": "x".repeat(1_000)};
            ranges.insert_many((0..DOCUMENTS).map(document)).await.unwrap();
            for (n, shard) in [(0, "shard0"), (VALUES - 1, "shard1")] {
                self.source.move_chunk("shop.ranges", doc! {"n": n}, shard).await.unwrap();
            }
            ranges
        }

        /// Waits until the tail has everything that was written before.
        async fn caught_up(&self, ferry: &mut Ferry) {
            ferry.wait_for_phase("tailing").await;
            ferry.wait_until_caught_up(&self.from).await;
        }

        /// Hands over, the writers being stopped, and compares.
        async fn hand_over(self, mut ferry: Ferry) {
            let told = ferry.cutover(&["--writes-stopped"]).await;
            assert_eq!(told.code, 0, "the cutover failed: {told:?}\n{}", ferry.log());
            assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
            let report = testbed::compare(&self.from, &self.to, parity::everything).await.unwrap();
            let few: Vec<_> = report.differences.iter().take(30).map(ToString::to_string).collect();
            assert!(report.is_equal(), "{} differences, such as\n{}\n{}", report.differences.len(), few.join("\n"), ferry.log());
            assert!(report.documents().0 > 0, "nothing was compared");
            self.end().await;
        }

        async fn end(self) {
            end(self.from).await;
            end(self.to).await;
        }
    }

    /// Documents whose shard key changes, so that they go to the other shard, or that go and come back.
    struct Wanderers(JoinSet<u64>, CancellationToken);

    impl Wanderers {
        fn start(ranges: &Collection<Document>, seed: u64) -> Self {
            let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
            for n in 0..2 {
                let (ranges, stop, mut rng) = (ranges.clone(), stop.clone(), StdRng::seed_from_u64(seed + n));
                tasks.spawn(async move {
                    let mut done = 0;
                    while !stop.is_cancelled() {
                        let id = rng.random_range(0..DOCUMENTS);
                        let to = rng.random_range(0..VALUES);
                        // A write that collides with a migration is refused; what counts is that both sides agree in the end.
                        let found = ranges.find_one(doc! {"_id": id}).await.ok().flatten();
                        let outcome = match found.as_ref().and_then(|d| d.get("n")) {
                            Some(n) if rng.random_bool(0.7) => {
                                ranges.update_one(doc! {"_id": id, "n": n.clone()}, doc! {"$set": {"n": to}}).await.is_ok()
                            }
                            Some(_) => ranges.delete_one(doc! {"_id": id}).await.is_ok(),
                            // Also without the field: the document key is `_id` alone then.
                            None if found.is_none() && rng.random_bool(0.3) => ranges.insert_one(doc! {"_id": id}).await.is_ok(),
                            None if found.is_none() => ranges.insert_one(doc! {"_id": id, "n": to}).await.is_ok(),
                            None => ranges.delete_one(doc! {"_id": id}).await.is_ok(),
                        };
                        done += u64::from(outcome);
                        sleep(Duration::from_millis(3)).await;
                    }
                    done
                });
            }
            Self(tasks, stop)
        }

        async fn stop(self) -> u64 {
            self.1.cancel();
            self.0.join_all().await.iter().sum()
        }
    }

    fn load(client: &Client, seed: u64) -> Load {
        Load::start(client.clone(), LoadOptions { seed, ops_per_second: 500, ..LoadOptions::default() })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_lost_or_doubled_while_chunks_move_and_we_are_killed() {
        let seed = seed("sharded source");
        let mut rng = StdRng::seed_from_u64(seed);
        let bed = Bed::start(sharded::Options { oplog_mb: 1024, ..Default::default() }).await;
        let ranges = bed.ranges().await;
        for (ns, key) in [("load0.c0", doc! {"_id": "hashed"}), ("load1.c1", doc! {"_id": 1})] {
            bed.admin(doc! {"shardCollection": ns, "key": key}).await;
        }
        let load = load(&bed.from, seed);
        let wanderers = Wanderers::start(&ranges, seed);
        let balancer = bed.source.balance(&["load0.c0", "load1.c1", "shop.ranges"].map(String::from)).await.unwrap();

        // So slow that the first kill finds it copying.
        slow_down(&bed.to, &["insert"], Duration::from_millis(200)).await;
        let mut ferry = bed.ferry(&["--partition-size", "1MiB", "--copy-partitions", "2", "--verbose"]);
        for behind in ["copying", "tailing", "tailing"] {
            ferry.wait_for_phase(behind).await;
            // The moment is what is at random here; nothing waits for it.
            sleep(Duration::from_millis(rng.random_range(0..1500))).await;
            ferry.kill_9();
            speed_up(&bed.to).await;
            ferry.restart();
        }
        ferry.wait_for_phase("tailing").await;
        let deadline = Instant::now() + DEADLINE;
        while balancer.moved() < 8 {
            assert!(Instant::now() < deadline, "{} chunks moved, {} refused", balancer.moved(), balancer.refused());
            sleep(Duration::from_millis(100)).await;
        }
        bed.caught_up(&mut ferry).await;
        let wandered = wanderers.stop().await;
        let counts = load.stop().await;
        eprintln!("{} moves, {wandered} wanderings, {} operations, {} errors", balancer.moved(), counts.operations, counts.errors);
        assert!(wandered > 100 && counts.operations > 500);
        // The balancer goes on until there is nothing more to read.
        bed.caught_up(&mut ferry).await;
        balancer.stop().await;
        bed.hand_over(ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn collections_are_followed_wherever_the_cluster_puts_them() {
        let mut bed = Bed::start(sharded::Options::default()).await;
        let ranges = bed.ranges().await;
        let shop = bed.from.database("shop");
        let plain = shop.collection::<Document>("plain");
        plain.insert_many((0..500).map(|n| doc! {"_id": n})).await.unwrap();
        run(&bed.from, "shop", doc! {"createIndexes": "plain", "indexes": [{"key": {"a": 1}, "name": "a_1"}]}).await;
        run(&bed.from, "shop", doc! {"create": "view", "viewOn": "plain", "pipeline": []}).await;
        let resharded = shop.collection::<Document>("resharded");
        bed.admin(doc! {"shardCollection": "shop.resharded", "key": {"a": 1}}).await;
        resharded.insert_many((0..500).map(|n| doc! {"_id": n, "a": n % 7, "b": n})).await.unwrap();
        let mut ferry = bed.ferry(&["--verbose"]);
        bed.caught_up(&mut ferry).await;

        // What is not sharded goes to the other shard, under other UUIDs.
        let database =
            bed.from.database("config").collection::<Document>("databases").find_one(doc! {"_id": "shop"}).await.unwrap().unwrap();
        let other = if database.get_str("primary").unwrap() == "shard0" { "shard1" } else { "shard0" };
        bed.admin(doc! {"movePrimary": "shop", "to": other}).await;
        plain.update_many(doc! {"_id": {"$lt": 250}}, doc! {"$set": {"moved": true}}).await.unwrap();
        plain.delete_many(doc! {"_id": {"$gte": 490}}).await.unwrap();
        bed.caught_up(&mut ferry).await;

        bed.admin(doc! {"shardCollection": "shop.renamed", "key": {"z": 1}}).await;
        shop.collection::<Document>("renamed").insert_one(doc! {"_id": "is dropped"}).await.unwrap();
        bed.caught_up(&mut ferry).await;
        ferry.wait_until_ready().await;

        // The shard key gets a field more, and then the collection another shard key: the former tells nothing, the latter
        // another UUID, and nothing is written afterwards that would tell of it.
        run(&bed.from, "shop", doc! {"createIndexes": "resharded", "indexes": [{"key": {"a": 1, "b": 1}, "name": "a_b"}]}).await;
        bed.admin(doc! {"refineCollectionShardKey": "shop.resharded", "key": {"a": 1, "b": 1}}).await;
        resharded.delete_many(doc! {"_id": {"$gte": 450}}).await.unwrap();
        bed.admin(doc! {"reshardCollection": "shop.resharded", "key": {"_id": "hashed"}, "numInitialChunks": 2}).await;
        let copied = |status: &Value| reached(status, "tailing") && status["can_cut_over"] == true;
        ferry.wait_for("the resharded collection to be copied", copied).await;

        // A shard joins, and gets chunks.
        bed.source.add_shard().await.unwrap();
        bed.source.move_chunk("shop.ranges", doc! {"n": VALUES / 2}, "shard2").await.unwrap();
        ranges.update_many(doc! {"n": {"$gte": VALUES / 2}}, doc! {"$set": {"late": true}}).await.unwrap();
        // A sharded collection gets another name, indexes and options, and another is made and dropped.
        bed.admin(doc! {"renameCollection": "shop.resharded", "to": "shop.renamed", "dropTarget": true}).await;
        run(&bed.from, "shop", doc! {"createIndexes": "renamed", "indexes": [{"key": {"c": 1}, "name": "c_1"}]}).await;
        run(&bed.from, "shop", doc! {"collMod": "renamed", "validationLevel": "moderate"}).await;
        run(&bed.from, "shop", doc! {"dropIndexes": "renamed", "index": "a_b"}).await;
        for round in 0..2 {
            bed.admin(doc! {"shardCollection": "shop.again", "key": {"_id": "hashed"}}).await;
            shop.collection::<Document>("again").insert_many((0..20).map(|n| doc! {"_id": n, "round": round})).await.unwrap();
            if round == 0 {
                run(&bed.from, "shop", doc! {"drop": "again"}).await;
            }
        }
        bed.caught_up(&mut ferry).await;
        // What is resharded right before a cutover is not found behind its fence.
        ferry.wait_until_ready().await;
        bed.admin(doc! {"reshardCollection": "shop.renamed", "key": {"_id": 1}, "numInitialChunks": 2}).await;
        let told = ferry.verb(&["cutover", "--yes", "--writes-stopped"]).await;
        let in_time = told.stdout.contains("came up meanwhile") || told.stdout.contains("not ready");
        assert!(told.code == 1 && in_time, "{told:?}\n{}", ferry.log());
        bed.hand_over(ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn elections_of_shards_and_the_death_of_the_router_cost_time_only() {
        let seed = seed("sharded source, faults");
        // A change of a shard key is a transaction: where its coordinator is killed, the document stays locked for that long.
        let patience = vec!["--setParameter".into(), "transactionLifetimeLimitSeconds=3".into()];
        let bed = Bed::start(sharded::Options { nodes_per_shard: 3, oplog_mb: 1024, extra_args: patience, ..Default::default() }).await;
        let ranges = bed.ranges().await;
        let wanderers = Wanderers::start(&ranges, seed);
        let mut ferry = bed.ferry(&["--partition-size", "1MiB", "--copy-partitions", "1", "--verbose"]);
        slow_down(&bed.to, &["insert"], Duration::from_millis(200)).await;
        ferry.wait_for_phase("copying").await;
        bed.source.shards()[0].step_down().await.unwrap();
        bed.source.stop_router().await;
        bed.source.start_router().await.unwrap();
        speed_up(&bed.to).await;
        ferry.wait_for_phase("tailing").await;
        bed.source.shards()[1].step_down().await.unwrap();
        bed.source.stop_router().await;
        bed.source.start_router().await.unwrap();
        bed.caught_up(&mut ferry).await;
        let shard = &bed.source.shards()[0];
        let primary = shard.primary().await.unwrap();
        shard.kill(primary);
        shard.primary().await.unwrap();
        bed.caught_up(&mut ferry).await;
        shard.restart(primary).await.unwrap();
        shard.all_members_ready().await.unwrap();
        assert!(wanderers.stop().await > 10);
        bed.hand_over(ferry).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_quiet_shard_does_not_hold_the_stream_up_and_twins_are_refused() {
        // Else the shards' own notes would come every ten seconds.
        let quiet = vec!["--setParameter".into(), "writePeriodicNoops=false".into()];
        let bed = Bed::start(sharded::Options { extra_args: quiet, ..Default::default() }).await;
        let ranges = bed.ranges().await;
        let mut ferry = bed.ferry(&["--verbose"]);
        ferry.wait_for_phase("tailing").await;
        for round in 0..3 {
            ranges.update_one(doc! {"_id": 0}, doc! {"$set": {"round": round}}).await.unwrap();
            let there = bed.to.database("shop").collection::<Document>("ranges");
            let deadline = Instant::now() + DEADLINE;
            while there.count_documents(doc! {"_id": 0, "round": round}).await.unwrap() == 0 {
                assert!(Instant::now() < deadline, "the other shard holds it back\n{}", ferry.log());
                sleep(Duration::from_millis(25)).await;
            }
        }

        // Two documents with one `_id` cannot be replicated, be they inserted while it tails or found by the copy.
        ranges.insert_one(doc! {"_id": "twin", "n": 0}).await.unwrap();
        ferry.wait_until_caught_up(&bed.from).await;
        ranges.insert_one(doc! {"_id": "twin", "n": VALUES - 1}).await.unwrap();
        for from_scratch in [false, true] {
            if from_scratch {
                ferry.kill_9();
                ferry.restart_with(&["--restart-from-scratch", "--drop-target-namespaces"]);
            }
            let halted = ferry.wait_for("a halt", |status| status["activity"] == "halted").await;
            let reason = halted["reason"].as_str().unwrap();
            assert!(reason.contains("same `_id`") && reason.contains("shop.ranges"), "{halted:#}");
        }
        ferry.kill_9();
        bed.end().await;
    }
}
