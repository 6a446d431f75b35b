//! The way back: after a cutover the old source follows the new primary, and a cutover leads back; and so on.

mod real {
    use crate::support::{Ferry, METADATA, Pair, run, told};
    use bson::{Document, doc};
    use mongodb::Client;
    use testbed::{DataSet, Load, LoadOptions, Options, fill};

    async fn index(client: &Client, database: &str, coll: &str, name: &str) -> Document {
        let reply = run(client, database, doc! {"listIndexes": coll}).await;
        let listed = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
        let mut specs = listed.iter().filter_map(|spec| spec.as_document());
        specs.find(|spec| spec.get_str("name").is_ok_and(|n| n == name)).unwrap_or_else(|| panic!("no index `{name}`: {listed:?}")).clone()
    }

    async fn is_blocked(client: &Client) -> bool {
        let status = run(client, "admin", doc! {"serverStatus": 1}).await;
        status.get_document("repl").unwrap().get_i32("userWriteBlockMode").unwrap() == 2
    }

    /// Seals and parks, in one collection: unique, expiring, plain.
    async fn codes(client: &Client) {
        let many: Vec<_> = (0..200).map(|n| doc! {"_id": n, "code": n, "at": bson::DateTime::now()}).collect();
        run(client, "shop", doc! {"insert": "codes", "documents": many}).await;
        let indexes = vec![
            doc! {"key": {"code": 1}, "name": "by code", "unique": true},
            doc! {"key": {"at": 1}, "name": "by age", "expireAfterSeconds": 1_000_000},
            doc! {"key": {"code": -1}, "name": "plain"},
        ];
        run(client, "shop", doc! {"createIndexes": "codes", "indexes": indexes}).await;
        run(client, "shop", doc! {"create": "latest", "capped": true, "size": 4096}).await;
        run(client, "shop", doc! {"create": "cheap", "viewOn": "codes", "pipeline": [{"$match": {"code": {"$lt": 5}}}]}).await;
        run(client, "shop", doc! {"create": "cpu", "timeseries": {"timeField": "t", "metaField": "m"}}).await;
        run(client, "shop", doc! {"insert": "cpu", "documents": [{"t": bson::DateTime::now(), "m": 1, "v": 1}]}).await;
    }

    /// What an application does to its primary cluster: documents and structure.
    async fn use_it(client: &Client, round: i32) {
        let swap = doc! {"update": "codes", "updates": [
            {"q": {"_id": 1}, "u": {"$set": {"code": -1}}},
            {"q": {"_id": 2}, "u": [{"$set": {"code": 1 + 1000 * round}}]},
            {"q": {"_id": 1}, "u": {"$set": {"code": 2 + 1000 * round}}},
        ]};
        run(client, "shop", swap).await;
        run(client, "shop", doc! {"delete": "codes", "deletes": [{"q": {"_id": 50 + round}, "limit": 1}]}).await;
        run(client, "shop", doc! {"insert": "latest", "documents": [{"_id": round}]}).await;
        run(client, "shop", doc! {"insert": "cpu", "documents": [{"t": bson::DateTime::now(), "m": 1, "v": round}]}).await;
        let made = format!("made{round}");
        run(client, "shop", doc! {"create": &made, "validator": {"a": {"$gt": 0}}}).await;
        run(client, "shop", doc! {"insert": &made, "documents": [{"_id": 1, "a": 1}]}).await;
        let unique = vec![doc! {"key": {"a": 1}, "name": "a", "unique": true}];
        run(client, "shop", doc! {"createIndexes": &made, "indexes": unique}).await;
        run(client, "admin", doc! {"renameCollection": format!("shop.{made}"), "to": format!("shop.kept{round}")}).await;
        run(client, "shop", doc! {"collMod": "codes", "index": {"name": "by age", "expireAfterSeconds": 1_000_000 + round}}).await;
        run(client, "shop", doc! {"dropIndexes": "codes", "index": "plain"}).await;
        run(client, "shop", doc! {"createIndexes": "codes", "indexes": [{"key": {"code": -1}, "name": "plain", "sparse": round % 2 == 0}]})
            .await;
        run(client, "shop", doc! {"drop": "payments"}).await;
        run(client, "shop", doc! {"insert": "payments", "documents": [{"_id": round}]}).await;
    }

    async fn assert_sealed(client: &Client, round: i32) {
        assert!(index(client, "shop", "codes", "by code").await.get_bool("unique").unwrap());
        assert_eq!(index(client, "shop", "codes", "by age").await.get_i32("expireAfterSeconds").unwrap(), 1_000_000 + round);
        assert!(index(client, "shop", &format!("kept{round}"), "a").await.get_bool("unique").unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_old_source_follows_and_a_cutover_leads_back_and_forth() {
        let pair = Pair::start().await;
        fill(&pair.from, DataSet { documents: 2_000, ..DataSet::default() }).await.unwrap();
        codes(&pair.from).await;
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        let early = told(&["reverse", "--source", &pair.source.uri(), "--target", &pair.target.uri(), "--listen", "127.0.0.1:0"]).await;
        assert!(early.code == 2 && early.stderr.contains("tailing"), "a way back before the commit: {early:?}");
        ferry.cutover_and_end().await;
        pair.assert_equal().await;

        // The new primary is not copied over, whatever somebody types.
        let uris = [pair.source.uri(), pair.target.uri()];
        let scratch = [
            "run",
            "--source",
            &uris[0],
            "--target",
            &uris[1],
            "--listen",
            "127.0.0.1:0",
            "--restart-from-scratch",
            "--drop-target-namespaces",
        ];
        let refused = told(&scratch).await.expect(2, "a new copy over the primary cluster");
        assert!(refused.stderr.contains("primary cluster"), "{refused:?}");
        pair.assert_equal().await;

        // Before anybody asked for a way back, the application is at home on the new primary.
        use_it(&pair.to, 1).await;
        ferry.restart();
        assert_eq!(ferry.wait_exit().await, 0, "run has nothing to do: {}", ferry.log());
        assert!(ferry.log().contains("`mongoferry reverse`"), "{}", ferry.log());
        ferry.restart_as("reverse");
        ferry.wait_until_ready().await;
        let load = Load::start(pair.to.clone(), LoadOptions { ops_per_second: 400, ..LoadOptions::default() });
        use_it(&pair.to, 2).await;
        let status = ferry.status().await;
        assert_eq!((&status["direction"]["way"], &status["direction"]["turn"]), (&"reverse".into(), &1.into()), "{status:#}");
        assert!(status["direction"]["source"].as_str().unwrap().contains(&pair.target.addresses()[0]), "{status:#}");
        assert!(is_blocked(&pair.from).await, "users may write to the old source");
        assert!(!index(&pair.from, "shop", "codes", "by code").await.contains_key("unique"), "the old source is not parked");
        assert_eq!(status["copy"]["documents"], 0, "a way back copies nothing: {status:#}");
        for _ in 0..2 {
            ferry.kill_9();
            use_it(&pair.to, rand::random_range(10..1_000_000)).await;
            ferry.restart();
            ferry.wait_for_phase("tailing").await;
        }
        load.stop().await;
        ferry.wait_until_caught_up(&pair.to).await;
        ferry.verb(&["verify"]).await.expect(0, "verify of the way back");

        // Back, and the old source is the primary again.
        use_it(&pair.to, 3).await;
        let told = ferry.verb(&["cutover", "--dry-run"]).await;
        assert!(told.stdout.contains("lets users write to the target"), "{told:?}");
        ferry.cutover_and_end().await;
        assert!(!is_blocked(&pair.from).await && is_blocked(&pair.to).await, "the block is on the wrong side");
        pair.assert_equal().await;
        assert_sealed(&pair.from, 3).await;

        // And forward again, by the same command; which `run` now goes on with, too.
        use_it(&pair.from, 4).await;
        ferry.restart();
        let status = ferry.wait_until_ready().await;
        assert_eq!((&status["direction"]["way"], &status["direction"]["turn"]), (&"forward".into(), &2.into()), "{status:#}");
        ferry.kill_9();
        use_it(&pair.from, 5).await;
        ferry.restart_as("run");
        ferry.wait_until_ready().await;
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        assert_sealed(&pair.to, 5).await;
        assert!(is_blocked(&pair.from).await && !is_blocked(&pair.to).await, "the block is on the wrong side");
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cutover_turns_round_by_itself_with_filters_and_renames_inverted() {
        let pair = Pair::start().await;
        codes(&pair.from).await;
        run(&pair.from, "shop", doc! {"insert": "secret", "documents": [{"_id": 1}]}).await;
        run(&pair.from, "shop", doc! {"insert": "payments", "documents": [{"_id": 1}]}).await;
        run(&pair.from, "crm", doc! {"insert": "people", "documents": [{"_id": 1}]}).await;
        run(&pair.to, "shop", doc! {"insert": "mine", "documents": [{"_id": 1}]}).await;
        let options = [
            "--include",
            "shop",
            "--include",
            "crm.people",
            "--exclude",
            "shop.secret",
            "--rename",
            "shop=store",
            "--rename",
            "crm.people=crm.folk",
        ];
        let mut ferry = pair.ferry(&options);
        let told = ferry.cutover(&["--then-reverse"]).await.expect(0, "cutover --then-reverse");
        assert!(told.stdout.contains("committed"), "{told:?}");
        let turned = |s: &serde_json::Value| s["direction"]["way"] == "reverse" && s["phase"] == "tailing";
        ferry.wait_for("the way back", turned).await;

        let in_use = async |round: i32| {
            run(&pair.to, "store", doc! {"insert": format!("new{round}"), "documents": [{"_id": round}]}).await;
            run(&pair.to, "store", doc! {"update": "codes", "updates": [{"q": {"_id": 7}, "u": {"$set": {"round": round}}}]}).await;
            run(&pair.to, "crm", doc! {"insert": "folk", "documents": [{"_id": 10 + round}]}).await;
            run(&pair.to, "elsewhere", doc! {"insert": "other", "documents": [{"_id": round}]}).await;
            run(&pair.to, "shop", doc! {"insert": "mine", "documents": [{"_id": 10 + round}]}).await;
            run(&pair.to, "admin", doc! {"renameCollection": format!("store.new{round}"), "to": format!("store.renamed{round}")}).await;
        };
        in_use(1).await;
        // The wish is saved: the same `run` turns round again.
        ferry.kill_9();
        in_use(2).await;
        ferry.restart();
        ferry.wait_for("the way back", turned).await;
        in_use(3).await;
        ferry.wait_until_caught_up(&pair.to).await;
        ferry.verb(&["verify"]).await.expect(0, "verify of the way back");
        ferry.cutover_and_end().await;
        pair.assert_equal_as(|database, coll| match (database, coll) {
            ("shop", "secret") => None,
            ("shop", coll) => Some(("store".into(), coll.into())),
            ("crm", "people") => Some(("crm".into(), "folk".into())),
            _ => None,
        })
        .await;
        let secret = pair.from.database("shop").collection::<Document>("secret").count_documents(doc! {}).await.unwrap();
        let databases = pair.from.list_database_names().await.unwrap();
        assert!(secret == 1 && !databases.contains(&"elsewhere".to_owned()), "what is outside the filters was touched: {databases:?}");
        assert_eq!(pair.from.database("shop").collection::<Document>("mine").count_documents(doc! {}).await.unwrap(), 0);
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn with_access_control_the_fence_lets_only_us_through_and_an_abort_leaves_the_new_primary_alone() {
        let locked = || Options { auth: true, ..Options::default() };
        let pair = Pair::with(locked(), locked()).await;
        codes(&pair.from).await;
        let role = |name: &str| doc! {"role": name, "db": "admin"}.into();
        let both = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor", "backup"];
        for set in [&pair.source, &pair.target] {
            set.create_user("ferry", "s3cret", both.map(role).to_vec()).await.unwrap();
            set.create_user("app", "s3cret", vec![role("readWriteAnyDatabase")]).await.unwrap();
        }
        let mut ferry = Ferry::start(&pair.source.uri_for("ferry", "s3cret"), &pair.target.uri_for("ferry", "s3cret"), &[]);
        ferry.wait_until_ready().await;
        let shut = ferry.verb(&["cutover", "--dry-run", "--then-reverse"]).await.expect(1, "a way back without the privilege");
        assert!(shut.stdout.contains("reverse") && shut.stdout.contains("\"restore\""), "{shut:?}");
        run(&pair.from, "admin", doc! {"grantRolesToUser": "ferry", "roles": ["restore"]}).await;
        // That role lets its user past the fence, and there is one who goes on writing: that is noticed, and all is undone.
        let sneaky = testbed::connect(&pair.source.uri_for("ferry", "s3cret")).await.unwrap();
        let writing = async {
            for n in 0.. {
                run(&sneaky, "shop", doc! {"insert": "sneaky", "documents": [{"_id": n}]}).await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let undone = tokio::select! {
            told = ferry.cutover(&[]) => told.expect(1, "a cutover while somebody writes behind the fence"),
            () = writing => unreachable!("there is no end of numbers"),
        };
        assert!(undone.stdout.contains("the cutover was undone, the source is writable"), "{undone:?}");
        assert!(!is_blocked(&pair.from).await, "the source is not given back");
        testbed::end(sneaky).await;
        ferry.cutover(&["--then-reverse"]).await.expect(0, "cutover --then-reverse");
        ferry.wait_for("the way back", |s| s["direction"]["way"] == "reverse" && s["can_cut_over"] == true).await;
        run(&pair.to, "shop", doc! {"insert": "codes", "documents": [{"_id": "new", "code": "new"}]}).await;
        ferry.wait_until_caught_up(&pair.to).await;
        let app = testbed::connect(&pair.source.uri_for("app", "s3cret")).await.unwrap();
        let refused = app.database("shop").run_command(doc! {"insert": "codes", "documents": [{}]}).await;
        assert!(refused.is_err() || refused.unwrap().contains_key("writeErrors"), "users may write to the old source");
        testbed::end(app).await;
        let followed = pair.from.database("shop").collection::<Document>("codes").find_one(doc! {"_id": "new"}).await.unwrap();
        assert!(followed.is_some(), "the old source does not follow");

        let no = ferry.verb(&["abort", "--yes", "--drop-target-namespaces"]).await.expect(1, "the former source is not dropped");
        assert!(no.stdout.contains("former source"), "{no:?}");
        ferry.kill_9();
        // By the options of `run`, as they were.
        let (source, target) = (pair.source.uri_for("ferry", "s3cret"), pair.target.uri_for("ferry", "s3cret"));
        told(&["abort", "--yes", "--source", &source, "--target", &target]).await.expect(0, "abort of a way back");
        assert!(!pair.from.list_database_names().await.unwrap().contains(&METADATA.to_owned()));
        run(&pair.to, "shop", doc! {"insert": "codes", "documents": [{"_id": "newer", "code": "newer"}]}).await;
        pair.end().await;
    }
}
