use std::time::Duration;

use mongodb::bson::doc;
use tokio::time::{Instant, sleep};

use super::*;
use crate::testing::server_slot;
use crate::{Options, ReplicaSet, end};

/// Waits, for 20 s at most, until the counts are as wanted.
async fn until(load: &Load, wanted: impl Fn(&Counts) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !wanted(&load.counts()) {
        assert!(Instant::now() < deadline, "not reached: {:?}", load.counts());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_stays_below_its_rate_and_the_server_takes_every_operation() {
    let _slot = server_slot().await;
    let set = ReplicaSet::start(Options::default()).await.unwrap();
    let client = set.client().await.unwrap();
    let load = Load::start(client.clone(), LoadOptions { seed: 7, ops_per_second: 2000, ddl: true, ..Default::default() });
    sleep(Duration::from_secs(6)).await;
    let counts = load.stop().await;
    eprintln!("{counts:?}");
    assert_eq!(counts.errors, 0, "{counts:?}");
    // How many it reaches is the machine's affair; more than it was asked for would be ours.
    assert!(counts.operations_per_second < 2800.0, "{counts:?}");
    assert!(counts.by_kind.values().all(|count| *count > 0), "{counts:?}");
    assert!(counts.transactions > 0);
    end(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_block_pauses_the_load_and_a_step_down_does_not_end_it() {
    let _slot = server_slot().await;
    let set = ReplicaSet::start(Options::default()).await.unwrap();
    let client = set.client().await.unwrap();
    let load = Load::start(client.clone(), LoadOptions { seed: 8, ..Default::default() });
    until(&load, |counts| counts.operations > 500).await;

    set.step_down().await.unwrap();
    let before = load.counts().operations;
    until(&load, |counts| counts.operations > before + 500).await;

    let block = |on| doc! { "setUserWriteBlockMode": 1, "global": on };
    set.admin(0, block(true)).await.unwrap();
    until(&load, |counts| counts.blocked > 4).await;
    set.admin(0, block(false)).await.unwrap();
    let before = load.counts().operations;
    until(&load, |counts| counts.operations > before + 500).await;

    set.admin(0, block(true)).await.unwrap();
    let blocked = load.counts().blocked;
    until(&load, |counts| counts.blocked > blocked + 4).await;
    let counts = load.stop().await;
    assert_eq!(counts.errors, 0, "{counts:?}");
    end(client).await;
}
