//! Shard keys: their values in a document and in a query, and the chunks these belong to.
//!
//! The config server compares and hashes, so that the order and the hash are MongoDB's.

use mongodb::bson::error::Result as RawResult;
use mongodb::bson::raw::CStr;
use mongodb::bson::{Bson, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, doc, rawdoc};

use super::cluster::Cluster;
use super::failure::{Code, Failure};
use super::placement::Sharded;
use super::upstream::first_batch;

/// The values of the shard key's fields, in the key's order.
pub type Key = Vec<RawBson>;

/// A field that a document lacks counts as null.
pub fn of_document(pattern: &RawDocument, document: &RawDocument) -> Key {
    fields(pattern).map(|field| at_path(document, field).map_or(RawBson::Null, RawBson::from)).collect()
}

/// `None` if the query does not ask for one value of each field.
pub fn of_query(pattern: &RawDocument, query: &RawDocument) -> Option<Key> {
    let value = |field: &str| {
        let value = query.get(field).ok().flatten().or_else(|| at_path(query, field))?;
        let Some(operators) = value.as_document().filter(|document| is_operators(document)) else { return Some(value.into()) };
        operators.get("$eq").ok().flatten().map(RawBson::from)
    };
    fields(pattern).map(value).collect()
}

fn fields(pattern: &RawDocument) -> impl Iterator<Item = &str> {
    pattern.iter().filter_map(|field| field.ok().map(|(name, _)| name.as_str()))
}

fn is_operators(document: &RawDocument) -> bool {
    document.iter().next().and_then(Result::ok).is_some_and(|(name, _)| name.as_str().starts_with('$'))
}

fn at_path<'a>(document: &'a RawDocument, path: &str) -> Option<RawBsonRef<'a>> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let value = document.get(name).ok()??;
    match rest {
        Some(rest) => at_path(value.as_document()?, rest),
        None => Some(value),
    }
}

impl Cluster {
    /// The shard of each key.
    pub async fn owners(&self, sharded: &Sharded, keys: Vec<Key>) -> Result<Vec<String>, Failure> {
        let found = self.locate(sharded, keys, true).await?;
        found.iter().map(|found| Ok(found.get_str("shard")?.to_owned())).collect()
    }

    /// The chunk's `_id` of a document's key.
    pub async fn chunk_of(&self, sharded: &Sharded, key: Key) -> Result<RawBson, Failure> {
        self.one_chunk(sharded, key, true).await
    }

    /// The same for a key whose hashed fields hold hashes already, as chunks' bounds do.
    pub async fn chunk_of_hashed(&self, sharded: &Sharded, key: Key) -> Result<RawBson, Failure> {
        self.one_chunk(sharded, key, false).await
    }

    async fn one_chunk(&self, sharded: &Sharded, key: Key, hash: bool) -> Result<RawBson, Failure> {
        let found = self.locate(sharded, vec![key], hash).await?;
        let id = found.first().and_then(|found| found.get("chunk").ok().flatten()).map(RawBson::from);
        id.ok_or_else(|| Failure::new(Code::BadValue, "no chunk has this key"))
    }

    /// `{shard, chunk}` for each key.
    async fn locate(&self, sharded: &Sharded, keys: Vec<Key>, hash: bool) -> Result<Vec<RawDocumentBuf>, Failure> {
        let keys: RawArrayBuf = keys.into_iter().map(|key| rawdoc! { "key": RawArrayBuf::from_iter(key) }).collect();
        let value = |(at, field): (usize, RawResult<(&CStr, RawBsonRef<'_>)>)| {
            let value = doc! { "$arrayElemAt": ["$key", at as i32] };
            let hashed = hash && field.is_ok_and(|(_, kind)| kind.as_str() == Some("hashed"));
            Bson::Document(if hashed {
                doc! { "$toHashedIndexKey": value }
            } else {
                value
            })
        };
        let values: Vec<Bson> = sharded.key.iter().enumerate().map(value).collect();
        let bound = |name: &str| doc! { "$map": { "input": { "$objectToArray": name }, "in": "$$this.v" } };
        let within = doc! { "$and": [{ "$lte": [bound("$min"), "$$key"] }, { "$gt": [bound("$max"), "$$key"] }] };
        let chunks = vec![
            doc! { "$match": { "uuid": sharded.uuid.clone() } },
            doc! { "$match": { "$expr": within } },
            doc! { "$project": { "shard": 1 } },
        ];
        let stages = [
            doc! { "$project": { "key": values } },
            doc! { "$lookup": { "from": "chunks", "let": { "key": "$key" }, "pipeline": chunks, "as": "chunks" } },
            doc! { "$unwind": "$chunks" },
            doc! { "$project": { "shard": "$chunks.shard", "chunk": "$chunks._id" } },
        ];
        let count = keys.into_iter().count();
        let mut pipeline = RawArrayBuf::from_iter([rawdoc! { "$documents": { "$literal": keys } }]);
        for stage in &stages {
            pipeline.push(RawDocumentBuf::try_from(stage)?);
        }
        let command = rawdoc! { "aggregate": 1, "pipeline": pipeline, "cursor": { "batchSize": 1_000_000 }, "$db": "config" };
        let reply = self.config.run(command).await?;
        let found: Vec<_> = first_batch(&reply)?.into_iter().map(RawDocument::to_owned).collect();
        if found.len() != count {
            return Err(Failure::new(Code::BadValue, "a shard key belongs to no chunk, or to two"));
        }
        Ok(found)
    }
}
