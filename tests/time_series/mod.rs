//! Time series, live: their buckets arrive byte for byte, whatever happens to them; and the functions in `system.js`.

mod measuring;
mod steps;

mod real {
    use super::{measuring::Measuring, steps::*};
    use crate::support::{Ferry, Pair, run, seed, slow_down, speed_up, told};
    use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
    use futures_util::TryStreamExt;
    use mongodb::Client;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };
    use testbed::{Difference, Options, Version, parity};
    use tokio::task::JoinSet;

    async fn prepared() -> Pair {
        let pair = Pair::start().await;
        perform(&pair.from, &before()).await;
        pair
    }

    /// The definitions of views, those of time series among them: a listing shows these by their buckets.
    async fn views(client: &Client, database: &str) -> Vec<Vec<u8>> {
        let found = client.database(database).collection::<RawDocumentBuf>("system.views").find(doc! {}).await.unwrap();
        let mut views: Vec<_> = found.map_ok(RawDocumentBuf::into_bytes).try_collect().await.unwrap();
        views.sort();
        views
    }

    async fn assert_equal(pair: &Pair) {
        pair.assert_equal().await;
        for database in ["ts", "gone"] {
            assert_eq!(views(&pair.from, database).await, views(&pair.to, database).await, "views of `{database}`");
        }
        assert!(!views(&pair.from, "ts").await.is_empty());
    }

    async fn hand_over(pair: Pair, mut ferry: Ferry, measuring: Measuring) {
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.verb(&["verify"]).await.expect(0, "verify");
        ferry.cutover_and_end().await;
        measuring.ended().await;
        assert_equal(&pair).await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn time_series_are_followed_while_tailing() {
        let pair = prepared().await;
        let mut measuring = Measuring::start(&pair.from, seed("time series while tailing"));
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        perform(&pair.from, &changes()).await;
        measuring.go_on(50).await;
        hand_over(pair, ferry, measuring).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn time_series_are_followed_while_tailing_with_a_kill_in_the_middle() {
        let seed = seed("time series while tailing, killed");
        let mut rng = StdRng::seed_from_u64(seed);
        let pair = prepared().await;
        let measuring = Measuring::start(&pair.from, seed);
        // Nothing of it is saved: the replay meets a target that is further on, wherever the kill comes.
        let mut ferry = pair.ferry(&["--checkpoint-interval", "60s"]);
        ferry.wait_for_phase("tailing").await;
        perform(&pair.from, &changes()).await;
        let applied = rng.random_range(5..60);
        ferry.wait_for("some of the changes", |s| s["events"]["ddl"].as_u64() >= Some(applied)).await;
        ferry.kill_9();
        ferry.restart();
        hand_over(pair, ferry, measuring).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn time_series_are_followed_while_copying_with_a_kill_in_the_middle() {
        let seed = seed("time series while copying");
        let mut rng = StdRng::seed_from_u64(seed);
        let pair = prepared().await;
        let mut measuring = Measuring::start(&pair.from, seed);
        measuring.go_on(20).await;
        slow_down(&pair.to, &["insert"], Duration::from_millis(300)).await;
        let mut ferry = pair.ferry(&["--partition-size", "1MiB", "--copy-partitions", "1", "--verbose"]);
        let copying = ferry.wait_for("some of the copy", |s| s["copy"]["collections_done"].as_u64() >= Some(1)).await;
        assert_eq!(copying["phase"], "copying", "{copying:#}");
        let changes = changes();
        let (first, rest) = changes.split_at(rng.random_range(1..changes.len()));
        perform(&pair.from, first).await;
        ferry.kill_9();
        perform(&pair.from, rest).await;
        measuring.go_on(20).await;
        ferry.restart();
        speed_up(&pair.to).await;
        ferry.wait_for_phase("tailing").await;
        hand_over(pair, ferry, measuring).await;
    }

    /// Makes and drops one name again and again, each time as something else; gives how often.
    async fn change_kind_until(done: Arc<AtomicBool>, client: Client) -> u64 {
        let round = [
            create("kind", doc! {}),
            insert("kind", 0..30),
            ts(doc! {"drop": "kind"}),
            ts(doc! {"insert": "kind", "documents": [{"_id": 1, "plain": true}]}),
            ts(doc! {"drop": "kind"}),
            ts(doc! {"create": "kind", "viewOn": "load", "pipeline": []}),
            ts(doc! {"drop": "kind"}),
            ts(doc! {"insert": "kind_before", "documents": [{"_id": 1, "renamed": true}]}),
            on("admin", doc! {"renameCollection": "ts.kind_before", "to": "ts.kind"}),
            ts(doc! {"drop": "kind"}),
        ];
        let mut rounds = 0;
        while !done.load(Ordering::Relaxed) {
            rounds += 1;
            for (database, command) in &round {
                // No faster than the target can follow.
                tokio::time::sleep(Duration::from_millis(30)).await;
                run(&client, database, command.clone()).await;
            }
        }
        rounds
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_that_changes_its_kind_while_it_is_listed_ends_as_what_it_is() {
        let pair = Pair::start().await;
        perform(&pair.from, &[create("load", doc! {}), insert("load", 0..50)]).await;
        let mut changing = JoinSet::new();
        let done = Arc::new(AtomicBool::new(false));
        changing.spawn(change_kind_until(done.clone(), pair.from.clone()));
        // Many changes come between the stream's beginning and the listing, which shows none of them but the last.
        slow_down(&pair.from, &["listCollections", "listIndexes"], Duration::from_millis(700)).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        speed_up(&pair.from).await;
        // A fence in the middle of the server's own drop of a series would leave its buckets alone.
        done.store(true, Ordering::Relaxed);
        let rounds = changing.join_next().await.expect("one task").unwrap();
        assert!(rounds > 2, "{rounds} rounds");
        ferry.cutover_and_end().await;
        assert_equal(&pair).await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_series_is_selected_and_renamed_by_the_name_that_people_know() {
        let pair = prepared().await;
        let options = [
            ["--include", "ts.l*"],
            ["--include", "ts.coarser"],
            ["--include", "gone"],
            ["--exclude", "ts.live"],
            ["--rename", "ts.load=stats.usage"],
            ["--rename", "gone=there"],
        ];
        let mut ferry = pair.ferry(options.as_flattened());
        ferry.wait_for_phase("tailing").await;
        perform(&pair.from, &changes()).await;
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.verb(&["verify"]).await.expect(0, "verify");
        ferry.cutover_and_end().await;
        pair.assert_equal_as(|database, coll| {
            let (before, name) = coll.strip_prefix("system.buckets.").map_or(("", coll), |name| ("system.buckets.", name));
            match (database, name) {
                ("ts", "load") => Some(("stats".into(), format!("{before}usage"))),
                ("ts", "coarser") => Some(("ts".into(), coll.into())),
                ("gone", _) => Some(("there".into(), coll.into())),
                _ => None,
            }
        })
        .await;
        let usage = views(&pair.to, "stats").await;
        assert_eq!(usage.len(), 1);
        assert!(String::from_utf8_lossy(&usage[0]).contains("system.buckets.usage"), "the view shows the buckets of its own name");
        pair.end().await;
    }

    /// What the buckets of a series say of mixed schema.
    async fn mixed_schema(client: &Client, name: &str) -> Option<bool> {
        let listed = run(client, "ts", doc! {"listCollections": 1, "filter": {"name": format!("system.buckets.{name}")}}).await;
        let text = listed.to_string();
        let (_, value) = text.split_once("timeseriesBucketsMayHaveMixedSchemaData=")?;
        Some(value.starts_with("true"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn that_buckets_may_be_of_mixed_schema_arrives_although_the_stream_does_not_tell() {
        let newer = || Options { version: Version::V6_0_27, ..Options::default() };
        let pair = Pair::with(newer(), newer()).await;
        let flag = |name: &str, value: bool| modify(name, doc! {"timeseriesBucketsMayHaveMixedSchemaData": value});
        perform(&pair.from, &["before", "live", "back"].map(|name| create(name, doc! {}))).await;
        perform(&pair.from, &[flag("before", true), flag("back", true), insert_mixed("before", 0..100)]).await;
        let measuring = Measuring::start(&pair.from, seed("mixed schema"));
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        assert_eq!(mixed_schema(&pair.to, "before").await, Some(true));
        perform(
            &pair.from,
            &[
                flag("live", true),
                flag("back", false),
                modify("before", doc! {}),
                create("engine", doc! {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zlib"}}}),
                flag("engine", true),
                insert_mixed("engine", 0..50),
            ],
        )
        .await;
        ferry.wait_until_caught_up(&pair.from).await;
        for (name, wanted) in [("live", true), ("back", false), ("engine", true), ("before", true)] {
            assert_eq!(mixed_schema(&pair.to, name).await, Some(wanted), "{name}");
        }
        ferry.verb(&["verify"]).await.expect(0, "verify");
        ferry.cutover_and_end().await;
        measuring.ended().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_target_may_be_of_a_newer_version() {
        let pair = Pair::with(Options::default(), Options { version: Version::V6_0_27, ..Options::default() }).await;
        perform(&pair.from, &before()).await;
        let mut measuring = Measuring::start(&pair.from, seed("newer target"));
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        perform(&pair.from, &changes()).await;
        measuring.go_on(20).await;
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.verb(&["verify"]).await.expect(0, "verify");
        ferry.cutover_and_end().await;
        measuring.ended().await;
        // Each server validates buckets in its own way; that no other option differs, `verify` has seen.
        let report = testbed::compare(&pair.from, &pair.to, parity::everything).await.unwrap();
        let expected = |d: &Difference| d.kind == parity::Kind::ChangedOptions && d.namespace.contains(".system.buckets.");
        let others: Vec<_> = report.differences.iter().filter(|d| !expected(d)).collect();
        assert!(others.is_empty(), "{others:#?}");
        assert!(report.documents().0 > 1_000, "{:?}", report.documents());
        for database in ["ts", "gone"] {
            assert_eq!(views(&pair.from, database).await, views(&pair.to, database).await, "views of `{database}`");
        }
        // The series goes on with the server's own ways.
        for client in [&pair.from, &pair.to] {
            run(client, "admin", doc! {"setUserWriteBlockMode": 1, "global": false}).await;
            perform(client, &[insert("load", 2_000..2_100)]).await;
        }
        let count = async |client: &Client| client.database("ts").collection::<Document>("load").count_documents(doc! {}).await.unwrap();
        assert_eq!(count(&pair.from).await, count(&pair.to).await);
        pair.end().await;
    }

    /// What an option of the buckets of `ts.short` is now.
    async fn expiry(client: &Client) -> Option<Bson> {
        let listed = run(client, "ts", doc! {"listCollections": 1, "filter": {"name": "system.buckets.short"}}).await;
        let batch = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap().clone();
        batch[0].as_document().unwrap().get_document("options").unwrap().get("expireAfterSeconds").cloned()
    }

    async fn expire(client: &Client, on: bool) {
        run(client, "admin", doc! {"setParameter": 1, "ttlMonitorEnabled": on}).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn measurements_expire_on_the_source_alone_until_the_cutover() {
        let each_second = || Options { extra_args: vec!["--setParameter".into(), "ttlMonitorSleepSecs=1".into()], ..Options::default() };
        let pair = Pair::with(each_second(), each_second()).await;
        // Old enough to expire at once, everywhere.
        expire(&pair.from, false).await;
        perform(
            &pair.from,
            &[create("short", doc! {"expireAfterSeconds": 60_i64}), insert("short", 0..500), insert("short", 5_000..5_100)],
        )
        .await;
        let stored = async |client: &Client| {
            client.database("ts").collection::<Document>("system.buckets.short").count_documents(doc! {}).await.unwrap()
        };
        let all = stored(&pair.from).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_until_ready().await;
        perform(&pair.from, &[insert("short", 600..700), modify("short", doc! {"expireAfterSeconds": 90_i64})]).await;
        ferry.wait_until_caught_up(&pair.from).await;
        assert_eq!((expiry(&pair.from).await, expiry(&pair.to).await), (Some(Bson::Int64(90)), None));
        let more = stored(&pair.from).await;
        assert!(more > all, "{more} > {all}");
        // The target's monitor has run: a second collection, made there by hand, tells.
        pair.on_target("other", doc! {"create": "clock", "timeseries": {"timeField": "t"}, "expireAfterSeconds": 1_i64}).await;
        pair.on_target("other", doc! {"insert": "clock", "documents": measured(0..1, mixed)}).await;
        let clock = pair.to.database("other").collection::<Document>("system.buckets.clock");
        while clock.count_documents(doc! {}).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(stored(&pair.to).await, more);
        pair.on_target("other", doc! {"dropDatabase": 1}).await;

        // What the source's monitor deletes, the target loses by the stream.
        expire(&pair.to, false).await;
        let future = DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000);
        perform(&pair.from, &[ts(doc! {"insert": "short", "documents": [{"t": future, "m": 1, "v": 1}]})]).await;
        expire(&pair.from, true).await;
        while stored(&pair.from).await > 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ferry.wait_until_caught_up(&pair.from).await;
        assert_eq!(stored(&pair.to).await, 1);
        ferry.cutover_and_end().await;
        assert_eq!(expiry(&pair.to).await, Some(Bson::Int64(90)));
        assert_equal(&pair).await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_undone_cutover_takes_the_expiry_back() {
        let pair = Pair::start().await;
        expire(&pair.from, false).await;
        expire(&pair.to, false).await;
        perform(&pair.from, &[create("short", doc! {"expireAfterSeconds": 60_i64}), insert("short", 0..500)]).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_until_ready().await;
        // The expiry comes back, but too late.
        slow_down(&pair.to, &["collMod"], Duration::from_secs(6)).await;
        let undone = ferry.cutover(&["--timeout", "4s"]).await.expect(1, "a late cutover");
        assert!(undone.stdout.contains("undone") && undone.stdout.contains("seal"), "{undone:?}");
        speed_up(&pair.to).await;
        // The source is given back first; the target is unsealed before the tail goes on.
        ferry.wait_until_ready().await;
        assert_eq!(expiry(&pair.to).await, None);
        perform(&pair.from, &[insert("short", 700..800)]).await;
        ferry.cutover_and_end().await;
        assert_eq!(expiry(&pair.to).await, Some(Bson::Int64(60)));
        assert_equal(&pair).await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_documented_roles_are_enough_and_custom_ones_are_told_what_they_lack() {
        let locked = || Options { auth: true, ..Options::default() };
        let pair = Pair::with(locked(), locked()).await;
        perform(&pair.from, &before()).await;
        let role = |name: &str| doc! {"role": name, "db": "admin"}.into();
        pair.source.create_user("ferry", "s3cret", ["readAnyDatabase", "clusterMonitor", "backup"].map(role).to_vec()).await.unwrap();
        // As a role of one's own is easily written: all databases, and nothing of `system.*`.
        let actions = ["find", "insert", "update", "remove", "createCollection", "createIndex", "dropCollection", "dropIndex"];
        let narrow = vec![
            doc! {"resource": {"db": "", "collection": ""}, "actions": actions.into_iter().chain(["collMod", "listCollections", "listIndexes", "bypassDocumentValidation", "collStats", "dropDatabase", "renameCollectionSameDB"]).collect::<Vec<_>>()},
            doc! {"resource": {"cluster": true}, "actions": ["listDatabases"]},
        ];
        pair.on_target("admin", doc! {"createRole": "narrow", "privileges": narrow, "roles": []}).await;
        pair.target.create_user("ferry", "s3cret", ["narrow", "clusterMonitor"].map(role).to_vec()).await.unwrap();
        let (source, target) = (pair.source.uri_for("ferry", "s3cret"), pair.target.uri_for("ferry", "s3cret"));
        let check = ["check", "--source", &source, "--target", &target];
        let missing = told(&check).await.expect(4, "check with too narrow a role");
        let text = format!("{}{}", missing.stdout, missing.stderr);
        for needed in ["update on system.buckets.*", "renameCollectionSameDB on system.js", "readWriteAnyDatabase", "dbAdminAnyDatabase"] {
            assert!(text.contains(needed), "{needed}: {text}");
        }
        // Not needed where nothing of the kind is selected.
        told(&[&check[..], &["--exclude", "ts", "--exclude", "gone"]].concat()).await.expect(0, "check without time series");

        let roles: Vec<Bson> = ["readWriteAnyDatabase", "dbAdminAnyDatabase"].map(role).to_vec();
        pair.on_target("admin", doc! {"revokeRolesFromUser": "ferry", "roles": [role("narrow")]}).await;
        pair.on_target("admin", doc! {"grantRolesToUser": "ferry", "roles": roles}).await;
        told(&check).await.expect(0, "check with the documented roles");
        let mut ferry = Ferry::start(&source, &target, &[]);
        ferry.wait_for_phase("tailing").await;
        perform(&pair.from, &changes()).await;
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.verb(&["verify"]).await.expect(0, "verify");
        ferry.cutover_and_end().await;
        // Nobody may read the definitions of views under access control.
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_stands_in_the_way_is_dropped_only_when_permitted() {
        let pair = Pair::start().await;
        perform(&pair.from, &[create("load", doc! {}), insert("load", 0..50)]).await;
        perform(&pair.from, &[ts(doc! {"insert": "system.js", "documents": [{"_id": "f", "value": 1}]})]).await;
        for (database, command) in [
            create("load", doc! {"expireAfterSeconds": 1_000_000_000_i64}),
            insert("load", 70..90),
            ts(doc! {"insert": "system.js", "documents": [{"_id": "of the target", "value": 1}]}),
        ] {
            pair.on_target(database, command).await;
        }
        let check = ["check", "--source", &pair.source.uri(), "--target", &pair.target.uri()];
        let refused = told(&check).await.expect(4, "check");
        let text = format!("{}{}", refused.stdout, refused.stderr);
        assert!(text.contains("ts.load") && text.contains("ts.system.js"), "{text}");
        let mut ferry = pair.ferry(&["--drop-target-namespaces"]);
        ferry.wait_until_ready().await;
        perform(&pair.from, &[insert("load", 50..60)]).await;
        ferry.cutover_and_end().await;
        assert_equal(&pair).await;
        pair.end().await;
    }
}
