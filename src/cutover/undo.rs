//! The way out of a cutover, whoever goes it: the saga itself, the job after a failure, or the next process after a crash.
//!
//! Order: what is saved tells first whether there is anything to undo; then the source is given back, whatever the target
//! does; then the target is unsealed; last it is saved that there is no cutover any more. Each may be repeated.

use super::step::UNDO;
use crate::{
    catalog::Catalog,
    checkpoint::Store,
    error::Result,
    indexes::unseal,
    model::{Activity, ClusterTime, Phase},
    source::Source,
    target::Target,
};

/// What became of a cutover that was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Its commit had been saved, with this fence.
    Committed(ClusterTime),
    /// It had not, and will not be any more: users may write to the source.
    Undone,
}

/// Finds out whether a cutover was committed, and gives the source back where it was not.
///
/// # Errors
/// As classified: then it is not known yet, and the source may be fenced. May be repeated.
pub async fn settle<S: Source, C: Store>(source: &S, store: &C) -> Result<Settled> {
    // Behind this, a commit that is still on its way finds another step than its own, and does nothing.
    store.save_step(UNDO).await?;
    let (phase, fenced) = store.standing().await?;
    if let Phase::Committed { fence } = phase {
        return Ok(Settled::Committed(fence));
    }
    if fenced {
        give_back(source, store).await?;
    }
    Ok(Settled::Undone)
}

/// Lets users write to the source again, and saves that.
///
/// # Errors
/// As classified.
pub async fn give_back<S: Source, C: Store>(source: &S, store: &C) -> Result<()> {
    source.allow_writes().await?;
    store.save_fenced(false).await
}

/// Unseals the target of a cutover that was undone or cut short, and saves that there is none any more. May be
/// repeated.
///
/// # Errors
/// As classified.
pub async fn take_back<T: Target, C: Store>(target: &T, store: &C, catalog: &Catalog) -> Result<()> {
    unseal(target, catalog).await?;
    note_undone(store).await
}

pub(super) async fn note_undone<C: Store>(store: &C) -> Result<()> {
    store.save_fenced(false).await?;
    store.save_phase(&Phase::Tailing, &Activity::Running).await
}
