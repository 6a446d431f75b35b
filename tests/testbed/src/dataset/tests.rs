use super::*;
use crate::testing::server_slot;
use crate::{Options, ReplicaSet, compare, end, parity};

#[tokio::test]
async fn a_data_set_has_its_size_and_is_the_same_each_time() {
    let _slot = server_slot().await;
    let (one, two) =
        tokio::try_join!(ReplicaSet::start(Options::default()), ReplicaSet::start(Options { name: "rs1".into(), ..Options::default() }))
            .unwrap();
    let (source, target) = (one.client().await.unwrap(), two.client().await.unwrap());
    let set = DataSet { documents: 10_007, collections: 5, ..DataSet::default() };
    let filled = fill(&source, set.clone()).await.unwrap();
    let mean = filled.bytes / filled.documents;
    assert!((900..1150).contains(&mean), "{mean}");

    fill(&target, set.clone()).await.unwrap();
    let report = compare(&source, &target, parity::everything).await.unwrap();
    assert_eq!(report.differences, []);
    assert_eq!(report.documents(), (10_007, 10_007));

    // A second helping of the same is refused, not silently lost.
    assert!(matches!(fill(&source, set).await, Err(Error::NotStored(_))));
    end(source).await;
    end(target).await;
}
