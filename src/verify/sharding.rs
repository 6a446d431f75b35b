//! Compares how both sides distribute their collections, where both are sharded clusters: shard keys, and the ranges of zones. Which
//! shards are in a zone is not compared: each cluster has its own.

use super::{
    Settings,
    plan::Pair,
    report::{Difference, DifferenceKind},
};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, Distributed, IndexSpec, Namespace, ShardKey, raw},
    source::{CollectionRef, Found, Source},
};
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

/// What differs and is seen twice, the second time after the target has caught up; `None` where it was not compared, since a side is
/// no sharded cluster, or as it was asked for.
///
/// # Errors
/// As classified.
pub(super) async fn sharding<A: Source, B: Source, F, Fut>(
    both: (&A, &B),
    pairs: &[Pair],
    settings: &Settings,
    settle: &F,
    stop: &CancellationToken,
) -> Result<Option<Vec<Difference>>>
where
    F: Fn(ClusterTime) -> Fut,
    Fut: Future<Output = Result<()>> + Send,
{
    if settings.ignore_sharding {
        return Ok(None);
    }
    let Some(mut found) = look(both, pairs, settings, stop).await? else { return Ok(None) };
    if !found.is_empty() {
        settle(both.0.operation_time().await?).await?;
        let again = look(both, pairs, settings, stop).await?.unwrap_or_default();
        found.retain(|d| again.contains(d));
    }
    Ok(Some(found))
}

async fn look<A: Source, B: Source>(
    (source, target): (&A, &B),
    pairs: &[Pair],
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<Option<Vec<Difference>>> {
    if stop.is_cancelled() {
        return Err(Error::Interrupted);
    }
    let Some(ours) = source.distribution().await? else { return Ok(None) };
    let Some(theirs) = target.distribution().await? else { return Ok(None) };
    let (ours, theirs) = (as_asked_for(ours, pairs, &settings.sharded_by), theirs);
    let mut found = Vec::new();
    for pair in pairs {
        let (ours, theirs) = (ours.get(&pair.source_info.ns), theirs.get(&pair.target_info.ns));
        found.extend(differences(pair, ours, theirs));
        if let (Some((a, b)), Some(ours), Some(theirs)) = (pair.collections(), ours, theirs)
            && let (Some(key), false) = (&ours.key, settings.parked)
            && theirs.key == ours.key
            && ours.unique != theirs.unique
        {
            // Nobody can change that a collection was sharded as unique, or not. What it promises is kept by an index as well.
            let kept = ours.unique || is_kept(source, &a, key).await?;
            if kept != (theirs.unique || is_kept(target, &b, key).await?) {
                found.push(differ(pair, format!("the shard key {key} is unique on the {} only", if kept { "source" } else { "target" })));
            }
        }
    }
    Ok(Some(found))
}

/// An operator may choose other shard keys for the target: then the zones of the source, of its own key, are not for it.
fn as_asked_for(
    mut ours: BTreeMap<Namespace, Distributed>,
    pairs: &[Pair],
    asked: &BTreeMap<Namespace, ShardKey>,
) -> BTreeMap<Namespace, Distributed> {
    for pair in pairs {
        let ns = &pair.source_info.ns;
        if let Some(key) = asked.get(&pair.target_info.ns)
            && ours.get(ns).and_then(|d| d.key.as_ref()) != Some(key)
        {
            ours.insert(ns.clone(), Distributed { key: Some(key.clone()), unique: false, zones: Vec::new() });
        }
    }
    ours
}

/// Whether an index of exactly these fields is unique.
async fn is_kept<S: Source>(of: &S, collection: &CollectionRef, key: &ShardKey) -> Result<bool> {
    let indexes = match of.indexes(collection).await? {
        Found::Here(indexes) => indexes,
        Found::Gone => Vec::new(),
    };
    let fields = |index: &IndexSpec| raw::get(&index.0, "key").and_then(|e| e.document()).map_or(0, |keys| raw::elements(keys).count());
    let exact = |index: &&IndexSpec| key.is_supported_by(index) && fields(index) == key.fields().count();
    Ok(indexes.iter().filter(exact).any(|index| index.is("unique")))
}

/// Differences in words, with what mends them. Pure.
fn differences(pair: &Pair, ours: Option<&Distributed>, theirs: Option<&Distributed>) -> Vec<Difference> {
    let ns = &pair.target_info.ns;
    let key = |of: Option<&Distributed>| of.and_then(|d| d.key.clone());
    match (key(ours), key(theirs)) {
        (None, None) => {}
        (Some(key), None) => {
            let simple = if pair.source_info.has_collation() { ", false, {collation: {locale: \"simple\"}}" } else { "" };
            let mended = format!("sh.shardCollection(\"{ns}\", {key}{simple})");
            return vec![differ(pair, format!("sharded by {key} on the source only; {}", by(&mended)))];
        }
        (None, Some(key)) => {
            let mended = format!("db.adminCommand({{unshardCollection: \"{ns}\"}})");
            return vec![differ(pair, format!("sharded by {key} on the target only; from MongoDB 8.0 on, {}", by(&mended)))];
        }
        (Some(key), Some(other)) if key != other => {
            let refined = key.fields().count() > other.fields().count() && key.distributions().starts_with(other.distributions());
            let verb = if refined { "refineCollectionShardKey" } else { "reshardCollection" };
            let mended = format!("db.adminCommand({{{verb}: \"{ns}\", key: {key}}})");
            return vec![differ(pair, format!("sharded by {key} on the source and by {other} on the target; {}", by(&mended)))];
        }
        (Some(_), Some(_)) => {}
    }
    let (ours, theirs) = (ranges(ours), ranges(theirs));
    let none = BTreeSet::new();
    let names: BTreeSet<&str> = ours.keys().chain(theirs.keys()).copied().collect();
    let differing = names.into_iter().filter_map(|zone| {
        let (ours, theirs) = (ours.get(zone).unwrap_or(&none), theirs.get(zone).unwrap_or(&none));
        let (missing, extra) = (ours.difference(theirs).count(), theirs.difference(ours).count());
        let add = (missing > 0).then(|| format!("sh.updateZoneKeyRange(\"{ns}\", MIN, MAX, \"{zone}\")"));
        let remove = (extra > 0).then(|| format!("sh.removeRangeFromZone(\"{ns}\", MIN, MAX)"));
        // The server knows a zone by its shards (code 177 without one, RAN on 6.0.5).
        let member = theirs.is_empty().then(|| format!("sh.addShardToZone(SHARD, \"{zone}\")"));
        let mended: Vec<_> = remove.into_iter().chain(member).chain(add).collect();
        (missing + extra > 0).then(|| {
            let of = ours.len();
            let told = format!("zone `{zone}`: {missing} of its {of} ranges missing on target, {extra} on target only");
            Difference { part: Some(zone.to_owned()), ..differ(pair, format!("{told}; {}", by(&mended.join("; ")))) }
        })
    });
    differing.collect()
}

type Range<'a> = (&'a [u8], &'a [u8]);

/// Of each zone.
fn ranges(of: Option<&Distributed>) -> BTreeMap<&str, BTreeSet<Range<'_>>> {
    let mut found: BTreeMap<&str, BTreeSet<Range<'_>>> = BTreeMap::new();
    for zone in of.into_iter().flat_map(|d| &d.zones) {
        found.entry(&zone.name).or_default().insert((zone.min.as_bytes(), zone.max.as_bytes()));
    }
    found
}

fn by(command: &str) -> String {
    format!("mended in mongosh on the target, when no migration writes there, by `{command}`")
}

fn differ(pair: &Pair, detail: String) -> Difference {
    Difference::of(DifferenceKind::Sharding, &pair.source_info.ns, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CollectionInfo, CollectionKind, Zone};
    use bson::{RawDocumentBuf, rawdoc};

    fn pair() -> Pair {
        let info = |ns: &str| CollectionInfo {
            ns: Namespace::parse(ns).unwrap(),
            uuid: None,
            kind: CollectionKind::Collection,
            options: RawDocumentBuf::new(),
        };
        Pair { source_info: info("shop.a"), target_info: info("store.a") }
    }
    fn by_key(key: &str) -> Distributed {
        Distributed { key: Some(ShardKey::parse(key).unwrap()), unique: false, zones: Vec::new() }
    }
    fn zone(name: &str, min: i32, max: i32) -> Zone {
        Zone { name: name.into(), min: rawdoc! {"n": min}, max: rawdoc! {"n": max}, shards: Vec::new() }
    }
    fn told(ours: Option<Distributed>, theirs: Option<Distributed>) -> Vec<String> {
        let found = differences(&pair(), ours.as_ref(), theirs.as_ref());
        assert!(found.iter().all(|d| d.ns.as_str() == "shop.a" && d.kind == DifferenceKind::Sharding));
        let mended = "; mended in mongosh on the target, when no migration writes there, by ";
        found.into_iter().map(|d| d.detail.replace(mended, " | ")).collect()
    }

    #[test]
    fn equal_is_equal_whichever_shards_are_in_a_zone() {
        assert!(told(None, None).is_empty() && told(Some(by_key("n:1")), Some(by_key("n:1"))).is_empty());
        let zoned = |shard: &str| Distributed { zones: vec![Zone { shards: vec![shard.into()], ..zone("e", 0, 9) }], ..by_key("n:1") };
        assert!(told(Some(zoned("a")), Some(zoned("b"))).is_empty());
    }

    #[test]
    fn keys_that_differ_are_told_with_what_mends_them() {
        for (ours, theirs, wanted) in [
            (Some("n:1"), None, "sharded by {n: 1} on the source only | `sh.shardCollection(\"store.a\", {n: 1})`"),
            (
                None,
                Some("n:1"),
                "sharded by {n: 1} on the target only; from MongoDB 8.0 on, mended in mongosh on the target, when no migration writes \
                 there, by `db.adminCommand({unshardCollection: \"store.a\"})`",
            ),
            (
                Some("n:1"),
                Some("n:hashed"),
                "sharded by {n: 1} on the source and by {n: \"hashed\"} on the target | `db.adminCommand({reshardCollection: \"store.a\", key: {n: 1}})`",
            ),
            (
                Some("n:1,_id:1"),
                Some("n:1"),
                "sharded by {n: 1, _id: 1} on the source and by {n: 1} on the target | `db.adminCommand({refineCollectionShardKey: \"store.a\", key: {n: 1, _id: 1}})`",
            ),
        ] {
            assert_eq!(told(ours.map(by_key), theirs.map(by_key)), [wanted]);
        }
    }

    #[test]
    fn zones_are_compared_by_their_ranges() {
        let of = |zones: Vec<Zone>| Some(Distributed { zones, ..by_key("n:1") });
        let ours = of(vec![zone("east", 0, 10), zone("east", 20, 30), zone("west", 10, 20)]);
        let theirs = of(vec![zone("east", 0, 10), zone("east", 20, 31), zone("north", 40, 50)]);
        let wanted = [
            "zone `east`: 1 of its 2 ranges missing on target, 1 on target only | `sh.removeRangeFromZone(\"store.a\", MIN, MAX); sh.updateZoneKeyRange(\"store.a\", MIN, MAX, \"east\")`",
            "zone `north`: 0 of its 0 ranges missing on target, 1 on target only | `sh.removeRangeFromZone(\"store.a\", MIN, MAX)`",
            "zone `west`: 1 of its 1 ranges missing on target, 0 on target only | `sh.addShardToZone(SHARD, \"west\"); sh.updateZoneKeyRange(\"store.a\", MIN, MAX, \"west\")`",
        ];
        assert_eq!(told(ours.clone(), theirs), wanted);
        let before = Some(Distributed { key: None, unique: false, zones: vec![zone("west", 10, 20)] });
        assert_eq!(told(before.clone(), None).len(), 1, "of a collection that is not sharded yet");
        assert_eq!(told(ours, before), told(of(vec![]), None), "zones of another key say nothing");
    }

    #[test]
    fn a_key_that_was_asked_for_is_the_one_to_be_there() {
        let ours = BTreeMap::from([(Namespace::new("shop", "a"), Distributed { zones: vec![zone("east", 0, 10)], ..by_key("n:1") })]);
        let asked = |key: &str| BTreeMap::from([(Namespace::new("store", "a"), ShardKey::parse(key).unwrap())]);
        let other = as_asked_for(ours.clone(), &[pair()], &asked("m:1"));
        assert_eq!(other[&Namespace::new("shop", "a")], by_key("m:1"));
        assert_eq!(as_asked_for(ours.clone(), &[pair()], &asked("n:1")), ours);
        assert_eq!(as_asked_for(BTreeMap::new(), &[pair()], &asked("m:1")).len(), 1);
    }
}
