//! Writes to a sharded collection whose shard key is more than `_id`.
//!
//! A write that does not name the shard key goes to every shard, and without their versions: while a chunk is handed over it may
//! meet a document twice or never. And nothing but us keeps an `_id` from being on two shards. So where a batch's documents are
//! now is looked up first; every statement then names the shard key of its document. A document whose key changed is deleted
//! where it is, then inserted where it belongs. A crash between the two is mended by the event that told the change, which is
//! replayed: so what may change a shard key always has the document read again.
//!
//! Between the look and the write only the copy can come, with the document as it was read before; then the key counts as
//! raced and is read again. So it is enough that a put leaves one document, and that one that met the copy's is tried again.
//! So is one that meets what a chunk left behind: see [`taken`].

use super::super::{
    super::{Applied, Statement, TargetCollection},
    bulk::{self, Aimed, MAX_COMMAND_BYTES, SHARD_KEY_UNFIT, UNFIT},
};
use crate::{
    error::{Error, Result, Trouble},
    model::{CanonicalKey, DocumentKey, ShardKey, Side, can_be_aimed_at, raw, same_key},
    mongo::{Cluster, DUPLICATE_KEY, listing},
};
use bson::{RawDocument, RawDocumentBuf};
use std::collections::{HashMap, HashSet};

/// Keys looked up by one command at most.
const KEYS: usize = 2_000;

/// Where a document is.
#[derive(Debug, Clone)]
struct Place {
    key: DocumentKey,
    at: RawDocumentBuf,
}

/// A statement to be sent, and the number of the one it comes from.
struct Shot<'a> {
    from: usize,
    what: What<'a>,
    at: Option<RawDocumentBuf>,
}

enum What<'a> {
    Given(Statement<'a>),
    /// Removal of what is where it no longer belongs.
    Delete(DocumentKey),
}

/// Applies a batch; see [`crate::target::Target::apply`].
pub(crate) async fn apply(cluster: &Cluster, to: &TargetCollection, by: &ShardKey, statements: &[Statement<'_>]) -> Result<Applied> {
    let mut applied = Applied::default();
    let mut left: Vec<usize> = (0..statements.len()).collect();
    // The update behind a put that has to be tried again would be lost.
    let updated: HashSet<CanonicalKey> =
        statements.iter().filter(|s| matches!(s, Statement::Diff(..))).map(|s| s.key().canonical()).collect();
    let mut patience = cluster.retry().patience();
    loop {
        let places = find(cluster, to, by, left.iter().map(|&n| statements[n].key())).await?;
        let mut battery = Battery { by, places, shots: Vec::new(), applied: Applied::default() };
        for &n in &left {
            battery.load(n, statements[n]);
        }
        let Battery { shots, applied: told, .. } = battery;
        let aimed: Vec<Aimed<'_>> = shots.iter().map(Shot::aimed).collect();
        let done = bulk::apply(cluster, to, &aimed).await?;
        applied.diff_missed |= told.diff_missed || done.diff_missed;
        applied.refused.extend(told.refused);
        applied.met.extend(told.met);
        left.clear();
        for (n, code) in done.refused {
            let from = shots[n].from;
            match code {
                SHARD_KEY_UNFIT => {
                    applied.why = Some(UNFIT);
                    applied.refused.push(from);
                }
                DUPLICATE_KEY if !updated.contains(&statements[from].key().canonical()) => left.push(from),
                _ => applied.refused.push(from),
            }
        }
        if left.is_empty() {
            break;
        }
        patience.after(taken(to)).await?;
    }
    applied.refused.sort_unstable();
    applied.refused.dedup();
    Ok(applied)
}

/// An `_id` is taken on the shard where its document belongs: by what the copy has just inserted, or by what a chunk left behind
/// that was moved to another shard, which no router shows and which the shard deletes by itself (`orphanCleanupDelaySecs`).
fn taken(to: &TargetCollection) -> Error {
    Error::Unreachable {
        side: Side::Target,
        doing: format!("moving documents of `{}` whose shard keys changed", to.ns),
        why: Trouble::Other,
        source: "the shard has yet to delete what chunks left behind that were moved; stop the balancer of the target meanwhile".into(),
    }
}

struct Battery<'a> {
    by: &'a ShardKey,
    places: HashMap<CanonicalKey, Vec<Place>>,
    shots: Vec<Shot<'a>>,
    applied: Applied,
}

impl<'a> Battery<'a> {
    fn load(&mut self, from: usize, statement: Statement<'a>) {
        let canonical = statement.key().canonical();
        match statement {
            Statement::Delete(_) => {
                for place in self.places.remove(&canonical).unwrap_or_default() {
                    self.remove(from, place);
                }
            }
            Statement::Insert(key, doc) => {
                if self.places.get(&canonical).is_some_and(|places| !places.is_empty()) {
                    self.applied.met.push(from);
                }
                self.put(from, canonical, key, doc);
            }
            Statement::Put(key, doc) => self.put(from, canonical, key, doc),
            Statement::Diff(_, diff) => match self.places.get(&canonical).map(Vec::as_slice) {
                // We may have deleted it ourselves, on the way to another shard, before a crash.
                None | Some([]) if self.by.may_be_changed_by(diff) => self.applied.refused.push(from),
                None | Some([]) => self.applied.diff_missed = true,
                Some([place]) if !self.by.may_be_changed_by(diff) && can_be_aimed_at(&place.at) => {
                    let at = Some(place.at.clone());
                    self.shots.push(Shot { from, what: What::Given(statement), at });
                }
                // The server changes a shard key in transactions only; and where there are two, the source knows which is right.
                Some(_) => self.applied.refused.push(from),
            },
        }
    }

    fn put(&mut self, from: usize, canonical: CanonicalKey, key: &'a DocumentKey, doc: &'a RawDocument) {
        let at = self.by.values(doc);
        let aimable = can_be_aimed_at(&at);
        let mut stays = false;
        for place in self.places.remove(&canonical).unwrap_or_default() {
            // The server compares shard keys by their bytes: another type of number is a change, too (RAN on 6.0.5).
            if aimable && place.at == at && same_key(&place.key, key) {
                stays = true;
            } else {
                self.remove(from, place);
            }
        }
        self.places.insert(canonical, vec![Place { key: key.clone(), at: at.clone() }]);
        let given = if stays { Statement::Put(key, doc) } else { Statement::Insert(key, doc) };
        self.shots.push(Shot { from, what: What::Given(given), at: aimable.then_some(at) });
    }

    fn remove(&mut self, from: usize, Place { key, at }: Place) {
        let at = can_be_aimed_at(&at).then_some(at);
        self.shots.push(Shot { from, what: What::Delete(key), at });
    }
}

impl Shot<'_> {
    fn aimed(&self) -> Aimed<'_> {
        let what = match &self.what {
            What::Given(statement) => *statement,
            What::Delete(key) => Statement::Delete(key),
        };
        Aimed { what, at: self.at.as_deref() }
    }
}

/// Where the documents of these keys are: by read concern local, for what we wrote a majority has.
async fn find<'k>(
    cluster: &Cluster,
    to: &TargetCollection,
    by: &ShardKey,
    keys: impl Iterator<Item = &'k DocumentKey>,
) -> Result<HashMap<CanonicalKey, Vec<Place>>> {
    let mut asked = HashSet::new();
    let keys: Vec<&DocumentKey> = keys.filter(|key| asked.insert((key.id().tag, key.id().value))).collect();
    let mut places: HashMap<CanonicalKey, Vec<Place>> = HashMap::new();
    let mut rest = keys.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(KEYS).take_while(|key| {
            bytes += key.id().value.len() + 16;
            bytes < MAX_COMMAND_BYTES
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        for doc in read(cluster, to, by, now).await? {
            let Some(key) = DocumentKey::of(&doc) else { continue };
            places.entry(key.canonical()).or_default().push(Place { key, at: by.values(&doc) });
        }
    }
    Ok(places)
}

async fn read(cluster: &Cluster, to: &TargetCollection, by: &ShardKey, keys: &[&DocumentKey]) -> Result<Vec<RawDocumentBuf>> {
    let mut b = raw::Builder::with_capacity(256);
    b.str("find", to.ns.coll()).begin("filter").begin("_id").begin_array("$in");
    for (n, key) in keys.iter().enumerate() {
        b.value(&n.to_string(), key.id().tag, key.id().value);
    }
    b.end().end().end().begin("projection").i32("_id", 1);
    for field in by.fields().filter(|field| field.split('.').next() != Some("_id")) {
        b.i32(field, 1);
    }
    b.end();
    listing::found(cluster, to.ns.db(), &format!("looking where documents of `{}` are", to.ns), &b.finish()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn place(doc: &RawDocument, by: &ShardKey) -> Place {
        Place { key: DocumentKey::of(doc).unwrap(), at: by.values(doc) }
    }

    /// What is sent for the statements, where documents are as told: verb, `_id`, and the shard key's value.
    fn sent(there: &[RawDocumentBuf], statements: &[Statement<'_>]) -> (Vec<(&'static str, String)>, Applied) {
        let by = ShardKey::parse("c:1").unwrap();
        let mut places: HashMap<_, Vec<_>> = HashMap::new();
        for doc in there {
            let place = place(doc, &by);
            places.entry(place.key.canonical()).or_default().push(place);
        }
        let mut battery = Battery { by: &by, places, shots: Vec::new(), applied: Applied::default() };
        for (n, statement) in statements.iter().enumerate() {
            battery.load(n, *statement);
        }
        let verb = |what: &Statement<'_>| match what {
            Statement::Insert(..) => "insert",
            Statement::Put(..) => "put",
            Statement::Diff(..) => "diff",
            Statement::Delete(_) => "delete",
        };
        let told = |shot: &Shot<'_>| {
            let aimed = shot.aimed();
            (verb(&aimed.what), format!("{:?}", aimed.at.and_then(|at| raw::get(at, "c")).and_then(|e| e.integer())))
        };
        (battery.shots.iter().map(told).collect(), battery.applied)
    }

    #[test]
    fn what_changed_its_shard_key_is_deleted_where_it_was() {
        let (old, new) = (rawdoc! {"_id": 1, "c": 1}, rawdoc! {"_id": 1, "c": 2});
        let key = DocumentKey::of(&new).unwrap();
        let (shots, _) = sent(&[], &[Statement::Put(&key, &new)]);
        assert_eq!(shots, [("insert", "Some(2)".into())]);
        let (shots, _) = sent(std::slice::from_ref(&new), &[Statement::Insert(&key, &new)]);
        assert_eq!(shots, [("put", "Some(2)".into())]);
        let (shots, _) = sent(&[old.clone(), new.clone()], &[Statement::Put(&key, &new)]);
        assert_eq!(shots, [("delete", "Some(1)".into()), ("put", "Some(2)".into())]);
        let long = rawdoc! {"_id": 1, "c": 2_i64};
        let (shots, _) = sent(&[long], &[Statement::Put(&key, &new)]);
        assert_eq!(shots, [("delete", "Some(2)".into()), ("insert", "Some(2)".into())], "another type is another key");
        let (shots, _) = sent(&[old, new], &[Statement::Delete(&key)]);
        assert_eq!(shots, [("delete", "Some(1)".into()), ("delete", "Some(2)".into())]);
    }

    #[test]
    fn updates_go_where_the_document_is() {
        let (doc, other) = (rawdoc! {"_id": 1, "c": 1}, rawdoc! {"_id": 1, "c": 2});
        let key = DocumentKey::of(&doc).unwrap();
        let (plain, of_key) = (rawdoc! {"$v": 2, "diff": {"u": {"x": 1}}}, rawdoc! {"$v": 2, "diff": {"u": {"c": 1}}});
        let (shots, applied) = sent(std::slice::from_ref(&doc), &[Statement::Diff(&key, &plain)]);
        assert_eq!((shots, applied.refused.len(), applied.diff_missed), (vec![("diff", "Some(1)".into())], 0, false));
        let (shots, applied) = sent(&[], &[Statement::Diff(&key, &plain)]);
        assert_eq!((shots.len(), applied.diff_missed), (0, true));
        let (shots, applied) = sent(&[], &[Statement::Diff(&key, &of_key)]);
        assert_eq!((shots.len(), applied.refused), (0, vec![0]), "it may be on its way from one shard to another");
        let (shots, applied) = sent(std::slice::from_ref(&doc), &[Statement::Diff(&key, &of_key)]);
        assert_eq!((shots.len(), applied.refused), (0, vec![0]));
        let (shots, applied) = sent(&[doc.clone(), other.clone()], &[Statement::Diff(&key, &plain)]);
        assert_eq!((shots.len(), applied.refused), (0, vec![0]), "two documents of one `_id`");
        let (shots, _) = sent(&[doc], &[Statement::Put(&key, &other), Statement::Diff(&key, &plain)]);
        assert_eq!(shots, [("delete", "Some(1)".into()), ("insert", "Some(2)".into()), ("diff", "Some(2)".into())]);
    }
}
