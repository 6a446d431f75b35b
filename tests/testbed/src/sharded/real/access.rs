//! Access control: who may do what is told as a `mongos` tells it.

use super::*;

const UNAUTHORIZED: i32 = 13;

fn code(outcome: mongodb::error::Result<Document>) -> Option<i32> {
    match outcome.map_err(|error| *error.kind) {
        Ok(_) => None,
        Err(mongodb::error::ErrorKind::Command(refused)) => Some(refused.code),
        Err(other) => panic!("neither done nor refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_what_its_roles_say_and_nobody_without_a_login() {
    let _slot = server_slot().await;
    let cluster = ShardedCluster::start(Options { auth: true, ..Options::default() }).await.unwrap();
    let root = cluster.client().await.unwrap();
    let things = sharded(&cluster, &root, "things").await;
    things.insert_many(numbered(0..50)).await.unwrap();
    assert_eq!(on_each_shard(&cluster, "things").await.iter().sum::<u64>(), 50);
    cluster.move_chunk("shop.things", doc! { "_id": 1 }, "shard0").await.unwrap();

    cluster.create_user("reader", "s3cret", vec![doc! { "role": "read", "db": "shop" }.into()]).await.unwrap();
    let reader = connect(&cluster.uri_for("reader", "s3cret")).await.unwrap();
    let shop = reader.database("shop");
    assert_eq!(shop.collection::<Document>("things").count_documents(doc! {}).await.unwrap(), 50);
    let insert = doc! { "insert": "things", "documents": [{ "_id": "new" }] };
    let split = doc! { "split": "shop.things", "find": { "_id": 1 } };
    assert_eq!(code(shop.run_command(insert.clone()).await), Some(UNAUTHORIZED));
    assert_eq!(code(reader.database("admin").run_command(split.clone()).await), Some(UNAUTHORIZED));
    assert_eq!(code(reader.database("config").run_command(doc! { "find": "chunks" }).await), Some(UNAUTHORIZED));
    for role in [doc! { "role": "readWrite", "db": "shop" }, doc! { "role": "clusterManager", "db": "admin" }] {
        cluster.admin(doc! { "grantRolesToUser": "reader", "roles": [role] }).await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while code(shop.run_command(insert.clone()).await).is_some() {
        assert!(Instant::now() < deadline, "a role that was granted is not known");
    }
    assert_eq!(code(reader.database("config").run_command(doc! { "find": "chunks" }).await), None);

    for wrong in [cluster.uri_for("reader", "wrong"), format!("mongodb://{}/", cluster.address())] {
        let nobody = connect(&wrong).await.unwrap();
        assert!(nobody.database("shop").run_command(doc! { "count": "things" }).await.is_err(), "{wrong}");
        end(nobody).await;
    }
    end(reader).await;
    end(root).await;
}
