//! Access control on sharded clusters: what is documented is enough, and what is missing is named.

mod real {
    use crate::support::{Ferry, Told, run, told, whole_machine};
    use bson::{Bson, DateTime, Document, doc};
    use mongodb::Client;
    use testbed::{ShardedCluster, end, parity, sharded};
    use tokio::sync::SemaphorePermit;

    /// As the README has them.
    const SOURCE_ROLES: [&str; 4] = ["readAnyDatabase", "clusterMonitor", "backup", "hostManager"];
    const TARGET_ROLES: [&str; 4] = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor", "clusterManager"];

    /// Action by action: on all databases, on the cluster, on `config`.
    type Actions = [(Document, Vec<&'static str>); 3];

    fn resources() -> [Document; 3] {
        [doc! {"db": "", "collection": ""}, doc! {"cluster": true}, doc! {"db": "config", "collection": ""}]
    }

    fn source_actions() -> Actions {
        let [all, cluster, config] = resources();
        let read = vec!["find", "changeStream", "listCollections", "listIndexes", "collStats", "indexStats"];
        [(all, read), (cluster, vec!["listDatabases"]), (config, vec!["find"])]
    }

    fn target_actions() -> Actions {
        let [all, cluster, config] = resources();
        let documents = ["find", "insert", "update", "remove", "bypassDocumentValidation"];
        let structure = ["createCollection", "dropCollection", "renameCollectionSameDB", "dropDatabase", "collMod"];
        let indexes = ["createIndex", "dropIndex", "listCollections", "listIndexes"];
        let shards = ["enableSharding", "splitChunk", "moveChunk"];
        let all_of_them = documents.into_iter().chain(structure).chain(indexes).chain(shards).collect();
        [(all, all_of_them), (cluster, vec!["listDatabases", "inprog"]), (config, vec!["find", "update", "remove"])]
    }

    struct Bed {
        source: ShardedCluster,
        target: ShardedCluster,
        /// As administrators.
        from: Client,
        to: Client,
        _machine: SemaphorePermit<'static>,
    }

    impl Bed {
        async fn start() -> Self {
            let machine = whole_machine().await;
            // Without notes of ours the source's clocks move by the servers' own, here every second.
            let often = vec!["--setParameter".into(), "periodicNoopIntervalSecs=1".into()];
            let options = || sharded::Options { auth: true, extra_args: often.clone(), ..sharded::Options::default() };
            let (source, target) = tokio::try_join!(ShardedCluster::start(options()), ShardedCluster::start(options())).unwrap();
            let (from, to) = (source.client().await.unwrap(), target.client().await.unwrap());
            let bed = Self { source, target, from, to, _machine: machine };
            bed.fill().await;
            bed
        }

        /// Something of each kind: chunks, a zone, a view, indexes, a database without shards.
        async fn fill(&self) {
            run(&self.from, "admin", doc! {"addShardToZone": "shard1", "zone": "east"}).await;
            let zone = doc! {"updateZoneKeyRange": "shop.zoned", "min": {"n": 0}, "max": {"n": 100}, "zone": "east"};
            run(&self.from, "admin", zone).await;
            run(&self.from, "admin", doc! {"shardCollection": "shop.zoned", "key": {"n": 1}}).await;
            run(&self.from, "admin", doc! {"shardCollection": "shop.hashed", "key": {"_id": "hashed"}}).await;
            let documents = || (0..300).map(|id| doc! {"_id": id, "n": id % 200}).collect::<Vec<_>>();
            for (db, coll) in [("shop", "zoned"), ("shop", "hashed"), ("shop", "plain"), ("other", "plain")] {
                self.from.database(db).collection::<Document>(coll).insert_many(documents()).await.unwrap();
            }
            let index = doc! {"createIndexes": "plain", "indexes": [{"key": {"n": 1, "_id": 1}, "name": "unique", "unique": true}]};
            run(&self.from, "shop", index).await;
            run(&self.from, "shop", doc! {"create": "view", "viewOn": "plain", "pipeline": []}).await;
        }

        /// What happens while it tails.
        async fn change(&self) {
            for (db, coll) in [("shop", "zoned"), ("shop", "hashed"), ("shop", "plain"), ("other", "plain")] {
                let documents = self.from.database(db).collection::<Document>(coll);
                documents.update_one(doc! {"_id": 5, "n": 5}, doc! {"$set": {"n": 150}}).await.unwrap();
                documents.delete_one(doc! {"_id": 6}).await.unwrap();
                documents.insert_one(doc! {"_id": "late", "n": 7}).await.unwrap();
            }
            let made = doc! {"createIndexes": "hashed", "indexes": [{"key": {"n": 1}, "name": "n"}, {"key": {"n": -1}, "name": "gone"}]};
            run(&self.from, "shop", made).await;
            run(&self.from, "shop", doc! {"dropIndexes": "hashed", "index": "gone"}).await;
            run(&self.from, "shop", doc! {"collMod": "plain", "validator": {"n": {"$gte": 0}}}).await;
            run(&self.from, "admin", doc! {"renameCollection": "shop.plain", "to": "shop.renamed"}).await;
            run(&self.from, "gone", doc! {"insert": "plain", "documents": [{"_id": 1}]}).await;
            run(&self.from, "gone", doc! {"dropDatabase": 1}).await;
            run(&self.from, "shop", doc! {"insert": "dropped", "documents": [{"_id": 1}]}).await;
            run(&self.from, "shop", doc! {"drop": "dropped"}).await;
        }

        fn uris(&self) -> [String; 2] {
            [self.source.uri_for("ferry", "s3cret"), self.target.uri_for("ferry", "s3cret")]
        }

        async fn check(&self) -> Told {
            let [source, target] = self.uris();
            told(&["check", "--source", &source, "--target", &target]).await
        }

        /// Follows and hands over, the one user of each side being what it is by now.
        async fn migrate(&self) -> Ferry {
            let [source, target] = self.uris();
            let mut ferry = Ferry::start(&source, &target, &["--verbose"]);
            ferry.wait_for_phase("tailing").await;
            self.change().await;
            ferry.wait_until_caught_up(&self.from).await;
            ferry
        }

        /// Whether the source lets somebody write who may not pass a block, as administrators may.
        async fn takes_writes_of_users(&self) -> bool {
            self.source.create_user("app", "s3cret", roles(&["readWriteAnyDatabase"])).await.unwrap();
            let app = testbed::connect(&self.source.uri_for("app", "s3cret")).await.unwrap();
            let hashed = app.database("shop").collection::<Document>("hashed");
            let inserted = hashed.insert_one(doc! {"_id": "by a user"}).await.is_ok();
            if inserted {
                hashed.delete_one(doc! {"_id": "by a user"}).await.unwrap();
            }
            end(app).await;
            inserted
        }

        async fn hand_over(self, mut ferry: Ferry, how: &[&str]) {
            let told = ferry.cutover(how).await;
            assert_eq!(told.code, 0, "the cutover failed: {told:?}\n{}", ferry.log());
            assert_eq!(ferry.wait_exit().await, 0, "{}", ferry.log());
            assert_eq!(self.takes_writes_of_users().await, !how.is_empty(), "only the fence keeps users from writing");
            let report = testbed::compare(&self.from, &self.to, parity::everything).await.unwrap();
            assert!(report.is_equal(), "{:#?}\n{}", report.differences, ferry.log());
            assert!(report.documents().0 > 1_000, "{:?}", report.documents());
            assert!(!ferry.log().contains("s3cret"));
            end(self.from).await;
            end(self.to).await;
        }
    }

    fn roles(names: &[&str]) -> Vec<Bson> {
        names.iter().map(|name| doc! {"role": *name, "db": "admin"}.into()).collect()
    }

    /// Both streams of it.
    fn text(told: &Told) -> String {
        format!("{}{}", told.stdout, told.stderr)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_documented_roles_are_enough_and_each_that_is_missing_is_named() {
        let bed = Bed::start().await;
        let series = doc! {"timeField": "t", "metaField": "m"};
        run(&bed.from, "admin", doc! {"shardCollection": "shop.series", "key": {"m": 1}, "timeseries": series}).await;
        let measured = doc! {"t": DateTime::from_millis(0), "m": 1};
        bed.from.database("shop").collection::<Document>("series").insert_one(measured).await.unwrap();
        bed.source.create_user("ferry", "s3cret", roles(&SOURCE_ROLES)).await.unwrap();
        bed.target.create_user("ferry", "s3cret", roles(&TARGET_ROLES)).await.unwrap();
        let clean = bed.check().await.expect(0, "the documented roles are enough");
        assert!(!text(&clean).contains("grantRolesToUser"), "{clean:?}");
        assert!(text(&clean).contains("the shards of the source cannot all be asked directly"), "{clean:?}");
        for shard in bed.source.shards() {
            shard.create_user("ferry", "s3cret", roles(&["clusterMonitor"])).await.unwrap();
        }
        let watched = bed.check().await.expect(0, "the shards know the user, too");
        assert!(text(&watched).contains("the oplog of the source holds"), "{watched:?}");

        // Which action tells it.
        let source = vec![
            ("readAnyDatabase", "changeStream", 4),
            ("clusterMonitor", "indexStats", 4),
            ("backup", "`appendOplogNote`", 0),
            ("hostManager", "may not block writes of users: killop", 0),
        ];
        let target = vec![
            ("readWriteAnyDatabase", "insert", 4),
            ("dbAdminAnyDatabase", "collMod", 4),
            // Those of the other roles reach that far, but for what is in no other.
            ("clusterManager", "splitChunk", 4),
        ];
        for (side, of, missing) in [("source", &bed.from, source), ("target", &bed.to, target)] {
            for (role, action, code) in missing {
                run(of, "admin", doc! {"revokeRolesFromUser": "ferry", "roles": roles(&[role])}).await;
                let checked = bed.check().await.expect(code, &format!("without {role} on the {side}"));
                let text = text(&checked);
                let command = format!("db.getSiblingDB(\"admin\").grantRolesToUser(\"ferry\", [\"{role}\"]");
                assert!(text.contains(&format!("the {side}")) && text.contains(action) && text.contains(&command), "{role}: {text}");
                run(of, "admin", doc! {"grantRolesToUser": "ferry", "roles": roles(&[role])}).await;
            }
        }
        bed.check().await.expect(0, "what was granted again is enough");
        let mut ferry = bed.migrate().await;
        assert_eq!(ferry.status().await["done_without"], serde_json::json!([]));
        bed.hand_over(ferry, &[]).await;
    }

    async fn grant(on: &Client, verb: &str, actions: &Actions) {
        let privileges: Vec<Document> = actions
            .iter()
            .filter(|(_, actions)| !actions.is_empty())
            .map(|(on, actions)| doc! {"resource": on.clone(), "actions": actions.clone()})
            .collect();
        run(on, "admin", doc! {verb: "exactly", "privileges": privileges, "roles": []}).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_action_that_is_needed_is_asked_for_and_no_other_and_notes_can_be_done_without() {
        let bed = Bed::start().await;
        for (cluster, client, actions) in [(&bed.source, &bed.from, source_actions()), (&bed.target, &bed.to, target_actions())] {
            grant(client, "createRole", &actions).await;
            cluster.create_user("ferry", "s3cret", roles(&["exactly"])).await.unwrap();
        }
        for (side, client, actions) in [("source", &bed.from, source_actions()), ("target", &bed.to, target_actions())] {
            for (n, (_, on)) in actions.iter().enumerate() {
                for action in on {
                    let mut fewer = actions.clone();
                    fewer[n].1.retain(|kept| kept != action);
                    grant(client, "updateRole", &fewer).await;
                    let checked = bed.check().await.expect(4, &format!("without {action} on the {side}"));
                    let named = if n == 2 { format!("{action} on config") } else { (*action).to_owned() };
                    let wanted = format!("the {side} cluster does not allow its user: {named}\n");
                    assert!(text(&checked).contains(&wanted), "{wanted}: {checked:?}");
                }
            }
            grant(client, "updateRole", &actions).await;
        }

        let told = bed.check().await.expect(0, "without `appendOplogNote` it takes longer");
        assert!(
            text(&told).contains("holds the stream back") && text(&told).contains("grantRolesToUser(\"ferry\", [\"backup\"]"),
            "{told:?}"
        );
        let mut ferry = bed.migrate().await;
        let status = ferry.status().await;
        assert!(status["done_without"].to_string().contains("appendOplogNote"), "{status:#}");
        assert!(ferry.verb(&["status"]).await.stdout.contains("appendOplogNote"));
        assert!(ferry.log().contains("`appendOplogNote` is not allowed"), "{}", ferry.log());
        bed.hand_over(ferry, &["--writes-stopped"]).await;
    }
}
