//! Collections that the cluster has replaced by others of the same name.
//!
//! Resharding gives a collection another UUID, and 6.0.5 tells nothing of it (RAN): the old one is neither dropped nor
//! renamed, the new one not created. So the UUIDs of sharded collections are looked at, and where one was changed a drop of the
//! old one is put into the stream (see [`super::super::swept`]), behind which the tail finds its successor. To look early or
//! late is the same: what the stream tells of the old UUID from there on means nothing, and the successor is copied as it is.

use super::super::{fetch::locate, watch::Known};
use crate::{
    error::Result,
    model::{Change, ChangeEvent, CollectionUuid, Ddl, Namespace},
    mongo::{
        Cluster,
        sharding::{self, Row},
    },
    source::CollectionRef,
};
use std::collections::BTreeMap;

/// Which collection each name stood for when it was last looked at.
pub struct Identities(BTreeMap<Namespace, CollectionUuid>);

impl Identities {
    pub(in super::super) fn known(known: &Known) -> Self {
        Self(known.living.iter().filter_map(|c| Some((c.info.ns.clone(), c.info.uuid?))).collect())
    }

    /// What is told needs no telling, least of all behind a fence.
    pub(in super::super) fn hear(&mut self, event: &ChangeEvent) {
        if let Change::Ddl(Ddl::Drop { uuid: Some(dropped), .. } | Ddl::Rename { dropped: Some(dropped), .. }) = &event.change {
            self.0.retain(|_, uuid| uuid != dropped);
        }
    }

    /// Collections that have another UUID than before, and whose old one is nowhere.
    pub(in super::super) async fn replaced(&mut self, cluster: &Cluster) -> Result<Vec<Ddl>> {
        let mut found = Vec::new();
        for Row { ns, uuid, .. } in sharding::collections(cluster).await?.into_iter().filter(|row| !row.ns.is_internal()) {
            let Some(old) = self.0.insert(ns.clone(), uuid).filter(|old| *old != uuid) else { continue };
            // A rename, which the stream tells, leaves it under another name.
            if locate(cluster, &CollectionRef { ns: ns.clone(), uuid: old }).await?.is_none() {
                tracing::info!(%ns, "a sharded collection has another identity: it was resharded, or dropped and made again");
                found.push(Ddl::Drop { ns, uuid: Some(old) });
            }
        }
        Ok(found)
    }
}
