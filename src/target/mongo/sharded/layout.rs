//! Sharded collections are made, and their chunks spread, before a document comes: so all shards are written from the first one on.

use super::{
    super::{super::TargetCollection, ddl},
    zones::{self, Members, Ranges},
};
use crate::{
    error::{Error, Result},
    model::{Distribution, IndexSpec, Namespace, ShardKey, Sharded, raw},
    mongo::{Cluster, listing, sharding},
};
use bson::{RawDocumentBuf, rawdoc};
use std::collections::BTreeMap;

/// A shard that takes data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard(pub String);

/// The shards, save those that are being drained.
pub(crate) async fn shards(cluster: &Cluster) -> Result<Vec<Shard>> {
    Ok(Members::of(cluster).await?.all)
}

/// Gives each database that is not there yet a primary shard, so that about the same number of bytes comes to each.
pub(crate) async fn place(cluster: &Cluster, databases: &[(String, u64)]) -> Result<()> {
    let there = sharding::databases(cluster).await?;
    let new: Vec<(String, u64)> = databases.iter().filter(|(name, _)| !there.contains(name)).cloned().collect();
    for (database, shard) in spread(new, &shards(cluster).await?) {
        let command = rawdoc! {"enableSharding": database.as_str(), "primaryShard": shard.0.as_str()};
        // Where the shard has just left, the server chooses.
        if run_naming(cluster, &format!("making the database `{database}`"), &shard, &command).await? {
            tracing::debug!(database, shard = shard.0, "placed");
        }
    }
    Ok(())
}

/// The largest first, each to the shard that has the least.
fn spread(mut databases: Vec<(String, u64)>, shards: &[Shard]) -> Vec<(String, Shard)> {
    databases.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    // Databases of nothing are spread by their number.
    let mut loads: BTreeMap<&Shard, u64> = shards.iter().map(|shard| (shard, 0)).collect();
    let mut placed = Vec::new();
    for (database, bytes) in databases {
        let Some((shard, load)) = loads.iter_mut().min_by_key(|(_, load)| **load) else { break };
        *load += bytes + 1;
        placed.push((database, (*shard).clone()));
    }
    placed
}

/// Distributes a collection, empty or not. May be repeated.
pub(crate) async fn shard(cluster: &Cluster, to: &TargetCollection, how: &Sharded) -> Result<()> {
    support(cluster, to, how).await?;
    let ns = &to.ns;
    zones::carry(cluster, ns, &how.zones).await?;
    let command = rawdoc! {"shardCollection": ns.as_str(), "key": how.key.pattern(), "collation": {"locale": "simple"}};
    cluster.run_raw("admin", &format!("sharding `{ns}` by {}", how.key), &command).await?;
    for bound in &how.bounds {
        let split = rawdoc! {"split": ns.as_str(), "middle": bound.clone()};
        // What is a bound already cannot be split: two values that are one to the server, or an answer that was lost.
        match cluster.run_raw("admin", &format!("splitting `{ns}`"), &split).await {
            Err(Error::Refused { code, .. }) => tracing::debug!(%ns, code, "a split was refused"),
            other => drop(other?),
        }
    }
    if !how.bounds.is_empty() {
        go_round(cluster, ns).await?;
    }
    tracing::info!(%ns, key = %how.key, bounds = how.bounds.len(), "sharded");
    Ok(())
}

/// Makes the index that a shard key needs, unless there is one.
async fn support(cluster: &Cluster, to: &TargetCollection, how: &Sharded) -> Result<()> {
    if how.key.pattern() == rawdoc! {"_id": 1} {
        return Ok(());
    }
    if let Some(index) = &how.index {
        ddl::create_indexes(cluster, to, std::slice::from_ref(index)).await?;
    }
    let there = listing::indexes(cluster, &to.ns).await?.unwrap_or_default();
    if !there.iter().any(|index| how.key.is_supported_by(index)) {
        ddl::create_indexes(cluster, to, &[supporting(&how.key)]).await?;
    }
    Ok(())
}

/// The index that the server would make, under the name that it would have.
fn supporting(key: &ShardKey) -> IndexSpec {
    let name = |(field, how): &(String, Distribution)| match how {
        Distribution::Ranged => format!("{field}_1"),
        Distribution::Hashed => format!("{field}_hashed"),
    };
    let name = key.distributions().iter().map(name).collect::<Vec<_>>().join("_");
    IndexSpec(rawdoc! {"v": 2, "key": key.pattern(), "name": name})
}

/// Moves chunks so that neighbours lie on different shards of their zone: the copy reads in some order of the keys, too.
async fn go_round(cluster: &Cluster, ns: &Namespace) -> Result<()> {
    let (members, ranges) = (Members::of(cluster).await?, Ranges::of(cluster, ns).await?);
    let Some(row) = sharding::named(cluster, ns).await? else { return Ok(()) };
    let mut zone = None;
    for (n, chunk) in sharding::chunks(cluster, row.uuid).await?.iter().enumerate() {
        zone = ranges.at(&chunk.min, zone);
        let Some(to) = members.allowed(zone).iter().cycle().nth(n) else { continue };
        if chunk.shard == to.0 {
            continue;
        }
        let mut b = raw::Builder::default();
        b.str("moveChunk", ns.as_str()).begin_array("bounds").doc("0", &chunk.min).doc("1", &chunk.max).end().str("to", &to.0);
        // What it leaves behind on its shard would be in the way of documents that come back there.
        b.bool("_waitForDelete", true);
        // It stays where it is if the shard has just begun to be drained.
        run_naming(cluster, &format!("moving a chunk of `{ns}`"), to, &b.finish()).await?;
    }
    Ok(())
}

/// Runs a command that names a shard. Says whether it was done: not where the shard is being drained, or has left, by now.
pub(super) async fn run_naming(cluster: &Cluster, doing: &str, Shard(shard): &Shard, command: &RawDocumentBuf) -> Result<bool> {
    let mut patience = cluster.retry().patience();
    loop {
        let Err(error) = cluster.run_once("admin", doing, command.clone(), None).await else { return Ok(true) };
        if !shards(cluster).await?.iter().any(|there| there.0 == *shard) {
            return Ok(false);
        }
        patience.after(error).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_spread_by_their_bytes() {
        let shards = ["a", "b"].map(|name| Shard(name.into()));
        let databases = [("small", 10), ("large", 100), ("middle", 60), ("none", 0), ("void", 0)];
        let placed = spread(databases.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec(), &shards);
        let on = |shard: &str| placed.iter().filter(|(_, s)| s.0 == shard).map(|(db, _)| db.as_str()).collect::<Vec<_>>();
        assert_eq!((on("a"), on("b")), (vec!["large"], vec!["middle", "small", "none", "void"]));
        assert!(spread(vec![("a".into(), 1)], &[]).is_empty());
    }

    #[test]
    fn the_supporting_index_is_the_one_that_the_server_would_make() {
        let index = supporting(&ShardKey::parse("a.b:1,_id:hashed").unwrap());
        assert_eq!(index.0, rawdoc! {"v": 2, "key": {"a.b": 1, "_id": "hashed"}, "name": "a.b_1__id_hashed"});
    }
}
