//! A migration steered while it runs: by mongosync's API alone, by rates, by the throttle, and by both kinds of pause.

mod real {
    use crate::{
        control::Keys,
        support::{DEADLINE, Ferry, Pair, contents, run, slow_down, speed_up, told},
    };
    use bson::{Document, doc};
    use serde_json::{Value, json};
    use std::{fs, sync::Arc, time::Duration};
    use testbed::{DataSet, Options, fill};
    use tokio::time::{Instant, sleep};
    use ureq::tls::{Certificate, RootCerts, TlsConfig};

    /// mongosync's API over HTTPS with a token, as a runbook uses it.
    struct Api {
        agent: ureq::Agent,
        url: String,
        token: String,
    }

    impl Api {
        fn of(ferry: &Ferry, keys: &Keys) -> Self {
            let ca = Certificate::from_pem(&fs::read(keys.path("ca.pem")).unwrap()).unwrap();
            let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![ca]))).build();
            let config = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None);
            let agent = config.timeout_global(Some(DEADLINE)).build().into();
            let token = fs::read_to_string(keys.path("token")).unwrap();
            Self { agent, url: format!("https://{}/api/v1", ferry.address()), token: format!("Bearer {}", token.trim()) }
        }

        /// The answer; `None` while nobody answers.
        async fn ask(&self, verb: &'static str, body: Option<Value>) -> Option<Value> {
            let (agent, url, token) = (self.agent.clone(), format!("{}/{verb}", self.url), self.token.clone());
            let asked = move || {
                let sent = match body {
                    None => agent.get(url).header("authorization", token).call(),
                    // As `curl --data` sends it.
                    Some(body) => {
                        let form = "application/x-www-form-urlencoded";
                        agent.post(url).header("authorization", token).content_type(form).send(body.to_string())
                    }
                };
                sent.ok()?.body_mut().read_json::<Value>().ok()
            };
            tokio::task::spawn_blocking(asked).await.expect("asking does not panic")
        }

        async fn expect(&self, verb: &'static str, body: Value, success: bool) -> Value {
            let said = self.ask(verb, Some(body)).await.unwrap_or_else(|| panic!("nobody answers to {verb}"));
            assert_eq!(said["success"], success, "{verb}: {said:#}");
            said
        }

        async fn wait_for(&self, ferry: &Ferry, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
            let deadline = Instant::now() + DEADLINE;
            loop {
                let said = self.ask("progress", None).await.unwrap_or_default();
                if wanted(&said["progress"]) {
                    return said["progress"].clone();
                }
                assert!(Instant::now() < deadline, "waited in vain for {what}; last seen: {said:#}\n{}", ferry.log());
                sleep(Duration::from_millis(25)).await;
            }
        }
    }

    /// A runbook made for mongosync, with nothing but HTTP; the verbs of our own go the same way.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_whole_migration_by_mongosyncs_api() {
        let (pair, keys) = (Pair::start().await, Keys::make());
        fill(&pair.from, DataSet { documents: 4_000, ..DataSet::default() }).await.unwrap();
        let before = contents(&pair.to).await;
        let (token, certificate, key) = (keys.text("token"), keys.text("endpoint.pem"), keys.text("endpoint.key"));
        // Held at a low rate, so that it is still copying when it is paused.
        let protected = ["--token-file", &token, "--tls-certificate", &certificate, "--tls-key", &key];
        let mut ferry = pair.ferry(&[&protected[..], &["--hold", "--copy-rate", "50kB/s"]].concat());
        let api = Api::of(&ferry, &keys);

        let idle = api.wait_for(&ferry, "IDLE", |p| p["state"] == "IDLE").await;
        assert_eq!((&idle["canCommit"], &idle["canWrite"], &idle["collectionCopy"]), (&false.into(), &false.into(), &Value::Null));
        assert_eq!(contents(&pair.to).await, before, "nothing is written before the start");
        api.expect("pause", json!({}), false).await;
        api.expect("commit", json!({}), false).await;
        let unlike = api.expect("start", json!({"source": "cluster0", "destination": "cluster1", "sharding": {}}), false).await;
        assert_eq!(unlike["error"], "InvalidOption");
        let start = json!({"source": "cluster0", "destination": "cluster1", "reversible": false, "enableUserWriteBlocking": "sourceAndDestination",
            "verification": {"enabled": false}});
        api.expect("start", start.clone(), true).await;

        let running = api.wait_for(&ferry, "the copy", |p| p["state"] == "RUNNING" && p["info"] == "collection copy").await;
        assert_eq!(running["canCommit"], false, "{running:#}");
        api.expect("start", start, false).await;
        api.wait_for(&ferry, "a size", |p| p["collectionCopy"]["estimatedTotalBytes"].as_u64() > Some(0)).await;
        api.expect("pause", json!({}), true).await;
        api.wait_for(&ferry, "PAUSED", |p| p["state"] == "PAUSED").await;
        api.expect("pause", json!({}), false).await;
        // What has begun is not held again, and a pause outlives the process.
        ferry.kill_9();
        ferry.restart();
        api.wait_for(&ferry, "PAUSED after a crash", |p| p["state"] == "PAUSED").await;
        let paused = api.wait_for(&ferry, "no verification", |p| p.get("verification").is_none()).await;
        assert_eq!(paused["state"], "PAUSED", "what the start said is remembered: {paused:#}");
        api.expect("resume", json!({}), true).await;
        api.wait_for(&ferry, "RUNNING", |p| p["state"] == "RUNNING").await;
        api.expect("resume", json!({}), false).await;

        let (endpoint, ca) = (format!("https://{}", ferry.address()), keys.text("ca.pem"));
        let by_cli = ["--endpoint", &endpoint, "--endpoint-ca", &ca, "--token-file", &token];
        told(&[&["set", "copy-rate=unlimited"], &by_cli[..]].concat()).await.expect(0, "set");
        let status = told(&[&["status", "--output", "json"], &by_cli[..]].concat()).await.expect(0, "status").json();
        assert_eq!(status["settings"]["copy-rate"], "unlimited");
        told(&["status", "--endpoint", &endpoint, "--endpoint-ca", &ca]).await.expect(2, "no token");

        let ready = api.wait_for(&ferry, "canCommit", |p| p["canCommit"] == true).await;
        assert_eq!((&ready["info"], &ready["canWrite"]), (&"change event application".into(), &false.into()), "{ready:#}");
        let source = ready["directionMapping"]["Source"].as_str().unwrap();
        assert_eq!(source, format!("cluster0: {}", pair.source.addresses()[0]));
        assert!(ready["collectionCopy"]["estimatedCopiedBytes"].as_u64() > Some(0), "{ready:#}");
        assert_eq!(api.expect("reverse", json!({}), false).await["error"], "InvalidState");
        commit(&api, &ferry).await;
        let done = api.wait_for(&ferry, "COMMITTED", |p| p["state"] == "COMMITTED").await;
        assert_eq!((&done["canWrite"], &done["info"], &done["lagTimeSeconds"]), (&true.into(), &"commit completed".into(), &0.into()));
        // Like mongosync, it stays to be asked.
        api.expect("commit", json!({}), false).await;
        // There and back again.
        api.expect("reverse", json!({}), true).await;
        let back = api.wait_for(&ferry, "canCommit on the way back", |p| p["canCommit"] == true).await;
        let source = back["directionMapping"]["Source"].as_str().unwrap();
        assert_eq!(source, format!("cluster1: {}", pair.target.addresses()[0]), "{back:#}");
        run(&pair.to, "shop", doc! {"insert": "late", "documents": [{"_id": 1}]}).await;
        commit(&api, &ferry).await;
        api.wait_for(&ferry, "COMMITTED on the way back", |p| p["state"] == "COMMITTED").await;
        ferry.signal("TERM");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        pair.assert_equal().await;
        pair.end().await;
    }

    /// Gates move on a busy machine: what is not ready yet is asked again.
    async fn commit(api: &Api, ferry: &Ferry) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            api.wait_for(ferry, "canCommit", |p| p["canCommit"] == true).await;
            let said = api.ask("commit", Some(json!({}))).await.expect("it answers");
            if said["success"] == true {
                return;
            }
            let why = said["errorDescription"].as_str().unwrap_or_default();
            let again = why.contains("not ready") || why.contains("is not possible while");
            assert!(again && Instant::now() < deadline, "{said:#}\n{}", ferry.log());
        }
    }

    fn slowed_by(status: &Value, reason: &str) -> bool {
        status["throttle"]["reasons"].as_array().is_some_and(|all| all.iter().any(|slowed| slowed["reason"] == reason))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rates_and_throttles_hold_the_copy_and_let_it_go() {
        let pair = Pair::start().await;
        fill(&pair.from, DataSet { documents: 20_000, ..DataSet::default() }).await.unwrap();
        let mut ferry = pair.ferry(&["--copy-rate", "50kB/s"]);

        let status = ferry.wait_for("the rate to be felt", |s| slowed_by(s, "copy_rate")).await;
        assert_eq!((&status["settings"]["copy-rate"], &status["phase"]), (&"50kB/s".into(), &"copying".into()));
        assert!(ferry.metrics().await.contains("mongoferry_throttled{reason=\"copy_rate\"} 1"));
        ferry.verb(&["set", "copy-rate=fast"]).await.expect(2, "no rate");
        ferry.verb(&["set", "log-level=debug", "copy-rats=1MB/s"]).await.expect(2, "no setting");
        let settings = ferry.verb(&["set", "--output", "json"]).await.expect(0, "shown").json();
        assert_eq!((&settings["log-level"], &settings["copy-rate"]), (&"default".into(), &"50kB/s".into()), "all or none");
        ferry.verb(&["set", "copy-rate=40kB/s", "log-level=debug"]).await.expect(0, "set");
        ferry.wait_for("the setting", |s| s["settings"]["log-level"] == "debug").await;

        // What was set is there again after a crash, but for the level of the log.
        ferry.kill_9();
        ferry.restart();
        let status = ferry.wait_for("the rate to be felt again", |s| slowed_by(s, "copy_rate")).await;
        assert_eq!((&status["settings"]["copy-rate"], &status["settings"]["log-level"]), (&"40kB/s".into(), &"default".into()));

        // A target that answers late: the copy yields.
        slow_down(&pair.to, &["ping"], Duration::from_secs(2)).await;
        let status = ferry.wait_for("the strain to be noticed", |s| slowed_by(s, "target_latency")).await;
        assert!(status["throttle"]["copy_share"].as_f64() < Some(1.0), "{status:#}");
        assert_eq!(status["throttle"]["tail_share"], 1.0, "the copy yields first");
        ferry.verb(&["set", "adaptive-throttle=off"]).await.expect(0, "off");
        ferry.wait_for("it not to matter", |s| !slowed_by(s, "target_latency") && s["throttle"]["copy_share"] == 1.0).await;
        speed_up(&pair.to).await;

        // An operator's word holds the copy, whatever the rate is; the tail goes on.
        ferry.verb(&["throttle", "backup at night"]).await.expect(0, "throttle");
        ferry.verb(&["set", "copy-rate=unlimited"]).await.expect(0, "set");
        let held = ferry.wait_for("the word", |s| slowed_by(s, "operator") && !slowed_by(s, "copy_rate")).await;
        assert!(held["throttle"]["reasons"][0]["detail"].as_str().unwrap().contains("backup at night"), "{held:#}");
        run(&pair.from, "notes", doc! {"insert": "words", "documents": [{"_id": 1}]}).await;
        let held = ferry.wait_until_caught_up(&pair.from).await;
        assert_eq!(held["phase"], "copying", "the copy stands still: {held:#}");
        let words = pair.to.database("notes").collection::<Document>("words");
        assert!(words.find_one(doc! {"_id": 1}).await.unwrap().is_some(), "the tail goes on");
        ferry.verb(&["unthrottle"]).await.expect(0, "unthrottle");
        ferry.verb(&["unthrottle"]).await.expect(1, "nobody holds it any more");
        let free = ferry.wait_for_phase("tailing").await;
        assert_eq!(free["throttle"]["reasons"], json!([]), "{free:#}");

        ferry.verb(&["set", "tail-rate=20ops/s"]).await.expect(0, "set");
        let many: Vec<_> = (0..2_000).map(|n| doc! {"_id": n}).collect();
        run(&pair.from, "notes", doc! {"insert": "many", "documents": many}).await;
        ferry.wait_for("the tail's rate to be felt", |s| slowed_by(s, "tail_rate")).await;
        ferry.verb(&["set", "tail-rate=unlimited"]).await.expect(0, "set");
        ferry.wait_until_caught_up(&pair.from).await;
        ferry.verb(&["set", "verification=off", "reason=the source is backed up"]).await.expect(0, "set");
        let off = ferry.wait_for("no verification", |s| s["verification"]["state"] == "off").await;
        assert_eq!(off["settings"]["reason"], "the source is backed up");
        assert!(ferry.metrics().await.contains("mongoferry_setting_on{setting=\"verification\"} 0"));
        assert!(ferry.verb(&["status"]).await.stdout.contains("as set: the source is backed up"));
        ferry.verb(&["set", "verification=on", "copy-rate=5MB/s,100ops/s"]).await.expect(0, "set");
        let on = ferry.wait_for("everything to be verified", |s| s["verification"]["state"] == "verified").await;
        assert_eq!(on["settings"]["reason"], Value::Null, "the reason was for another change");
        let metrics = ferry.metrics().await;
        for line in [
            "setting_on{setting=\"verification\"} 1",
            "rate_limit_bytes{work=\"copy\"} 5000000",
            "rate_limit_operations{work=\"copy\"} 100",
        ] {
            assert!(metrics.contains(&format!("mongoferry_{line}")), "{line} is not in\n{metrics}");
        }
        let log = ferry.log();
        assert!(log.contains("the source is backed up"), "{log}");
        for line in
            ["throttled reason=\"copy_rate\"", "throttled reason=\"operator\"", "throttled reason=\"target_latency\"", "settings changed"]
        {
            assert!(log.contains(line), "{line} is not in the log:\n{log}");
        }
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn capped_collections_keep_to_the_rates_and_are_held_too() {
        let pair = Pair::start().await;
        let log = |n: i32| doc! {"insert": "log", "documents": (n..n + 500).map(|n| doc! {"_id": n, "text": "x".repeat(1_000)}).collect::<Vec<_>>()};
        pair.on_source("d", doc! {"create": "log", "capped": true, "size": 1 << 22}).await;
        for n in 0..4 {
            pair.on_source("d", log(500 * n)).await;
        }
        let there = pair.to.database("d").collection::<Document>("log");
        let mut ferry = pair.ferry(&["--copy-rate", "50kB/s"]);
        ferry.wait_for("the rate to be felt", |s| slowed_by(s, "copy_rate") && s["copy"]["documents"].as_u64() > Some(0)).await;
        ferry.verb(&["throttle", "backup at night"]).await.expect(0, "throttle");
        ferry.verb(&["set", "copy-rate=unlimited"]).await.expect(0, "set");
        ferry.wait_for("the word", |s| slowed_by(s, "operator") && !slowed_by(s, "copy_rate")).await;
        sleep(Duration::from_secs(1)).await;
        let held = there.count_documents(doc! {}).await.unwrap();
        assert!((1..2_000).contains(&held), "the copy does not stand still: {held} documents");
        ferry.verb(&["unthrottle"]).await.expect(0, "unthrottle");
        ferry.wait_for_phase("tailing").await;

        // What the tail has to copy goes by the tail's rate.
        ferry.verb(&["set", "tail-rate=100ops/s"]).await.expect(0, "set");
        run(&pair.from, "d", doc! {"cloneCollectionAsCapped": "log", "toCollection": "clone", "size": 1 << 22}).await;
        ferry.wait_for("the tail's rate to be felt", |s| slowed_by(s, "tail_rate")).await;
        ferry.verb(&["set", "tail-rate=unlimited"]).await.expect(0, "set");
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_secondary_that_falls_behind_slows_the_copy_until_it_is_back() {
        let pair = Pair::with(Options::default(), Options { nodes: 3, ..Options::default() }).await;
        fill(&pair.from, DataSet { documents: 6_000, ..DataSet::default() }).await.unwrap();
        let mut ferry = pair.ferry(&["--copy-rate", "20kB/s", "--throttle-lag", "2s", "--throttle-latency", "60s"]);
        ferry.wait_for("the copy", |s| slowed_by(s, "copy_rate")).await;
        let secondary = (pair.target.primary().await.unwrap() + 1) % 3;
        // It goes on answering, and applies nothing any more; the other one is enough for a majority.
        let stop = |mode: &str| doc! {"configureFailPoint": "rsSyncApplyStop", "mode": mode};
        pair.target.admin(secondary, stop("alwaysOn")).await.unwrap();
        let status = ferry.wait_for("the lag to be noticed", |s| slowed_by(s, "target_lag")).await;
        assert!(status["throttle"]["copy_share"].as_f64() < Some(1.0), "{status:#}");
        assert!(ferry.metrics().await.contains("mongoferry_throttled{reason=\"target_lag\"} 1"));
        pair.target.admin(secondary, stop("off")).await.unwrap();
        ferry.wait_for("full speed", |s| !slowed_by(s, "target_lag") && s["throttle"]["copy_share"] == 1.0).await;
        ferry.verb(&["abort", "--yes"]).await.expect(0, "abort");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pause_drains_or_drops_what_was_read() {
        let pair = Pair::start().await;
        fill(&pair.from, DataSet { documents: 500, ..DataSet::default() }).await.unwrap();
        let mut ferry = pair.ferry(&["--lanes", "1", "--throttle-latency", "60s"]);
        ferry.wait_for_phase("tailing").await;
        let notes = pair.to.database("notes").collection::<Document>("many");
        let many = |from: i32| doc! {"insert": "many", "documents": (from..from + 20_000).map(|n| doc! {"_id": n}).collect::<Vec<_>>()};

        slow_down(&pair.to, &["insert"], Duration::from_secs(2)).await;
        run(&pair.from, "notes", many(0)).await;
        ferry.wait_for("events in flight", |s| s["in_flight"]["bytes"].as_u64() > Some(1 << 20)).await;
        ferry.verb(&["pause", "--immediate"]).await.expect(0, "pause at once");
        let paused = ferry.status().await;
        assert_eq!(paused["activity"], "paused", "{paused:#}");
        let there = notes.count_documents(doc! {}).await.unwrap();
        assert!(there < 20_000, "what was not begun is left: {there}");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(notes.count_documents(doc! {}).await.unwrap(), there, "nothing is written any more");

        speed_up(&pair.to).await;
        ferry.verb(&["resume"]).await.expect(0, "resume");
        ferry.wait_until_caught_up(&pair.from).await;
        assert_eq!(notes.count_documents(doc! {}).await.unwrap(), 20_000);

        slow_down(&pair.to, &["insert"], Duration::from_secs(1)).await;
        run(&pair.from, "notes", many(20_000)).await;
        ferry.wait_for("events in flight", |s| s["in_flight"]["bytes"].as_u64() > Some(1 << 20)).await;
        ferry.verb(&["pause"]).await.expect(0, "pause");
        let paused = ferry.wait_for("a look at the memory", |s| s["in_flight"]["bytes"] == 0).await;
        assert_eq!(paused["activity"], "paused", "{paused:#}");
        assert!(notes.count_documents(doc! {}).await.unwrap() > 20_000, "what was in flight is there");
        speed_up(&pair.to).await;
        ferry.verb(&["resume"]).await.expect(0, "resume");
        ferry.cutover_and_end().await;
        pair.assert_equal().await;
        pair.end().await;
    }
}
