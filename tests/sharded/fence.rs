//! Writes of users blocked on every shard of the source, while transactions span shards: the block and their commits wait for each
//! other there.

mod real {
    use crate::support::{DEADLINE, Ferry, run, whole_machine};
    use bson::{Document, doc};
    use mongodb::{Client, ClientSession, Collection, error::Error};
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::time::Duration;
    use testbed::{Options, ReplicaSet, ShardedCluster, connect, end, parity, sharded};
    use tokio::{
        sync::SemaphorePermit,
        task::JoinSet,
        time::{Instant, sleep},
    };

    /// Accounts, every other one on each shard.
    const ACCOUNTS: i32 = 1_000;
    const EACH: i64 = 100;
    /// `UserWritesBlocked`.
    const BLOCKED: i32 = 371;

    struct Bed {
        source: ShardedCluster,
        target: ReplicaSet,
        from: Client,
        to: Client,
        ferry: Ferry,
        _machine: SemaphorePermit<'static>,
    }

    impl Bed {
        async fn start() -> Self {
            let machine = whole_machine().await;
            let target = Options { name: "target".into(), ..Options::default() };
            let (source, target) = tokio::try_join!(ShardedCluster::start(sharded::Options::default()), ReplicaSet::start(target)).unwrap();
            let (from, to) = (source.client().await.unwrap(), connect(&target.uri()).await.unwrap());
            run(&from, "admin", doc! {"shardCollection": "bank.accounts", "key": {"n": 1}}).await;
            run(&from, "admin", doc! {"split": "bank.accounts", "middle": {"n": 1}}).await;
            for (n, shard) in [(0, "shard0"), (1, "shard1")] {
                source.move_chunk("bank.accounts", doc! {"n": n}, shard).await.unwrap();
            }
            let all = (0..ACCOUNTS).map(|id| doc! {"_id": id, "n": id % 2, "money": EACH});
            accounts(&from).insert_many(all).await.unwrap();
            let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--verbose"]);
            ferry.wait_until_ready().await;
            Self { source, target, from, to, ferry, _machine: machine }
        }

        async fn assert_blocked(&self) {
            for n in [0, 1] {
                let refused = accounts(&self.from).insert_one(doc! {"_id": "late", "n": n, "money": 0}).await.unwrap_err();
                assert!(is_blocked(&refused), "{refused}");
            }
        }

        /// As if there had been no cutover.
        async fn assert_given_back(&mut self) {
            self.ferry.wait_for_phase("tailing").await;
            for n in [0, 1] {
                let paid = doc! {"$inc": {"paid": 1}};
                accounts(&self.from).update_one(doc! {"_id": n, "n": n}, paid).await.unwrap();
            }
            self.ferry.wait_until_caught_up(&self.from).await;
            assert!(accounts(&self.to).find_one(doc! {"_id": 1, "paid": {"$gt": 0}}).await.unwrap().is_some());
        }

        /// After a cutover.
        async fn compare(mut self) {
            assert_eq!(self.ferry.wait_exit().await, 0, "{}", self.ferry.log());
            self.assert_blocked().await;
            let report = testbed::compare(&self.from, &self.to, parity::everything).await.unwrap();
            assert!(report.is_equal(), "{:#?}\n{}", report.differences, self.ferry.log());
            let sum = vec![doc! {"$group": {"_id": 0, "money": {"$sum": "$money"}}}];
            let mut summed = accounts(&self.to).aggregate(sum).await.unwrap();
            assert!(summed.advance().await.unwrap());
            assert_eq!(summed.current().get_i64("money").unwrap(), EACH * i64::from(ACCOUNTS), "half of a transaction");
            drop(summed);
            end(self.from).await;
            end(self.to).await;
            drop((self.source, self.target));
        }
    }

    fn accounts(client: &Client) -> Collection<Document> {
        client.database("bank").collection("accounts")
    }

    fn is_blocked(error: &Error) -> bool {
        use mongodb::error::{
            ErrorKind::{Command, InsertMany, Write},
            WriteFailure,
        };
        match &*error.kind {
            Command(e) => e.code == BLOCKED,
            Write(WriteFailure::WriteError(e)) => e.code == BLOCKED,
            InsertMany(_) => unreachable!("one is inserted"),
            _ => false,
        }
    }

    /// A transaction that has taken something on one shard, and given it on the other.
    async fn transfer(client: &Client, from: i32, to: i32) -> Result<ClientSession, Error> {
        let mut session = client.start_session().await?;
        session.start_transaction().await?;
        for (id, money) in [(from, -1_i64), (to, 1)] {
            let (which, change) = (doc! {"_id": id, "n": id % 2}, doc! {"$inc": {"money": money}});
            accounts(client).update_one(which, change).session(&mut session).await?;
        }
        Ok(session)
    }

    /// Transfers money between shards until that is not allowed any more; gives how often it did.
    async fn transfer_until_blocked(client: Client, seed: u64) -> u64 {
        let (mut rng, mut done) = (StdRng::seed_from_u64(seed), 0);
        loop {
            let (even, odd) = (rng.random_range(0..ACCOUNTS / 2) * 2, rng.random_range(0..ACCOUNTS / 2) * 2 + 1);
            let outcome = match transfer(&client, even, odd).await {
                Ok(mut session) => session.commit_transaction().await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => done += 1,
                Err(error) if is_blocked(&error) => return done,
                // Another transaction was faster, or had to go first.
                Err(_) => {}
            }
            sleep(Duration::from_millis(rng.random_range(50..150))).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn transactions_over_shards_go_first_and_none_comes_behind_the_fence_while_chunks_move() {
        let mut bed = Bed::start().await;
        let mut writers = JoinSet::new();
        for seed in 0..4 {
            writers.spawn(transfer_until_blocked(connect(&bed.source.uri()).await.unwrap(), seed));
        }
        let balancer = bed.source.balance(&["bank.accounts".to_owned()]).await.unwrap();
        bed.ferry.wait_until_caught_up(&bed.from).await;
        bed.ferry.cutover(&[]).await.expect(0, "cutover under transactions");
        let done: u64 = writers.join_all().await.iter().sum();
        eprintln!("{done} transfers, {} chunks moved", balancer.moved());
        balancer.stop().await;
        assert!(done > 20, "{done} transfers");
        bed.compare().await;
    }

    /// Waits until the config server has begun to block.
    async fn begins_to_block(from: &Client) {
        let (noted, deadline) =
            (from.database("config").collection::<Document>("user_writes_critical_sections"), Instant::now() + DEADLINE);
        while noted.find_one(doc! {}).await.unwrap().is_none() {
            assert!(Instant::now() < deadline, "the fence does not begin");
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fence_that_was_cut_short_is_lifted_whatever_waits_for_it() {
        let mut bed = Bed::start().await;

        // In time or not at all: as long as somebody's transaction is open, there is no fence.
        let mut open = transfer(&bed.from, 0, 1).await.unwrap();
        let (told, ()) = tokio::join!(bed.ferry.verb(&["cutover", "--yes", "--timeout", "3s"]), async {
            begins_to_block(&bed.from).await;
            sleep(Duration::from_secs(4)).await;
            open.commit_transaction().await.unwrap();
        });
        told.expect(1, "a cutover that is undone");
        bed.assert_given_back().await;

        // Killed while shards wait for a transaction, which cannot be committed then.
        let mut open = transfer(&bed.from, 2, 3).await.unwrap();
        let _ = tokio::join!(bed.ferry.verb(&["cutover", "--yes"]), async {
            begins_to_block(&bed.from).await;
            bed.ferry.signal("KILL");
        });
        // Whatever it asked for last is answered by then, and the shards wait again.
        sleep(Duration::from_secs(2)).await;
        let mut committing = JoinSet::new();
        committing.spawn(async move { open.commit_transaction().await });
        sleep(Duration::from_secs(2)).await;
        assert!(committing.try_join_next().is_none(), "nothing stands still");
        bed.ferry.restart();
        committing.join_next().await.unwrap().unwrap().unwrap();
        bed.assert_given_back().await;
        bed.ferry.cutover(&[]).await.expect(0, "cutover");
        bed.compare().await;
    }
}
