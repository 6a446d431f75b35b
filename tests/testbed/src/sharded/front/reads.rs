//! Reads that the shards' routing code does not know, made of one that it knows or merged from the shards' answers.

use std::collections::BTreeMap;

use mongodb::bson::raw::{CString, cstr};
use mongodb::bson::{RawArrayBuf, RawBson, RawDocumentBuf, rawdoc};

use super::cluster::Cluster;
use super::command::{Command, copy_fields, number};
use super::failure::{Answer, Failure};
use super::upstream::{documents, first_batch};

/// What an aggregation takes over from the command that it stands for.
const PASSED: [&str; 8] = ["$db", "hint", "collation", "readConcern", "maxTimeMS", "comment", "let", "$readPreference"];

impl Cluster {
    /// Counts documents, never the metadata's number, so that chunks on the move do not count twice.
    pub async fn count(&self, client: usize, command: &Command) -> Answer {
        let mut stages = RawArrayBuf::new();
        stages.push(rawdoc! { "$match": command.body.get_document("query").map(ToOwned::to_owned).unwrap_or_default() });
        for (name, stage) in [("skip", cstr!("$skip")), ("limit", cstr!("$limit"))] {
            // A negative limit is a limit, and 0 is none.
            if let Some(count @ 1..) = command.number(name).map(i64::abs) {
                stages.push(RawDocumentBuf::from_iter([(stage, count)]));
            }
        }
        stages.push(rawdoc! { "$count": "n" });
        let reply = self.aggregate(client, command, stages).await?;
        let counted = first_batch(&reply)?.first().and_then(|counted| number(counted.get("n").ok()??)).unwrap_or(0);
        let counted = i32::try_from(counted).map_or(RawBson::Int64(counted), RawBson::Int32);
        Ok(rawdoc! { "n": counted, "ok": 1.0 })
    }

    /// By the pipeline that a server makes of a `distinct` on a view.
    pub async fn distinct(&self, client: usize, command: &Command) -> Answer {
        let key = command.body.get_str("key")?;
        let mut stages = RawArrayBuf::new();
        stages.push(rawdoc! { "$match": command.body.get_document("query").map(ToOwned::to_owned).unwrap_or_default() });
        let ends = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
        for end in ends {
            stages.push(rawdoc! { "$unwind": { "path": format!("${}", &key[..end]), "preserveNullAndEmptyArrays": true } });
        }
        let exists = RawDocumentBuf::from_iter([(CString::try_from(key)?, rawdoc! { "$exists": true })]);
        stages.push(rawdoc! { "$match": exists });
        stages.push(rawdoc! { "$group": { "_id": null, "values": { "$addToSet": format!("${key}") } } });
        let reply = self.aggregate(client, command, stages).await?;
        let mut answer = RawDocumentBuf::new();
        match first_batch(&reply)?.first() {
            Some(found) => answer.append(cstr!("values"), found.get_array("values")?),
            None => answer.append(cstr!("values"), RawArrayBuf::new()),
        }
        answer.append(cstr!("ok"), 1.0);
        Ok(answer)
    }

    async fn aggregate(&self, client: usize, command: &Command, stages: RawArrayBuf) -> Answer {
        let mut body = rawdoc! { "clusterAggregate": command.text()?, "pipeline": stages, "cursor": {} };
        copy_fields(&command.body, &mut body, &PASSED)?;
        let router = self.router(client)?;
        self.asked(&router, command, &body).await
    }

    /// Sizes are sums over the shards; what they do not agree on otherwise is the first one's.
    pub async fn collection_stats(&self, command: &Command) -> Answer {
        let placement = self.placement(&command.namespace()?).await?;
        let names: Vec<String> = placement.iter().flat_map(|placement| placement.shards()).map(String::from).collect();
        let mut answer = rawdoc! { "sharded": placement.is_some_and(|placement| placement.sharded.is_some()) };
        let summed = ["count", "size", "storageSize", "freeStorageSize", "totalIndexSize", "totalSize", "numOrphanDocs"];
        self.sum(command, &names, &summed, &mut answer).await
    }

    pub async fn database_stats(&self, command: &Command) -> Answer {
        let names: Vec<String> = self.shards().iter().map(|shard| shard.name.clone()).collect();
        let summed = ["collections", "views", "objects", "dataSize", "storageSize", "indexes", "indexSize", "totalSize"];
        self.sum(command, &names, &summed, &mut rawdoc! { "db": command.db.as_str() }).await
    }

    async fn sum(&self, command: &Command, names: &[String], summed: &[&str], answer: &mut RawDocumentBuf) -> Answer {
        let mut replies = Vec::new();
        for name in names {
            replies.push((name, self.shard(name)?.run(command.plain()?).await?));
        }
        for field in summed {
            let values: Vec<i64> = replies.iter().filter_map(|(_, reply)| number(reply.get(field).ok()??)).collect();
            if !values.is_empty() {
                answer.append(CString::try_from(*field)?, values.iter().sum::<i64>());
            }
        }
        let mut shards = RawDocumentBuf::new();
        for (name, reply) in &replies {
            shards.append(CString::try_from(name.as_str())?, reply);
        }
        if let Some((_, first)) = replies.first() {
            copy_fields(first, answer, &["ns", "capped", "max", "maxSize", "nindexes", "scaleFactor", "timeseries"])?;
        }
        answer.append(cstr!("shards"), shards);
        answer.append(cstr!("ok"), 1.0);
        Ok(answer.clone())
    }

    /// As the database's primary shard would do it.
    pub async fn explain_write(&self, command: &Command) -> Answer {
        let database = self.existing(&command.db).await?;
        self.shard(&database.primary)?.run(command.plain()?).await
    }

    /// One entry for each name, its size the sum of the shards'; `config` and `admin` are the config server's.
    pub async fn list_databases(&self, command: &Command) -> Answer {
        let mut merged: BTreeMap<String, (i64, bool)> = BTreeMap::new();
        for server in self.shards().into_iter().chain([self.config.clone()]) {
            let reply = server.run(command.plain()?).await?;
            for found in documents(reply.get_array("databases")?)? {
                let name = found.get_str("name")?;
                let of_config = ["admin", "config"].contains(&name);
                if name == "local" || of_config != (server.name == self.config.name) {
                    continue;
                }
                let (size, empty) = merged.entry(name.into()).or_insert((0, true));
                *size += found.get("sizeOnDisk")?.and_then(number).unwrap_or(0);
                *empty &= matches!(found.get_bool("empty"), Ok(true));
            }
        }
        let names_only = command.flag("nameOnly");
        let entry = |(name, (size, empty)): (&String, &(i64, bool))| {
            if names_only {
                rawdoc! { "name": name.as_str() }
            } else {
                rawdoc! { "name": name.as_str(), "sizeOnDisk": *size, "empty": *empty }
            }
        };
        let databases: RawArrayBuf = merged.iter().map(entry).collect();
        let total: i64 = merged.values().map(|(size, _)| size).sum();
        Ok(if names_only {
            rawdoc! { "databases": databases, "ok": 1.0 }
        } else {
            rawdoc! { "databases": databases, "totalSize": total, "totalSizeMb": total >> 20, "ok": 1.0 }
        })
    }

    /// A shard's, as far as a `mongos` has the same sections.
    pub async fn server_status(&self, client: usize, command: &Command) -> Answer {
        let reply: RawDocumentBuf = self.router(client)?.run(command.plain()?).await?;
        let not_ours = ["process", "repl", "oplog", "oplogTruncation", "storageEngine", "wiredTiger", "flowControl", "locks"];
        let mut answer = RawDocumentBuf::new();
        for field in &reply {
            let (name, value) = field.map_err(Failure::from)?;
            match name.as_str() {
                "process" => answer.append(name, "mongos"),
                name if not_ours.contains(&name) => {}
                _ => answer.append(name, value),
            }
        }
        Ok(answer)
    }
}
