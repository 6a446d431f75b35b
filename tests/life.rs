//! A migration's life from outside: pausing, looking, comparing, handing over, giving up.

mod real {
    use crate::support::{DEADLINE, Ferry, METADATA, Pair, contents, fail, reached, run, slow_down, speed_up, time, told};
    use bson::{Document, doc};
    use mongodb::Client;
    use serde_json::Value;
    use std::time::Duration;
    use testbed::{DataSet, Options, ReplicaSet, fill};
    use tokio::time::{Instant, sleep};

    /// What a server says that is about to go: repeated like everything of an election.
    const SHUTDOWN_IN_PROGRESS: i32 = 91;

    async fn shop(pair: &Pair, documents: u64) {
        fill(&pair.from, DataSet { documents, ..DataSet::default() }).await.unwrap();
    }

    async fn insert(client: &Client, coll: &str, document: Document) {
        run(client, "shop", doc! {"insert": coll, "documents": [document]}).await;
    }

    async fn find(client: &Client, coll: &str, filter: Document) -> Option<Document> {
        client.database("shop").collection::<Document>(coll).find_one(filter).await.unwrap()
    }

    /// An index as it is listed.
    async fn index(client: &Client, coll: &str, name: &str) -> Document {
        let reply = run(client, "shop", doc! {"listIndexes": coll}).await;
        let listed = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
        let mut specs = listed.iter().filter_map(|spec| spec.as_document());
        specs.find(|spec| spec.get_str("name").is_ok_and(|n| n == name)).unwrap_or_else(|| panic!("no index `{name}`: {listed:?}")).clone()
    }

    /// Writes of users are let through: what a cutover that was undone must leave.
    async fn assert_writable(client: &Client, id: i64) {
        insert(client, "notes", doc! {"_id": id}).await;
    }

    /// Whether a write of a user is turned away.
    async fn is_fenced(client: &Client) -> bool {
        let reply = client.database("shop").run_command(doc! {"insert": "notes", "documents": [{}]}).await;
        !reply.is_ok_and(|reply| !reply.contains_key("writeErrors"))
    }

    fn gate<'s>(status: &'s Value, name: &str) -> &'s Value {
        status["gates"].as_array().unwrap().iter().find(|gate| gate["name"] == name).unwrap_or_else(|| panic!("no gate {name}: {status:#}"))
    }

    /// What scripts read. A field that goes or changes its type is a new `format`.
    fn assert_contract(status: &Value) {
        assert_eq!(status["format"], 1, "{status:#}");
        for text in ["phase", "activity", "version", "migration"] {
            assert!(status[text].is_string(), "{text}: {status:#}");
        }
        for text in ["reason", "remedy"] {
            assert!(status[text].is_string() || status[text].is_null(), "{text}: {status:#}");
        }
        for flag in ["can_cut_over", "can_write_to_target"] {
            assert!(status[flag].is_boolean(), "{flag}: {status:#}");
        }
        assert!(status["lag_seconds"].is_number() || status["phase"] != "tailing", "{status:#}");
        assert!(time(&status["applied_cluster_time"]).is_some(), "{status:#}");
        for count in ["documents", "bytes", "estimated_documents", "estimated_bytes"] {
            assert!(status["copy"][count].is_u64(), "copy.{count}: {status:#}");
        }
        assert!(status["unfinished_indexes"].is_array(), "{status:#}");
        let names: Vec<_> = status["gates"].as_array().unwrap().iter().map(|gate| gate["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["tailing", "lag", "consistent", "copied", "indexes", "headroom", "parity"]);
        for gate in status["gates"].as_array().unwrap() {
            assert!(gate["open"].is_boolean() && gate["why"].is_string(), "{gate}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_migration_is_paused_compared_and_handed_over() {
        let pair = Pair::start().await;
        shop(&pair, 4_000).await;
        let mut ferry = pair.ferry(&[]);
        assert_contract(&ferry.status().await);
        ferry.wait_until_ready().await;
        let shown = ferry.verb(&["status", "--output", "json"]).await.expect(0, "status");
        assert_contract(&shown.json());

        // A pause survives a kill and a restart.
        ferry.verb(&["pause"]).await.expect(0, "pause");
        insert(&pair.from, "notes", doc! {"_id": "while paused"}).await;
        let paused = ferry.status().await;
        assert_eq!((&paused["activity"], &paused["can_cut_over"]), (&"paused".into(), &false.into()), "{paused:#}");
        assert_eq!(gate(&paused, "tailing")["open"], false);
        ferry.verb(&["cutover", "--yes"]).await.expect(1, "no cutover while paused");
        ferry.kill_9();
        ferry.restart();
        let paused = ferry.status().await;
        assert_eq!(paused["activity"], "paused", "{paused:#}");
        assert!(paused["reason"].as_str().unwrap().contains("paused by"), "{paused:#}");
        assert!(find(&pair.to, "notes", doc! {}).await.is_none(), "it went on though it was paused");
        ferry.verb(&["resume"]).await.expect(0, "resume");

        // Nobody writes any more: its position passes a note all the same.
        ferry.wait_until_caught_up(&pair.from).await;
        assert!(find(&pair.to, "notes", doc! {"_id": "while paused"}).await.is_some());
        ferry.wait_until_caught_up(&pair.from).await;

        // The comparison finds what somebody did to the target, and then there is no cutover.
        let equal = ferry.verb(&["verify", "--output", "json"]).await.expect(0, "verify").json();
        assert_eq!((&equal["equal"], &equal["documents"]), (&true.into(), &4_001.into()), "{equal:#}");
        insert(&pair.to, "notes", doc! {"_id": "by somebody else"}).await;
        let differs = ferry.verb(&["verify"]).await.expect(1, "verify of a changed target");
        assert!(differs.stdout.contains("shop.notes") && differs.stdout.contains("by somebody else"), "{differs:?}");
        let no = ferry.verb(&["cutover", "--yes"]).await.expect(1, "cutover of a changed target");
        assert!(no.stdout.contains("parity"), "{no:?}");
        let shut = ferry.wait_for("the parity gate to shut", |s| s["can_cut_over"] == false).await;
        assert_eq!(gate(&shut, "parity")["open"], false);
        ferry.verb(&["cutover", "--dry-run"]).await.expect(1, "a rehearsal says no, too");
        run(&pair.to, "shop", doc! {"delete": "notes", "deletes": [{"q": {"_id": "by somebody else"}, "limit": 1}]}).await;
        ferry.verb(&["verify"]).await.expect(0, "verify of a mended target");
        ferry.wait_until_ready().await;
        ferry.verb(&["cutover", "--dry-run"]).await.expect(0, "a rehearsal says yes");
        assert_writable(&pair.from, 1).await;

        let cut = ferry.cutover_and_end().await;
        assert!(cut.stdout.contains("committed"), "{cut:?}");
        assert!(is_fenced(&pair.from).await, "writes to the source are let through");
        assert_writable(&pair.to, 2).await;
        run(&pair.to, "shop", doc! {"delete": "notes", "deletes": [{"q": {"_id": 2}, "limit": 1}]}).await;
        pair.assert_equal().await;

        // There is nothing left to do, and nothing is done.
        let before = contents(&pair.to).await;
        ferry.restart();
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        assert_eq!(contents(&pair.to).await.get("shop"), before.get("shop"));
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cutover_that_fails_gives_the_source_back() {
        let pair = Pair::start().await;
        shop(&pair, 400).await;
        let many: Vec<_> = (0..100).map(|n| doc! {"_id": n, "code": n, "at": bson::DateTime::now()}).collect();
        pair.on_source("shop", doc! {"insert": "codes", "documents": many}).await;
        let indexes = vec![
            doc! {"key": {"code": 1}, "name": "by code", "unique": true},
            doc! {"key": {"at": 1}, "name": "by age", "expireAfterSeconds": 1_000_000},
        ];
        pair.on_source("shop", doc! {"createIndexes": "codes", "indexes": indexes}).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_until_ready().await;
        assert_parked(&pair.to).await;

        // Not in time: the stream is slower than the operator's patience. One answer may still come, but not one for each step.
        slow_down(&pair.from, &["getMore"], Duration::from_secs(4)).await;
        let late = ferry.cutover(&["--timeout", "1s"]).await.expect(1, "a cutover that is late");
        speed_up(&pair.from).await;
        assert_undone(&pair, &mut ferry, &late.stdout, &["begin", "drain"], 1).await;

        // Behind our back a document too many: counted by the recheck.
        insert(&pair.to, "codes", doc! {"_id": 1000, "code": 7}).await;
        let more = ferry.cutover(&[]).await.expect(1, "a cutover of a target with one document too many");
        assert_undone(&pair, &mut ferry, &more.stdout, &["recheck"], 2).await;

        // As many as there should be, but two of them are equal where they may not be.
        run(&pair.to, "shop", doc! {"delete": "codes", "deletes": [{"q": {"_id": 50}, "limit": 1}]}).await;
        let same = ferry.cutover(&[]).await.expect(1, "a cutover of a target with a duplicate");
        assert_undone(&pair, &mut ferry, &same.stdout, &["seal"], 3).await;
        let status = ferry.status().await;
        assert!(status["cutover"]["last_failure"].is_string(), "{status:#}");

        run(&pair.to, "shop", doc! {"delete": "codes", "deletes": [{"q": {"_id": 1000}, "limit": 1}]}).await;
        run(&pair.from, "shop", doc! {"update": "codes", "updates": [{"q": {"_id": 50}, "u": {"_id": 50, "code": 50, "again": true}}]})
            .await;
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.cutover_and_end().await;
        assert!(index(&pair.to, "codes", "by code").await.get_bool("unique").unwrap());
        assert_eq!(index(&pair.to, "codes", "by age").await.get_i32("expireAfterSeconds").unwrap(), 1_000_000);
        pair.assert_equal().await;
        pair.end().await;
    }

    /// While data flows: neither unique nor expiring.
    async fn assert_parked(target: &Client) {
        for (name, option) in [("by code", "unique"), ("by code", "prepareUnique"), ("by age", "expireAfterSeconds")] {
            let spec = index(target, "codes", name).await;
            assert!(!spec.contains_key(option), "`{name}` is not parked: {spec}");
        }
    }

    async fn assert_undone(pair: &Pair, ferry: &mut Ferry, told: &str, steps: &[&str], id: i64) {
        assert!(told.contains("undone") && steps.iter().any(|step| told.contains(&format!("{step} failed"))), "{told}");
        assert_writable(&pair.from, id).await;
        ferry.wait_until_caught_up(&pair.from).await;
        assert!(find(&pair.to, "notes", doc! {"_id": id}).await.is_some(), "the tail does not go on");
        assert_parked(&pair.to).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_that_dies_while_it_cuts_over_gives_the_source_back() {
        let pair = Pair::start().await;
        shop(&pair, 400).await;
        // A collection that comes later would shut a gate until it is compared.
        assert_writable(&pair.from, 0).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_until_ready().await;
        // Fenced, and held there.
        slow_down(&pair.from, &["getMore"], Duration::from_secs(2)).await;
        tokio::join!(ferry.verb(&["cutover", "--yes"]), async {
            until("the source is fenced", async || is_fenced(&pair.from).await).await;
            // By its id: the guard is lent to the verb.
            assert!(std::process::Command::new("kill").args(["-9", &ferry.pid().to_string()]).status().unwrap().success());
        });
        speed_up(&pair.from).await;
        ferry.restart();
        ferry.wait_for_phase("tailing").await;
        assert_writable(&pair.from, 1).await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_target_that_stops_answering_while_it_is_handed_over_gives_the_source_back() {
        let pair = Pair::start().await;
        shop(&pair, 400).await;
        // A collection that comes later would shut a gate until it is compared.
        assert_writable(&pair.from, 0).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_until_ready().await;
        // Silent while draining: fenced, and held there until the target is frozen.
        slow_down(&pair.from, &["getMore"], Duration::from_secs(2)).await;
        let frozen = async {
            until("the source is fenced", async || is_fenced(&pair.from).await).await;
            pair.target.pause(0).unwrap();
            speed_up(&pair.from).await;
            until("the source is given back", async || !is_fenced(&pair.from).await).await;
            pair.target.unpause(0).unwrap();
        };
        let (told, ()) = tokio::join!(ferry.verb(&["cutover", "--yes", "--timeout", "5s"]), frozen);
        assert_eq!(told.code, 1, "{told:?}\n{}", ferry.log());
        // Failing, as in an election, for what the recheck and for what the seal asks for.
        for command in ["listIndexes", "collMod"] {
            ferry.wait_until_ready().await;
            fail(&pair.to, &[command], SHUTDOWN_IN_PROGRESS).await;
            let failing = async {
                until("the source is fenced", async || is_fenced(&pair.from).await).await;
                until("the source is given back", async || !is_fenced(&pair.from).await).await;
                speed_up(&pair.to).await;
            };
            let (told, ()) = tokio::join!(ferry.verb(&["cutover", "--yes", "--timeout", "5s"]), failing);
            assert_eq!(told.code, 1, "{command}: {told:?}\n{}", ferry.log());
        }
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    /// Asks until it is so.
    async fn until(what: &str, so: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !so().await {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_operator_may_stop_the_writers_himself_or_give_up() {
        let pair = Pair::start().await;
        shop(&pair, 400).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_until_ready().await;

        // Given up: the metadata is gone, what was copied stays, and is in the way of the next.
        ferry.verb(&["abort", "--yes"]).await.expect(0, "abort");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        assert!(!pair.to.list_database_names().await.unwrap().contains(&METADATA.to_owned()));
        assert!(find(&pair.to, "orders", doc! {}).await.is_some());
        assert_writable(&pair.from, 1).await;
        ferry.restart();
        assert_eq!(ferry.wait_exit().await, 4, "{}", ferry.log());

        // Taken up anew, and handed over on the operator's word: the source is left as it is.
        ferry.restart_with(&["--drop-target-namespaces"]);
        let cut = ferry.cutover(&["--writes-stopped"]).await.expect(0, "cutover --writes-stopped");
        assert!(cut.stdout.contains("committed"), "{cut:?}");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        pair.assert_equal().await;
        assert_writable(&pair.from, 2).await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_tls_and_with_access_control_from_start_to_end() {
        let locked = || Options { tls: true, auth: true, ..Options::default() };
        let pair = Pair::with(locked(), locked()).await;
        shop(&pair, 2_000).await;
        let role = |name: &str| doc! {"role": name, "db": "admin"}.into();
        // No more than the documentation asks for.
        pair.source.create_user("ferry", "s3cret", ["readAnyDatabase", "clusterMonitor", "backup"].map(role).to_vec()).await.unwrap();
        let roles = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor"].map(role).to_vec();
        pair.target.create_user("ferry", "s3cret", roles).await.unwrap();
        let as_ferry = |set: &ReplicaSet| set.uri_for("ferry", "s3cret");
        let (source, target) = (as_ferry(&pair.source), as_ferry(&pair.target));
        told(&["check", "--source", &source, "--target", &target]).await.expect(0, "check");
        let mut ferry = Ferry::start(&source, &target, &[]);
        ferry.wait_until_ready().await;
        assert_writable(&pair.from, 1).await;
        ferry.verb(&["verify"]).await.expect(0, "verify");
        // Those roles do not allow to block writes.
        let told = ferry.cutover(&["--writes-stopped"]).await.expect(0, "cutover");
        assert!(told.stdout.contains("committed"), "{told:?}");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        pair.assert_equal().await;
        assert!(!ferry.log().contains("s3cret"), "{}", ferry.log());
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_signal_stops_the_copy_and_the_same_command_goes_on() {
        let pair = Pair::start().await;
        shop(&pair, 10_000).await;
        slow_down(&pair.to, &["insert"], Duration::from_millis(300)).await;
        let mut ferry = pair.ferry(&["--partition-size", "1MiB", "--copy-partitions", "1"]);
        let before =
            ferry.wait_for("some of the copy", |s| reached(s, "copying") && s["copy"]["partitions_done"].as_u64() >= Some(2)).await;
        assert_eq!(before["phase"], "copying");
        ferry.signal("TERM");
        assert_eq!(ferry.wait_exit().await, 143, "{}", ferry.log());
        assert!(ferry.log().contains("the same command goes on"), "{}", ferry.log());
        ferry.restart();
        let after = ferry.status().await;
        assert!(after["copy"]["partitions_done"].as_u64() >= before["copy"]["partitions_done"].as_u64(), "{after:#}");
        assert!(after["copy"]["documents"].as_u64() >= before["copy"]["documents"].as_u64(), "{after:#}");
        speed_up(&pair.to).await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_what_is_selected_goes_and_under_its_new_name() {
        let pair = Pair::start().await;
        shop(&pair, 2_000).await;
        pair.on_source("crm", doc! {"insert": "people", "documents": [{"_id": 1}]}).await;
        pair.on_source("logs", doc! {"insert": "lines", "documents": [{"_id": 1}]}).await;
        pair.on_target("logs", doc! {"insert": "lines", "documents": [{"_id": "of the target"}]}).await;
        let options = [
            "--include",
            "shop",
            "--include",
            "crm.*",
            "--exclude",
            "shop.ev*",
            "--rename",
            "shop=store",
            "--rename",
            "crm.people=crm.folk",
        ];
        let mut ferry = pair.ferry(&options);
        ferry.wait_for_phase("tailing").await;
        // Also what comes later.
        for coll in ["orders", "events", "evening", "extra"] {
            insert(&pair.from, coll, doc! {"_id": "late"}).await;
        }
        pair.on_source("logs", doc! {"insert": "more", "documents": [{"_id": 1}]}).await;
        pair.on_source("crm", doc! {"insert": "people", "documents": [{"_id": 2}]}).await;
        ferry.cutover_and_end().await;
        pair.assert_equal_as(|database, coll| match (database, coll) {
            ("shop", coll) if !coll.starts_with("ev") => Some(("store".into(), coll.into())),
            ("crm", "people") => Some(("crm".into(), "folk".into())),
            _ => None,
        })
        .await;
        let mut names = pair.to.list_database_names().await.unwrap();
        names.retain(|name| !["admin", "config", "local"].contains(&name.as_str()));
        assert_eq!(names, [METADATA, "crm", "logs", "store"]);
        let kept: Document = pair.to.database("logs").collection("lines").find_one(doc! {}).await.unwrap().unwrap();
        assert_eq!(kept, doc! {"_id": "of the target"});
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_cannot_be_built_stops_the_cutover_until_it_is_waived_by_name() {
        let pair = Pair::start().await;
        shop(&pair, 200).await;
        let index = doc! {"key": {"refused": 1}, "name": "refused"};
        run(&pair.from, "shop", doc! {"createIndexes": "orders", "indexes": [index]}).await;
        // CannotCreateIndex, to whatever is built.
        fail(&pair.to, &["createIndexes"], 67).await;
        let mut ferry = pair.ferry(&["--include", "shop.orders"]);
        let failed =
            |s: &Value| s["unfinished_indexes"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|i| i["state"] == "failed"));
        let compared = |s: &Value| s["gates"].as_array().is_some_and(|all| all.iter().any(|g| g["name"] == "parity" && g["open"] == true));
        ferry.wait_for("the failure", |s| reached(s, "tailing") && failed(s) && compared(s)).await;
        speed_up(&pair.to).await;
        let waives: Vec<String> = ferry.status().await["unfinished_indexes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| format!("--waive-index={}:{}", i["ns"].as_str().unwrap(), i["name"].as_str().unwrap()))
            .collect();
        assert!(waives.contains(&"--waive-index=shop.orders:refused".to_owned()), "{waives:?}");
        let told = ferry.verb(&["cutover", "--yes"]).await;
        assert!(told.code == 1 && told.stdout.contains("indexes"), "{told:?}");
        let told = ferry.verb(&["cutover", "--yes", "--waive-index", "shop.orders:slip"]).await;
        assert!(told.code == 1 && told.stderr.contains("shop.orders:refused") | told.stdout.contains("shop.orders:refused"), "{told:?}");
        let all: Vec<&str> = ["cutover", "--yes"].into_iter().chain(waives.iter().map(String::as_str)).collect();
        ferry.verb(&all).await.expect(0, "cutover");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        let names = pair.to.database("shop").collection::<Document>("orders").list_index_names().await.unwrap();
        assert_eq!(names, ["_id_"], "the waived ones are not on the target");
        pair.end().await;
    }
}
