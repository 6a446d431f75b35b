//! The metadata database on the target: `migration` (one document), `collections`, `partitions`; `parity_ranges` and
//! `parity_marks` of the verification.

use super::{
    FORMAT, Handover, Record, SavedParity, Store,
    lease::{LEASE, described, holder, known_dead},
    parity::{from_clock, from_marks, to_clock, to_marks},
    record::{from_entry, from_partition, to_entry, to_partition},
};
use crate::{
    catalog::{Entry, State},
    error::{Error, Result},
    model::{Activity, ClusterTime, CollectionUuid, Partition, Phase, Position, Side, raw},
    mongo::{Cluster, listing},
    parity::Marks,
};
use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

const ID: &str = "migration";
/// Partitions or collections of one command.
const SAVED_AT_ONCE: usize = 1_000;

/// The store of a migration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MongoStore {
    cluster: Cluster,
    database: String,
    /// The number of our lease; 0 before it is taken.
    epoch: Arc<AtomicI64>,
}

impl MongoStore {
    /// In that database of the target.
    #[must_use]
    pub fn new(cluster: Cluster, database: &str) -> Self {
        Self { cluster, database: database.to_owned(), epoch: Arc::new(AtomicI64::new(0)) }
    }

    /// Its database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The same, giving up soon.
    #[must_use]
    pub fn hasty(&self, deadline: std::time::Duration) -> Self {
        Self { cluster: self.cluster.with_retry(self.cluster.retry().within(deadline)), ..self.clone() }
    }

    async fn run(&self, doing: &str, command: &Document) -> Result<Document> {
        self.cluster.run(&self.database, doing, command).await
    }

    /// The record, if there is one.
    ///
    /// # Errors
    /// [`Error::ForeignMetadata`] for a newer format, or for what is no record.
    pub async fn load(&self) -> Result<Option<Record>> {
        let command = doc! {"find": "migration", "filter": {"_id": ID}, "limit": 1, "readConcern": {"level": "majority"}};
        let reply = self.run("reading the migration's record", &command).await?;
        let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
        let Some(found) = batch.first().and_then(Bson::as_document) else { return Ok(None) };
        let foreign = |problem: String, hint: &str| Error::ForeignMetadata { database: self.database.clone(), problem, hint: hint.into() };
        let format = found.get("format").and_then(listing::count).unwrap_or(0);
        if format > u64::from(FORMAT) {
            return Err(foreign(
                format!("has format {format}; this version knows {FORMAT}"),
                "go on with the version of mongoferry that wrote it, or a newer one",
            ));
        }
        match bson::deserialize_from_document(found.clone()) {
            Ok(record) => Ok(Some(record)),
            Err(_) => Err(foreign("is not of mongoferry".into(), "choose another database with `--metadata-database`")),
        }
    }

    /// Writes the first record and takes its lease.
    ///
    /// # Errors
    /// As classified; [`Error::Leased`] where another process was faster.
    pub async fn create(&self, record: &Record) -> Result<()> {
        let mut saved = bson::serialize_to_document(record).map_err(|e| Error::Bug(format!("the record is no BSON: {e}")))?;
        saved.insert("_id", ID);
        saved.insert("lease", doc! {"epoch": 0_i64});
        let command = doc! {"insert": "migration", "documents": [saved], "writeConcern": {"w": "majority"}};
        let command = RawDocumentBuf::try_from(&command).map_err(|e| Error::Bug(format!("the record is no BSON: {e}")))?;
        let doing = "writing the migration's record";
        let reply = self.cluster.write(&self.database, doing, &command).await?;
        // A record that is there already is another process's, or ours of an answer that was lost: the lease tells.
        if let Some(e) = reply.errors.iter().find(|e| e.code != crate::mongo::DUPLICATE_KEY) {
            return Err(crate::mongo::refused_by_code(
                Side::Target,
                doing,
                e.code,
                "the record was refused; are writes of users blocked there?",
            ));
        }
        self.take().await
    }

    /// Takes the lease, if it is free, lapsed, or of a process known to be dead.
    ///
    /// # Errors
    /// [`Error::Leased`] where another process holds it.
    pub async fn take(&self) -> Result<()> {
        let find =
            doc! {"find": "migration", "filter": {"_id": ID}, "projection": {"lease": 1}, "limit": 1, "readConcern": {"level": "majority"}};
        let reply = self.run("reading the lease", &find).await?;
        let batch = reply.get_document("cursor").and_then(|c| c.get_array("firstBatch")).map(Vec::as_slice).unwrap_or_default();
        let lease = batch.first().and_then(Bson::as_document).and_then(|d| d.get_document("lease").ok()).cloned().unwrap_or_default();
        let current = lease.get_str("holder").unwrap_or_default().to_owned();
        let epoch = lease.get_i64("epoch").unwrap_or(0);
        let mut filter = doc! {"_id": ID, "lease.epoch": epoch};
        if !current.is_empty() && !known_dead(&current) && current != holder() {
            filter.insert("$expr", doc! {"$lt": ["$lease.expires", "$$NOW"]});
        }
        let changed = self.update_lease(filter, epoch + 1).await?;
        if changed {
            self.epoch.store(epoch + 1, Ordering::Relaxed);
            return Ok(());
        }
        Err(Error::Leased { holder: described(&current) })
    }

    /// Renews the lease.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] where another process has it now.
    pub async fn renew(&self) -> Result<()> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if self.update_lease(doc! {"_id": ID, "lease.epoch": epoch}, epoch).await? { Ok(()) } else { Err(lost()) }
    }

    /// Gives the lease up, so that a successor need not wait.
    ///
    /// # Errors
    /// As classified.
    pub async fn release(&self) -> Result<()> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let update = doc! {"q": {"_id": ID, "lease.epoch": epoch}, "u": {"$unset": {"lease.holder": 1, "lease.expires": 1}}};
        self.run("giving up the lease", &doc! {"update": "migration", "updates": [update], "writeConcern": {"w": "majority"}})
            .await
            .map(drop)
    }

    async fn update_lease(&self, filter: Document, epoch: i64) -> Result<bool> {
        let milliseconds = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        let set = doc! {"$set": {"lease": {"holder": holder(), "epoch": epoch, "expires": {"$add": ["$$NOW", milliseconds]}}}};
        let update = doc! {"q": filter, "u": [set]};
        let reply =
            self.run("renewing the lease", &doc! {"update": "migration", "updates": [update], "writeConcern": {"w": "majority"}}).await?;
        found("renewing the lease", &reply)
    }

    /// Changes the record, under our lease.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] where another process has it now.
    pub async fn set(&self, fields: Document) -> Result<()> {
        self.set_where(doc! {}, fields).await
    }

    async fn set_where(&self, mut filter: Document, fields: Document) -> Result<()> {
        filter.insert("_id", ID);
        filter.insert("lease.epoch", self.epoch.load(Ordering::Relaxed));
        let update = doc! {"q": filter, "u": {"$set": fields}};
        let reply = self
            .run("saving the checkpoint", &doc! {"update": "migration", "updates": [update], "writeConcern": {"w": "majority"}})
            .await?;
        if found("saving the checkpoint", &reply)? { Ok(()) } else { Err(lost()) }
    }

    /// Forgets that a way back of this committed migration is wanted. Without its lease, which nobody needs any more.
    ///
    /// # Errors
    /// As classified.
    pub async fn forget_wish(&self, id: &str) -> Result<()> {
        let filter = doc! {"_id": ID, "id": id, "handover.then_reverse": true};
        let update = doc! {"q": filter, "u": {"$set": {"handover.then_reverse": false}}};
        let command = doc! {"update": "migration", "updates": [update], "writeConcern": {"w": "majority"}};
        let doing = "forgetting that a way back is wanted";
        found(doing, &self.run(doing, &command).await?).map(drop)
    }

    /// Drops the metadata database.
    ///
    /// # Errors
    /// As classified.
    pub async fn wipe(&self) -> Result<()> {
        self.run("dropping the metadata", &doc! {"dropDatabase": 1, "writeConcern": {"w": "majority"}}).await.map(drop)
    }

    async fn save(&self, collection: &str, documents: Vec<RawDocumentBuf>) -> Result<()> {
        for part in documents.chunks(SAVED_AT_ONCE) {
            let mut b = raw::Builder::with_capacity(4096);
            b.str("update", collection).begin_array("updates");
            for (n, doc) in part.iter().enumerate() {
                let Some(id) = raw::get(doc, "_id") else { continue };
                b.begin(&n.to_string()).begin("q").element(id).end().doc("u", doc).bool("upsert", true).end();
            }
            b.end().bool("ordered", false).begin("writeConcern").str("w", "majority").end();
            let reply = self.cluster.write(&self.database, "saving the checkpoint", &b.finish()).await?;
            if let Some(e) = reply.errors.first() {
                return Err(crate::mongo::refused_by_code(
                    Side::Target,
                    "saving the checkpoint",
                    e.code,
                    "the metadata database refused it",
                ));
            }
        }
        Ok(())
    }

    async fn all(&self, collection: &str) -> Result<Vec<RawDocumentBuf>> {
        let command = rawdoc! {"find": collection, "readConcern": {"level": "majority"}};
        listing::found(&self.cluster, &self.database, "reading the checkpoint", &command).await
    }

    fn unreadable(&self) -> Error {
        Error::ForeignMetadata {
            database: self.database.clone(),
            problem: "cannot be read".into(),
            hint: "start again with `mongoferry run --restart-from-scratch`".into(),
        }
    }
}

/// Whether an update found its document. A server that keeps users from writing says so within the reply.
fn found(doing: &str, reply: &Document) -> Result<bool> {
    let refused = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()).and_then(Bson::as_document);
    match refused.and_then(|error| error.get_i32("code").ok()) {
        Some(code) => Err(crate::mongo::refused_by_code(
            Side::Target,
            doing,
            code,
            "the metadata database refused it; are writes of users blocked there?",
        )),
        None => Ok(reply.get("n").and_then(listing::count) == Some(1)),
    }
}

fn lost() -> Error {
    Error::LeaseLost { holder: "another process".into() }
}

fn typed<T: serde::Serialize>(value: &T) -> Result<Bson> {
    bson::serialize_to_bson(value).map_err(|e| Error::Bug(format!("a part of the record is no BSON: {e}")))
}

impl Store for MongoStore {
    async fn save_phase(&self, phase: &Phase, activity: &Activity) -> Result<()> {
        self.set(doc! {"phase": typed(phase)?, "activity": typed(activity)?}).await
    }

    async fn save_fenced(&self, fenced: bool) -> Result<()> {
        self.set(doc! {"fenced": fenced}).await
    }

    async fn save_step(&self, step: &str) -> Result<()> {
        self.set(doc! {"step": step}).await
    }

    async fn save_commit(&self, step: &str, phase: &Phase, handover: Handover) -> Result<()> {
        let (phase, activity) = (typed(phase)?, typed(&Activity::Running)?);
        self.set_where(doc! {"step": step}, doc! {"phase": phase, "activity": activity, "handover": typed(&handover)?}).await
    }

    async fn standing(&self) -> Result<(Phase, bool)> {
        let record = self.load().await?.ok_or_else(lost)?;
        Ok((record.phase, record.fenced))
    }

    async fn save_resume_point(&self, position: &Position) -> Result<()> {
        let token = Document::try_from(&*position.token.0).map_err(|e| Error::Bug(format!("a resume token is no BSON: {e}")))?;
        self.set(doc! {"resume_token": token, "resume_time": typed(&position.time)?}).await
    }

    async fn save_entries(&self, entries: &[Entry]) -> Result<()> {
        self.save("collections", entries.iter().map(from_entry).collect()).await
    }

    async fn forget(&self, collections: &[CollectionUuid]) -> Result<()> {
        let binary =
            |uuid: &CollectionUuid| Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.0.to_vec() });
        let ids: Vec<Bson> = collections.iter().map(binary).collect();
        // A view that was made anew under its name has the same identity, and lives.
        let dropped = State::Dropped.label();
        let which = [
            ("collections", doc! {"_id": {"$in": &ids}, "state": dropped}),
            ("partitions", doc! {"_id.collection": {"$in": &ids}}),
            ("parity_ranges", doc! {"_id.collection": {"$in": &ids}}),
            ("parity_marks", doc! {"_id": {"$in": &ids}}),
        ];
        for (collection, filter) in which {
            let delete = doc! {"q": filter, "limit": 0};
            self.run("tidying the checkpoint", &doc! {"delete": collection, "deletes": [delete], "writeConcern": {"w": "majority"}})
                .await?;
        }
        Ok(())
    }

    async fn save_partitions(&self, partitions: &[Partition]) -> Result<()> {
        self.save("partitions", partitions.iter().map(from_partition).collect()).await
    }

    async fn entries(&self) -> Result<Vec<Entry>> {
        self.all("collections").await?.iter().map(|d| to_entry(d).ok_or_else(|| self.unreadable())).collect()
    }

    async fn partitions(&self) -> Result<Vec<Partition>> {
        self.all("partitions").await?.iter().map(|d| to_partition(d).ok_or_else(|| self.unreadable())).collect()
    }

    async fn save_marks(&self, marks: &[Marks], time: ClusterTime) -> Result<()> {
        // Where one of them is not saved, neither is the resume point, and what was touched behind the old one is seen again.
        let saved = marks.iter().map(from_marks).chain([from_clock(time)]);
        self.save("parity_marks", saved.collect()).await
    }

    async fn save_ranges(&self, ranges: &[Partition]) -> Result<()> {
        self.save("parity_ranges", ranges.iter().map(from_partition).collect()).await
    }

    async fn parity(&self) -> Result<SavedParity> {
        let saved = self.all("parity_marks").await?;
        let time = saved.iter().find_map(|d| to_clock(d));
        let ranges = if time.is_some() { self.all("parity_ranges").await? } else { Vec::new() };
        Ok(SavedParity {
            ranges: ranges.iter().filter_map(|d| to_partition(d)).collect(),
            marks: saved.iter().filter_map(|d| to_marks(d)).collect(),
            time,
        })
    }
}
