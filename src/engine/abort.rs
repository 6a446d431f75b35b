//! Giving a migration up: by the process at work on it, or by the verb itself where there is none.
//!
//! Order: the source is given back first; what was copied is dropped only if that was asked for by name; the metadata go
//! last, so that an abort which is cut short can be repeated. Without a process the verb takes the lease, so that it cannot
//! act behind the back of one.

use super::{
    connect::Clusters,
    identity::identity,
    job::Job,
    reverse::{Newest, newest},
};
use crate::{
    catalog::{Entry, State},
    checkpoint::{MongoStore, Record, Store},
    config::Config,
    error::{Error, Result},
    model::{Phase, Side},
    observe::{Answer, GiveUp, Metrics},
    source::Source,
    target::{Target, mongo::MongoTarget},
};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// By the process at work, once nothing is at work any more.
pub(super) async fn abort(job: &Job, how: GiveUp, answer: oneshot::Sender<Answer>) {
    let told = match job.store.load().await {
        Ok(Some(record)) => give_up(&job.clusters, &job.store, &record, how).await,
        Ok(None) => Ok(Answer::done("there is no migration any more")),
        // What was saved cannot be asked for: the source comes first all the same.
        Err(error) => job.clusters.source.allow_writes().await.and(Err(error)),
    };
    let _ = answer.send(told.unwrap_or_else(|error| Answer::from(&error)));
}

/// Without a process: `abort --source URI --target URI`.
///
/// # Errors
/// [`Error::Leased`] where a process is at work; as classified.
pub async fn abort_clusters(config: &Config, how: GiveUp) -> Result<Answer> {
    let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
    // The options of `run` mean the way back, where there is one under way.
    let config = match newest(config).await {
        Ok(Newest { config, former: None }) => &config.clone(),
        Ok(_) | Err(_) => config,
    };
    let clusters = Clusters::connect(config, &metrics, &stop, None).await?.bypassing_if_needed().await?;
    let told = abort_alone(config, &clusters, how).await;
    clusters.close().await;
    told
}

async fn abort_alone(config: &Config, clusters: &Clusters, how: GiveUp) -> Result<Answer> {
    let store = MongoStore::new(clusters.target.cluster().clone(), &config.metadata_database);
    let Some(found) = store.load().await? else {
        return Ok(Answer::no(format!("there is no migration in `{}` on the target", config.metadata_database)));
    };
    let source = identity(clusters.source.cluster()).await?;
    if found.fingerprint.source != source {
        return Err(Error::BadConfig {
            field: "--source".into(),
            problem: "is not the source of the migration whose metadata are on the target".into(),
            hint: Some("give the connection strings of its `run`".into()),
        });
    }
    store.take().await?;
    // Read again under the lease: the process that had it may have saved more.
    let told = match store.load().await? {
        Some(record) => give_up(clusters, &store, &record, how).await,
        None => Ok(Answer::done("there is no migration any more")),
    };
    // Where it was given up, the lease went with the metadata.
    let _ = store.release().await;
    told
}

async fn give_up(clusters: &Clusters, store: &MongoStore, record: &Record, how: GiveUp) -> Result<Answer> {
    if let Phase::Committed { .. } = record.phase {
        let mut no = Answer::no("the migration is committed: the target is the primary cluster, and nothing is undone any more");
        no.hint = Some("`mongoferry reverse` makes the old source follow, so that a cutover leads back".into());
        return Ok(no);
    }
    if how.drop_target_namespaces && record.way_back.is_some() {
        let mut no = Answer::no("the target of a way back is the former source: its namespaces are not dropped");
        no.hint = Some("leave `--drop-target-namespaces` out".into());
        return Ok(no);
    }
    if record.fenced {
        clusters.source.allow_writes().await?;
        store.save_fenced(false).await?;
    }
    let dropped = if how.drop_target_namespaces { drop_namespaces(&clusters.target, &store.entries().await?).await? } else { 0 };
    store.wipe().await?;
    if let Some(way) = &record.way_back {
        let former = MongoStore::new(clusters.source.cluster().clone(), store.database());
        if let Err(error) = former.forget_wish(&way.of).await {
            tracing::warn!(error = error.story(), "that a way back was wanted could not be forgotten: `run` would begin it once more");
        }
    }
    Ok(Answer::done(match (&record.way_back, how.drop_target_namespaces) {
        (Some(_), _) => {
            "aborted: the new primary stays as it is, and the metadata is gone; on the former source unique indexes stay plain and \
             TTLs parked, and users are kept from writing to it if they were before"
                .to_owned()
        }
        (None, true) => format!("aborted: the source is writable, the metadata is gone, and so are {dropped} namespaces of the target"),
        (None, false) => "aborted: the source is writable and the metadata is gone; what was copied stays on the target".to_owned(),
    }))
}

/// What we made there, by identity: what somebody else has put under the same name since stays.
async fn drop_namespaces(target: &MongoTarget, entries: &[Entry]) -> Result<u64> {
    let mut dropped = 0;
    for entry in entries.iter().filter(|e| e.state != State::Dropped) {
        if target.lookup(&entry.target).await?.is_some_and(|there| there.uuid == entry.target_uuid && there.kind == entry.kind) {
            tracing::warn!(side = Side::Target.label(), ns = %entry.target, "dropping a namespace, as asked by name");
            target.drop_collection(&entry.target, entry.target_uuid).await?;
            dropped += 1;
        }
    }
    Ok(dropped)
}
