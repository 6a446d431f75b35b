//! Shard keys: the fields by which a collection is distributed, and their values in a document.

use super::{
    IndexSpec,
    raw::{self, Element, tag},
};
use bson::{RawDocument, RawDocumentBuf};

/// How one field of a shard key distributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// By ranges of its value.
    Ranged,
    /// By a hash of its value.
    Hashed,
}

/// A shard key. Fields may be paths (`address.country`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardKey(Vec<(String, Distribution)>);

impl ShardKey {
    /// From how it is written: `customer:1,_id:hashed`.
    ///
    /// # Errors
    /// The reason, in words, why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields: Vec<(String, Distribution)> = Vec::new();
        for part in text.split(',') {
            let (field, how) = part.trim().rsplit_once(':').ok_or_else(|| format!("`{part}` is not FIELD:1 or FIELD:hashed"))?;
            let how = match how.trim() {
                "1" => Distribution::Ranged,
                "hashed" => Distribution::Hashed,
                other => return Err(format!("`{other}` behind the field `{field}` must be `1` or `hashed`")),
            };
            let field = field.trim();
            if field.split('.').any(|step| step.is_empty() || step.starts_with('$')) {
                return Err(format!("`{field}` is no field of a shard key"));
            }
            if fields.iter().any(|(other, _)| other == field) {
                return Err(format!("names the field `{field}` twice"));
            }
            fields.push((field.to_owned(), how));
        }
        if fields.iter().filter(|(_, how)| *how == Distribution::Hashed).count() > 1 {
            return Err("has more than one hashed field".into());
        }
        Ok(Self(fields))
    }

    /// From a key pattern, as `config.collections` has it; `None` where it is none.
    #[must_use]
    pub fn of(pattern: &RawDocument) -> Option<Self> {
        let field = |e: Element<'_>| {
            let how = if e.str() == Some("hashed") { Distribution::Hashed } else { Distribution::Ranged };
            Some((std::str::from_utf8(e.name).ok()?.to_owned(), how))
        };
        let fields: Option<Vec<_>> = raw::elements(pattern).map(field).collect();
        fields.filter(|fields| !fields.is_empty()).map(Self)
    }

    /// With the fields of another one behind its own.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for field in &other.0 {
            if !self.0.iter().any(|(ours, _)| *ours == field.0) {
                self.0.push(field.clone());
            }
        }
        self
    }

    /// As the server takes it.
    #[must_use]
    pub fn pattern(&self) -> RawDocumentBuf {
        let mut b = raw::Builder::default();
        for (field, how) in &self.0 {
            match how {
                Distribution::Ranged => b.i32(field, 1),
                Distribution::Hashed => b.str(field, "hashed"),
            };
        }
        b.finish()
    }

    /// Its fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(field, _)| field.as_str())
    }

    /// Whether it is `_id` alone: then a document's key never changes, and no two shards have documents of one `_id`.
    #[must_use]
    pub fn is_id(&self) -> bool {
        matches!(&self.0[..], [(field, _)] if field == "_id")
    }

    /// Whether chunks are distributed by a hash from the first field on, so that new ones can be spread without a look at the data.
    #[must_use]
    pub fn is_hashed_first(&self) -> bool {
        matches!(self.0.first(), Some((_, Distribution::Hashed)))
    }

    /// Whether one of its fields is hashed.
    #[must_use]
    pub fn is_hashed(&self) -> bool {
        self.0.iter().any(|(_, how)| *how == Distribution::Hashed)
    }

    /// Its fields with how each distributes, in order.
    #[must_use]
    pub fn distributions(&self) -> &[(String, Distribution)] {
        &self.0
    }

    /// The values in a document, by path in the key's order. A field that is missing counts as null, as it does to the server.
    #[must_use]
    pub fn values(&self, doc: &RawDocument) -> RawDocumentBuf {
        let mut b = raw::Builder::default();
        for field in self.fields() {
            match at_path(doc, field) {
                Some(e) => b.value(field, e.tag, e.value),
                None => b.value(field, tag::NULL, &[]),
            };
        }
        b.finish()
    }

    /// Whether an update by this raw diff (`{$v: 2, diff: …}`) may change the values. `_id` never changes.
    #[must_use]
    pub fn may_be_changed_by(&self, diff: &RawDocument) -> bool {
        let Some(diff) = raw::get(diff, "diff").and_then(|e| e.document()) else { return true };
        let ours = |name: &[u8]| {
            self.fields().any(|field| field != "_id" && field.split('.').next().is_some_and(|first| first.as_bytes() == name))
        };
        raw::elements(diff).any(|e| match (e.name, e.document()) {
            // Deleted, updated and inserted fields, by name.
            (b"d" | b"u" | b"i", Some(fields)) => raw::elements(fields).any(|field| ours(field.name)),
            // `s` and a name: a diff of what is within.
            ([b's', name @ ..], _) => ours(name),
            _ => true,
        })
    }

    /// Whether an index can be unique over all shards: the shard key is a prefix of its keys.
    ///
    /// A hashed key is a prefix of none but `_id`, since the index on `_id` hashed is not unique.
    #[must_use]
    pub fn allows_unique(&self, index: &IndexSpec) -> bool {
        let Some(keys) = raw::get(&index.0, "key").and_then(|e| e.document()) else { return false };
        // RAN on 6.0.5: `{_id: 1, q: 1}` may be unique where the shard key is `{_id: "hashed"}`.
        let names: Vec<_> = raw::elements(keys).map(|e| e.name).collect();
        self.0.len() <= names.len() && self.fields().zip(&names).all(|(field, name)| field.as_bytes() == *name)
    }

    /// Whether the server can use an index as the one that a shard key needs: its keys begin with the shard key, and it
    /// holds every document in the simple order.
    #[must_use]
    pub fn is_supported_by(&self, index: &IndexSpec) -> bool {
        let Some(keys) = raw::get(&index.0, "key").and_then(|e| e.document()) else { return false };
        let mut keys = raw::elements(keys);
        let same = |e: Element<'_>, how: Distribution| match how {
            Distribution::Hashed => e.str() == Some("hashed"),
            Distribution::Ranged => e.integer() == Some(1),
        };
        let begins = self.0.iter().all(|(field, how)| keys.next().is_some_and(|e| e.name == field.as_bytes() && same(e, *how)));
        begins && !index.is("sparse") && !index.is("hidden") && !index.has("partialFilterExpression") && !index.has("collation")
    }
}

impl std::fmt::Display for ShardKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = self.0.iter().map(|(field, how)| match how {
            Distribution::Ranged => format!("{field}: 1"),
            Distribution::Hashed => format!("{field}: \"hashed\""),
        });
        write!(f, "{{{}}}", told.collect::<Vec<_>>().join(", "))
    }
}

/// Whether a router finds a document by these values of its shard key: it does not take regular expressions, `undefined`, and
/// documents with an operator's name in them for values (code 61 for an upsert, RAN on 6.0.5).
#[must_use]
pub fn can_be_aimed_at(values: &RawDocument) -> bool {
    fn plain(e: Element<'_>) -> bool {
        !matches!(e.tag, tag::REGEX | tag::UNDEFINED | tag::ARRAY)
            && e.document()
                .is_none_or(|inner| raw::elements(inner).all(|e| e.name.first() != Some(&b'$') && (e.tag == tag::ARRAY || plain(e))))
    }
    raw::elements(values).all(plain)
}

fn at_path<'a>(doc: &'a RawDocument, path: &str) -> Option<Element<'a>> {
    match path.split_once('.') {
        None => raw::get(doc, path),
        Some((first, rest)) => at_path(raw::get(doc, first).filter(|e| e.tag == tag::DOCUMENT)?.document()?, rest),
    }
}

/// How a collection is to be distributed before data flows.
#[derive(Debug, Clone, PartialEq)]
pub struct Sharded {
    /// By what.
    pub key: ShardKey,
    /// An index to be there before: one of the collection's own, in the form that it has while data flows. Without it the server
    /// makes one of its own.
    pub index: Option<IndexSpec>,
    /// Where to split, in ascending order: documents with the fields of the key. Chunks go round the shards in this order.
    pub bounds: Vec<RawDocumentBuf>,
    /// Where which shards are wanted.
    pub zones: Vec<Zone>,
}

/// A range of shard keys whose documents belong to certain shards.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// The lowest key, with the fields of the shard key or the first of them.
    pub min: RawDocumentBuf,
    /// The lowest key behind it.
    pub max: RawDocumentBuf,
    /// The shards of the source that are in it.
    pub shards: Vec<String>,
}

/// How a collection is distributed, as far as clusters with other shards can be compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Distributed {
    /// By what; `None` where it lies on one shard, and only has zones.
    pub key: Option<ShardKey>,
    /// Whether it was sharded as unique.
    pub unique: bool,
    /// Ascending; without the shards that are in them.
    pub zones: Vec<Zone>,
}

impl Sharded {
    /// Without a look at the data.
    #[must_use]
    pub fn by(key: ShardKey) -> Self {
        Self { key, index: None, bounds: Vec::new(), zones: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn key(text: &str) -> ShardKey {
        ShardKey::parse(text).unwrap()
    }

    #[test]
    fn keys_are_written_as_fields_and_kinds() {
        let compound = key("customer:1, a.b:hashed");
        assert_eq!(compound.pattern(), rawdoc! {"customer": 1, "a.b": "hashed"});
        assert_eq!(ShardKey::of(&compound.pattern()), Some(compound.clone()));
        assert_eq!(compound.to_string(), "{customer: 1, a.b: \"hashed\"}");
        assert!(key("_id:hashed").is_id() && key("_id:1").is_id() && !compound.is_id());
        for bad in ["", "a", "a:2", "a:-1", "a:1,a:1", "a:hashed,b:hashed", ":1", "a..b:1", "$a:1"] {
            assert!(ShardKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_found_by_path_and_missing_ones_are_null() {
        let values = |doc: RawDocumentBuf| key("a.b:1,c:1").values(&doc);
        assert_eq!(values(rawdoc! {"a": {"b": 5_i64}, "c": "x"}), rawdoc! {"a.b": 5_i64, "c": "x"});
        let null = rawdoc! {"a.b": bson::RawBson::Null, "c": bson::RawBson::Null};
        for doc in [rawdoc! {}, rawdoc! {"a": 1}, rawdoc! {"a.b": 1}, rawdoc! {"a": {"b": bson::RawBson::Null}}] {
            assert_eq!(values(doc.clone()), null, "{doc:?}");
        }
    }

    #[test]
    fn diffs_that_touch_the_key_are_seen() {
        let key = key("a.b:1,_id:1");
        let diff = |diff: RawDocumentBuf| rawdoc! {"$v": 2, "diff": diff};
        for touching in
            [rawdoc! {"d": {"a": false}}, rawdoc! {"u": {"x": 1, "a": 1}}, rawdoc! {"i": {"a": {}}}, rawdoc! {"sa": {}}, rawdoc! {"?": 1}]
        {
            assert!(key.may_be_changed_by(&diff(touching.clone())), "{touching:?}");
        }
        for other in [rawdoc! {"d": {"aa": false}, "u": {"x": 1}, "sab": {"u": {"a": 1}}}, rawdoc! {"u": {"_id": 1}}] {
            assert!(!key.may_be_changed_by(&diff(other.clone())), "{other:?}");
        }
    }

    #[test]
    fn unique_indexes_begin_with_the_shard_key() {
        let index = |key: RawDocumentBuf| IndexSpec(rawdoc! {"name": "i", "key": key});
        assert!(key("a:1").allows_unique(&index(rawdoc! {"a": 1, "b": 1})));
        assert!(!key("a:1,b:1").allows_unique(&index(rawdoc! {"a": 1})));
        assert!(!key("a:1").allows_unique(&index(rawdoc! {"b": 1, "a": 1})));
        assert!(key("a:1").is_supported_by(&index(rawdoc! {"a": 1, "b": -1})));
        assert!(!key("a:1").is_supported_by(&index(rawdoc! {"a": -1})));
        assert!(!key("a:hashed").is_supported_by(&index(rawdoc! {"a": 1})));
        assert!(!key("a:1").is_supported_by(&IndexSpec(rawdoc! {"name": "i", "key": {"a": 1}, "sparse": true})));
    }

    #[test]
    fn what_a_router_takes_for_an_operator_is_not_aimed_at() {
        assert!(can_be_aimed_at(&rawdoc! {"a": {"b": [{"x": 1}]}, "c": 1}));
        let regex = bson::Regex { pattern: "a".try_into().unwrap(), options: "".try_into().unwrap() };
        assert!(!can_be_aimed_at(&rawdoc! {"a": regex}));
        assert!(!can_be_aimed_at(&rawdoc! {"a": {"$gt": 1}}));
    }
}
