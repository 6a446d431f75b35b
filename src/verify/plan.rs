//! Which collection of the source is compared with which of the target. Pure.

use super::report::{Difference, DifferenceKind};
use crate::{
    model::{CollectionInfo, CollectionKind, CollectionUuid, Namespace, Selection},
    source::CollectionRef,
};
use std::collections::{BTreeMap, BTreeSet};

/// A collection, view or time series that both sides have.
#[derive(Debug, Clone)]
pub struct Pair {
    /// On the source.
    pub source_info: CollectionInfo,
    /// On the target.
    pub target_info: CollectionInfo,
}

impl Pair {
    /// Both, for reading; `None` where one side holds no documents of its own, as a view.
    #[must_use]
    pub fn collections(&self) -> Option<(CollectionRef, CollectionRef)> {
        Some((readable(&self.source_info)?, readable(&self.target_info)?))
    }

    /// The two identities.
    pub(super) fn identity(&self) -> Option<(CollectionUuid, CollectionUuid)> {
        Some((self.source_info.uuid?, self.target_info.uuid?))
    }
}

fn readable(info: &CollectionInfo) -> Option<CollectionRef> {
    match info.kind {
        CollectionKind::Collection => Some(CollectionRef { ns: info.ns.clone(), uuid: info.uuid? }),
        CollectionKind::View | CollectionKind::TimeSeries => None,
    }
}

/// What is to be compared, and what is on one side only.
#[derive(Debug, Default)]
pub struct Plan {
    /// On both sides, by the source's name.
    pub pairs: Vec<Pair>,
    /// Collections that are missing or extra.
    pub unpaired: Vec<Difference>,
}

/// Makes the plan from the listings of both sides.
///
/// Extra is what the target has under a name that the selection gives to something which the source has not:
/// so a collection that was on the target all along, outside the filters, is none of our business.
#[must_use]
pub fn plan(source: &[CollectionInfo], target: &[CollectionInfo], selection: &Selection) -> Plan {
    let mut there: BTreeMap<&Namespace, &CollectionInfo> = target.iter().map(|info| (&info.ns, info)).collect();
    let mut plan = Plan::default();
    for info in source.iter().filter(|info| selection.takes(&info.ns)) {
        let name = selection.target_of(&info.ns);
        match there.remove(&name) {
            Some(other) => plan.pairs.push(Pair { source_info: info.clone(), target_info: other.clone() }),
            None => plan.unpaired.push(Difference::of(DifferenceKind::CollectionMissing, &info.ns, format!("no `{name}` on the target"))),
        }
    }
    let (_, _, renames) = selection.describe();
    for ns in there.into_keys().filter(|ns| !ns.is_internal() && !ns.is_temporary()) {
        let origin = origins(ns, &renames).into_iter().find(|from| selection.takes(from) && selection.target_of(from) == *ns);
        if let Some(from) = origin {
            plan.unpaired.push(Difference::of(DifferenceKind::CollectionExtra, ns, format!("no `{from}` on the source")));
        }
    }
    plan
}

/// Under which names it may stand on the source.
fn origins(ns: &Namespace, renames: &[String]) -> BTreeSet<Namespace> {
    let (bucket, plain) = match ns.coll().strip_prefix("system.buckets.") {
        Some(name) => ("system.buckets.", Namespace::new(ns.db(), name)),
        None => ("", ns.clone()),
    };
    let mut found = BTreeSet::from([ns.clone()]);
    for (rename, at) in renames.iter().flat_map(|r| r.match_indices('=').map(move |(at, _)| (r, at))) {
        let (from, to) = (&rename[..at], &rename[at + 1..]);
        if to == plain.as_str() {
            found.extend(Namespace::parse(from).map(|n| Namespace::new(n.db(), &format!("{bucket}{}", n.coll()))));
        } else if to == plain.db() {
            found.insert(Namespace::new(from, ns.coll()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::RawDocumentBuf;

    fn infos(names: &[&str]) -> Vec<CollectionInfo> {
        let info = |name: &&str| CollectionInfo {
            ns: Namespace::parse(name).unwrap(),
            uuid: Some(CollectionUuid([1; 16])),
            kind: CollectionKind::Collection,
            options: RawDocumentBuf::new(),
        };
        names.iter().map(info).collect()
    }
    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&t| t.to_owned()).collect()
    }
    fn unpaired(source: &[&str], target: &[&str], selection: &Selection) -> Vec<String> {
        let plan = plan(&infos(source), &infos(target), selection);
        plan.unpaired.iter().map(|d| format!("{} {}", d.kind.label(), d.ns)).collect()
    }

    #[test]
    fn missing_and_extra_without_filters() {
        let found = unpaired(&["a.x", "a.y"], &["a.x", "a.z", "b.q"], &Selection::default());
        assert_eq!(found, ["collection_missing a.y", "collection_extra a.z", "collection_extra b.q"]);
    }

    #[test]
    fn what_the_filters_leave_out_is_not_extra() {
        let selection = Selection::new(&strings(&["a.x", "c"]), &strings(&["c.skip"]), &[]).unwrap();
        let found = unpaired(&["a.x", "a.y", "c.k"], &["a.x", "a.other", "c.k", "c.skip", "c.more"], &selection);
        assert_eq!(found, ["collection_extra c.more"]);
    }

    #[test]
    fn renames_are_followed_both_ways() {
        let renames = [("a".to_owned(), "z".to_owned()), ("b.one".to_owned(), "z.uno".to_owned())];
        let selection = Selection::new(&[], &[], &renames).unwrap();
        assert_eq!(plan(&infos(&["a.x", "b.one"]), &infos(&["z.x", "z.uno"]), &selection).pairs.len(), 2);
        // Nothing maps to `a.x` any more, so what the target has there is its own.
        let found = unpaired(&["a.x"], &["z.x", "z.uno", "z.more", "a.x", "b.one"], &selection);
        assert_eq!(found, ["collection_extra z.more", "collection_extra z.uno"]);
    }
}
