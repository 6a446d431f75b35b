//! `db.collection`.

use std::{fmt, sync::Arc};

/// Before the name of a time series: what its documents are stored under.
const BUCKETS: &str = "system.buckets.";

/// A namespace, split at the *first* dot: a database's name has none, a collection's may. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    full: Arc<str>,
    dot: usize,
}

impl Namespace {
    /// From its two parts.
    #[must_use]
    pub fn new(db: &str, coll: &str) -> Self {
        Self { full: format!("{db}.{coll}").into(), dot: db.len() }
    }

    /// From `db.collection`; `None` where one of the parts is missing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let dot = text.find('.')?;
        (dot > 0 && dot + 1 < text.len()).then(|| Self { full: text.into(), dot })
    }

    /// The database.
    #[must_use]
    pub fn db(&self) -> &str {
        &self.full[..self.dot]
    }

    /// The collection.
    #[must_use]
    pub fn coll(&self) -> &str {
        &self.full[self.dot + 1..]
    }

    /// `db.collection`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// Whether it belongs to the server or to a replication tool, and is never replicated whatever the
    /// filters say: `admin`, `local`, `config`, `__mdb_internal*`, and `system.*` but `system.js` and the
    /// buckets of time series.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        is_internal_db(self.db()) || (self.coll().starts_with("system.") && !self.is_functions() && !self.is_buckets())
    }

    /// Whether it is the collection beneath a time series.
    #[must_use]
    pub fn is_buckets(&self) -> bool {
        self.coll().starts_with(BUCKETS)
    }

    /// The time series whose buckets these are, under the name that people know; `None` for any other collection.
    #[must_use]
    pub fn series(&self) -> Option<Namespace> {
        self.coll().strip_prefix(BUCKETS).map(|name| Namespace::new(self.db(), name))
    }

    /// The buckets of the time series that has this name.
    #[must_use]
    pub fn buckets(&self) -> Namespace {
        Namespace::new(self.db(), &format!("{BUCKETS}{}", self.coll()))
    }

    /// Whether it holds the server-side functions of its database.
    #[must_use]
    pub fn is_functions(&self) -> bool {
        self.coll() == "system.js"
    }

    /// Whether the server made it for the length of one command: `$out` and `$merge` write to
    /// `tmp.agg_out.…`, `mapReduce` to `tmp.mr.…`, `convertToCapped` and a rename across databases to
    /// `tmpXXXXX.…`, and rename it when they are done (RAN on 6.0.5).
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        let coll = self.coll();
        coll.starts_with("tmp.agg_out.")
            || coll.starts_with("tmp.mr.")
            || (coll.starts_with("tmp") && (coll.contains(".convertToCapped.") || coll.ends_with(".renameCollection")))
    }
}

/// Whether no collection of this database is ever replicated.
pub(crate) fn is_internal_db(db: &str) -> bool {
    matches!(db, "admin" | "local" | "config") || db.starts_with("__mdb_internal")
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_the_first_dot() {
        let ns = Namespace::parse("shop.order.items").unwrap();
        assert_eq!((ns.db(), ns.coll()), ("shop", "order.items"));
        assert_eq!(ns, Namespace::new("shop", "order.items"));
        for bad in ["shop", "shop.", ".orders", ""] {
            assert!(Namespace::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_time_series_and_its_buckets_name_each_other() {
        let series = Namespace::new("shop", "cpu.load");
        assert_eq!(series.buckets().as_str(), "shop.system.buckets.cpu.load");
        assert_eq!((series.buckets().series(), series.series()), (Some(series), None));
    }

    #[test]
    fn the_servers_own_collections_are_internal() {
        for internal in ["admin.x", "config.y", "__mdb_internal_mongoferry.z", "shop.system.views", "shop.system.profile"] {
            assert!(Namespace::parse(internal).unwrap().is_internal(), "{internal}");
        }
        for ours in ["shop.orders", "shop.system.js", "shop.system.buckets.ts", "shop.systems"] {
            assert!(!Namespace::parse(ours).unwrap().is_internal(), "{ours}");
        }
    }
}
