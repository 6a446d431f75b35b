use super::*;
use crate::client::end;
use crate::testing::server_slot;

async fn write_and_read(set: &ReplicaSet) {
    let client = set.client().await.unwrap();
    let things = client.database("shop").collection::<Document>("things");
    things.insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 1);
    end(client).await;
}

#[tokio::test]
async fn one_node_starts_stops_and_leaves_nothing() {
    let _slot = server_slot().await;
    let set = ReplicaSet::start(Options::default()).await.unwrap();
    write_and_read(&set).await;
    let (folder, address) = (set.folder().to_path_buf(), set.addresses().remove(0));
    set.stop();
    assert!(!folder.exists());
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn three_nodes_survive_step_down_kill_and_freeze() {
    let _slot = server_slot().await;
    let set = ReplicaSet::start(Options { nodes: 3, ..Options::default() }).await.unwrap();
    write_and_read(&set).await;

    let first = set.primary().await.unwrap();
    let second = set.step_down().await.unwrap();
    assert_ne!(first, second);

    set.kill(second);
    let third = set.primary().await.unwrap();
    assert_ne!(second, third);
    set.restart(second).await.unwrap();
    set.all_members_ready().await.unwrap();

    let third = set.primary().await.unwrap();
    set.pause(third).unwrap();
    assert_ne!(set.primary().await.unwrap(), third);
    set.unpause(third).unwrap();
    set.all_members_ready().await.unwrap();
}

#[tokio::test]
async fn a_single_node_steps_down_and_comes_back() {
    let _slot = server_slot().await;
    let set = ReplicaSet::start(Options::default()).await.unwrap();
    let before = Instant::now();
    assert_eq!(set.step_down().await.unwrap(), 0);
    assert!(before.elapsed() < Duration::from_secs(8), "took {:?}", before.elapsed());
    write_and_read(&set).await;
}

#[tokio::test]
async fn tls_and_access_control_hold() {
    let _slot = server_slot().await;
    let set = ReplicaSet::start(Options { tls: true, auth: true, ..Options::default() }).await.unwrap();
    write_and_read(&set).await;

    set.create_user("reader", "secret", vec!["readAnyDatabase".into()]).await.unwrap();
    let reader = connect(&set.uri_for("reader", "secret")).await.unwrap();
    let things = reader.database("shop").collection::<Document>("things");
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 1);
    assert!(things.insert_one(doc! { "_id": 2 }).await.is_err(), "a reader must not write");
    end(reader).await;

    let plain = format!("mongodb://{}/?directConnection=true&serverSelectionTimeoutMS=500", set.addresses()[0]);
    assert!(run(&plain, doc! { "ping": 1 }).await.is_err(), "TLS must be required");
}

#[tokio::test]
async fn a_standalone_is_no_replica_set() {
    let _slot = server_slot().await;
    let set = ReplicaSet::start(Options { standalone: true, auth: true, ..Options::default() }).await.unwrap();
    write_and_read(&set).await;
    assert!(!set.admin(0, doc! { "hello": 1 }).await.unwrap().contains_key("setName"));
}

#[tokio::test]
async fn every_version_starts() {
    let _slot = server_slot().await;
    for version in Version::ALL {
        let set = ReplicaSet::start(Options { version, ..Options::default() }).await.unwrap();
        write_and_read(&set).await;
        let info = set.admin(0, doc! { "buildInfo": 1 }).await.unwrap();
        // A server that the user brought may be another one.
        if version != Version::default() {
            assert_eq!(info.get_str("version").unwrap(), version.to_string());
        }
    }
}
