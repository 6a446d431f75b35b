//! The way back: the old source follows the new primary cluster, by the same engine, without a new copy.
//!
//! A way back is a migration of its own, whose metadata lie on *its* target, the old source. It begins with the record of
//! the migration that was committed: the catalog with both sides changed over, and the time of the target at which it was
//! handed over, before any user could write to it. Until its own record is saved, by one insert, there is none, and beginning may be
//! repeated; from then on it goes on like any migration. So at every moment the records of the two clusters tell which
//! direction counts: the one that has changed direction more often ([`Record::turn`]). That survives a crash anywhere.
//!
//! Which process: `mongoferry reverse`, with the options of `run` as they were, looks at both records and begins or goes
//! on with whatever is the newest; `cutover --then-reverse` saves the wish with the commit, so that the same process, or the same
//! `run` after a crash, turns round by itself. A way back is cut over like any migration; the next way back leads forward again.
//!
//! The old source stays shut to users all the while: it is fenced since its cutover, and we write as somebody whom
//! the fence lets through. The cutover of the way back opens it, behind its commit. Its unique indexes and TTLs are parked like
//! those of any target.

use super::{connect::Clusters, identity::identity, preflight, privileges};
use crate::{
    catalog::{Catalog, Entry, State, view_uuid},
    checkpoint::{FORMAT, Handover, MongoStore, Record, Store, WayBack},
    config::Config,
    error::{Error, Result},
    indexes::unseal,
    model::{Activity, ClusterTime, Fingerprint, Phase, Side, index_title},
    observe::Metrics,
    source::Source,
    target::{Target, TargetCollection},
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The migration that a way back begins with.
#[derive(Debug, Clone)]
pub(super) struct Former {
    record: Record,
    handover: Handover,
    entries: Vec<Entry>,
}

impl Former {
    /// Of what is saved there; `None` where that is not committed.
    pub(super) async fn of(store: &MongoStore) -> Result<Option<Self>> {
        let Some(record) = store.load().await? else { return Ok(None) };
        if !matches!(record.phase, Phase::Committed { .. }) {
            return Ok(None);
        }
        let Some(handover) = record.handover.clone() else {
            return Err(Error::UnfitCluster {
                side: Side::Target,
                problem: "was handed over by a version of mongoferry that did not note the time of it, so no way back can begin there"
                    .into(),
                hint: "begin a new migration from the new primary, with `mongoferry run`".into(),
            });
        };
        let entries = store.entries().await?;
        Ok(Some(Self { record, handover, entries }))
    }

    /// The same, where the operator wants it to begin by itself.
    pub(super) async fn wanted(store: &MongoStore) -> Result<Option<Self>> {
        let wanted = store.load().await?.and_then(|record| record.handover).is_some_and(|handover| handover.then_reverse);
        if wanted { Self::of(store).await } else { Ok(None) }
    }

    /// The time of the new primary at which it begins.
    pub(super) fn at(&self) -> ClusterTime {
        self.handover.at
    }

    /// Whether a record is that of the way back which begins with this.
    pub(super) fn leads_to(&self, record: &Record) -> bool {
        record.way_back.as_ref().is_some_and(|way| way.of == self.record.id)
    }

    /// Begins: parks the old source, saves catalog and record. May be repeated until the record is there.
    ///
    /// # Errors
    /// [`Error::ForeignMetadata`] where the metadata of another migration are in the way; as classified.
    pub(super) async fn begin(&self, clusters: &Clusters, store: &MongoStore, fingerprint: Fingerprint) -> Result<Record> {
        let turn = self.record.turn() + 1;
        if let Some(other) = store.load().await? {
            let older = matches!(other.phase, Phase::Committed { .. }) && other.turn() + 1 == self.record.turn();
            let ours = self.record.way_back.as_ref().is_some_and(|way| way.of == other.id);
            if !(older && ours) {
                return Err(Error::ForeignMetadata {
                    database: store.database().to_owned(),
                    problem: format!("are of another migration ({}), which is {}", other.id, other.phase.label()),
                    hint: "end that one first, with `mongoferry abort`, or drop its metadata database if it is of no use any more".into(),
                });
            }
        }
        tracing::info!(of = self.record.id, turn, "beginning the way back");
        let entries = self.changed_over();
        self.drop_waived(clusters, &entries).await?;
        unseal(&clusters.target, &Catalog::new(entries.clone(), self.handover.at)).await?;
        store.wipe().await?;
        store.save_entries(&entries).await?;
        let at = self.handover.at;
        let target_fenced = self.record.fenced && clusters.reader.writes_blocked().await? == Some(true);
        let record = Record {
            format: FORMAT,
            id: format!("{:016x}", rand::random::<u64>()),
            fingerprint,
            phase: Phase::CatchingUp { start_at: at, copied_at: at },
            activity: Activity::Running,
            start_at: at,
            listed_until: at,
            resume_token: None,
            resume_time: at,
            fenced: false,
            step: None,
            handover: None,
            // What an operator has set was for the other direction.
            settings: None,
            way_back: Some(WayBack { of: self.record.id.clone(), turn, target_fenced }),
        };
        store.create(&record).await?;
        Ok(record)
    }

    /// The catalog, with source and target in each other's place.
    fn changed_over(&self) -> Vec<Entry> {
        let at = self.handover.at;
        let living = self.entries.iter().filter(|entry| entry.state != State::Dropped);
        let turned = living.map(|entry| {
            let kept = |name: &String| !self.waived(entry, name);
            Entry {
                uuid: entry.target_uuid.unwrap_or_else(|| view_uuid(&entry.target)),
                ns: entry.target.clone(),
                target: entry.ns.clone(),
                target_uuid: (!entry.is_view()).then_some(entry.uuid),
                known_at: at,
                read_from: at,
                indexes: entry.indexes.clone().into_iter().filter(|(name, _)| kept(name)).collect(),
                ..entry.clone()
            }
        });
        turned.collect()
    }

    fn waived(&self, entry: &Entry, index: &str) -> bool {
        self.handover.waived.contains(&index_title(entry.ns.as_str(), index))
    }

    /// The new primary does without them, so its follower does, too.
    async fn drop_waived(&self, clusters: &Clusters, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            let Some(uuid) = entry.target_uuid else { continue };
            let to = TargetCollection { ns: entry.target.clone(), uuid };
            for spec in clusters.target.indexes(&entry.target).await? {
                if self.handover.waived.contains(&index_title(entry.target.as_str(), spec.name())) {
                    tracing::warn!(ns = %entry.target, index = spec.name(), "dropping an index that the new primary does not have");
                    clusters.target.drop_index(&to, spec.name()).await?;
                }
            }
        }
        Ok(())
    }
}

/// What `reverse` is to go on with.
#[derive(Debug)]
pub(super) struct Newest {
    /// With source and target as the work needs them.
    pub config: Config,
    /// Where it has yet to begin.
    pub former: Option<Former>,
}

/// Looks at both clusters. `config` is that of the first migration.
///
/// # Errors
/// [`Error::BadConfig`] where there is nothing to reverse.
pub(super) async fn newest(config: &Config) -> Result<Newest> {
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let clusters = Clusters::connect(config, &metrics, &stop, None).await?;
    let found = async {
        let store = |cluster: &crate::mongo::Cluster| MongoStore::new(cluster.clone(), &config.metadata_database);
        let (on_target, on_source) = (store(clusters.target.cluster()), store(clusters.source.cluster()));
        let ids = (identity(clusters.source.cluster()).await?, identity(clusters.target.cluster()).await?);
        let forward = on_target.load().await?.filter(|r| (&r.fingerprint.source, &r.fingerprint.target) == (&ids.0, &ids.1));
        let back =
            on_source.load().await?.filter(|r| (&r.fingerprint.source, &r.fingerprint.target) == (&ids.1, &ids.0) && r.way_back.is_some());
        let (record, backwards) = match (forward, back) {
            (Some(forward), Some(back)) if back.turn() > forward.turn() => (back, true),
            (Some(forward), _) => (forward, false),
            (None, Some(back)) => (back, true),
            (None, None) => {
                return Err(Error::BadConfig {
                    field: "reverse".into(),
                    problem: "found no migration between these two clusters".into(),
                    hint: Some("give the options of its `run`, source and target as they were there".into()),
                });
            }
        };
        let (oriented, store) = if backwards { (config.reversed(), on_source) } else { (config.clone(), on_target) };
        match record.phase {
            Phase::Committed { .. } => Ok(Newest { config: oriented.reversed(), former: Former::of(&store).await? }),
            _ if record.way_back.is_some() => Ok(Newest { config: oriented, former: None }),
            phase => Err(Error::BadConfig {
                field: "reverse".into(),
                problem: format!("is for a migration that is committed; this one is {}", phase.label()),
                hint: Some("`mongoferry cutover` commits it".into()),
            }),
        }
    };
    let found = found.await;
    clusters.close().await;
    found
}

/// What would keep the old source from following, asked before the cutover that is to be followed by it.
///
/// # Errors
/// Only where nothing could be asked.
pub(super) async fn hindrance(config: &Config) -> Result<Option<Error>> {
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    let config = config.reversed();
    let clusters = Clusters::connect(&config, &metrics, &stop, None).await?;
    let found = async {
        if clusters.reader.writes_blocked().await?.is_some()
            && let Some(error) = not_let_through(clusters.target.cluster()).await?
        {
            return Ok(Some(error));
        }
        Ok(preflight::inspect(&config, &clusters, true).await.errors.into_iter().next())
    };
    let found = found.await;
    clusters.close().await;
    found
}

/// Why our writes would not pass the user write block of the old source.
pub(super) async fn not_let_through(target: &crate::mongo::Cluster) -> Result<Option<Error>> {
    Ok(privileges::missing_for_bypass(target).await?.map(|(_, grant)| Error::UnfitCluster {
        side: Side::Target,
        problem: "keeps users from writing, and would not let mongoferry through".into(),
        hint: format!(
            "grant it in mongosh: {grant}; or let everybody write with `db.adminCommand({{setUserWriteBlockMode: 1, global: false}})`, and keep all writers but mongoferry away yourself"
        ),
    }))
}
