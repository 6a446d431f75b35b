//! What `check` knows of sharded clusters before anything is done.

mod real {
    use crate::support::{Told, run, told, whole_machine};
    use bson::{DateTime, Document, doc};
    use testbed::{ShardedCluster, connect, end, sharded};

    /// A command on one shard alone, behind the router's back.
    async fn on_shard(cluster: &ShardedCluster, shard: usize, command: Document) {
        let client = connect(&cluster.shards()[shard].uri()).await.unwrap();
        run(&client, "shop", command).await;
        end(client).await;
    }

    async fn check(source: &ShardedCluster, target: &ShardedCluster) -> Told {
        told(&["check", "--source", &source.uri(), "--target", &target.uri()]).await.expect(0, "nothing of it is in the way")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn balancers_indexes_shard_keys_and_zones_are_looked_at() {
        let _machine = whole_machine().await;
        let options = |shards| sharded::Options { shards, ..sharded::Options::default() };
        let (source, target) = tokio::try_join!(ShardedCluster::start(options(3)), ShardedCluster::start(options(2))).unwrap();
        let from = source.client().await.unwrap();
        for (zone, shard, min) in [("near", "shard0", 0), ("far", "shard2", 100)] {
            run(&from, "admin", doc! {"addShardToZone": shard, "zone": zone}).await;
            let range = doc! {"updateZoneKeyRange": "shop.zoned", "min": {"n": min}, "max": {"n": min + 100}, "zone": zone};
            run(&from, "admin", range).await;
        }
        run(&from, "admin", doc! {"shardCollection": "shop.zoned", "key": {"n": 1}}).await;
        run(&from, "admin", doc! {"shardCollection": "shop.even", "key": {"_id": "hashed"}}).await;
        run(&from, "admin", doc! {"shardCollection": "shop.uneven", "key": {"_id": "hashed"}}).await;
        run(&from, "admin", doc! {"shardCollection": "shop.keyless", "key": {"k": 1}}).await;
        let series = doc! {"shardCollection": "shop.series", "key": {"m": 1}, "timeseries": {"timeField": "t", "metaField": "m"}};
        run(&from, "admin", series).await;
        let measured = doc! {"t": DateTime::from_millis(0), "m": 1};
        from.database("shop").collection::<Document>("series").insert_one(measured).await.unwrap();
        for name in ["even", "uneven", "keyless"] {
            let documents = (0..100).map(|id| doc! {"_id": id, "k": id});
            from.database("shop").collection::<Document>(name).insert_many(documents).await.unwrap();
        }
        run(&from, "shop", doc! {"createIndexes": "even", "indexes": [{"key": {"a": 1}, "name": "everywhere"}]}).await;

        let clean = check(&source, &target).await;
        assert!(!clean.stdout.contains("missing on") && !clean.stdout.contains("not the same"), "{clean:?}");
        assert!(clean.stdout.contains("the balancer of the source is off"), "{clean:?}");
        assert!(clean.stdout.contains("the balancer of the target is off"), "{clean:?}");
        assert!(clean.stdout.contains("the zone `near` of `shop.zoned` is carried over to `shard0`"), "{clean:?}");
        assert!(clean.stdout.contains("no shard of the target is in the zone `far` of `shop.zoned`"), "{clean:?}");
        assert!(clean.stdout.contains("`shop.system.buckets.series` is sharded on the source, and will lie on one shard"), "{clean:?}");

        let index = |sparse: bool, name: &str| doc! {"key": {name: 1}, "name": name, "sparse": sparse};
        on_shard(&source, 0, doc! {"createIndexes": "uneven", "indexes": [index(false, "some"), index(false, "differs")]}).await;
        on_shard(&source, 1, doc! {"createIndexes": "uneven", "indexes": [index(false, "some"), index(true, "differs")]}).await;
        on_shard(&source, 2, doc! {"createIndexes": "uneven", "indexes": [index(false, "differs")]}).await;
        let keyless = from.database("config").collection::<Document>("databases").find_one(doc! {"_id": "shop"}).await.unwrap();
        let primary = keyless.unwrap().get_str("primary").unwrap().to_owned();
        let n = source.shards().iter().position(|shard| shard.options().name == primary).unwrap();
        on_shard(&source, n, doc! {"dropIndexes": "keyless", "index": "k_1"}).await;
        run(&from, "admin", doc! {"balancerStart": 1}).await;
        target.admin(doc! {"balancerStart": 1}).await.unwrap();
        target.admin(doc! {"addShardToZone": "shard1", "zone": "far"}).await.unwrap();

        let told = check(&source, &target).await;
        for line in [
            "the balancer of the source is on",
            "the balancer of the target is on: a document whose shard key changes",
            "`shop.uneven`: the index `some` is missing on the shard shard2",
            "`shop.uneven`: the index `differs` is not the same on all shards",
            "the zone `far` of `shop.zoned` is carried over to the shards that are in it",
        ] {
            assert!(told.stdout.contains(line), "{line}: {told:?}");
        }
        let line = format!("`shop.keyless`: the index that its shard key {{k: 1}} needs is missing on the shard {primary}");
        assert!(told.stdout.contains(&line), "{line}: {told:?}");
        assert!(!told.stdout.contains("`everywhere`"), "{told:?}");
        end(from).await;
    }
}
