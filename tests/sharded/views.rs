//! What a sharded source does not tell in its stream and is found by looking, right in front of a cutover.

mod real {
    use crate::support::{Ferry, METADATA, run, whole_machine};
    use bson::{Document, doc};
    use mongodb::Client;
    use testbed::{Options, ReplicaSet, ShardedCluster, connect, end, sharded};

    /// One on each shard.
    const DATABASES: [&str; 2] = ["one", "two"];

    async fn shard(on: &Client, ns: &str) {
        run(on, "admin", doc! {"shardCollection": ns, "key": {"_id": "hashed"}}).await;
        let (db, coll) = ns.split_once('.').unwrap();
        on.database(db).collection::<Document>(coll).insert_many((0..20).map(|n| doc! {"_id": n, "of": ns})).await.unwrap();
    }

    /// Views, and sharded collections to be dropped and renamed, in a database of its own for each round.
    async fn prepare(on: &Client, db: &str) {
        run(on, db, doc! {"insert": "base", "documents": [{"_id": 1}]}).await;
        for view in ["a", "b"] {
            run(on, db, doc! {"create": view, "viewOn": "base", "pipeline": []}).await;
        }
        for coll in ["again", "from", "onto"] {
            shard(on, &format!("{db}.{coll}")).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_unseen_right_before_a_cutover_is_missed_and_what_is_told_does_not_undo_it() {
        let _machine = whole_machine().await;
        let target = Options { name: "target".into(), ..Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(sharded::Options::default()), ReplicaSet::start(target)).unwrap();
        let (from, to) = (source.client().await.unwrap(), connect(&target.uri()).await.unwrap());
        for (n, db) in DATABASES.into_iter().enumerate() {
            run(&from, "admin", doc! {"enableSharding": db, "primaryShard": format!("shard{n}")}).await;
            prepare(&from, db).await;
        }
        for round in 0..3 {
            let mut ferry = Ferry::start(&source.uri(), &target.uri(), &["--verbose"]);
            ferry.wait_until_ready().await;
            for db in DATABASES {
                match round {
                    0 => drop(run(&from, db, doc! {"drop": "system.views"}).await),
                    1 => {
                        // As the stream tells it.
                        for view in ["a", "b"] {
                            run(&from, db, doc! {"create": view, "viewOn": "base", "pipeline": []}).await;
                        }
                        run(&from, db, doc! {"drop": "a"}).await;
                        run(&from, db, doc! {"drop": "b"}).await;
                        run(&from, db, doc! {"create": "b", "viewOn": "a", "pipeline": []}).await;
                    }
                    _ => {
                        let to = format!("{db}.onto");
                        run(&from, "admin", doc! {"renameCollection": format!("{db}.from"), "to": to, "dropTarget": true}).await;
                        run(&from, db, doc! {"drop": "again"}).await;
                        shard(&from, &format!("{db}.again")).await;
                    }
                }
            }
            let (documents, there) = ferry.hand_over_stopped(&from, &to).await;
            assert_eq!(documents, there, "round {round}");
            let listed = doc! {"listCollections": 1, "filter": {"type": "view"}};
            let views = run(&to, "one", listed).await.get_document("cursor").unwrap().get_array("firstBatch").unwrap().len();
            assert_eq!(views, usize::from(round > 0), "round {round}");
            for db in [&DATABASES[..], &[METADATA]].concat() {
                run(&to, db, doc! {"dropDatabase": 1}).await;
            }
        }
        end(from).await;
        end(to).await;
    }
}
