//! Looks at mismatches again, in generations, until each is explained or confirmed.
//!
//! Under load most mismatches are changes on their way. One is real when the source has not changed, the
//! target has caught up with what was read from it, and both still differ; and that twice in a row.

use super::{
    Settings,
    compare::{MismatchKind, describe},
    gone,
    report::{Difference, DifferenceKind, id_text},
};
use crate::{
    error::{Error, Result},
    model::{ClusterTime, DocumentKey, Side},
    source::{CollectionRef, Found, Source},
};
use bson::RawDocumentBuf;
use std::collections::{BTreeSet, HashMap, HashSet};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_128;

/// Confirmed when found so many times in a row with an unchanged source.
const STRIKES: u32 = 2;
/// Keys of one read at most.
const KEYS_AT_ONCE: usize = 200;

/// One document on one side: a digest of all its bytes, or that it is not there.
pub(super) type Seen = Option<u128>;

/// What one side holds under a key. An `_id` is unique on each shard only: it may be there twice.
#[derive(Debug, Clone, Default)]
struct Held {
    doc: Option<RawDocumentBuf>,
    twice: bool,
}

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
}

/// What the recheck found.
#[derive(Debug, Default)]
pub(super) struct Rechecked {
    pub(super) differences: Vec<Difference>,
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
            let read = read(source, &pair.source, pair.collated, chunk, read_at, &mut read_at).await?;
            if read.is_none() {
                gone(settings, Side::Source, &pair.source)?;
                done.gone.insert(chunk[0].pair);
            }
            match read {
                Some(docs) => first.extend(docs.iter().map(digest)),
                None => first.extend(chunk.iter().map(|_| None)),
            }
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
            let (chunk, behind) = rest.split_at_mut(size);
            rest = behind;
            let theirs = read(target, &pair.target, pair.collated, chunk, target_time, &mut ClusterTime::default()).await?;
            let again = read(source, &pair.source, pair.collated, chunk, read_at, &mut ClusterTime::default()).await?;
            let (Some(theirs), Some(again)) = (&theirs, &again) else {
                let side = if theirs.is_none() { Side::Target } else { Side::Source };
                gone(settings, side, if theirs.is_none() { &pair.target } else { &pair.source })?;
                done.gone.insert(chunk[0].pair);
                verdicts.extend(chunk.iter().map(|_| Verdict::Equal));
                continue;
            };
            for ((suspect, theirs), again) in chunk.iter_mut().zip(theirs).zip(again) {
                let verdict = suspect.judge(first[verdicts.len()], digest(theirs), digest(again));
                if let Verdict::Confirmed(kind) = verdict {
                    let found = confirmed(&pair, &suspect.key, kind, again, theirs);
                    // One document may be here twice, under two keys that are one to the server.
                    if told.insert((suspect.pair, found.kind, found.id.clone(), found.detail.clone(), exact(suspect, again.doc.as_ref()))) {
                        done.differences.push(found);
                    }
                }
                verdicts.push(verdict);
            }
        }
        let mut verdicts = verdicts.into_iter();
        suspects.retain(|s| verdicts.next() == Some(Verdict::Again) && !done.gone.contains(&s.pair));
    }
    for suspect in suspects {
        let ns = pairs.get(suspect.pair).and_then(Option::as_ref).map(|p| p.source.ns.clone());
        let Some(ns) = ns else { continue };
        let detail = format!("changed on the source each time, {} times", done.generations);
        done.differences.push(Difference { ns, kind: DifferenceKind::Unsettled, id: Some(id_text(&suspect.key)), detail });
    }
    Ok(done)
}

/// The exact key under which a difference is told once.
fn exact(suspect: &Suspect, ours: Option<&RawDocumentBuf>) -> Vec<u8> {
    let key = ours.and_then(|doc| DocumentKey::of(doc));
    key.as_ref().unwrap_or(&suspect.key).as_raw().as_bytes().to_vec()
}

fn confirmed(pair: &Readable, key: &DocumentKey, kind: MismatchKind, ours: &Held, theirs: &Held) -> Difference {
    let twice = theirs.twice;
    let (ours, theirs) = (ours.doc.as_ref(), theirs.doc.as_ref());
    let detail = match (ours, theirs) {
        (Some(_), Some(_)) if twice => "stands on the target twice, on two shards".into(),
        (Some(ours), Some(theirs)) => describe(ours, theirs),
        (Some(_), None) => "not on the target".into(),
        (None, _) => "not on the source".into(),
    };
    let stored = ours.and_then(|doc| DocumentKey::of(doc));
    Difference { ns: pair.source.ns.clone(), kind: kind.into(), id: Some(id_text(stored.as_ref().unwrap_or(key))), detail }
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

fn digest(held: &Held) -> Seen {
    held.doc.as_ref().map(|doc| xxh3_128(doc.as_bytes()) ^ u128::from(held.twice))
}

/// The documents of these keys, in their order; `None` where the collection is gone. `read_at` moves up.
async fn read<S: Source>(
    from: &S,
    of: &CollectionRef,
    collated: bool,
    suspects: &[Suspect],
    after: ClusterTime,
    read_at: &mut ClusterTime,
) -> Result<Option<Vec<Held>>> {
    let keys: Vec<_> = suspects.iter().map(|s| s.key.clone()).collect();
    let Found::Here(fetched) = from.fetch(of, &keys, after).await? else { return Ok(None) };
    *read_at = (*read_at).max(fetched.read_at);
    let mut found = vec![Held::default(); keys.len()];
    let mut unclaimed = false;
    let by_id: HashMap<Vec<u8>, usize> = keys.iter().enumerate().map(|(at, key)| (exact_id(key), at)).collect();
    for doc in fetched.documents {
        let key = super::compare::key_of(&doc)?;
        match by_id.get(&exact_id(&key)) {
            Some(&at) => found[at].twice |= found[at].doc.replace(doc).is_some(),
            None => unclaimed = true,
        }
    }
    // Where the server may take two keys of other bytes for one, it is asked for each by itself.
    let met: HashSet<_> = keys.iter().zip(&found).filter(|(_, held)| held.doc.is_some()).map(|(key, _)| key.canonical()).collect();
    for (key, slot) in keys.iter().zip(&mut found).filter(|(_, slot)| slot.doc.is_none()) {
        if unclaimed || collated || met.contains(&key.canonical()) {
            let Found::Here(one) = from.fetch(of, std::slice::from_ref(key), after).await? else { return Ok(None) };
            *read_at = (*read_at).max(one.read_at);
            slot.doc = one.documents.into_iter().next();
        }
    }
    Ok(Some(found))
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
