//! `mongoferry run` from its start until it tails, seen through its endpoint.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Bson, doc};
use tokio::time::Instant;

use crate::failure::{Failure, Result};
use crate::ferry::{Ferry, Metrics};
use crate::floor::Indexes;
use crate::meter::{Cpu, Meter, peak_memory};
use crate::report::Calls;

/// How often the endpoint is asked. Each answer costs the client about a quarter of a millisecond.
const POLL: Duration = Duration::from_millis(50);
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Moments of one run, in seconds.
pub struct Copied {
    /// From the start of the process until documents may be read: connecting, checking, planning.
    pub plan_seconds: f64,
    /// From there until the last document is on the target.
    pub copy_seconds: f64,
    /// From the start of the process until it tails.
    pub tailing_seconds: f64,
    /// From the start of the process until it tails and every index is built.
    pub ready_seconds: f64,
    /// From the start of the process until the last document is on the target.
    pub cpu: Cpu,
    pub peak_memory: Option<u64>,
    pub reads: Calls,
    pub inserts: Calls,
}

/// Watches until it tails and all indexes are there.
pub async fn watch(ferry: &mut Ferry, documents: u64, meter: Meter, target: &Client, database: &str, indexes: &Indexes) -> Result<Copied> {
    let before = meter.read();
    let (mut planned, mut copied) = (None, None);
    let tailing_seconds = loop {
        let Some(metrics) = ask(ferry).await? else { continue };
        let now = ferry.started.elapsed().as_secs_f64();
        let begun = ["copying", "catching_up", "tailing"].into_iter().any(|phase| metrics.in_phase(phase));
        if begun {
            planned.get_or_insert(now);
        }
        let done = metrics.of("mongoferry_copied_documents_total") + metrics.of("mongoferry_copy_already_there_documents_total");
        if done >= documents as f64 && copied.is_none() {
            copied = Some((now, meter.since(before), peak_memory(ferry.pid()), calls(&metrics)));
        }
        if metrics.in_phase("tailing") {
            break now;
        }
    };
    let built = all_built(target, database, indexes, ferry.started).await?;
    let (Some(planned), Some((copied, cpu, peak_memory, (reads, inserts)))) = (planned, copied) else {
        return Err(Failure::new(format!("it tails, but has not copied {documents} documents")));
    };
    Ok(Copied {
        plan_seconds: planned,
        copy_seconds: copied - planned,
        tailing_seconds,
        ready_seconds: built.max(tailing_seconds),
        cpu,
        peak_memory,
        reads,
        inserts,
    })
}

async fn ask(ferry: &mut Ferry) -> Result<Option<Metrics>> {
    tokio::time::sleep(POLL).await;
    if ferry.started.elapsed() > PATIENCE {
        return Err(Failure::new("the copy takes too long"));
    }
    ferry.metrics().await
}

fn calls(metrics: &Metrics) -> (Calls, Calls) {
    let of = |name: &str| Calls { count: metrics.of(&format!("{name}_count")), seconds: metrics.of(&format!("{name}_sum")) };
    (of("mongoferry_copy_read_duration_seconds"), of("mongoferry_copy_insert_duration_seconds"))
}

/// Waits until no collection lacks an index; answers the seconds since `started`.
async fn all_built(target: &Client, database: &str, indexes: &Indexes, started: Instant) -> Result<f64> {
    for (collection, specs) in indexes {
        loop {
            let stats = target.database(database).run_command(doc! { "collStats": collection }).await?;
            let finished = stats.get_array("indexBuilds").is_ok_and(Vec::is_empty);
            if finished && stats.get("nindexes").and_then(Bson::as_i32).and_then(|n| usize::try_from(n).ok()) == Some(specs.len() + 1) {
                break;
            }
            if started.elapsed() > PATIENCE {
                return Err(Failure::new(format!("the indexes of {collection} are not built")));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(started.elapsed().as_secs_f64())
}
