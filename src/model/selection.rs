//! Which namespaces are replicated, and under which name they arrive.

use super::{Namespace, namespace::is_internal_db};
use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

/// One `--include` or `--exclude`: `db`, `db.collection`, a glob over either (`shop_*.order?`), or a
/// regular expression between slashes over the whole of `db.collection` (`/^shop\.(a|b)$/`).
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Debug, Clone)]
enum Matcher {
    Glob { db: GlobMatcher, coll: Option<GlobMatcher> },
    Regex(Regex),
}

impl Pattern {
    /// # Errors
    /// The reason, in words, why it is no pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        let matcher = if let Some(regex) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Matcher::Regex(Regex::new(regex).map_err(|e| format!("is no regular expression: {e}"))?)
        } else {
            let glob = |part: &str| {
                if part.is_empty() {
                    return Err("has an empty part; write `db`, `db.collection`, a glob or `/regex/`".to_owned());
                }
                GlobBuilder::new(part).literal_separator(false).build().map(|g| g.compile_matcher()).map_err(|e| format!("is no glob: {e}"))
            };
            match text.split_once('.') {
                Some((db, coll)) => Matcher::Glob { db: glob(db)?, coll: Some(glob(coll)?) },
                None => Matcher::Glob { db: glob(text)?, coll: None },
            }
        };
        Ok(Self { text: text.to_owned(), matcher })
    }

    /// Whether the namespace is meant.
    #[must_use]
    pub fn matches(&self, ns: &Namespace) -> bool {
        match &self.matcher {
            Matcher::Glob { db, coll } => db.is_match(ns.db()) && coll.as_ref().is_none_or(|c| c.is_match(ns.coll())),
            Matcher::Regex(regex) => regex.is_match(ns.as_str()),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A filter or rename that means nothing on the source, with the nearest name that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// The flag it was written for.
    pub flag: &'static str,
    /// As it was written.
    pub written: String,
    /// The nearest namespace or database there is.
    pub nearest: Option<String>,
}

/// The filters and renames of a migration. They may not change between runs.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    renames: Vec<(String, String)>,
    /// Whether it is the way back: the names of the source are those that the flags give to the target.
    inverse: bool,
    /// A database that is never taken: that of the metadata, which after a way back lies on both sides.
    reserved: Option<String>,
}

impl Selection {
    /// From the flags as written; `renames` are pairs of databases or of namespaces.
    ///
    /// # Errors
    /// Flag and reason of the first that makes no sense.
    pub fn new(include: &[String], exclude: &[String], renames: &[(String, String)]) -> Result<Self, (&'static str, String)> {
        let patterns = |flag, texts: &[String]| {
            texts.iter().map(|t| Pattern::parse(t).map_err(|why| (flag, format!("`{t}` {why}")))).collect::<Result<Vec<_>, _>>()
        };
        let mut seen = std::collections::BTreeSet::new();
        for (from, to) in renames {
            let wrong = |why: &str| Err(("--rename", format!("`{from}={to}` {why}")));
            if from.contains('.') != to.contains('.') {
                return wrong("mixes a database and a namespace: write `db=db` or `db.coll=db.coll`");
            }
            let bad = |n: &str| n.is_empty() || (n.contains('.') && Namespace::parse(n).is_none());
            if bad(from) || bad(to) {
                return wrong("has an empty name");
            }
            let internal = |n: &str| Namespace::parse(n).map_or(is_internal_db(n), |ns| ns.is_internal() || ns.is_buckets());
            if internal(from) || internal(to) {
                return wrong("names a namespace of the server's own");
            }
            if !seen.insert(to.clone()) {
                return wrong("gives two things the same name");
            }
        }
        Ok(Self {
            include: patterns("--include", include)?,
            exclude: patterns("--exclude", exclude)?,
            renames: renames.to_vec(),
            inverse: false,
            reserved: None,
        })
    }

    /// The same, that never takes this database.
    #[must_use]
    pub fn reserving(self, database: &str) -> Self {
        Self { reserved: Some(database.to_owned()), ..self }
    }

    /// The same seen from the other side: takes what this one gives to the target, and gives it its first name.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { inverse: !self.inverse, ..self.clone() }
    }

    /// Whether it is the way back.
    #[must_use]
    pub fn is_inverse(&self) -> bool {
        self.inverse
    }

    /// The patterns of `--include` and of `--exclude`, as they were written.
    #[must_use]
    pub fn patterns(&self) -> (Vec<String>, Vec<String>) {
        let texts = |patterns: &[Pattern]| patterns.iter().map(|p| p.text.clone()).collect();
        (texts(&self.include), texts(&self.exclude))
    }

    /// Whether the namespace is replicated. A temporary collection of the server's is, as soon as anything
    /// of its database is: it will be renamed to something that may be selected.
    #[must_use]
    pub fn takes(&self, ns: &Namespace) -> bool {
        if self.inverse { self.origin_of(ns).is_some() } else { self.takes_forward(ns) }
    }

    fn takes_forward(&self, ns: &Namespace) -> bool {
        if ns.is_internal() || self.reserved.as_deref() == Some(ns.db()) {
            return false;
        }
        if ns.is_temporary() {
            return self.include.is_empty() || self.include.iter().any(|p| p.touches_database(ns.db()));
        }
        let named = unbucketed(ns);
        (self.include.is_empty() || self.include.iter().any(|p| p.matches(&named))) && !self.exclude.iter().any(|p| p.matches(&named))
    }

    /// Whether anything of the database might be replicated.
    #[must_use]
    pub fn touches_database(&self, db: &str) -> bool {
        let renamed = |(from, to): &(String, String)| database(to) == db && self.touches_forward(database(from));
        self.touches_forward(db) || (self.inverse && !is_internal_db(db) && self.renames.iter().any(renamed))
    }

    fn touches_forward(&self, db: &str) -> bool {
        !is_internal_db(db) && (self.include.is_empty() || self.include.iter().any(|p| p.touches_database(db)))
    }

    /// The name under which it arrives on the target.
    #[must_use]
    pub fn target_of(&self, ns: &Namespace) -> Namespace {
        if self.inverse { self.origin_of(ns).unwrap_or_else(|| ns.clone()) } else { self.target_forward(ns) }
    }

    /// What arrives under that name; of several, what a rename names before what keeps its name.
    fn origin_of(&self, ns: &Namespace) -> Option<Namespace> {
        let named = unbucketed(ns);
        let whole = self.renames.iter().filter(|(_, to)| to == named.as_str()).filter_map(|(from, _)| Namespace::parse(from));
        let databases = self.renames.iter().filter(|(_, to)| to == named.db()).map(|(from, _)| Namespace::new(from, named.coll()));
        let mut origins = whole.chain(databases).chain([named.clone()]);
        let origin = origins.find(|from| self.takes_forward(from) && self.target_forward(from) == named)?;
        Some(if ns.is_buckets() { origin.buckets() } else { origin })
    }

    fn target_forward(&self, ns: &Namespace) -> Namespace {
        let named = unbucketed(ns);
        let renamed = self
            .renames
            .iter()
            .find(|(from, _)| from == named.as_str())
            .and_then(|(_, to)| Namespace::parse(to))
            .or_else(|| self.renames.iter().find(|(from, _)| from == named.db()).map(|(_, to)| Namespace::new(to, named.coll())));
        match renamed {
            None => ns.clone(),
            Some(to) if ns.is_buckets() => to.buckets(),
            Some(to) => to,
        }
    }

    /// The names in filters and renames that match nothing of what the source has.
    #[must_use]
    pub fn unknown(&self, existing: &[Namespace]) -> Vec<UnknownName> {
        let existing: Vec<Namespace> = existing.iter().map(unbucketed).collect();
        let written = |flag: &'static str, patterns: &[Pattern]| {
            let missed = patterns.iter().filter(|p| !existing.iter().any(|ns| p.matches(ns)));
            missed.map(|p| (flag, p.text.clone())).collect::<Vec<_>>()
        };
        let known = |from: &str| existing.iter().any(|ns| ns.as_str() == from || ns.db() == from);
        let renames = self.renames.iter().filter(|(from, _)| !known(from)).map(|(from, _)| ("--rename", from.clone()));
        let patterns = written("--include", &self.include).into_iter().chain(written("--exclude", &self.exclude));
        patterns
            .chain(renames)
            .map(|(flag, written)| {
                let names = existing.iter().map(|ns| if written.contains('.') { ns.as_str() } else { ns.db() });
                let nearest = names
                    .map(|name| (strsim::damerau_levenshtein(name, &written), name))
                    .min()
                    .filter(|(distance, _)| *distance <= written.len().max(3) / 2)
                    .map(|(_, name)| name.to_owned());
                UnknownName { flag, written, nearest }
            })
            .collect()
    }

    /// The texts, in a fixed order, for the migration's fingerprint.
    #[must_use]
    pub fn describe(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let texts = |ps: &[Pattern]| {
            let mut all: Vec<_> = ps.iter().map(|p| p.text.clone()).collect();
            all.sort();
            all
        };
        let turned = |f, t| if self.inverse { format!("{t}={f}") } else { format!("{f}={t}") };
        let mut renames: Vec<_> = self.renames.iter().map(|(f, t)| turned(f, t)).collect();
        renames.sort();
        (texts(&self.include), texts(&self.exclude), renames)
    }
}

/// Of a database's or a namespace's name.
fn database(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// A time series is selected and renamed by its own name, not by that of its buckets.
fn unbucketed(ns: &Namespace) -> Namespace {
    ns.series().unwrap_or_else(|| ns.clone())
}

impl Pattern {
    fn touches_database(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::Glob { db, .. } => db.is_match(name),
            // A regular expression over the whole name cannot be asked about a part of it.
            Matcher::Regex(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> Namespace {
        Namespace::parse(text).unwrap()
    }
    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&t| t.to_owned()).collect()
    }

    #[test]
    fn exact_glob_and_regex() {
        for (pattern, yes, no) in [
            ("shop", "shop.orders", "shops.orders"),
            ("shop.orders", "shop.orders", "shop.orders2"),
            ("shop.order*", "shop.orders2", "shop.items"),
            ("s?op.*", "shop.a.b", "sshop.a"),
            (r"/^shop\.(a|b)$/", "shop.b", "shop.c"),
        ] {
            let s = Selection::new(&strings(&[pattern]), &[], &[]).unwrap();
            assert!(s.takes(&ns(yes)), "{pattern} takes {yes}");
            assert!(!s.takes(&ns(no)), "{pattern} leaves {no}");
        }
    }

    #[test]
    fn exclude_wins_and_the_servers_own_never_goes() {
        let s = Selection::new(&strings(&["shop"]), &strings(&["shop.tmp*"]), &[]).unwrap();
        assert!(!s.takes(&ns("shop.tmp1")));
        assert!(s.takes(&ns("shop.tmp.agg_out.77")), "a temporary collection becomes a selected one");
        assert!(!Selection::default().takes(&ns("admin.system.users")));
        assert!(!Selection::default().takes(&ns("shop.system.views")));
    }

    #[test]
    fn renames_by_namespace_before_database() {
        let pairs = [("shop".to_owned(), "store".to_owned()), ("shop.a".to_owned(), "x.b".to_owned())];
        let s = Selection::new(&[], &[], &pairs).unwrap();
        assert_eq!(s.target_of(&ns("shop.a")), ns("x.b"));
        assert_eq!(s.target_of(&ns("shop.c")), ns("store.c"));
        assert_eq!(s.target_of(&ns("shop.system.buckets.a")), ns("x.system.buckets.b"));
        assert_eq!(s.target_of(&ns("other.c")), ns("other.c"));
    }

    #[test]
    fn the_way_back_takes_what_arrived_and_gives_it_its_first_name() {
        let pairs = [("shop".to_owned(), "store".to_owned()), ("shop.a".to_owned(), "x.b".to_owned())];
        let there = Selection::new(&strings(&["shop", "crm.people"]), &strings(&["shop.secret"]), &pairs).unwrap();
        let back = there.inverse();
        for name in ["shop.a", "shop.c", "shop.system.buckets.a", "shop.tmp.agg_out.7", "crm.people"] {
            let arrived = there.target_of(&ns(name));
            assert!(back.takes(&arrived), "{arrived}");
            assert_eq!(back.target_of(&arrived), ns(name));
        }
        for name in ["shop.c", "store.a", "store.secret", "crm.other", "x.a", "admin.x", "store.system.views"] {
            assert!(!back.takes(&ns(name)), "{name}");
        }
        assert!(back.touches_database("store") && back.touches_database("x") && !back.touches_database("y"));
        assert_eq!(back.describe().2, ["store=shop", "x.b=shop.a"]);
        assert!(there.inverse().inverse().takes(&ns("shop.c")));
        let all = Selection::default().reserving("meta");
        assert!(!all.takes(&ns("meta.migration")) && !all.inverse().takes(&ns("meta.migration")) && all.inverse().takes(&ns("a.b")));
    }

    #[test]
    fn unknown_names_come_with_the_nearest() {
        let s = Selection::new(&strings(&["shop.ordesr", "zzz"]), &[], &[]).unwrap();
        let unknown = s.unknown(&[ns("shop.orders"), ns("shop.items")]);
        assert_eq!(unknown[0].nearest.as_deref(), Some("shop.orders"));
        assert_eq!(unknown[1].nearest, None);
        let buckets = Selection::new(&strings(&["shop.system.buckets.cpu"]), &[], &[]).unwrap();
        assert!(!buckets.takes(&ns("shop.system.buckets.cpu")), "a time series goes by its own name");
        assert_eq!(buckets.unknown(&[ns("shop.cpu"), ns("shop.system.buckets.cpu")]).len(), 1);
    }

    #[test]
    fn bad_renames_are_told() {
        for (from, to) in [("a", "b.c"), ("", "x"), ("admin", "x"), ("a.b", "config.x"), ("a.", "b.c"), ("a.b", "a.system.buckets.c")] {
            assert!(Selection::new(&[], &[], &[(from.to_owned(), to.to_owned())]).is_err(), "{from}={to}");
        }
    }
}
