//! Users and custom roles: whoever logged in on the source logs in on the target.

mod real {
    use crate::support::{
        DEADLINE, Ferry, Pair,
        accounts::{access, stored, wait_for_access},
        run, told,
    };
    use bson::{Bson, Document, doc};

    use mongodb::Client;
    use std::time::Duration;
    use testbed::Options;
    use tokio::time::{Instant, sleep};

    fn role(name: &str, db: &str) -> Bson {
        doc! {"role": name, "db": db}.into()
    }

    async fn create_user(on: &Client, db: &str, name: &str, password: &str, roles: Vec<Bson>) {
        run(on, db, doc! {"createUser": name, "pwd": password, "roles": roles}).await;
    }

    fn may(coll: &str, actions: &[&str]) -> Document {
        doc! {"resource": {"db": "shop", "collection": coll}, "actions": actions}
    }

    async fn create_role(on: &Client, name: &str, privileges: Vec<Document>, roles: Vec<Bson>) {
        run(on, "shop", doc! {"createRole": name, "privileges": privileges, "roles": roles}).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn applications_log_in_on_the_target_as_they_did_on_the_source() {
        let locked = || Options { auth: true, ..Options::default() };
        let pair = Pair::with(locked(), locked()).await;
        run(&pair.from, "shop", doc! {"insert": "orders", "documents": [{"_id": 1}]}).await;
        create_role(&pair.from, "reader", vec![may("orders", &["find"])], vec![]).await;
        create_role(&pair.from, "clerk", vec![], vec![role("reader", "shop")]).await;
        create_user(&pair.from, "shop", "joe", "first-canary", vec![role("clerk", "shop")]).await;
        create_user(&pair.from, "shop", "ann", "canary", vec![role("read", "shop")]).await;
        create_user(&pair.to, "shop", "own", "s3cret", vec![role("read", "shop")]).await;
        let admin = |name: &str| role(name, "admin");
        pair.source.create_user("ferry", "s3cret", ["readAnyDatabase", "clusterMonitor", "backup"].map(admin).to_vec()).await.unwrap();
        let roles = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor"].map(admin).to_vec();
        pair.target.create_user("ferry", "other-s3cret", roles).await.unwrap();
        let (source, target) = (pair.source.uri_for("ferry", "s3cret"), pair.target.uri_for("ferry", "other-s3cret"));

        // What is missing is told with the command that grants it; so is whoever is in the way.
        let check = |which: &'static str| {
            let arguments = ["check", "--source", &source, "--target", &target, "--users-and-roles", which].map(String::from);
            async move {
                let told = told(&arguments.each_ref().map(String::as_str)).await;
                (told.code, format!("{}{}", told.stdout, told.stderr))
            }
        };
        let (code, text) = check("all").await;
        assert!(code == 4 && text.contains("find on admin.system.roles") && text.contains("\"restore\""), "{code}: {text}");
        let more = ["restore", "backup"].map(admin).to_vec();
        run(&pair.to, "admin", doc! {"grantRolesToUser": "ferry", "roles": more}).await;
        let (code, text) = check("all").await;
        assert!(code == 4 && text.contains("the user `admin.root`") && text.contains("--users-and-roles new"), "{code}: {text}");
        assert!(!text.contains("ferry`"), "whoever we log in as is left alone: {text}");
        let (code, text) = check("new").await;
        assert!(code == 0 && text.contains("the user `admin.root`"), "{code}: {text}");

        let mut ferry = Ferry::start(&source, &target, &["--users-and-roles", "new"]);
        ferry.wait_until_ready().await;
        wait_for_access(&pair.target.uri_for("joe", "first-canary"), (true, true, false)).await;
        // The clerk held what the reader has; now the reader holds what the clerk has, which may write.
        run(&pair.from, "shop", doc! {"updateRole": "clerk", "privileges": [may("orders", &["find", "update"])], "roles": []}).await;
        run(&pair.from, "shop", doc! {"updateRole": "reader", "privileges": [], "roles": [role("clerk", "shop")]}).await;
        run(&pair.from, "shop", doc! {"updateUser": "joe", "pwd": "second-canary", "roles": [role("reader", "shop")]}).await;
        run(&pair.from, "shop", doc! {"dropUser": "ann"}).await;
        wait_for_access(&pair.target.uri_for("joe", "second-canary"), (true, true, true)).await;
        assert_eq!(access(&pair.target.uri_for("joe", "first-canary")).await, (false, false, false), "the old password is of no use");
        wait_for_access(&pair.target.uri_for("ann", "canary"), (false, false, false)).await;

        // What changes while nobody looks, and just before the cutover.
        ferry.kill_9();
        create_role(&pair.from, "late", vec![may("orders", &["find"])], vec![]).await;
        ferry.restart();
        ferry.wait_until_ready().await;
        ferry.verb(&["verify"]).await.expect(0, "verify");
        create_user(&pair.from, "shop", "eve", "third-canary", vec![role("late", "shop")]).await;
        run(&pair.from, "shop", doc! {"dropRole": "clerk"}).await;
        let told_of_cutover = ferry.cutover(&["--writes-stopped"]).await.expect(0, "cutover");
        assert!(told_of_cutover.stdout.contains("committed"), "{told_of_cutover:?}");
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());

        assert_eq!(access(&pair.target.uri_for("eve", "third-canary")).await, (true, true, false));
        assert_eq!(access(&pair.target.uri_for("joe", "second-canary")).await, access(&pair.source.uri_for("joe", "second-canary")).await);
        assert_eq!(access(&pair.target.uri_for("own", "s3cret")).await, (true, true, false), "the target's own stay");
        run(&pair.to, "shop", doc! {"dropUser": "own"}).await;
        assert_eq!(stored(&pair.to).await, stored(&pair.from).await);
        assert!(!ferry.log().contains("canary") && !ferry.log().contains("s3cret"), "{}", ferry.log());
        pair.assert_equal().await;

        // A comparison by itself sees them too.
        let alone = ["verify", "--source", &source, "--target", &target, "--users-and-roles", "new"];
        told(&alone).await.expect(0, "verify");
        run(&pair.to, "shop", doc! {"updateRole": "late", "privileges": []}).await;
        let differs = told(&alone).await.expect(1, "verify of a role that was changed");
        assert!(differs.stdout.contains("system.roles") && differs.stdout.contains("shop.late"), "{differs:?}");
        pair.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_is_in_the_way_on_the_target_is_named() {
        let pair = Pair::start().await;
        run(&pair.from, "shop", doc! {"insert": "orders", "documents": [{"_id": 1}]}).await;
        create_user(&pair.from, "shop", "joe", "canary", vec![]).await;
        create_user(&pair.to, "shop", "joe", "canary too", vec![]).await;
        let check = ["check", "--source", &pair.source.uri(), "--target", &pair.target.uri(), "--users-and-roles", "all"];
        let refused = told(&check).await.expect(4, "check");
        assert!(format!("{}{}", refused.stdout, refused.stderr).contains("the user `shop.joe`"), "{refused:?}");
        let both = told(&[&check[..], &["--rename", "shop=store"]].concat()).await.expect(2, "users under other names");
        assert!(both.stderr.contains("--users-and-roles") && both.stderr.contains("--rename"), "{both:?}");
        run(&pair.to, "shop", doc! {"dropUser": "joe"}).await;

        let mut ferry = pair.ferry(&["--users-and-roles", "all"]);
        ferry.wait_until_ready().await;
        create_user(&pair.to, "shop", "ann", "canary", vec![]).await;
        create_user(&pair.from, "shop", "ann", "canary", vec![]).await;
        let deadline = Instant::now() + DEADLINE;
        let halted = loop {
            match ferry.look().await {
                Some(status) if status["activity"] == "halted" => break status,
                status => assert!(Instant::now() < deadline, "it does not halt: {status:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert!(halted["reason"].as_str().unwrap().contains("the user `shop.ann`"), "{halted:#}");
        run(&pair.to, "shop", doc! {"dropUser": "ann"}).await;
        ferry.verb(&["resume"]).await.expect(0, "resume");
        ferry.cutover_and_end().await;
        assert_eq!(stored(&pair.to).await, stored(&pair.from).await);
        assert_eq!(stored(&pair.to).await.len(), 2);
        pair.end().await;
    }
}
