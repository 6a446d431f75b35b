//! How data is laid out on a sharded target: what `--shard` may ask for, what stands in its way, and where to split.

use super::{connect::Clusters, preflight::Level, privileges};
use crate::{
    config::Config,
    error::{Error, Result},
    indexes::park,
    model::{
        CollectionInfo, CollectionKind, Distribution, IndexSpec, Namespace, ShardKey, Sharded, can_be_aimed_at, collated, index_title, raw,
    },
    mongo::{Topology, sharding},
    source::{CollectionRef, Found, Source, mongo::MongoSource},
    target::mongo::Place,
};
use bson::{RawDocumentBuf, doc};
use std::collections::BTreeMap;

/// Chunks of a collection for each shard: neighbours lie on different ones, and the copy reads few ranges of `_id` at a time.
const CHUNKS_PER_SHARD: usize = 4;
/// Sampled documents for each chunk, as for partitions.
const SAMPLES_PER_CHUNK: usize = 20;

/// Why a collection that is sharded on the source is not on the target.
const ON_ONE_SHARD: &str = "it is a time series, or has a collation";

/// Refuses what cannot be sharded as asked. `listed` is what the source has; `first`: nothing has been done yet.
pub(super) fn refuse(config: &Config, target: Topology, listed: &[CollectionInfo], first: bool) -> Result<()> {
    let bad = |ns: &Namespace, problem: &str, hint: &str| Error::BadConfig {
        field: format!("--shard {ns}"),
        problem: problem.into(),
        hint: Some(hint.into()),
    };
    for ns in config.shard.keys() {
        if target != Topology::Sharded {
            return Err(bad(
                ns,
                "needs a sharded cluster as the target",
                "leave it out, or give the `mongos` of a sharded cluster as `--target`",
            ));
        }
        if ns.is_internal() || ns.is_functions() {
            return Err(bad(ns, "is a collection of the server's own", "leave it out"));
        }
        let of = |c: &&CollectionInfo| config.selection.takes(&c.ns) && config.selection.target_of(&c.ns) == *ns;
        let Some(info) = listed.iter().find(of) else {
            if first {
                return Err(bad(
                    ns,
                    "is none of the selected collections",
                    "names are those on the target, behind `--rename`; `mongoferry check` without `--shard` lists what there is",
                ));
            }
            continue;
        };
        let why = match info.kind {
            CollectionKind::View => Some("a view holds no documents"),
            CollectionKind::TimeSeries => Some("a time series cannot be sharded by mongoferry yet"),
            CollectionKind::Collection if ns.is_buckets() => Some("a time series cannot be sharded by mongoferry yet"),
            CollectionKind::Collection if info.is_capped() => Some("a capped collection cannot be sharded"),
            CollectionKind::Collection if collated(&info.options) => {
                Some("its collation makes keys equal that a shard key tells apart, so one `_id` could be on two shards")
            }
            CollectionKind::Collection => None,
        };
        if let Some(why) = why {
            return Err(bad(ns, &format!("cannot be: {why}"), "leave it out: the collection then lies on one shard"));
        }
    }
    Ok(())
}

/// What is worth knowing of the target and of the shard keys.
pub(super) async fn look(
    config: &Config,
    clusters: &Clusters,
    selected: &[CollectionInfo],
) -> Result<Vec<(Level, String, Option<String>)>> {
    let target = clusters.target.cluster();
    let (wanted, left) = as_the_source(config, clusters, selected).await?;
    if wanted.values().any(|how| !how.zones.is_empty())
        && let Some(missing) = privileges::missing_for_zones(target).await?
    {
        return Err(privileges::not_allowed(target.side(), missing));
    }
    let shards = clusters.target.shards().await?;
    let mut found = vec![(Level::Ok, format!("the target has {} shards that take data", shards.len()), None)];
    let status = target.run("admin", "asking for the balancer's state", &doc! {"balancerStatus": 1}).await;
    match status {
        Ok(reply) if reply.get_str("mode").is_ok_and(|mode| mode == "off") => found.push((
            Level::Ok,
            "the balancer of the target is off".into(),
            Some("switch it on behind the cutover, unless it is off for a reason: `sh.startBalancer()` in mongosh".into()),
        )),
        // With `_id` as the shard key nothing waits.
        Ok(_) if wanted.values().map(|how| &how.key).chain(config.shard.values()).all(ShardKey::is_id) => found.push((Level::Ok, "the balancer of the target is on".into(), None)),
        Ok(_) => found.push((
            Level::Warning,
            "the balancer of the target is on: a document whose shard key changes may have to wait until a shard has deleted what a moved chunk left behind (15 minutes by default)".into(),
            Some("stop it until the cutover: `sh.stopBalancer()` in mongosh".into()),
        )),
        Err(Error::Forbidden { .. }) => {}
        Err(error) => return Err(error),
    }
    found.extend(zones(clusters, &wanted).await?);
    found.extend(left.iter().map(|ns| {
        (Level::Warning, format!("`{ns}` is sharded on the source, and will lie on one shard of the target: {ON_ONE_SHARD}"), None)
    }));
    let zoned = sharding::zones(target).await?;
    for (ns, key) in &config.shard {
        if zoned.contains_key(ns) {
            found.push((Level::Ok, format!("the target has zones for `{ns}`, and places its chunks by them"), None));
        }
        for (index, title) in plain_only(&clusters.source, config, ns, key, selected).await? {
            found.push((
                Level::Warning,
                format!("the index `{index}` of `{ns}` cannot be unique on the target: the shard key {key} is no prefix of it"),
                Some(format!(
                    "choose a shard key that its keys begin with, or hand over without it: `cutover --waive-index` with `{title}`"
                )),
            ));
        }
    }
    Ok(found)
}

/// What becomes of the zones of a sharded source.
async fn zones(clusters: &Clusters, wanted: &BTreeMap<Namespace, Sharded>) -> Result<Vec<(Level, String, Option<String>)>> {
    let members = clusters.target.members().await?;
    let mut found = BTreeMap::new();
    for (ns, zone) in wanted.iter().flat_map(|(ns, how)| how.zones.iter().map(move |zone| (ns, zone))) {
        let name = &zone.name;
        found.entry((ns, name)).or_insert_with(|| match members.place(zone) {
            Place::There => (Level::Ok, format!("the zone `{name}` of `{ns}` is carried over to the shards that are in it"), None),
            Place::Named(shards) => {
                let shards: Vec<_> = shards.iter().map(|shard| format!("`{}`", shard.0)).collect();
                (Level::Ok, format!("the zone `{name}` of `{ns}` is carried over to {}, as on the source", shards.join(", ")), None)
            }
            Place::Nowhere => (
                Level::Warning,
                format!("no shard of the target is in the zone `{name}` of `{ns}`, or has the name of one that is on the source"),
                Some(format!("choose shards for it before the start: `sh.addShardToZone(SHARD, \"{name}\")` in mongosh on the target")),
            ),
        });
    }
    Ok(found.into_values().collect())
}

/// Unique indexes of the source that cannot be unique over shards, with the titles by which they are waived.
async fn plain_only(
    source: &MongoSource,
    config: &Config,
    ns: &Namespace,
    key: &ShardKey,
    selected: &[CollectionInfo],
) -> Result<Vec<(String, String)>> {
    let Some((of, indexes)) = of(source, config, ns, selected).await? else { return Ok(Vec::new()) };
    let unique = indexes.iter().filter(|index| !index.is_id() && index.is("unique") && !key.allows_unique(index));
    Ok(unique.map(|index| (index.name().to_owned(), index_title(of.ns.as_str(), index.name()))).collect())
}

/// The source's collection behind a name on the target, with its indexes.
async fn of(
    source: &MongoSource,
    config: &Config,
    ns: &Namespace,
    selected: &[CollectionInfo],
) -> Result<Option<(CollectionRef, Vec<IndexSpec>)>> {
    let info = selected.iter().find(|c| config.selection.target_of(&c.ns) == *ns);
    let Some((info, uuid)) = info.and_then(|info| Some((info, info.uuid?))) else { return Ok(None) };
    let of = CollectionRef { ns: info.ns.clone(), uuid };
    match source.indexes(&of).await? {
        Found::Here(indexes) => Ok(Some((of, indexes))),
        Found::Gone => Ok(None),
    }
}

/// How each sharded collection is to be made: as `--shard` says, else as the source has it. `split`: with a look at the source's
/// data, for the first plan.
pub(super) async fn sharded(config: &Config, clusters: &Clusters, split: bool) -> Result<BTreeMap<Namespace, Sharded>> {
    let selected: Vec<_> = clusters.source.collections().await?.into_iter().filter(|c| config.selection.takes(&c.ns)).collect();
    let (mut wanted, left) = as_the_source(config, clusters, &selected).await?;
    for ns in left {
        tracing::warn!(%ns, "lies on one shard of the target: {ON_ONE_SHARD}");
    }
    wanted.extend(config.shard.iter().map(|(ns, key)| (ns.clone(), Sharded::by(key.clone()))));
    if !split || wanted.is_empty() {
        return Ok(wanted);
    }
    let chunks = clusters.target.shards().await?.len() * CHUNKS_PER_SHARD;
    for (ns, how) in &mut wanted {
        let Some((of, indexes)) = of(&clusters.source, config, ns, &selected).await? else { continue };
        how.index = indexes.iter().find(|index| how.key.is_supported_by(index)).map(park);
        // Fewer chunks than are wanted, as many clusters have them where nothing splits by itself (from 6.0.3 on), load few shards.
        if how.bounds.len() + 1 < chunks && !how.key.is_hashed_first() {
            let sampled = bounds(&clusters.source, &of, &how.key, chunks).await?;
            if sampled.len() > how.bounds.len() {
                how.bounds = sampled;
            }
        }
        thin(&mut how.bounds, chunks);
    }
    Ok(wanted)
}

/// What a sharded source distributes, under the names on the target, as far as it can be distributed there; and what cannot be.
async fn as_the_source(
    config: &Config,
    clusters: &Clusters,
    selected: &[CollectionInfo],
) -> Result<(BTreeMap<Namespace, Sharded>, Vec<Namespace>)> {
    let mut layout = clusters.source.layout().await?;
    let (mut wanted, mut left) = (BTreeMap::new(), Vec::new());
    for info in selected {
        let Some(how) = info.uuid.and_then(|uuid| layout.remove(&uuid)) else { continue };
        let ns = config.selection.target_of(&info.ns);
        if info.ns.is_buckets() || collated(&info.options) {
            left.push(ns);
        } else {
            wanted.insert(ns, how);
        }
    }
    Ok((wanted, left))
}

/// Leaves bounds for about so many chunks: each takes a split, and most of them a move.
fn thin(bounds: &mut Vec<RawDocumentBuf>, chunks: usize) {
    let every = (bounds.len() + 1).div_ceil(chunks.max(1));
    let mut n = 0;
    bounds.retain(|_| {
        n += 1;
        n % every == 0
    });
}

/// Splits by a random sample. A field from the first hashed one on begins at its lowest value.
async fn bounds(source: &MongoSource, of: &CollectionRef, key: &ShardKey, chunks: usize) -> Result<Vec<RawDocumentBuf>> {
    let ranged: Vec<_> = key.distributions().iter().take_while(|(_, how)| *how == Distribution::Ranged).map(|(f, _)| f.as_str()).collect();
    let size = u32::try_from(chunks * SAMPLES_PER_CHUNK).unwrap_or(u32::MAX);
    let sample = source.sample(of, &ranged, size).await?;
    let every = sample.len() / chunks.max(1);
    if every == 0 {
        return Ok(Vec::new());
    }
    let values = sample.iter().map(|doc| -> RawDocumentBuf { key.values(doc) }).skip(every).step_by(every).take(chunks - 1);
    let mut bounds: Vec<RawDocumentBuf> =
        values.filter(|values| can_be_aimed_at(values)).map(|values| lowest_behind(&values, ranged.len())).collect();
    bounds.dedup();
    Ok(bounds)
}

fn lowest_behind(values: &bson::RawDocument, ranged: usize) -> RawDocumentBuf {
    let mut b = raw::Builder::default();
    for (n, e) in raw::elements(values).enumerate() {
        let name = std::str::from_utf8(e.name).unwrap_or_default();
        if n < ranged {
            b.element(e)
        } else {
            b.value(name, raw::tag::MIN_KEY, &[])
        };
    }
    b.finish()
}

/// Databases of the target, with the bytes that will lie on their primary shards.
pub(super) async fn databases(config: &Config, clusters: &Clusters) -> Result<Vec<(String, u64)>> {
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for info in clusters.source.collections().await?.iter().filter(|c| config.selection.takes(&c.ns)) {
        let ns = config.selection.target_of(&info.ns);
        let size = sizes.entry(ns.db().to_owned()).or_default();
        if let Some(uuid) = info.uuid.filter(|_| !config.shard.contains_key(&ns)) {
            *size += clusters.source.estimate(&CollectionRef { ns: info.ns.clone(), uuid }).await?.bytes;
        }
    }
    Ok(sizes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn of_many_bounds_a_few_are_kept_evenly() {
        let bounds = |n: i32| (0..n).map(|n| rawdoc! {"a": n}).collect::<Vec<_>>();
        for (there, chunks, left) in [(0, 8, 0), (3, 8, 3), (7, 8, 7), (8, 8, 4), (99, 8, 7), (99, 0, 0)] {
            let mut thinned = bounds(there);
            thin(&mut thinned, chunks);
            assert_eq!(thinned.len(), left, "{there} bounds for {chunks} chunks");
        }
        let mut thinned = bounds(9);
        thin(&mut thinned, 5);
        assert_eq!(thinned, [1, 3, 5, 7].map(|n| rawdoc! {"a": n}));
    }
}
