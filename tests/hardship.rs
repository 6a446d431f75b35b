//! What weeks bring: an oplog that is nearly too short, and one that is; writes that a majority never had; a full disk.

mod real {
    use crate::support::{DEADLINE, Ferry, Pair};
    use bson::{Document, doc};
    use mongodb::{
        Client,
        options::{ClientOptions, WriteConcern},
    };
    use rand::RngCore;
    use std::time::Duration;
    use testbed::{Load, LoadOptions, Options, ReplicaSet};
    use tokio::time::{Instant, sleep};

    /// MiB. The server keeps somewhat more.
    const SMALL_OPLOG: u32 = 16;

    async fn with_a_small_oplog() -> (Pair, Ferry) {
        // Nothing behind the last checkpoint is dropped from it, and they are a minute apart by default.
        let extra_args = ["--syncdelay", "1"].map(String::from).to_vec();
        let pair = Pair::with(Options { oplog_mb: SMALL_OPLOG, extra_args, ..Options::default() }, Options::default()).await;
        pair.from.database("shop").collection("kept").insert_one(doc! {"_id": 0}).await.unwrap();
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        ferry.wait_until_caught_up(&pair.from).await;
        (pair, ferry)
    }

    /// Writes about so many MiB that do not compress.
    async fn write(client: &Client, first: i32, mib: i32) {
        let mut noise = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0; 1 << 20] };
        rand::rng().fill_bytes(&mut noise.bytes);
        for id in first..first + mib {
            client.database("shop").collection("kept").insert_one(doc! {"_id": id, "noise": noise.clone()}).await.unwrap();
        }
    }

    /// The oldest entry.
    async fn oldest(client: &Client) -> (u32, u32) {
        let oplog = client.database("local").collection::<Document>("oplog.rs");
        let entry = oplog.find_one(doc! {}).sort(doc! {"$natural": 1}).await.unwrap().unwrap();
        let ts = entry.get_timestamp("ts").unwrap();
        (ts.time, ts.increment)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pause_nearly_as_long_as_the_oplog_is_made_up_for() {
        let (pair, mut ferry) = with_a_small_oplog().await;
        ferry.verb(&["pause"]).await.expect(0, "the pause");
        write(&pair.from, 1, i32::try_from(SMALL_OPLOG).unwrap() - 4).await;
        // A restart meanwhile changes nothing: it comes back paused.
        ferry.kill_9();
        ferry.restart();
        ferry.wait_for("a pause", |status| status["activity"] == "paused").await;
        ferry.verb(&["resume"]).await.expect(0, "the end of the pause");
        ferry.wait_until_caught_up(&pair.from).await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_oplog_that_has_rolled_over_is_told_at_once_with_the_way_out() {
        let (pair, mut ferry) = with_a_small_oplog().await;
        ferry.kill_9();
        let record = pair.record().await.unwrap();
        let before = oldest(&pair.from).await;
        let (mut id, deadline) = (1, Instant::now() + DEADLINE);
        // The whole of it has to go: the resume point lies at its end.
        while oldest(&pair.from).await <= time_of(&record) {
            assert!(Instant::now() < deadline, "the oplog does not roll over: {before:?}, {record}");
            write(&pair.from, id, 8).await;
            id += 8;
        }
        ferry.restart();
        let code = ferry.wait_exit().await;
        let log = ferry.log();
        assert_eq!(code, 5, "{log}");
        assert!(log.contains("no longer reaches back to") && log.contains("--restart-from-scratch"), "{log}");
        let after = pair.record().await.unwrap();
        assert_eq!(time_of(&after), time_of(&record), "the resume point is not kept");
        pair.end().await;
    }

    fn time_of(record: &Document) -> (u32, u32) {
        let time = record.get_document("resume_time").unwrap();
        let part = |name: &str| u32::try_from(time.get(name).and_then(|n| n.as_i64().or(n.as_i32().map(i64::from))).unwrap()).unwrap();
        (part("t"), part("i"))
    }

    /// Whoever writes without waiting for a majority, on one member.
    async fn careless(set: &ReplicaSet, member: usize) -> Client {
        let mut options = ClientOptions::parse(set.node_uri(member)).await.unwrap();
        options.direct_connection = Some(true);
        options.retry_writes = Some(false);
        options.write_concern = Some(WriteConcern::builder().w(mongodb::options::Acknowledgment::Nodes(1)).journal(true).build());
        Client::with_options(options).unwrap()
    }

    /// Ends all but the primary, which does not notice for some seconds; gives its number. Frozen ones would not do: what is sent to
    /// them waits in their sockets.
    async fn cut_off(set: &ReplicaSet) -> usize {
        let primary = set.primary().await.unwrap();
        others(primary).for_each(|n| set.kill(n));
        primary
    }

    /// Ends the primary that was cut off, and lets the others go on without it until it comes back and rolls back.
    async fn others_go_on(set: &ReplicaSet, primary: usize) {
        set.kill(primary);
        for n in others(primary) {
            set.restart(n).await.unwrap();
        }
        set.primary().await.unwrap();
        set.restart(primary).await.unwrap();
        set.all_members_ready().await.unwrap();
    }

    fn others(primary: usize) -> impl Iterator<Item = usize> {
        (0..3).filter(move |n| *n != primary)
    }

    /// Waits until a member has rolled back what no other had.
    async fn rolled_back(set: &ReplicaSet, member: usize) {
        let (log, deadline) = (set.folder().join(format!("node{member}/mongod.log")), Instant::now() + DEADLINE);
        while !std::fs::read_to_string(&log).unwrap().contains("Rollback complete") {
            assert!(Instant::now() < deadline, "member {member} does not roll back");
            sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_source_rolls_back_never_was() {
        let pair = Pair::with(Options { nodes: 3, ..Options::default() }, Options::default()).await;
        let kept = pair.from.database("shop").collection::<Document>("kept");
        kept.insert_many((0..200).map(|id| doc! {"_id": id, "n": 0})).await.unwrap();
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        ferry.wait_until_caught_up(&pair.from).await;

        let primary = cut_off(&pair.source).await;
        let lonely = careless(&pair.source, primary).await;
        let there = lonely.database("shop").collection::<Document>("kept");
        there.insert_one(doc! {"_id": "rolled back"}).await.unwrap();
        there.update_many(doc! {}, doc! {"$set": {"n": 1}}).await.unwrap();
        there.delete_one(doc! {"_id": 7}).await.unwrap();
        lonely.database("shop").create_collection("made in vain").await.unwrap();
        testbed::end(lonely).await;
        others_go_on(&pair.source, primary).await;

        rolled_back(&pair.source, primary).await;
        kept.update_one(doc! {"_id": 8}, doc! {"$set": {"n": 2}}).await.unwrap();
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_target_rolls_back_is_written_again() {
        let pair = Pair::with(Options::default(), Options { nodes: 3, ..Options::default() }).await;
        let load = Load::start(pair.from.clone(), LoadOptions { ops_per_second: 200, ..LoadOptions::default() });
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        ferry.wait_until_caught_up(&pair.from).await;

        let primary = cut_off(&pair.target).await;
        let before = load.counts().operations;
        let deadline = Instant::now() + DEADLINE;
        // So that it has written what only the one member has.
        while load.counts().operations < before + 300 {
            assert!(Instant::now() < deadline, "{:?}", load.counts());
            sleep(Duration::from_millis(50)).await;
        }
        others_go_on(&pair.target, primary).await;
        rolled_back(&pair.target, primary).await;
        ferry.wait_until_caught_up(&pair.from).await;
        load.stop().await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    /// A server whose disk is full ends itself (RAN on 6.0.5 with a small file system), and so does one whose files may not grow:
    /// that needs no privilege.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_target_without_room_is_waited_for() {
        let pair = Pair::start().await;
        write(&pair.from, 0, 64).await;
        pair.target.limit_files(0, 16 << 20).unwrap();

        let mut ferry = pair.ferry(&["--partition-size", "8MiB"]);
        let deadline = Instant::now() + DEADLINE;
        while pair.target.is_running(0) {
            assert!(Instant::now() < deadline, "the target does not run out of room\n{}", ferry.log());
            sleep(Duration::from_millis(50)).await;
        }
        let retries = ferry.status().await["retries"].as_u64();
        ferry.wait_for("it to try again", |status| status["retries"].as_u64() > retries).await;
        pair.target.restart(0).await.unwrap();
        ferry.wait_for_phase("tailing").await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }
}
