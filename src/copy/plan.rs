//! What there is to copy: collections made on the target, and split into partitions.

use crate::{
    catalog::{Collection, Entry, State},
    checkpoint::Store,
    error::{Error, Result},
    model::{ClusterTime, CollectionInfo, CollectionKind, Namespace, Partition, Selection, split_count},
    source::{CollectionRef, Estimate, Found, Source},
    target::{self, Target},
};
use std::collections::BTreeSet;

/// A plan, saved.
#[derive(Debug)]
pub struct Planned {
    /// All collections and views.
    pub entries: Vec<Entry>,
    /// What to copy of them.
    pub partitions: Vec<Partition>,
    /// The listing shows the source as late as this.
    pub listed_until: ClusterTime,
    /// Of everything together.
    pub estimate: Estimate,
}

/// Lists the source, makes every selected collection and view on the target, and splits what holds documents.
///
/// Each entry is saved before its collection is made, so that a crash leaves none on the target that the
/// catalog does not name. Nothing of an earlier plan may be left on the target.
///
/// # Errors
/// [`Error::Unsupported`] for what this version cannot replicate, before anything is made.
pub async fn plan<S: Source, T: Target, C: Store>(
    source: &S,
    target: &T,
    store: &C,
    selection: &Selection,
    partition_bytes: u64,
) -> Result<Planned> {
    let listed_from = source.operation_time().await?;
    // A time series is its buckets.
    let wanted = |info: &CollectionInfo| info.kind != CollectionKind::TimeSeries && selection.takes(&info.ns);
    let listed = listed(source, selection).await?;
    let mut entries: Vec<Entry> = listed.iter().filter(|info| wanted(info)).map(|info| entry(info, selection, listed_from)).collect();
    for entry in entries.iter_mut().filter(|e| !e.is_view()) {
        if let Found::Here(indexes) = source.indexes(&CollectionRef { ns: entry.ns.clone(), uuid: entry.uuid }).await? {
            indexes.into_iter().for_each(|spec| entry.want_index(spec));
        }
    }
    let listed_until = source.operation_time().await?;
    // Views last: the collection beneath should be there, though it need not.
    entries.sort_by_key(Entry::is_view);
    store.save_entries(&entries).await?;
    for entry in &mut entries {
        entry.target_uuid = target::make(target, &entry.target, &entry.options).await?;
    }
    store.save_entries(&entries).await?;
    let (mut partitions, mut total) = (Vec::new(), Estimate::default());
    for entry in entries.iter().filter(|e| e.state == State::Copying) {
        let (estimate, parts) = split(source, entry, partition_bytes).await?;
        total.documents += estimate.documents;
        total.bytes += estimate.bytes;
        partitions.extend(parts);
    }
    store.save_partitions(&partitions).await?;
    Ok(Planned { entries, partitions, listed_until, estimate: total })
}

/// The partitions of a collection that came into the selection later, saved, and with them that it is
/// [`State::Copying`]. May be repeated: partitions that a crash left of an earlier split only overlap.
///
/// # Errors
/// As classified.
pub async fn plan_late<S: Source, C: Store>(source: &S, store: &C, collection: &Collection, partition_bytes: u64) -> Result<()> {
    let entry = collection.entry().clone();
    let (_, partitions) = split(source, &entry, partition_bytes).await?;
    store.save_partitions(&partitions).await?;
    let _one_at_a_time = collection.saving.lock().await;
    let entry = {
        let mut entry = collection.entry_mut();
        if entry.state == State::Wanted {
            entry.state = State::Copying;
        }
        entry.clone()
    };
    store.save_entries(&[entry]).await
}

/// How large a collection is, and its partitions. A capped one has none: see [`crate::capped`].
async fn split<S: Source>(source: &S, entry: &Entry, partition_bytes: u64) -> Result<(Estimate, Vec<Partition>)> {
    let of = CollectionRef { ns: entry.ns.clone(), uuid: entry.uuid };
    let estimate = source.estimate(&of).await?;
    if entry.capped {
        return Ok((estimate, Vec::new()));
    }
    let bounds = source.split(&of, split_count(estimate.bytes, partition_bytes)).await?;
    Ok((estimate, Partition::cover(entry.uuid, bounds)))
}

/// Lists the source.
///
/// # Errors
/// [`Error::Unsupported`] for the selected buckets of a time series that is not there: they can only be made with it. Somebody made
/// them by hand; the server makes and drops both, one right behind the other (RAN on 6.0.5), so it is asked twice.
pub async fn listed<S: Source>(source: &S, selection: &Selection) -> Result<Vec<CollectionInfo>> {
    let mut listed = source.collections().await?;
    if orphaned(&listed, selection).is_some() {
        listed = source.collections().await?;
    }
    let Some((buckets, series)) = orphaned(&listed, selection) else { return Ok(listed) };
    Err(Error::Unsupported {
        what: "the buckets of a time series without their series".into(),
        ns: Some(buckets.to_string()),
        hint: format!("leave them out with `--exclude {series}`, or drop them"),
    })
}

fn orphaned(listed: &[CollectionInfo], selection: &Selection) -> Option<(Namespace, Namespace)> {
    let series: BTreeSet<&Namespace> = listed.iter().filter(|c| c.kind == CollectionKind::TimeSeries).map(|c| &c.ns).collect();
    let mut buckets = listed.iter().filter(|c| selection.takes(&c.ns)).filter_map(|c| Some((c.ns.clone(), c.ns.series()?)));
    buckets.find(|(_, of)| !series.contains(of))
}

fn entry(info: &CollectionInfo, selection: &Selection, at: ClusterTime) -> Entry {
    let state = if info.kind == CollectionKind::View { State::Complete } else { State::Copying };
    Entry::new(info, selection.target_of(&info.ns), state, at)
}
