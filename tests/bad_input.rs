//! What cannot work is told at once: what is wrong, what to do about it, the exit code; and nothing is written.
//!
//! The texts are golden, in `tests/golden/bad_input`, less what differs from run to run.

mod real {
    use crate::support::{METADATA, Pair, Told, contents, free_port, golden, run, told};
    use bson::{Bson, DateTime, doc};
    use mongodb::Client;
    use regex::Regex;
    use testbed::{Options, ReplicaSet, Version, connect, end};

    /// A command line that must be refused.
    struct Refused<'a> {
        /// Of the golden file.
        name: &'a str,
        source: String,
        target: String,
        more: &'a [&'a str],
        code: i32,
    }

    impl Refused<'_> {
        /// Runs it, and fails unless it ends with the exit code, a hint and the agreed text.
        async fn check(&self) -> Told {
            let listen = format!("127.0.0.1:{}", free_port());
            let args = ["run", "--quiet", "--source", &self.source, "--target", &self.target, "--listen", &listen];
            let told = told(&[&args, self.more].concat()).await.expect(self.code, self.name);
            assert!(told.stderr.starts_with("error: ") && told.stderr.contains("\nhint: "), "{}: {}", self.name, told.stderr);
            assert_eq!(told.stdout, "", "{}", self.name);
            golden(&format!("bad_input/{}.txt", self.name), &normalised(&told.stderr));
            told
        }
    }

    /// Without ports, ids, times and names of this machine.
    fn normalised(text: &str) -> String {
        let mut text = text.to_owned();
        for (pattern, name) in [
            (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
            (r"\b[0-9a-f]{16}\b", "ID"),
            (r"\(\d+, \d+\)", "(SECONDS, NUMBER)"),
            (r"process \d+ on \S+", "process PID on HOST"),
            // Of the driver, in any order.
            (r", labels: \{[^}]*\}, source: None, server response: None", ""),
        ] {
            text = Regex::new(pattern).unwrap().replace_all(&text, name).into_owned();
        }
        text
    }

    /// Runs cases one after the other; the target must be as before.
    async fn refused_and_nothing_written(target: &Client, cases: &[Refused<'_>]) {
        let before = contents(target).await;
        for case in cases {
            case.check().await;
            assert_eq!(contents(target).await, before, "{}: the target was written to", case.name);
        }
    }

    async fn with_orders() -> Pair {
        let pair = Pair::start().await;
        for coll in ["orders", "items"] {
            pair.on_source("shop", doc! {"insert": coll, "documents": [{"_id": 1}, {"_id": 2}]}).await;
        }
        pair
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_work_is_refused_before_anything_is_written() {
        let pair = with_orders().await;
        let (source, target) = (pair.source.uri(), pair.target.uri());
        pair.on_target("other", doc! {"insert": "kept", "documents": [{"_id": 1}]}).await;
        let bad = |name, more, code| Refused { name, source: source.clone(), target: target.clone(), more, code };
        let nowhere = format!("mongodb://127.0.0.1:{}/?replicaSet=source", free_port());
        let before = contents(&pair.to).await;

        // These wait for somebody to answer, so they wait together.
        let other_name = source.replace("replicaSet=source", "replicaSet=sauce");
        let cases = [
            Refused { source: nowhere.clone(), ..bad("unreachable-source", &[], 3) },
            Refused { target: nowhere, ..bad("unreachable-target", &[], 3) },
            Refused { source: other_name, ..bad("other-set-name", &[], 3) },
        ];
        let [a, b, c] = &cases;
        tokio::join!(a.check(), b.check(), c.check());
        assert_eq!(contents(&pair.to).await, before);

        refused_and_nothing_written(
            &pair.to,
            &[
                Refused { source: format!("{source}&tls=perhaps"), ..bad("uri-option", &[], 2) },
                Refused { source: source.replace("mongodb://", "mongodb:/"), ..bad("uri-scheme", &[], 2) },
                Refused { target: format!("{target}&tls=true&tlsCAFile=/nonexistent/ca.pem"), ..bad("no-ca-file", &[], 2) },
                Refused { target: source.clone(), ..bad("same-cluster", &[], 2) },
                bad("unknown-include", &["--include", "shop.ordres"], 2),
                bad("unknown-exclude", &["--exclude", "shpo"], 2),
                bad("unknown-rename", &["--rename", "shop.itesm=shop.things"], 2),
                bad("clashing-rename", &["--rename", "shop.items=shop.orders"], 2),
            ],
        )
        .await;

        pair.on_source("metrics", doc! {"create": "system.buckets.cpu", "timeseries": {"timeField": "t"}, "clusteredIndex": true}).await;
        refused_and_nothing_written(&pair.to, &[bad("buckets-alone", &[], 4)]).await;
        pair.on_source("metrics", doc! {"dropDatabase": 1}).await;

        pair.on_target("shop", doc! {"insert": "orders", "documents": [{"_id": 9, "precious": true}]}).await;
        pair.on_target("shop", doc! {"create": "items"}).await;
        refused_and_nothing_written(&pair.to, &[bad("target-not-empty", &[], 4)]).await;
        // What is not selected is not in the way.
        pair.ferry(&["--include", "shop.items", "--rename", "shop.items=shop.things"]).wait_for_phase("tailing").await;
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_metadata_of_something_else_is_not_touched() {
        let pair = with_orders().await;
        let (source, target) = (pair.source.uri(), pair.target.uri());
        let bad = |name, more, code| Refused { name, source: source.clone(), target: target.clone(), more, code };
        let mut first = pair.ferry(&[]);
        first.wait_for_phase("tailing").await;

        // Only the heartbeat of the first changes anything.
        bad("leased", &[], 4).check().await;
        let status = first.status().await;
        assert_eq!(status["activity"], "running", "the first goes on: {status:#}");

        // Dead, and of this machine: its successor need not wait.
        first.kill_9();
        first.restart();
        first.wait_until_ready().await;
        first.signal("TERM");
        assert_eq!(first.wait_exit().await, 143);

        let set = async |fields| {
            let update = doc! {"q": {"_id": "migration"}, "u": [{"$set": fields}]};
            pair.on_target(METADATA, doc! {"update": "migration", "updates": [update]}).await;
        };
        let good = pair.record().await.unwrap();
        refused_and_nothing_written(&pair.to, &[bad("other-filters", &["--include", "shop.orders"], 2)]).await;
        set(doc! {"format": 99}).await;
        refused_and_nothing_written(&pair.to, &[bad("newer-format", &[], 2)]).await;
        set(doc! {"format": 1, "phase": "afoot"}).await;
        refused_and_nothing_written(&pair.to, &[bad("not-our-record", &[], 2)]).await;
        set(doc! {"phase": good.get_document("phase").unwrap().clone(), "resume_time": {"t": 1, "i": 1}}).await;
        refused_and_nothing_written(&pair.to, &[bad("oplog-too-short", &[], 5)]).await;
        set(doc! {"resume_time": good.get_document("resume_time").unwrap().clone()}).await;

        let lease = |expires: i64| doc! {"lease.holder": "elsewhere|boot|pid:[1]|7|9", "lease.expires": DateTime::from_millis(expires)};
        let in_a_minute = DateTime::now().timestamp_millis() + 60_000;
        set(lease(in_a_minute)).await;
        refused_and_nothing_written(&pair.to, &[bad("leased-elsewhere", &[], 4)]).await;
        set(lease(1)).await;
        first.restart();
        first.wait_until_ready().await;
        pair.end().await;
    }

    /// The roles in a hint such as `grantRolesToUser("u", ["a", "b"].map(…))`.
    fn roles(hint: &str) -> Vec<Bson> {
        let list =
            Regex::new(r#"grantRolesToUser\("\w+", \[([^\]]*)\]"#).unwrap().captures(hint).expect("a command that grants")[1].to_owned();
        list.split(", ").map(|role| doc! {"role": role.trim_matches('"'), "db": "admin"}.into()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn credentials_and_privileges_are_looked_at_first() {
        let locked = || Options { auth: true, ..Options::default() };
        let pair = Pair::with(locked(), locked()).await;
        pair.on_source("shop", doc! {"insert": "orders", "documents": [{"_id": 1}]}).await;
        let (source, target) = (pair.source.uri(), pair.target.uri());
        let bad = |name, source: &str, target: &str| Refused { name, source: source.into(), target: target.into(), more: &[], code: 4 };
        for set in [&pair.source, &pair.target] {
            set.create_user("some", "word", vec![doc! {"role": "read", "db": "shop"}.into()]).await.unwrap();
        }
        let (from_some, to_some) = (pair.source.uri_for("some", "word"), pair.target.uri_for("some", "word"));
        let cases = [
            bad("wrong-password", &pair.source.uri_for("some", "s3cret"), &target),
            bad("wrong-user", &source, &pair.target.uri_for("nobody", "s3cret")),
            bad("no-user", &source.replace("root:root-password@", "").replace("&authSource=admin", ""), &target),
            bad("too-few-roles-on-source", &from_some, &target),
            bad("too-few-roles-on-target", &source, &to_some),
        ];
        refused_and_nothing_written(&pair.to, &cases).await;

        // What the hint says is all there is to do.
        for (case, set) in [(&cases[3], &pair.from), (&cases[4], &pair.to)] {
            let hint = case.check().await.stderr;
            run(set, "admin", doc! {"grantRolesToUser": "some", "roles": roles(&hint)}).await;
        }
        told(&["check", "--source", &from_some, "--target", &to_some]).await.expect(0, "with the roles that the hint names");
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clusters_that_cannot_take_part_are_told_what_they_lack() {
        let pair = with_orders().await;
        let alone = ReplicaSet::start(Options { standalone: true, ..Options::default() }).await.unwrap();
        let old = ReplicaSet::start(Options { version: Version::V5_0_4, name: "old".into(), ..Options::default() }).await.unwrap();
        let old_client = connect(&old.uri()).await.unwrap();
        run(&old_client, "shop", doc! {"insert": "orders", "documents": [{"_id": 1}]}).await;
        run(&old_client, "shop", doc! {"create": "series", "timeseries": {"timeField": "t"}}).await;
        let bad = |name, source: &ReplicaSet, target: &ReplicaSet| Refused {
            name,
            source: source.uri(),
            target: target.uri(),
            more: &[],
            code: 4,
        };
        refused_and_nothing_written(&pair.to, &[bad("standalone-source", &alone, &pair.target), bad("old-source", &old, &pair.target)])
            .await;
        refused_and_nothing_written(&old_client, &[bad("old-target", &pair.source, &old)]).await;
        bad("standalone-target", &pair.source, &alone).check().await;
        end(old_client).await;
        pair.end().await;
    }
}
