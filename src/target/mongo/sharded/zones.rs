//! Zones: carried over where the target has shards for them, and kept to when chunks are spread.

use super::layout::{Shard, run_naming};
use crate::{
    error::{Error, Result},
    model::{Namespace, Zone},
    mongo::{Cluster, sharding},
};
use bson::{RawDocumentBuf, rawdoc};
use std::collections::BTreeMap;

/// Which shards of the target a zone of the source has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Shards are in a zone of that name already.
    There,
    /// Shards have the names of those that are in it on the source.
    Named(Vec<Shard>),
    /// None.
    Nowhere,
}

/// The shards of a target, and who is in which zone.
#[derive(Debug, Default)]
pub struct Members {
    /// By their names.
    pub(super) all: Vec<Shard>,
    zones: BTreeMap<String, Vec<Shard>>,
}

impl Members {
    /// As the target has them now, save shards that are being drained.
    pub(crate) async fn of(cluster: &Cluster) -> Result<Self> {
        let mut found = Self::default();
        for shard in sharding::shards(cluster).await?.into_iter().filter(|shard| !shard.draining) {
            for zone in shard.zones {
                found.zones.entry(zone).or_default().push(Shard(shard.name.clone()));
            }
            found.all.push(Shard(shard.name));
        }
        Ok(found)
    }

    /// Which shards a zone of the source has here.
    #[must_use]
    pub fn place(&self, zone: &Zone) -> Place {
        if self.zones.contains_key(&zone.name) {
            return Place::There;
        }
        let named: Vec<Shard> = self.all.iter().filter(|Shard(name)| zone.shards.contains(name)).cloned().collect();
        if named.is_empty() { Place::Nowhere } else { Place::Named(named) }
    }

    /// The shards that a chunk may lie on.
    pub(super) fn allowed(&self, zone: Option<&str>) -> &[Shard] {
        zone.and_then(|zone| self.zones.get(zone)).unwrap_or(&self.all)
    }
}

/// Gives a collection the zones of the source, before it is sharded. May be repeated.
pub(super) async fn carry(cluster: &Cluster, ns: &Namespace, zones: &[Zone]) -> Result<()> {
    if zones.is_empty() {
        return Ok(());
    }
    let members = Members::of(cluster).await?;
    for zone in zones {
        match members.place(zone) {
            Place::There => {}
            Place::Named(shards) => {
                for shard in &shards {
                    let command = rawdoc! {"addShardToZone": shard.0.as_str(), "zone": zone.name.as_str()};
                    run_naming(cluster, &format!("adding a shard to the zone `{}`", zone.name), shard, &command).await?;
                }
            }
            Place::Nowhere => {
                tracing::warn!(%ns, zone = zone.name, "no shard of the target is in this zone, or has the name of one that is");
                continue;
            }
        }
        let (min, max) = (zone.min.clone(), zone.max.clone());
        let command = rawdoc! {"updateZoneKeyRange": ns.as_str(), "min": min, "max": max, "zone": zone.name.as_str()};
        match cluster.run_raw("admin", &format!("giving `{ns}` the zone `{}`", zone.name), &command).await {
            // Ranges that somebody gave it stay.
            Err(Error::Refused { code, .. }) => tracing::warn!(%ns, zone = zone.name, code, "the target has other zones there"),
            other => drop(other?),
        }
    }
    Ok(())
}

/// The zones of a collection, as ranges that begin at the lower ends of chunks: the server splits there.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(RawDocumentBuf, RawDocumentBuf, String)>);

impl Ranges {
    pub(super) async fn of(cluster: &Cluster, ns: &Namespace) -> Result<Self> {
        let zones = sharding::zones(cluster).await?.remove(ns).unwrap_or_default();
        Ok(Self(zones.into_iter().map(|zone| (zone.min, zone.max, zone.name)).collect()))
    }

    /// The zone of a chunk, told its lower end; `within` is that of the chunk before it.
    pub(super) fn at<'a>(&'a self, min: &bson::RawDocument, within: Option<&'a str>) -> Option<&'a str> {
        if let Some((.., zone)) = self.0.iter().find(|(begin, ..)| begin.as_bytes() == min.as_bytes()) {
            return Some(zone);
        }
        let ends = self.0.iter().any(|(_, end, _)| end.as_bytes() == min.as_bytes());
        within.filter(|_| !ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, shards: &[&str]) -> Zone {
        let shards = shards.iter().map(ToString::to_string).collect();
        Zone { name: name.into(), min: rawdoc! {"n": 0}, max: rawdoc! {"n": 9}, shards }
    }

    #[test]
    fn a_zone_goes_where_it_is_or_where_its_shards_are_by_name() {
        let shard = |name: &str| Shard(name.into());
        let zones = BTreeMap::from([("east".into(), vec![shard("c")])]);
        let members = Members { all: ["a", "b", "c"].map(shard).to_vec(), zones };
        assert_eq!(members.place(&zone("east", &["a"])), Place::There);
        assert_eq!(members.place(&zone("west", &["b", "elsewhere"])), Place::Named(vec![shard("b")]));
        assert_eq!(members.place(&zone("north", &["elsewhere"])), Place::Nowhere);
        assert_eq!(members.allowed(Some("east")), [shard("c")]);
        assert_eq!(members.allowed(Some("west")).len(), 3);
        assert_eq!(members.allowed(None).len(), 3);
    }

    #[test]
    fn chunks_are_in_a_zone_from_its_lower_end_to_its_upper_one() {
        let range = |min: i32, max: i32, zone: &str| (rawdoc! {"n": min}, rawdoc! {"n": max}, zone.to_owned());
        let ranges = Ranges(vec![range(10, 30, "east"), range(30, 40, "west"), range(60, 70, "east")]);
        let (mut within, mut told) = (None, Vec::new());
        for min in [0, 10, 20, 30, 35, 40, 50, 60, 70] {
            within = ranges.at(&rawdoc! {"n": min}, within);
            told.push(within);
        }
        let (east, west) = (Some("east"), Some("west"));
        assert_eq!(told, [None, east, east, west, west, None, None, east, None]);
    }
}
