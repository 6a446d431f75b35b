//! One statement of a transaction: which shards it goes to, and their answers made one.

use std::collections::BTreeMap;

use mongodb::bson::raw::{CStr, CString, cstr};
use mongodb::bson::{RawArrayBuf, RawBson, RawDocument, RawDocumentBuf, doc, rawdoc};

use super::Transaction;
use super::owner::WOULD_CHANGE_OWNER;
use crate::sharded::front::cluster::Cluster;
use crate::sharded::front::command::{Command, number};
use crate::sharded::front::cursors::Home;
use crate::sharded::front::failure::{Answer, Code, Failure};
use crate::sharded::front::keys;
use crate::sharded::front::placement::{Placement, Sharded};
use crate::sharded::front::upstream::{documents, first_batch};
use crate::sharded::front::wire::{self, Sequence};

/// What one shard gets of a batch: the numbers of its entries, and their bytes.
#[derive(Default)]
struct Part {
    entries: Vec<i32>,
    bytes: Vec<u8>,
}

impl Cluster {
    pub(super) async fn statement(&self, client: usize, transaction: &mut Transaction, command: &Command) -> Answer {
        match command.name.as_str() {
            "insert" => self.write(transaction, command, "documents").await,
            "update" => self.write(transaction, command, "updates").await,
            "delete" => self.write(transaction, command, "deletes").await,
            "find" | "aggregate" | "count" | "distinct" | "findAndModify" | "findandmodify" => self.read(transaction, command).await,
            "getMore" => {
                let id = command.number("getMore").unwrap_or_default();
                match self.cursors.get(id) {
                    Some(Home::Server(shard)) => {
                        let mut body = command.plain()?;
                        transaction.join(&shard.name, command, &mut body)?;
                        shard.run(body).await
                    }
                    _ => Err(Failure::new(Code::CursorNotFound, format!("cursor id {id} not found"))),
                }
            }
            name => {
                let message = format!("the front runs no {name} in a transaction (client {client}); a mongos does");
                Err(Failure::new(Code::OperationNotSupportedInTransaction, message))
            }
        }
    }

    /// A read, or a `findAndModify`, of one shard.
    async fn read(&self, transaction: &mut Transaction, command: &Command) -> Answer {
        let placement = self.placement(&command.namespace()?).await?;
        let placement = placement.ok_or_else(|| Failure::new(Code::NamespaceNotFound, "the database was not found"))?;
        let shard = match (&placement.sharded, command.name.as_str()) {
            (_, "findAndModify" | "findandmodify") => self.one_shard(&placement, command).await?,
            (Some(sharded), _) if sharded.versions.len() > 1 => {
                let filter = command.body.get_document("filter").or_else(|_| command.body.get_document("query"));
                let key = filter.ok().and_then(|filter| keys::of_query(&sharded.key, filter));
                let several = "the front merges no reads of several shards in a transaction; a mongos does";
                let key = key.ok_or_else(|| Failure::new(Code::OperationNotSupportedInTransaction, several))?;
                self.owners(sharded, vec![key]).await?.remove(0)
            }
            _ => placement.shards()[0].to_owned(),
        };
        let shard = self.shard(&shard)?;
        let mut body = without_read_concern(&command.plain()?)?;
        placement.append_versions(&shard.name, &mut body);
        transaction.join(&shard.name, command, &mut body)?;
        let reply = shard.send(body, &command.sequences).await?;
        self.cursors.remember(&reply, Home::Server(shard));
        Ok(reply)
    }

    pub(super) async fn write(&self, transaction: &mut Transaction, command: &Command, batch: &str) -> Answer {
        let entries = entries(command, batch)?;
        self.make_database(&command.db, None).await?;
        let placement = self.placement(&command.namespace()?).await?;
        let placement = placement.ok_or_else(|| Failure::new(Code::NamespaceNotFound, "the database was dropped"))?;
        let targets = match &placement.sharded {
            None => {
                self.make_collection(&placement, command).await?;
                vec![vec![placement.database.primary.clone()]; entries.len()]
            }
            Some(sharded) => self.targets(sharded, command, &entries).await?,
        };
        let mut parts: BTreeMap<String, Part> = BTreeMap::new();
        for (number, (entry, shards)) in (0..).zip(entries.iter().zip(targets)) {
            for shard in shards {
                let part = parts.entry(shard).or_default();
                part.entries.push(number);
                part.bytes.extend(entry.as_bytes());
            }
        }
        let mut merged = Merged::default();
        for (name, part) in parts {
            let shard = self.shard(&name)?;
            let mut body =
                without_read_concern(&command.rewritten(&CString::try_from(command.name.as_str())?, command.text()?, &[batch])?)?;
            placement.append_versions(&name, &mut body);
            transaction.join(&name, command, &mut body)?;
            let sequence = Sequence { identifier: batch.into(), documents: part.bytes };
            match (shard.send(body, &[sequence]).await, &placement.sharded) {
                (Err(Failure::Server(refused)), Some(sharded)) if entries.len() == 1 && is_owner_change(&refused) => {
                    return self.change_owner(transaction, command, &sharded.key, &refused).await;
                }
                (reply, _) => merged.add(&reply?, &part.entries)?,
            }
            if !merged.errors.is_empty() {
                break; // that has aborted the transaction
            }
        }
        Ok(merged.reply())
    }

    /// The shards of each entry. A statement without the shard key goes to every shard; one that may touch one document
    /// only must then name it by its `_id`.
    async fn targets(&self, sharded: &Sharded, command: &Command, entries: &[&RawDocument]) -> Result<Vec<Vec<String>>, Failure> {
        let mut known = Vec::new();
        for entry in entries {
            let key = match command.name.as_str() {
                "insert" => Some(keys::of_document(&sharded.key, entry)),
                _ => keys::of_query(&sharded.key, entry.get_document("q")?),
            };
            if key.is_none() && is_single(entry) && matches!(entry.get_document("q")?.get("_id"), Ok(None)) {
                let message = "a write to one document must name the shard key or the _id";
                return Err(Failure::new(Code::ShardKeyNotFound, message));
            }
            known.push(key);
        }
        let mut owners = self.owners(sharded, known.iter().flatten().cloned().collect()).await?.into_iter();
        let all: Vec<String> = sharded.versions.keys().cloned().collect();
        Ok(known.iter().map(|key| key.as_ref().and_then(|_| owners.next()).map_or_else(|| all.clone(), |owner| vec![owner])).collect())
    }

    /// A shard makes no collection by itself in a transaction (error 227), so it is made beforehand.
    async fn make_collection(&self, placement: &Placement, command: &Command) -> Result<(), Failure> {
        let name = command.text()?;
        let primary = self.shard(&placement.database.primary)?;
        let list = doc! { "listCollections": 1, "filter": { "name": name }, "nameOnly": true };
        if first_batch(&primary.command(&command.db, &list).await?)?.is_empty() {
            let mut create = rawdoc! { "create": name, "$db": command.db.as_str() };
            create.append(cstr!("databaseVersion"), &placement.database.version);
            match primary.run(create).await {
                Err(failure) if failure.code() != NAMESPACE_EXISTS => return Err(failure),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Somebody else was faster.
const NAMESPACE_EXISTS: i32 = 48;

/// The entries of a batch, wherever they stand in the message.
fn entries<'a>(command: &'a Command, batch: &str) -> Result<Vec<&'a RawDocument>, Failure> {
    if let Ok(array) = command.body.get_array(batch) {
        return documents(array);
    }
    let sequence = command.sequences.iter().find(|sequence| sequence.identifier == batch);
    let sequence = sequence.ok_or_else(|| Failure::new(Code::FailedToParse, format!("{batch} are missing")))?;
    let entries: std::io::Result<Vec<_>> = wire::documents(&sequence.documents).collect();
    entries.map_err(|error| Failure::new(Code::FailedToParse, error.to_string()))
}

fn is_owner_change(refused: &RawDocument) -> bool {
    refused.get_i32("code").is_ok_and(|code| code == WOULD_CHANGE_OWNER)
}

fn is_single(entry: &RawDocument) -> bool {
    let limit = entry.get("limit").ok().flatten().and_then(number);
    !matches!(entry.get_bool("multi"), Ok(true)) && limit != Some(0)
}

/// A participant gets it with its first statement only.
fn without_read_concern(body: &RawDocument) -> Answer {
    let mut kept = RawDocumentBuf::new();
    for field in body {
        let (name, value) = field?;
        if name.as_str() != "readConcern" {
            kept.append(name, value);
        }
    }
    Ok(kept)
}

/// The answers of several shards to their parts of one batch.
#[derive(Default)]
struct Merged {
    written: i64,
    modified: Option<i64>,
    upserted: Vec<RawDocumentBuf>,
    errors: Vec<RawDocumentBuf>,
}

impl Merged {
    fn add(&mut self, reply: &RawDocument, entries: &[i32]) -> Result<(), Failure> {
        self.written += reply.get("n")?.and_then(number).unwrap_or(0);
        if let Some(modified) = reply.get("nModified")?.and_then(number) {
            *self.modified.get_or_insert(0) += modified;
        }
        for (name, list) in [("upserted", &mut self.upserted), ("writeErrors", &mut self.errors)] {
            let Ok(array) = reply.get_array(name) else { continue };
            for one in documents(array)? {
                list.push(renumbered(one, entries)?);
            }
        }
        Ok(())
    }

    fn reply(self) -> RawDocumentBuf {
        let mut reply = rawdoc! { "n": self.written as i32 };
        if let Some(modified) = self.modified {
            reply.append(cstr!("nModified"), modified as i32);
        }
        let lists: [(&CStr, Vec<RawDocumentBuf>); 2] = [(cstr!("upserted"), self.upserted), (cstr!("writeErrors"), self.errors)];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            reply.append(name, RawArrayBuf::from_iter(list));
        }
        reply.append(cstr!("ok"), 1.0);
        reply
    }
}

/// The client counts over the whole batch, the shard over its part.
fn renumbered(one: &RawDocument, entries: &[i32]) -> Result<RawDocumentBuf, Failure> {
    let mut renumbered = RawDocumentBuf::new();
    for field in one {
        let (name, value) = field?;
        let index = number(value).and_then(|at| entries.get(usize::try_from(at).ok()?));
        match index.filter(|_| name.as_str() == "index") {
            Some(index) => renumbered.append(name, *index),
            None => renumbered.append(name, RawBson::from(value)),
        }
    }
    Ok(renumbered)
}
