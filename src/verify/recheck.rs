//! Looks at mismatches again, in generations, until each is explained or confirmed.
//!
//! Under load most mismatches are changes on their way. One is real when the source has not changed, the
//! target has caught up with what was read from it, and both still differ; and that twice in a row.

use super::{
    Settings,
    compare::{Digest, MismatchKind, describe},
    gone,
    report::{Difference, DifferenceKind, id_text},
};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, DocumentKey, Side},
    source::{CollectionRef, Fetched, Found, Source},
};
use std::collections::{BTreeSet, HashMap, HashSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Confirmed when found so many times in a row with an unchanged source.
const STRIKES: u32 = 2;
/// Keys of one read at most, and of the first.
const KEYS_AT_ONCE: usize = 200;
const FIRST_READ: usize = 16;
/// Bytes of an answer above which fewer keys are asked for.
const LARGE_ANSWER: usize = 1 << 20;

/// One document on one side: a digest of all its bytes, or that it is not there.
pub(super) type Seen = Option<u128>;

/// A mismatch under suspicion.
#[derive(Debug)]
pub(super) struct Suspect {
    /// Number of its pair.
    pub(super) pair: usize,
    pub(super) key: DocumentKey,
    /// As the source was when both sides last differed.
    last: Option<Seen>,
    strikes: u32,
}

/// What one generation makes of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Equal by now.
    Equal,
    /// Not sure yet.
    Again,
    /// They differ, and nothing explains it.
    Confirmed(MismatchKind),
}

impl Suspect {
    pub(super) fn new(pair: usize, key: DocumentKey) -> Self {
        Self { pair, key, last: None, strikes: 0 }
    }

    /// `source` was read, then the target caught up with it, then `target` was read, and `again` from the source
    /// once more.
    pub(super) fn judge(&mut self, source: Seen, target: Seen, again: Seen) -> Verdict {
        if target == source || target == again {
            return Verdict::Equal;
        }
        if again != source {
            (self.last, self.strikes) = (None, 0);
            return Verdict::Again;
        }
        self.strikes = if self.last == Some(source) { self.strikes + 1 } else { 1 };
        self.last = Some(source);
        match (source, target) {
            _ if self.strikes < STRIKES => Verdict::Again,
            (Some(_), None) => Verdict::Confirmed(MismatchKind::Missing),
            (None, _) => Verdict::Confirmed(MismatchKind::Extra),
            (Some(_), Some(_)) => Verdict::Confirmed(MismatchKind::Different),
        }
    }
}

/// A pair as the recheck reads it.
#[derive(Debug, Clone)]
pub(super) struct Readable {
    pub(super) source: CollectionRef,
    pub(super) target: CollectionRef,
    pub(super) batch_documents: u32,
    pub(super) collated: bool,
    /// By which its documents are compared.
    pub(super) digest: Digest,
}

/// What the recheck found.
#[derive(Debug, Default)]
pub(super) struct Rechecked {
    /// Each with the number of its pair.
    pub(super) differences: Vec<(usize, Difference)>,
    pub(super) generations: u32,
    /// Pairs of which one side was dropped meanwhile.
    pub(super) gone: BTreeSet<usize>,
}

/// Looks at all suspects again until none is left, or the generations are used up.
///
/// # Errors
/// As classified.
///
/// # Cancel safety
/// Not safe to drop half way; `stop` is looked at between reads.
pub(super) async fn recheck<A: Source, B: Source, F, Fut>(
    (source, target): (&A, &B),
    pairs: &[Option<Readable>],
    mut suspects: Vec<Suspect>,
    settings: &Settings,
    settle: &F,
    stop: &CancellationToken,
) -> Result<Rechecked>
where
    F: Fn(ClusterTime) -> Fut,
    Fut: Future<Output = Result<()>> + Send,
{
    let mut done = Rechecked::default();
    let mut told = BTreeSet::new();
    while !suspects.is_empty() && done.generations < settings.generations.max(STRIKES) {
        done.generations += 1;
        suspects.sort_by_key(|s| s.pair);
        let mut first = Vec::with_capacity(suspects.len());
        let mut read_at = source.operation_time().await?;
        for (pair, chunk) in chunks(&suspects, pairs)? {
            if stop.is_cancelled() {
                return Err(Error::Interrupted);
            }
            let started = Instant::now();
            let keys: Vec<_> = chunk.iter().map(|s| &s.key).collect();
            match read(source, &pair.source, (pair.collated, pair.digest), &keys, read_at, &mut read_at).await? {
                Some(seen) => first.extend(seen),
                None => {
                    gone(settings, Side::Source, &pair.source)?;
                    done.gone.insert(chunk[0].pair);
                    first.extend(chunk.iter().map(|_| None));
                }
            }
            settings.pace.rest(0, started.elapsed(), stop).await;
        }
        settle(read_at).await?;
        let target_time = target.operation_time().await?;
        let mut verdicts = Vec::with_capacity(suspects.len());
        let mut rest = suspects.as_mut_slice();
        let sizes: Vec<_> = chunks(rest, pairs)?.into_iter().map(|(pair, chunk)| (pair.clone(), chunk.len())).collect();
        for (pair, size) in sizes {
            if stop.is_cancelled() {
                return Err(Error::Interrupted);
            }
            let started = Instant::now();
            let (chunk, behind) = rest.split_at_mut(size);
            rest = behind;
            let number = chunk[0].pair;
            let seen = &first[verdicts.len()..verdicts.len() + size];
            let Some(looked) = look_again((source, target), &pair, chunk, seen, (read_at, target_time)).await? else {
                gone(settings, Side::Target, &pair.target)?;
                done.gone.insert(number);
                verdicts.extend(chunk.iter().map(|_| Verdict::Equal));
                continue;
            };
            for (suspect, verdict) in chunk.iter().zip(looked) {
                if let Verdict::Confirmed(kind) = verdict {
                    let found = confirmed((source, target), &pair, &suspect.key, kind, (read_at, target_time)).await?;
                    // One document may be here twice, under two keys that are one to the server.
                    let exact = found.key.as_ref().map(|key| key.as_raw().as_bytes().to_vec());
                    if told.insert((suspect.pair, found.kind, found.id.clone(), found.detail.clone(), exact)) {
                        done.differences.push((suspect.pair, found));
                    }
                }
                verdicts.push(verdict);
            }
            settings.pace.rest(0, started.elapsed(), stop).await;
        }
        let mut verdicts = verdicts.into_iter();
        suspects.retain(|s| verdicts.next() == Some(Verdict::Again) && !done.gone.contains(&s.pair));
    }
    for suspect in suspects {
        let ns = pairs.get(suspect.pair).and_then(Option::as_ref).map(|p| p.source.ns.clone());
        let Some(ns) = ns else { continue };
        let detail = format!("changed on the source each time, {} times", done.generations);
        let id = Some(id_text(&suspect.key));
        let found = Difference { id, key: Some(suspect.key), ..Difference::of(DifferenceKind::Unsettled, &ns, detail) };
        done.differences.push((suspect.pair, found));
    }
    Ok(done)
}

/// Reads the target, and where it is not as the source was, the source once more; `None` where a collection is gone.
async fn look_again<A: Source, B: Source>(
    (source, target): (&A, &B),
    pair: &Readable,
    chunk: &mut [Suspect],
    first: &[Seen],
    (source_time, target_time): (ClusterTime, ClusterTime),
) -> Result<Option<Vec<Verdict>>> {
    let mut nowhere = ClusterTime::default();
    let keys: Vec<_> = chunk.iter().map(|s| &s.key).collect();
    let Some(theirs) = read(target, &pair.target, (pair.collated, pair.digest), &keys, target_time, &mut nowhere).await? else {
        return Ok(None);
    };
    let other: Vec<usize> = (0..keys.len()).filter(|n| theirs[*n] != first[*n]).collect();
    let mut again = first.to_vec();
    if !other.is_empty() {
        let keys: Vec<_> = other.iter().map(|n| keys[*n]).collect();
        let Some(seen) = read(source, &pair.source, (pair.collated, pair.digest), &keys, source_time, &mut nowhere).await? else {
            return Ok(None);
        };
        other.iter().zip(seen).for_each(|(n, seen)| again[*n] = seen);
    }
    let verdicts = chunk.iter_mut().enumerate().map(|(n, suspect)| suspect.judge(first[n], theirs[n], again[n]));
    Ok(Some(verdicts.collect()))
}

/// In words. The documents are read once more for it, one by one: none is kept.
async fn confirmed<A: Source, B: Source>(
    (source, target): (&A, &B),
    pair: &Readable,
    key: &DocumentKey,
    kind: MismatchKind,
    (source_time, target_time): (ClusterTime, ClusterTime),
) -> Result<Difference> {
    let one = std::slice::from_ref(key);
    let documents = |found| match found {
        Found::Here(Fetched { documents, .. }) => documents,
        Found::Gone => Vec::new(),
    };
    let ours = documents(source.fetch(&pair.source, one, source_time).await?).into_iter().next();
    let theirs = documents(target.fetch(&pair.target, one, target_time).await?);
    let twice = theirs.len() > 1;
    let theirs = theirs.into_iter().next();
    let detail = match (kind, &ours, &theirs) {
        (MismatchKind::Different, ..) if twice => "stands on the target twice, on two shards".into(),
        (MismatchKind::Different, Some(ours), Some(theirs)) => describe(ours, theirs),
        (MismatchKind::Different, ..) => "bytes differ".into(),
        (MismatchKind::Missing, ..) => "not on the target".into(),
        (MismatchKind::Extra, ..) => "not on the source".into(),
    };
    let stored = ours.and_then(|doc| DocumentKey::of(&doc));
    let there = theirs.and_then(|doc| DocumentKey::of(&doc));
    Ok(Difference {
        id: Some(id_text(stored.as_ref().unwrap_or(key))),
        key: Some(there.or(stored).unwrap_or_else(|| key.clone())),
        ..Difference::of(kind.into(), &pair.source.ns, detail)
    })
}

/// Suspects of one pair, so many at a time. They are sorted by pair.
fn chunks<'a, 's>(suspects: &'s [Suspect], pairs: &'a [Option<Readable>]) -> Result<Vec<(&'a Readable, &'s [Suspect])>> {
    let mut all = Vec::new();
    for same in suspects.chunk_by(|a, b| a.pair == b.pair) {
        let pair =
            pairs.get(same[0].pair).and_then(Option::as_ref).ok_or_else(|| Error::Bug("a mismatch in what has no documents".into()))?;
        let size = usize::try_from(pair.batch_documents).unwrap_or(KEYS_AT_ONCE).clamp(1, KEYS_AT_ONCE);
        all.extend(same.chunks(size).map(|chunk| (pair, chunk)));
    }
    Ok(all)
}

/// What these keys have, in their order; `None` where the collection is gone. `read_at` moves up.
async fn read<S: Source>(
    from: &S,
    of: &CollectionRef,
    (collated, digest): (bool, Digest),
    keys: &[&DocumentKey],
    after: ClusterTime,
    read_at: &mut ClusterTime,
) -> Result<Option<Vec<Seen>>> {
    let (mut all, mut rest, mut at_once) = (Vec::with_capacity(keys.len()), keys, FIRST_READ);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(at_once.min(rest.len()));
        rest = later;
        let Some((seen, bytes)) = read_some(from, of, (collated, digest), now, after, read_at).await? else { return Ok(None) };
        all.extend(seen);
        at_once = if bytes > LARGE_ANSWER { 1 } else { (at_once * 2).min(KEYS_AT_ONCE) };
    }
    Ok(Some(all))
}

/// The same in one answer, with the bytes of the documents: they are digested at once, and none is kept.
async fn read_some<S: Source>(
    from: &S,
    of: &CollectionRef,
    (collated, digest): (bool, Digest),
    keys: &[&DocumentKey],
    after: ClusterTime,
    read_at: &mut ClusterTime,
) -> Result<Option<(Vec<Seen>, usize)>> {
    let asked: Vec<DocumentKey> = keys.iter().map(|&key| key.clone()).collect();
    let Found::Here(fetched) = from.fetch(of, &asked, after).await? else { return Ok(None) };
    *read_at = (*read_at).max(fetched.read_at);
    let mut found = vec![None; keys.len()];
    let (mut unclaimed, mut bytes) = (false, 0);
    let by_id: HashMap<Vec<u8>, usize> = keys.iter().enumerate().map(|(at, key)| (exact_id(key), at)).collect();
    for doc in fetched.documents {
        bytes += doc.as_bytes().len();
        let key = super::compare::key_of(&doc)?;
        match by_id.get(&exact_id(&key)) {
            // An `_id` is unique on each shard only. What stands twice differs from either, in whatever order they came.
            Some(&at) => {
                found[at] = Some(found[at].map_or_else(|| digest(&doc), |other: u128| other.wrapping_add(digest(&doc)).wrapping_add(1)));
            }
            None => unclaimed = true,
        }
    }
    // Where the server may take two keys of other bytes for one, it is asked for each by itself.
    let met: HashSet<_> = keys.iter().zip(&found).filter(|(_, doc)| doc.is_some()).map(|(key, _)| key.canonical()).collect();
    for (key, slot) in asked.iter().zip(&mut found).filter(|(_, slot)| slot.is_none()) {
        if unclaimed || collated || met.contains(&key.canonical()) {
            let Found::Here(one) = from.fetch(of, std::slice::from_ref(key), after).await? else { return Ok(None) };
            *read_at = (*read_at).max(one.read_at);
            *slot = one.documents.first().map(|doc| digest(doc));
        }
    }
    Ok(Some((found, bytes)))
}

fn exact_id(key: &DocumentKey) -> Vec<u8> {
    let id = key.id();
    let mut bytes = Vec::with_capacity(id.value.len() + 1);
    bytes.push(id.tag);
    bytes.extend_from_slice(id.value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    const A: Seen = Some(1);
    const B: Seen = Some(2);
    const NONE: Seen = None;

    fn suspect() -> Suspect {
        Suspect::new(0, DocumentKey::new(rawdoc! {"_id": 1}).unwrap())
    }

    #[test]
    fn what_was_on_its_way_is_forgotten() {
        assert_eq!(suspect().judge(A, A, A), Verdict::Equal);
        assert_eq!(suspect().judge(A, B, B), Verdict::Equal, "the target is ahead of our first look");
        assert_eq!(suspect().judge(NONE, NONE, NONE), Verdict::Equal);
    }

    #[test]
    fn confirmed_the_second_time_in_a_row() {
        for (source, target, kind) in [(A, NONE, MismatchKind::Missing), (NONE, A, MismatchKind::Extra), (A, B, MismatchKind::Different)] {
            let mut s = suspect();
            assert_eq!(s.judge(source, target, source), Verdict::Again);
            assert_eq!(s.judge(source, target, source), Verdict::Confirmed(kind));
        }
    }

    #[test]
    fn a_source_in_motion_proves_nothing() {
        let mut s = suspect();
        assert_eq!(s.judge(A, NONE, A), Verdict::Again);
        assert_eq!(s.judge(A, NONE, B), Verdict::Again, "changed while we looked");
        assert_eq!(s.judge(B, NONE, B), Verdict::Again, "the first strike of the new state");
        assert_eq!(s.judge(A, NONE, A), Verdict::Again, "changed between the looks");
        assert_eq!(s.judge(A, NONE, A), Verdict::Confirmed(MismatchKind::Missing));
    }
}
