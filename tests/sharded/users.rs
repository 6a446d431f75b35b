//! Users and custom roles between sharded clusters, where they live on the config server.

mod real {
    use crate::support::{
        Ferry,
        accounts::{access, stored, wait_for_access},
        run, told, whole_machine,
    };
    use bson::{Bson, Document, doc};

    use mongodb::Client;

    use testbed::{ShardedCluster, end, parity, sharded};

    fn roles(names: &[&str]) -> Vec<Bson> {
        names.iter().map(|name| doc! {"role": *name, "db": "admin"}.into()).collect()
    }

    fn may(actions: &[&str]) -> Document {
        doc! {"resource": {"db": "shop", "collection": "orders"}, "actions": actions}
    }

    async fn create_user(on: &Client, name: &str, password: &str, role: &str) {
        run(on, "shop", doc! {"createUser": name, "pwd": password, "roles": [{"role": role, "db": "shop"}]}).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn applications_log_in_on_the_target_as_they_did_on_the_source() {
        let _machine = whole_machine().await;
        let options = || sharded::Options { auth: true, ..sharded::Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(options()), ShardedCluster::start(options())).unwrap();
        let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
        run(&from, "admin", doc! {"shardCollection": "shop.orders", "key": {"_id": "hashed"}}).await;
        let orders = from.database("shop").collection::<Document>("orders");
        orders.insert_many((0..100).map(|n| doc! {"_id": n})).await.unwrap();
        run(&from, "shop", doc! {"createRole": "reader", "privileges": [may(&["find"])], "roles": []}).await;
        run(&from, "shop", doc! {"createRole": "clerk", "privileges": [], "roles": ["reader"]}).await;
        create_user(&from, "joe", "first-canary", "clerk").await;
        create_user(&from, "ann", "canary", "read").await;
        create_user(&to, "own", "s3cret", "read").await;
        source.create_user("ferry", "s3cret", roles(&["readAnyDatabase", "clusterMonitor"])).await.unwrap();
        let on_target = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor", "clusterManager"];
        target.create_user("ferry", "other-s3cret", roles(&on_target)).await.unwrap();
        let (source_uri, target_uri) = (source.uri_for("ferry", "s3cret"), target.uri_for("ferry", "other-s3cret"));

        // What is missing is told with the command that grants it, side by side.
        let check = async |which: &str| {
            let told = told(&["check", "--source", &source_uri, "--target", &target_uri, "--users-and-roles", which]).await;
            (told.code, format!("{}{}", told.stdout, told.stderr))
        };
        let granting = |roles: &str| format!("grantRolesToUser(\"ferry\", [{roles}].map");
        let (code, text) = check("new").await;
        assert!(code == 4 && text.contains("find on admin.system.users, find on admin.system.roles"), "{code}: {text}");
        assert!(text.contains(&granting("\"backup\"")), "{text}");
        run(&from, "admin", doc! {"grantRolesToUser": "ferry", "roles": roles(&["backup"])}).await;
        let (code, text) = check("new").await;
        assert!(code == 4 && text.contains("remove on admin.system.users, createRole"), "{code}: {text}");
        assert!(text.contains(&granting("\"backup\", \"restore\"")), "{text}");
        run(&to, "admin", doc! {"grantRolesToUser": "ferry", "roles": roles(&["backup", "restore"])}).await;
        let (code, text) = check("all").await;
        assert!(code == 4 && text.contains("the user `admin.root`"), "{code}: {text}");
        let (code, text) = check("new").await;
        assert!(code == 0 && text.contains("the user `admin.root`"), "{code}: {text}");

        let mut ferry = Ferry::start(&source_uri, &target_uri, &["--users-and-roles", "new"]);
        ferry.wait_until_ready().await;
        wait_for_access(&target.uri_for("joe", "first-canary"), (true, true, false)).await;
        run(&from, "shop", doc! {"updateRole": "clerk", "privileges": [may(&["find", "update"])], "roles": []}).await;
        run(&from, "shop", doc! {"updateUser": "joe", "pwd": "second-canary"}).await;
        run(&from, "shop", doc! {"dropUser": "ann"}).await;
        create_user(&from, "eve", "third-canary", "reader").await;
        wait_for_access(&target.uri_for("joe", "second-canary"), (true, true, true)).await;
        assert_eq!(access(&target.uri_for("joe", "first-canary")).await, (false, false, false), "the old password is of no use");
        wait_for_access(&target.uri_for("ann", "canary"), (false, false, false)).await;
        wait_for_access(&target.uri_for("eve", "third-canary"), (true, true, false)).await;

        // Just before the cutover.
        run(&from, "shop", doc! {"dropRole": "clerk"}).await;
        run(&from, "shop", doc! {"dropUser": "eve"}).await;
        create_user(&from, "late", "fourth-canary", "reader").await;
        let told_of_cutover = ferry.cutover(&["--writes-stopped"]).await;
        assert_eq!(told_of_cutover.code, 0, "{told_of_cutover:?}\n{}", ferry.log());
        assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
        for (name, password, wanted) in [
            ("joe", "second-canary", (true, false, false)),
            ("late", "fourth-canary", (true, true, false)),
            ("eve", "third-canary", (false, false, false)),
        ] {
            assert_eq!(access(&source.uri_for(name, password)).await, wanted, "{name} on the source");
            assert_eq!(access(&target.uri_for(name, password)).await, wanted, "{name} on the target");
        }
        run(&to, "shop", doc! {"dropUser": "own"}).await;
        assert_eq!(stored(&to).await, stored(&from).await);
        assert_eq!(stored(&to).await.len(), 3, "two users and a role");
        assert!(!ferry.log().contains("canary") && !ferry.log().contains("s3cret"), "{}", ferry.log());
        let report = testbed::compare(&from, &to, parity::everything).await.unwrap();
        assert!(report.is_equal(), "{:#?}", report.differences);
        end(from).await;
        end(to).await;
    }
}
