use super::*;
use crate::model::PartitionId;
use bson::rawdoc;

const X: CollectionUuid = CollectionUuid([1; 16]);
const NOW: ClusterTime = ClusterTime { t: 9, i: 1 };

fn key(n: i32) -> DocumentKey {
    DocumentKey::new(rawdoc! {"_id": n}).unwrap()
}

/// Three ranges: below 10, from there to below 20, and the rest.
fn followed(limit: u64) -> Parity {
    let parity = Parity::new(limit);
    parity.follow(X, &Partition::cover(X, vec![rawdoc! {"_id": 10}, rawdoc! {"_id": 20}]), None, false);
    parity
}

fn proved(limit: u64) -> Parity {
    let parity = followed(limit);
    for id in parity.scan(9) {
        parity.scanned(id, 5, 50);
    }
    parity
}

fn state(parity: &Parity) -> String {
    parity.status(&[(X, "d.c".into())], NOW).collections[0].state.clone()
}

/// Marks that are not yet saved, as numbers of ranges; then they are.
fn marks(parity: &Parity) -> Option<Vec<usize>> {
    let marks = parity.marks();
    parity.saved(&marks);
    marks.first().map(|m| (0..9).filter(|n| m.touched.has(*n)).collect())
}

#[test]
fn what_is_off_follows_nothing() {
    let parity = Parity::default();
    assert!(!parity.is_on());
    assert_eq!(parity.status(&[(X, "d.c".into())], NOW).state, "off");
}

#[test]
fn from_pending_to_verified_to_stale_and_back() {
    let parity = followed(1 << 20);
    assert_eq!((state(&parity).as_str(), parity.left()), ("pending", Left { unproved: 3, ..Left::default() }));
    let ids = parity.scan(2);
    assert_eq!(ids.iter().map(|id| id.number).collect::<Vec<_>>(), [0, 1]);
    parity.note(X, &key(25));
    assert_eq!(parity.left().keys, 0, "a range that is yet to be read needs no keys");
    parity.note(X, &key(15));
    ids.into_iter().chain(parity.scan(2)).for_each(|id| parity.scanned(id, 5, 50));
    assert_eq!(state(&parity), "stale", "touched while it was compared");
    let taken = parity.take(NOW);
    assert_eq!(taken[0].1.to_vec(), [key(15)]);
    parity.looked(X, &[], NOW);
    let status = parity.status(&[(X, "d.c".into())], NOW);
    assert_eq!((status.state.as_str(), status.documents, status.proved_cluster_time), ("verified", 15, Some(NOW)));
    parity.note(X, &key(1));
    let later = ClusterTime { t: 12, i: 0 };
    let status = parity.status(&[(X, "d.c".into())], later);
    assert_eq!((status.state.as_str(), status.proved_cluster_time), ("stale", Some(NOW)));
}

#[test]
fn marks_tell_which_ranges_a_restart_must_read_again() {
    let parity = proved(1 << 20);
    assert_eq!(marks(&parity), Some(vec![]));
    assert_eq!(marks(&parity), None, "nothing has changed");
    parity.note(X, &key(15));
    parity.note(X, &key(16));
    assert_eq!(marks(&parity), Some(vec![1]));
    parity.note(X, &key(17));
    assert_eq!(marks(&parity), None, "the range was marked before");
    let _taken = parity.take(NOW);
    parity.note(X, &key(21));
    assert_eq!(marks(&parity), Some(vec![1, 2]), "what is being looked at is not yet proved");
    parity.looked(X, &[], NOW);
    assert_eq!(marks(&parity), Some(vec![2]));
    let ranges: Vec<_> = (0..3).filter_map(|number| parity.range(PartitionId { collection: X, number })).collect();
    let again = Parity::new(1 << 20);
    again.follow(X, &ranges, Some(&Bits::from_bytes(&[0b100])), false);
    assert_eq!(again.left(), Left { stale: 1, ..Left::default() });
    assert_eq!(again.scan(9)[0].number, 2);
}

#[test]
fn beyond_the_budget_ranges_become_stale() {
    let parity = proved(300);
    for n in 10..20 {
        parity.note(X, &key(n));
    }
    let left = parity.left();
    assert_eq!((left.stale, left.unproved), (1, 0));
    assert!(left.keys > 0 && left.keys < 4, "{left:?}");
    parity.note(X, &DocumentKey::new(rawdoc! {"_id": 25.5}).unwrap());
    assert_eq!(parity.left().stale, 3, "nobody guesses where it lies");
    let collated = Parity::new(1);
    collated.follow(X, &Partition::cover(X, vec![rawdoc! {"_id": "m"}]), None, true);
    collated.scan(9).into_iter().for_each(|id| collated.scanned(id, 1, 1));
    collated.note(X, &DocumentKey::new(rawdoc! {"_id": "A"}).unwrap());
    assert_eq!(collated.left().stale, 2);
}

#[test]
fn what_is_never_finished_keeps_nothing_waiting() {
    let parity = followed(1 << 20);
    let numbers = |ids: &[PartitionId]| ids.iter().map(|id| id.number).collect::<Vec<_>>();
    assert_eq!(numbers(&parity.scan(1)), [0]);
    parity.abandon();
    let next = parity.scan(2);
    assert_eq!(numbers(&next), [1, 2]);
    next.into_iter().for_each(|id| parity.scanned(id, 1, 1));
    assert_eq!(numbers(&parity.scan(2)), [0]);
    parity.abandon();
    parity.all_again();
    assert_eq!(numbers(&parity.scan(1)), [1], "due again, and still before it");
}

#[test]
fn what_was_left_half_way_is_done_again() {
    let parity = proved(1 << 20);
    parity.note(X, &key(1));
    let _taken = parity.take(NOW);
    parity.all_again();
    assert_eq!(parity.scan(1).len(), 1);
    parity.abandon();
    assert_eq!(parity.left(), Left { keys: 1, ..Left::default() }, "to repeat a proof takes none away");
    assert_eq!(parity.scan(9).len(), 3);
}

#[test]
fn a_difference_is_told_until_it_is_gone() {
    let parity = proved(1 << 20);
    let difference = PersistentDifference { ns: "d.c".into(), kind: "missing".into(), ..PersistentDifference::default() };
    parity.show_differences(vec![Listed { collection: Some(X), key: Some(key(15)), difference }], [(X, 2)]);
    let status = parity.status(&[(X, "d.c".into())], NOW);
    assert_eq!((status.state.as_str(), status.differences, status.different), ("different", 3, 1));
    assert_eq!((status.proved_cluster_time, status.listed_differences.len()), (None, 1));
    assert_eq!(marks(&parity), Some(vec![1]), "a restart finds it again");
    parity.show_differences(Vec::new(), []);
    assert_eq!(marks(&parity), Some(vec![]));
    assert_eq!(state(&parity), "verified");
    parity.show_failure(Some("no".into()));
    assert_eq!(parity.status(&[(X, "d.c".into())], NOW).state, "failed");
}
