//! Three lists into what is to be done: the source's, the target's, and what we have made. Pure.

use super::account::{Account, Accounts, Name, same};
use std::collections::BTreeSet;

/// What makes the target equal.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// To be made or changed, as the source has them; roles first.
    pub put: Vec<Account>,
    /// To be dropped, as the target has them.
    pub drop: Vec<Account>,
    /// Equal already, and not yet known as ours.
    pub adopted: Vec<Name>,
    /// The target's own, which stay.
    pub kept: Vec<Name>,
    /// The target's own, where none may stay.
    pub in_the_way: Vec<Name>,
    /// What the target has of those to be put, with other content.
    pub before: Accounts,
}

impl Plan {
    pub fn is_nothing(&self) -> bool {
        self.put.is_empty() && self.drop.is_empty() && self.adopted.is_empty()
    }

    /// What is ours from now on.
    pub fn to_claim(&self) -> impl Iterator<Item = &Name> {
        self.put.iter().map(|account| &account.name).chain(&self.adopted)
    }
}

/// `claimed` was made by us, `spared` is left alone on both sides; `keep`: the target's own may stay.
pub(super) fn plan(wanted: &Accounts, there: &Accounts, claimed: &BTreeSet<Name>, spared: &BTreeSet<Name>, keep: bool) -> Plan {
    let mut plan = Plan::default();
    for (name, document) in wanted.iter().filter(|(name, _)| !spared.contains(*name)) {
        let put = || Account { name: name.clone(), document: document.clone() };
        match there.get(name) {
            None => plan.put.push(put()),
            Some(other) if same(name.kind, document, other) => {
                if !claimed.contains(name) {
                    plan.adopted.push(name.clone());
                }
            }
            Some(other) if claimed.contains(name) => {
                plan.before.insert(name.clone(), other.clone());
                plan.put.push(put());
            }
            Some(_) if keep => plan.kept.push(name.clone()),
            Some(_) => plan.in_the_way.push(name.clone()),
        }
    }
    for name in claimed.iter().filter(|name| !wanted.contains_key(*name) && !spared.contains(*name)) {
        if let Some(document) = there.get(name) {
            plan.drop.push(Account { name: name.clone(), document: document.clone() });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::{super::account::Kind, *};
    use bson::rawdoc;

    fn name(id: &str) -> Name {
        Name { kind: Kind::User, id: id.into() }
    }
    fn all(of: &[(&str, i32)]) -> Accounts {
        of.iter().map(|(id, n)| (name(id), rawdoc! {"_id": *id, "n": *n})).collect()
    }
    fn names(of: &[&str]) -> BTreeSet<Name> {
        of.iter().map(|id| name(id)).collect()
    }
    fn ids<'a>(of: impl IntoIterator<Item = &'a Name>) -> Vec<&'a str> {
        of.into_iter().map(|n| n.id.as_str()).collect()
    }

    #[test]
    fn the_source_wins_over_what_we_made_and_nothing_else() {
        let wanted = all(&[("new", 1), ("same", 1), ("ours", 2), ("theirs", 2), ("me", 1)]);
        let there = all(&[("same", 1), ("ours", 1), ("theirs", 1), ("me", 9), ("gone", 1), ("own", 1)]);
        let claimed = names(&["ours", "gone", "gone on both"]);
        let found = plan(&wanted, &there, &claimed, &names(&["me"]), false);
        assert_eq!(ids(found.put.iter().map(|a| &a.name)), ["new", "ours"]);
        assert_eq!(ids(found.drop.iter().map(|a| &a.name)), ["gone"]);
        assert_eq!((ids(&found.adopted), ids(&found.in_the_way)), (vec!["same"], vec!["theirs"]));
        let kept = plan(&wanted, &there, &claimed, &names(&["me"]), true);
        assert_eq!((ids(&kept.kept), kept.in_the_way.len()), (vec!["theirs"], 0));
    }

    #[test]
    fn whoever_we_log_in_as_is_never_dropped() {
        let found = plan(&all(&[]), &all(&[("me", 1)]), &names(&["me"]), &names(&["me"]), false);
        assert!(found.is_nothing());
    }
}
