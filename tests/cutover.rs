//! A cutover cannot go wrong: whatever step fails, is repeated or is cut short by `kill -9`, it is completed or undone.

mod real {
    use crate::support::{DEADLINE, Ferry, METADATA, Pair, full, run, slow_down, speed_up, told};
    use bson::{Document, doc};
    use std::time::Duration;
    use testbed::{Catch, DataSet, Load, LoadOptions, Options, Trap, fill};
    use tokio::time::timeout;

    /// Every step, in order.
    const STEPS: [&str; 7] = ["begin", "fence", "drain", "recheck", "seal", "confirm", "commit"];
    /// The server's own words in messages. A string is followed by its length; an `i32` or a boolean by its value.
    const RECORD: &[u8] = b"update\0\x0a\0\0\0migration\0";
    const BLOCK: &[&[u8]] = &[b"setUserWriteBlockMode\0", b"global\0\x01"];
    const NOTE: &[&[u8]] = &[b"appendOplogNote\0", b"cutover "];
    const AHEAD: &[&[u8]] = &[b"appendOplogNote\0", b"ahead of the fence "];
    const PREPARE: &[&[u8]] = &[b"collMod\0", b"prepareUnique\0\x01"];
    const CONVERT: &[&[u8]] = &[b"collMod\0", b"unique\0\x01"];
    const COMMITTED: &[&[u8]] = &[RECORD, b"committed\0"];

    /// A migration that can be stopped at any message.
    struct Scene {
        pair: Pair,
        source: Trap,
        target: Trap,
        ferry: Ferry,
        writes: i64,
    }

    /// The words by which a step is saved before it is taken.
    fn saving(step: &str) -> Vec<u8> {
        [b"step\0".as_slice(), &u32::try_from(step.len() + 1).unwrap().to_le_bytes(), step.as_bytes(), b"\0"].concat()
    }

    impl Scene {
        async fn set() -> Self {
            let pair = Pair::start().await;
            fill(&pair.from, DataSet { documents: 400, ..DataSet::default() }).await.unwrap();
            let many: Vec<_> = (0..100).map(|n| doc! {"_id": n, "code": n, "at": bson::DateTime::now()}).collect();
            pair.on_source("shop", doc! {"insert": "codes", "documents": many}).await;
            let indexes = vec![
                doc! {"key": {"code": 1}, "name": "by code", "unique": true},
                doc! {"key": {"at": 1}, "name": "by age", "expireAfterSeconds": 1_000_000},
            ];
            pair.on_source("shop", doc! {"createIndexes": "codes", "indexes": indexes}).await;
            let source = Trap::start(pair.source.addresses().remove(0)).await.unwrap();
            let target = Trap::start(pair.target.addresses().remove(0)).await.unwrap();
            let ferry = Ferry::start(&pair.source.uri_at(source.addr()), &pair.target.uri_at(target.addr()), &[]);
            let mut scene = Self { pair, source, target, ferry, writes: 0 };
            scene.ferry.wait_until_ready().await;
            scene
        }

        /// As if there had been no cutover: the source takes writes, the tail brings them, the target is parked.
        async fn assert_untouched(&mut self, what: &str) {
            self.ferry.wait_for_phase("tailing").await;
            self.writes += 1;
            let reply = self.pair.from.database("shop").run_command(doc! {"insert": "notes", "documents": [{"_id": self.writes}]}).await;
            assert!(reply.is_ok_and(|r| !r.contains_key("writeErrors")), "{what}: the source is not given back\n{}", self.ferry.log());
            self.ferry.wait_until_caught_up(&self.pair.from).await;
            let notes = self.pair.to.database("shop").collection::<Document>("notes");
            assert!(notes.find_one(doc! {"_id": self.writes}).await.unwrap().is_some(), "{what}: the tail does not go on");
            let listed = run(&self.pair.to, "shop", doc! {"listIndexes": "codes"}).await.to_string();
            for option in ["unique", "Unique", "expireAfterSeconds"] {
                assert!(!listed.contains(option), "{what}: not parked: {listed}");
            }
            let record = self.pair.record().await.unwrap();
            assert!(!record.get_bool("fenced").unwrap(), "{what}: {record}");
            assert_eq!(record.get_document("phase").unwrap().get_str("phase").unwrap(), "tailing", "{what}");
        }

        fn release(&self) {
            self.source.release();
            self.target.release();
        }

        /// Kills the process while that message is on its way, and starts it again.
        async fn crash_at(&mut self, (on_source, words, catch): (bool, Vec<Vec<u8>>, Catch)) {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let trap = if on_source { &self.source } else { &self.target };
            trap.set(&words, catch);
            self.ferry.wait_until_ready().await;
            let pid = self.ferry.pid().to_string();
            let killed = async {
                timeout(DEADLINE, trap.caught()).await.expect("the message comes");
                assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            };
            tokio::join!(self.ferry.verb(&["cutover", "--yes"]), killed);
            // What is on its way when its sender dies may come late: behind the next process.
            trap.forget();
            let late = !on_source && catch == Catch::Request;
            if !late {
                self.release();
            }
            self.ferry.restart();
            if late {
                self.ferry.wait_for_phase("tailing").await;
                self.target.let_go();
            }
        }

        async fn end(self) {
            drop((self.ferry, self.source, self.target));
            self.pair.end().await;
        }
    }

    fn owned(words: &[&[u8]]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.to_vec()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crash_at_any_step_is_undone_or_completed() {
        let mut scene = Scene::set().await;
        // Saved, and not begun; for the long form also: not even saved.
        let noted = |step: &'static str, catch| (step.to_owned(), (false, vec![RECORD.to_vec(), saving(step)], catch));
        let mut moments: Vec<_> = STEPS.into_iter().map(|step| noted(step, Catch::Answer)).collect();
        moments.push(("fenced".into(), (true, owned(BLOCK), Catch::Answer)));
        moments.push(("half sealed".into(), (false, owned(PREPARE), Catch::Answer)));
        moments.push(("almost committed".into(), (false, owned(COMMITTED), Catch::Request)));
        if full("CUTOVER") {
            moments.extend(STEPS.into_iter().map(|step| noted(step, Catch::Request)));
            moments.push(("about to be fenced".into(), (true, owned(BLOCK), Catch::Request)));
            moments.push(("drained".into(), (true, owned(NOTE), Catch::Answer)));
            moments.push(("sealed".into(), (false, owned(CONVERT), Catch::Answer)));
        }
        for (what, moment) in moments {
            scene.crash_at(moment).await;
            scene.assert_untouched(&what).await;
        }
        // Saved: nothing is left to do for the next process but to say so.
        scene.crash_at((false, owned(COMMITTED), Catch::Answer)).await;
        assert_eq!(scene.ferry.wait_exit().await, 0, "{}", scene.ferry.log());
        scene.pair.assert_equal().await;
        let fenced = scene.pair.from.database("shop").run_command(doc! {"insert": "notes", "documents": [{}]}).await;
        assert!(fenced.is_err() || fenced.unwrap().contains_key("writeErrors"), "the source takes writes behind the commit");
        scene.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn any_failing_step_gives_the_source_back_and_any_step_may_run_twice() {
        let mut scene = Scene::set().await;
        // BadValue: what is not repeated.
        let failures = STEPS.into_iter().map(|step| (step, false, vec![RECORD.to_vec(), saving(step)]));
        let failures: Vec<_> = failures
            .chain([
                ("begin", true, owned(AHEAD)),
                ("fence", true, owned(BLOCK)),
                ("drain", true, owned(NOTE)),
                ("seal", false, owned(CONVERT)),
                ("commit", false, owned(COMMITTED)),
            ])
            .collect();
        for (step, on_source, words) in failures {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            if on_source { &scene.source } else { &scene.target }.set(&words, Catch::Refuse(2));
            let undone = scene.ferry.cutover(&[]).await.expect(1, step);
            scene.release();
            assert!(undone.stdout.contains(&format!("{step} failed")), "{step}: {}", undone.stdout);
            scene.assert_untouched(step).await;
        }

        // The stream falls silent behind the fence.
        scene.source.set(BLOCK, Catch::Answer);
        scene.ferry.wait_until_ready().await;
        let silence = async {
            timeout(DEADLINE, scene.source.caught()).await.expect("the fence comes");
            slow_down(&scene.pair.from, &["getMore"], Duration::from_secs(10)).await;
            scene.source.release();
        };
        let (late, ()) = tokio::join!(scene.ferry.verb(&["cutover", "--yes", "--timeout", "6s"]), silence);
        speed_up(&scene.pair.from).await;
        assert!(late.code == 1 && late.stdout.contains("drain failed"), "{late:?}");
        scene.assert_untouched("late").await;

        // Every command is carried out, and its answer lost: so it is carried out again.
        for step in STEPS {
            scene.target.set(&[RECORD, &saving(step)], Catch::Lose);
        }
        for words in [PREPARE, CONVERT, COMMITTED, &[b"listIndexes\0"]] {
            scene.target.set(words, Catch::Lose);
        }
        for words in [AHEAD, BLOCK, NOTE, &[b"listIndexes\0"]] {
            scene.source.set(words, Catch::Lose);
        }
        let told = scene.ferry.cutover(&["--output", "json"]).await.expect(0, "a cutover whose commands are all repeated").json();
        assert_eq!((scene.source.waiting(), scene.target.waiting()), (0, 0), "some answers were not lost");
        let steps: Vec<_> = told["details"]["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
        assert_eq!(steps, STEPS);
        assert!(told["details"]["steps"].as_array().unwrap().iter().all(|s| s["seconds"].is_f64()), "{told:#}");
        assert!(told["details"]["writes_blocked_seconds"].is_f64(), "{told:#}");
        assert_eq!(scene.ferry.wait_exit().await, 0, "{}", scene.ferry.log());
        scene.pair.assert_equal().await;
        scene.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rehearsal_tells_every_gate_and_every_step_and_changes_nothing() {
        let mut scene = Scene::set().await;
        let before = scene.pair.record().await.unwrap();
        let told = scene.ferry.verb(&["cutover", "--dry-run", "--output", "json"]).await.expect(0, "rehearsal").json();
        let names = |list: &str, key: &str| -> Vec<String> {
            told["details"][list].as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("gates", "name"), ["tailing", "lag", "consistent", "copied", "indexes", "headroom", "parity", "fence"]);
        assert_eq!(names("steps", "step"), STEPS);
        assert!(names("steps", "does").iter().any(|does| does.contains("indexes unique")), "{told:#}");
        let told = scene.ferry.verb(&["cutover", "--dry-run"]).await.expect(0, "rehearsal in words").stdout;
        assert!(
            told.contains("every gate is open") && told.contains("steps that a cutover would take") && told.contains("blocks writes"),
            "{told}"
        );
        assert_eq!(scene.pair.record().await.unwrap().get("phase"), before.get("phase"));
        scene.assert_untouched("a rehearsal").await;
        scene.ferry.verb(&["pause"]).await.expect(0, "pause");
        let told = scene.ferry.verb(&["cutover", "--dry-run"]).await.expect(1, "rehearsal while paused").stdout;
        assert!(told.contains("SHUT") && told.contains("not running"), "{told}");
        scene.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_abort_without_a_process_gives_the_source_back_and_drops_only_what_is_named() {
        let mut scene = Scene::set().await;
        let uris = [scene.pair.source.uri(), scene.pair.target.uri()];
        let abort = ["abort", "--yes", "--source", &uris[0], "--target", &uris[1]];
        // Somebody is at work.
        told(&abort).await.expect(4, "an abort behind the back of a process");
        // A crash with the fence up, and nobody to start it again.
        scene.target.set(&[RECORD, &saving("seal")], Catch::Answer);
        let pid = scene.ferry.pid().to_string();
        tokio::join!(scene.ferry.verb(&["cutover", "--yes"]), async {
            timeout(DEADLINE, scene.target.caught()).await.expect("the message comes");
            assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        });
        scene.release();
        let insert = doc! {"insert": "notes", "documents": [{}]};
        let blocked = scene.pair.from.database("shop").run_command(insert.clone()).await;
        assert!(blocked.is_err() || blocked.unwrap().contains_key("writeErrors"), "the crash came before the fence");
        scene.pair.on_target("shop", doc! {"create": "mine"}).await;
        told(&[&abort[..], &["--drop-target-namespaces"]].concat()).await.expect(0, "abort");
        scene.pair.on_source("shop", insert).await;
        let names = scene.pair.to.database("shop").list_collection_names().await.unwrap();
        assert_eq!(names, ["mine"], "what was copied goes, what is somebody else's stays");
        assert!(!scene.pair.to.list_database_names().await.unwrap().contains(&METADATA.to_owned()));
        told(&abort).await.expect(1, "there is nothing left to give up");
        scene.ferry.restart();
        // Not ready: there is more on the target than on the source.
        scene.ferry.wait_for_phase("tailing").await;
        let dropped = scene.ferry.verb(&["abort", "--yes", "--drop-target-namespaces"]).await.expect(0, "abort by the process");
        assert!(dropped.stdout.contains("namespaces of the target"), "{dropped:?}");
        assert_eq!(scene.ferry.wait_exit().await, 0, "{}", scene.ferry.log());
        assert_eq!(scene.pair.to.database("shop").list_collection_names().await.unwrap(), ["mine"]);
        scene.end().await;
    }

    /// A command of somebody whom the fence lets through. Without access control everybody is, who says so.
    async fn sneak(pair: &Pair, mut command: Document) {
        command.insert("mayBypassWriteBlocking", true);
        run(&pair.from, "shop", command).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_that_the_fence_lets_through_is_drained_or_undoes_the_cutover() {
        let mut scene = Scene::set().await;
        // Behind the challenge: before the seal, and when the target is sealed already.
        for (n, step) in [(1, "seal"), (2, "confirm")] {
            scene.target.set(&[RECORD, &saving(step)], Catch::Answer);
            scene.ferry.wait_until_ready().await;
            let sneaking = async {
                timeout(DEADLINE, scene.target.caught()).await.expect("the message comes");
                sneak(&scene.pair, doc! {"insert": "sneaky", "documents": [{"_id": n}]}).await;
                scene.target.let_go();
            };
            let (told, ()) = tokio::join!(scene.ferry.verb(&["cutover", "--yes"]), sneaking);
            assert!(told.code == 1 && told.stdout.contains("behind the fence"), "{step}: {told:?}\n{}", scene.ferry.log());
            scene.assert_untouched(step).await;
        }
        // Before the challenge it is drained like everything else.
        scene.source.set(BLOCK, Catch::Answer);
        scene.ferry.wait_until_ready().await;
        let sneaking = async {
            timeout(DEADLINE, scene.source.caught()).await.expect("the message comes");
            sneak(&scene.pair, doc! {"insert": "sneaky", "documents": [{"_id": 3}]}).await;
            scene.source.let_go();
        };
        let (told, ()) = tokio::join!(scene.ferry.verb(&["cutover", "--yes"]), sneaking);
        told.expect(0, "a cutover with a write before its challenge");
        assert_eq!(scene.ferry.wait_exit().await, 0, "{}", scene.ferry.log());
        scene.pair.assert_equal().await;
        scene.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crash_while_it_turns_round_or_leads_back_costs_nothing() {
        let mut scene = Scene::set().await;
        let insert: &[u8] = b"insert\0\x0a\0\0\0migration\0";
        // Turning round: the record of the way back is not there yet, and then it is.
        let mut turning = Some(["cutover", "--yes", "--then-reverse"]);
        for catch in [Catch::Request, Catch::Answer] {
            scene.source.set(&[insert], catch);
            if let Some(order) = turning.take() {
                scene.ferry.verb(&order).await.expect(0, "cutover --then-reverse");
            } else {
                scene.ferry.restart();
            }
            timeout(DEADLINE, scene.source.caught()).await.expect("the message comes");
            scene.ferry.kill_9();
            scene.release();
            run(&scene.pair.to, "shop", doc! {"insert": "notes", "documents": [{"at": format!("{catch:?}")}]}).await;
        }
        scene.ferry.restart();
        let ready = |s: &serde_json::Value| s["direction"]["way"] == "reverse" && s["can_cut_over"] == true;
        scene.ferry.wait_for("the way back", ready).await;
        run(&scene.pair.to, "shop", doc! {"insert": "codes", "documents": [{"_id": "new", "code": "new"}]}).await;

        // Led back, but not open yet when the process dies.
        scene.source.set(COMMITTED, Catch::Answer);
        scene.ferry.wait_for("the way back", ready).await;
        let pid = scene.ferry.pid().to_string();
        tokio::join!(scene.ferry.verb(&["cutover", "--yes"]), async {
            timeout(DEADLINE, scene.source.caught()).await.expect("the message comes");
            assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        });
        scene.release();
        scene.ferry.restart();
        assert_eq!(scene.ferry.wait_exit().await, 0, "{}", scene.ferry.log());
        scene.pair.assert_equal().await;
        run(&scene.pair.from, "shop", doc! {"insert": "notes", "documents": [{"_id": "back"}]}).await;
        let blocked = scene.pair.to.database("shop").run_command(doc! {"insert": "notes", "documents": [{}]}).await;
        assert!(blocked.is_err() || blocked.unwrap().contains_key("writeErrors"), "users may write to both sides");
        scene.end().await;
    }

    /// With `MONGOFERRY_TEST_FULL_CUTOVER=1` a million documents, else few; prints what it took.
    #[tokio::test(flavor = "multi_thread")]
    async fn writes_are_blocked_for_seconds_under_load_with_unique_indexes() {
        let thousands = if full("CUTOVER") { 1_000 } else { 20 };
        let options = || Options { cache_gb: 1.0, oplog_mb: 2_048, ..Options::default() };
        let pair = if full("CUTOVER") { Pair::alone(options(), options()).await } else { Pair::start().await };
        let unique = |name: &str| doc! {"key": {name: 1}, "name": name, "unique": true};
        pair.on_source("shop", doc! {"createIndexes": "accounts", "indexes": [unique("number"), unique("mail")]}).await;
        for thousand in 0..thousands {
            let text = "x".repeat(400);
            let one = |n: i32| doc! {"_id": n, "number": i64::from(n) * 7, "mail": format!("user{n}@example.com"), "text": &text};
            let documents: Vec<_> = (thousand * 1_000..(thousand + 1) * 1_000).map(one).collect();
            pair.on_source("shop", doc! {"insert": "accounts", "documents": documents}).await;
        }
        let mut ferry = pair.ferry(&[]);
        ferry.wait_for_phase("tailing").await;
        let load = Load::start(pair.from.clone(), LoadOptions { ops_per_second: 2_000, ..LoadOptions::default() });
        ferry.wait_for("the load", |s| s["events"]["applied"].as_u64() > Some(4_000)).await;
        let told = ferry.cutover(&["--output", "json"]).await;
        load.stop().await;
        let told = told.expect(0, "a cutover under load").json();
        eprintln!("{thousands} thousand documents: {:#}", told["details"]);
        assert!(told["details"]["writes_blocked_seconds"].as_f64() > Some(0.0), "{told:#}");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        let converted = run(&pair.to, "shop", doc! {"listIndexes": "accounts"}).await.to_string();
        assert_eq!(converted.matches("\"unique\"").count(), 2, "{converted}");
        pair.assert_equal().await;
        pair.end().await;
    }
}
