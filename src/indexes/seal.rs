//! The seal: the target gets exactly the indexes and options that the source has, and may be given back.

use super::{PARKED, park, same_when_parked};
use crate::{
    catalog::{Catalog, Collection},
    error::Result,
    model::{IndexSpec, index_title, raw},
    source::{Found, Source},
    target::{IndexChange, Target, TargetCollection, park_options},
};
use std::sync::Arc;

/// What a seal changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Indexes that became unique.
    pub unique: u64,
    /// Indexes that got their TTL.
    pub ttl: u64,
    /// Indexes built, changed or dropped besides.
    pub other: u64,
}

/// Gives every living collection its final indexes and options, as the source has them *now*: it is fenced, so
/// they stand still. Indexes that are `waived` (see [`index_title`]) are left as they are. Each step may be repeated.
///
/// # Errors
/// As classified; a unique index that meets duplicates is refused by the server.
pub async fn seal<S: Source, T: Target>(source: &S, target: &T, catalog: &Catalog, waived: &[String]) -> Result<Sealed> {
    let mut sealed = Sealed::default();
    for collection in catalog.living() {
        let of = collection.on_source();
        let Some(to) = collection.on_target() else { continue };
        let Found::Here(mut wanted) = source.indexes(&of).await? else { continue };
        wanted.retain(|spec| !waived.contains(&index_title(of.ns.as_str(), spec.name())));
        seal_indexes(target, &to, &wanted, &mut sealed).await?;
    }
    // Options last: an expiring collection deletes as soon as it may.
    let listed = source.collections().await?;
    for collection in catalog.living() {
        let of = collection.on_source();
        let Some(info) = listed.iter().find(|c| c.uuid == Some(of.uuid)) else { continue };
        if let (_, Some(parked)) = park_options(&info.options) {
            let (to, uuid) = {
                let e = collection.entry();
                (e.target.clone(), e.target_uuid)
            };
            target.modify(&to, uuid, &parked).await?;
        }
    }
    Ok(sealed)
}

async fn seal_indexes<T: Target>(target: &T, to: &TargetCollection, wanted: &[IndexSpec], sealed: &mut Sealed) -> Result<()> {
    let there = target.indexes(&to.ns).await?;
    for old in there.iter().filter(|t| !t.is_id() && !wanted.iter().any(|w| w.name() == t.name() && same_when_parked(w, t))) {
        target.drop_index(to, old.name()).await?;
        sealed.other += 1;
    }
    for spec in wanted.iter().filter(|w| !w.is_id()) {
        match there.iter().find(|t| t.name() == spec.name() && same_when_parked(spec, t)) {
            None => {
                target.create_indexes(to, std::slice::from_ref(spec)).await?;
                sealed.other += 1;
            }
            Some(now) => unpark(target, to, spec, now, sealed).await?,
        }
    }
    Ok(())
}

/// From the parked form `now` to the wanted one.
async fn unpark<T: Target>(target: &T, to: &TargetCollection, spec: &IndexSpec, now: &IndexSpec, sealed: &mut Sealed) -> Result<()> {
    let name = spec.name();
    if spec.is("unique") && !now.is("unique") {
        target.change_index(to, name, &IndexChange::PrepareUnique(true)).await?;
        target.change_index(to, name, &IndexChange::Unique).await?;
        sealed.unique += 1;
    } else if spec.is("prepareUnique") && !now.is("prepareUnique") {
        target.change_index(to, name, &IndexChange::PrepareUnique(true)).await?;
        sealed.other += 1;
    }
    if let Some(seconds) = raw::get(&spec.0, "expireAfterSeconds").and_then(|e| e.integer())
        && raw::get(&now.0, "expireAfterSeconds").and_then(|e| e.integer()) != Some(seconds)
    {
        target.change_index(to, name, &IndexChange::ExpireAfterSeconds(seconds)).await?;
        sealed.ttl += 1;
    }
    Ok(())
}

/// Takes a seal back: unique indexes become plain again, what expires is built anew without its time (a TTL
/// cannot be taken from an index). The tail can go on then.
///
/// # Errors
/// As classified.
pub async fn unseal<T: Target>(target: &T, catalog: &Catalog) -> Result<()> {
    let there = target.collections().await?;
    for collection in catalog.living() {
        let Some(to) = collection.on_target() else { continue };
        if there.iter().any(|c| c.ns == to.ns && raw::get(&c.options, "expireAfterSeconds").is_some()) {
            let mut off = raw::Builder::default();
            off.str("expireAfterSeconds", "off");
            target.modify(&to.ns, Some(to.uuid), &off.finish()).await?;
        }
        for spec in target.indexes(&to.ns).await?.iter().filter(|spec| !spec.is_id() && PARKED.iter().any(|option| spec.has(option))) {
            unseal_index(target, &collection, &to, spec).await?;
        }
    }
    Ok(())
}

async fn unseal_index<T: Target>(target: &T, collection: &Arc<Collection>, to: &TargetCollection, spec: &IndexSpec) -> Result<()> {
    let name = spec.name();
    if spec.has("expireAfterSeconds") {
        target.drop_index(to, name).await?;
        target.create_indexes(to, &[park(spec)]).await?;
        collection.entry_mut().built.insert(name.to_owned());
        return Ok(());
    }
    if spec.is("unique") {
        target.change_index(to, name, &IndexChange::NotUnique).await?;
    }
    target.change_index(to, name, &IndexChange::PrepareUnique(false)).await
}
