//! A user or a role, and when two of them are equal. Pure.

use crate::model::raw;
use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use std::{collections::BTreeMap, fmt};

/// User or role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Of `admin.system.roles`. Before the users, who hold them.
    Role,
    /// Of `admin.system.users`.
    User,
}

impl Kind {
    /// For messages and the metadata.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Kind::Role => "role",
            Kind::User => "user",
        }
    }

    /// Its collection in `admin`.
    #[must_use]
    pub fn collection(self) -> &'static str {
        match self {
            Kind::Role => "system.roles",
            Kind::User => "system.users",
        }
    }
}

/// Which one: unique on a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// User or role.
    pub kind: Kind,
    /// Its `_id`, as in `shop.joe`: the database it belongs to, and its name there.
    pub id: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.label(), self.id)
    }
}

impl Name {
    /// From its text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(' ')?;
        let kind = [Kind::Role, Kind::User].into_iter().find(|k| k.label() == kind)?;
        Some(Self { kind, id: id.to_owned() })
    }
}

/// One with its content.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Account {
    pub name: Name,
    /// As it is stored.
    pub document: RawDocumentBuf,
}

/// All of a cluster.
pub(super) type Accounts = BTreeMap<Name, RawDocumentBuf>;

impl Account {
    /// From its document; `None` for one that no server has written.
    pub fn of(kind: Kind, document: RawDocumentBuf) -> Option<Self> {
        let id = raw::get(&document, "_id")?.str()?.to_owned();
        Some(Self { name: Name { kind, id }, document })
    }

    /// A text of it, such as `db` or `role`.
    pub fn text(&self, field: &str) -> &str {
        raw::get(&self.document, field).and_then(|e| e.str()).unwrap_or_default()
    }
}

/// Whether two are the same: users to the byte; of roles, each list as a set.
pub(super) fn same(kind: Kind, a: &RawDocument, b: &RawDocument) -> bool {
    let canonical = |document: &RawDocument| Document::try_from(document).ok().map(|document| canonical(&Bson::Document(document)));
    a.as_bytes() == b.as_bytes() || kind == Kind::Role && canonical(a).is_some_and(|a| Some(a) == canonical(b))
}

/// With lists sorted and fields by name; an empty list is as good as none.
fn canonical(value: &Bson) -> String {
    match value {
        Bson::Document(fields) => {
            let said = fields.iter().filter(|(_, value)| !value.as_array().is_some_and(Vec::is_empty));
            format!("{:?}", said.map(|(name, value)| (name, canonical(value))).collect::<BTreeMap<_, _>>())
        }
        Bson::Array(items) => {
            let mut items: Vec<String> = items.iter().map(canonical).collect();
            items.sort();
            format!("{items:?}")
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn names_are_read_back() {
        for name in [Name { kind: Kind::User, id: "shop.joe doe".into() }, Name { kind: Kind::Role, id: "admin. x".into() }] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        assert_eq!(Name::parse("nobody x"), None);
    }

    #[test]
    fn roles_are_equal_whatever_the_order_of_their_lists() {
        let a = rawdoc! {"_id": "d.r", "roles": [{"role": "a", "db": "d"}, {"role": "b", "db": "d"}], "privileges": [{"resource": {"db": "d", "collection": "c"}, "actions": ["find", "insert"]}], "authenticationRestrictions": []};
        let b = rawdoc! {"_id": "d.r", "privileges": [{"resource": {"collection": "c", "db": "d"}, "actions": ["insert", "find"]}], "roles": [{"db": "d", "role": "b"}, {"role": "a", "db": "d"}]};
        assert!(same(Kind::Role, &a, &b));
        assert!(!same(Kind::User, &a, &b));
        let c = rawdoc! {"_id": "d.r", "privileges": [{"resource": {"collection": "c", "db": "d"}, "actions": ["insert"]}], "roles": [{"db": "d", "role": "b"}, {"role": "a", "db": "d"}]};
        assert!(!same(Kind::Role, &a, &c));
    }
}
