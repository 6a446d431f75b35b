//! Bursts of writes on the source, and when the last of each is on the target.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{RawArrayBuf, doc, rawdoc};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use crate::failure::{Failure, Result};
use crate::floor;
use crate::meter::{Cpu, Meter};
use crate::wire::{self, Command};

/// Statements of one command of the source's writers, and their connections.
const BATCH: u32 = 1000;
const CONNECTIONS: usize = 4;
/// The last statements of a burst that are looked for one by one: more than the lanes' batches hold.
const LAST: usize = 4 * BATCH as usize;
const POLL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(1200);

/// A collection that is written to in bursts.
pub struct Subject {
    pub database: String,
    pub collection: String,
    /// Where its documents come from.
    pub from: (String, String),
    pub operations: u64,
    pub seed: u64,
}

/// What a burst does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Insert,
    Update,
    Delete,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Insert, Kind::Update, Kind::Delete];

    pub fn label(self) -> &'static str {
        match self {
            Kind::Insert => "inserts",
            Kind::Update => "updates",
            Kind::Delete => "deletes",
        }
    }
}

/// One burst.
pub struct Burst {
    pub kind: Kind,
    pub operations: u64,
    /// From the first write until the source has acknowledged the last.
    pub source_seconds: f64,
    /// From the first write until all of it is visible on the target.
    pub target_seconds: Option<f64>,
    pub cpu: Cpu,
}

impl Subject {
    /// The three bursts, in turn. Without a target only the source is looked at.
    pub async fn bursts(&self, source: &Client, target: Option<&Client>, meter: Meter) -> Result<Vec<Burst>> {
        let from = (self.from.0.as_str(), self.from.1.as_str());
        let to = (self.database.as_str(), self.collection.as_str());
        let inserts = wire::inserts(source, from, to, BATCH, self.operations).await?;
        let operations = inserts.iter().map(|command| command.statements).sum();
        let mut ids = ids_of(&inserts)?;
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut bursts = Vec::new();
        let mut all_inserts = Some(inserts);
        for kind in Kind::ALL {
            if kind != Kind::Insert {
                ids.shuffle(&mut rng);
            }
            let commands = match kind {
                Kind::Insert => all_inserts.take().unwrap_or_default(),
                Kind::Update => {
                    self.each(&ids, "update", "updates", |id| rawdoc! { "q": { "_id": id }, "u": { "$set": { "touched": 1 } } })
                }
                Kind::Delete => self.each(&ids, "delete", "deletes", |id| rawdoc! { "q": { "_id": id }, "limit": 1 }),
            };
            let (started, before) = (Instant::now(), meter.read());
            let (source_seconds, _) = floor::send(source, commands, CONNECTIONS, meter).await?;
            let mut target_seconds = None;
            if let Some(target) = target {
                let last = &ids[ids.len().saturating_sub(LAST)..];
                while !self.is_there(target, kind, operations, last).await? {
                    if started.elapsed() > PATIENCE {
                        return Err(Failure::new(format!("the {} did not reach the target", kind.label())));
                    }
                    tokio::time::sleep(POLL).await;
                }
                target_seconds = Some(started.elapsed().as_secs_f64());
            }
            bursts.push(Burst { kind, operations, source_seconds, target_seconds, cpu: meter.since(before) });
        }
        Ok(bursts)
    }

    fn each(
        &self,
        ids: &[ObjectId],
        verb: &str,
        list: &str,
        statement: impl Fn(ObjectId) -> mongodb::bson::RawDocumentBuf,
    ) -> Vec<Command> {
        let commands = ids.chunks(BATCH as usize).map(|ids| {
            let mut statements = RawArrayBuf::new();
            for id in ids {
                statements.push(statement(*id));
            }
            let mut body = mongodb::bson::RawDocumentBuf::new();
            let name = |text: &str| mongodb::bson::raw::CString::try_from(text).expect("a name of ours has no NUL");
            body.append(name(verb), self.collection.as_str());
            body.append(name(list), statements);
            body.append(name("ordered"), false);
            Command { database: self.database.clone(), body, statements: ids.len() as u64 }
        });
        commands.collect()
    }

    /// Whether the whole burst is visible. Inserts and deletes show in the collection's count, which costs nothing; for
    /// updates the last ones are looked at first, because counting them reads the collection.
    async fn is_there(&self, target: &Client, kind: Kind, operations: u64, last: &[ObjectId]) -> Result<bool> {
        let collection = target.database(&self.database).collection::<mongodb::bson::RawDocumentBuf>(&self.collection);
        Ok(match kind {
            Kind::Insert => collection.estimated_document_count().await? == operations,
            Kind::Delete => collection.estimated_document_count().await? == 0,
            Kind::Update => {
                let untouched = doc! { "_id": { "$in": last }, "touched": { "$exists": false } };
                collection.find_one(untouched).await?.is_none() && collection.count_documents(doc! { "touched": 1 }).await? == operations
            }
        })
    }
}

fn ids_of(inserts: &[Command]) -> Result<Vec<ObjectId>> {
    let mut ids = Vec::new();
    for command in inserts {
        for document in command.body.get_array("documents").map_err(|error| Failure::new(error.to_string()))? {
            let document = document?;
            let document = document.as_document().ok_or_else(|| Failure::new("a batch holds documents"))?;
            ids.push(document.get_object_id("_id").map_err(|error| Failure::new(error.to_string()))?);
        }
    }
    Ok(ids)
}
