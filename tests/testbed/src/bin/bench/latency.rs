//! How long one write takes from the source to the target at a steady load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use mongodb::Client;
use mongodb::bson::{DateTime, rawdoc};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::failure::{Failure, Result};

/// Writers on the source; each waits for its insert before the next.
const WRITERS: u64 = 4;
/// How often the target is asked. Half of it, and the time of one query, is in every result.
const POLL: Duration = Duration::from_millis(1);
/// How long the last ones may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Steady {
    pub database: String,
    pub collection: String,
    pub rate: u32,
    pub seconds: f64,
}

/// Milliseconds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    pub asked_per_second: u32,
    pub inserts: u64,
    pub inserts_per_second: f64,
    /// From the source's acknowledgement: the commit was at that moment at the latest.
    pub from_acknowledged_ms: Percentiles,
    /// From before the insert was sent to the source: an upper bound.
    pub from_sent_ms: Percentiles,
}

/// Microseconds since the beginning, 0 for not yet.
struct Times {
    sent: Vec<AtomicU64>,
    acknowledged: Vec<AtomicU64>,
}

impl Steady {
    pub async fn measure(&self, source: &Client, target: &Client) -> Result<Latency> {
        // The collection is made on both sides first.
        self.insert(source, -1).await?;
        let deadline = Instant::now() + PATIENCE;
        while self.visible(target, &[-1]).await?.is_empty() {
            if Instant::now() > deadline {
                return Err(Failure::new("the first insert of the steady load did not reach the target"));
            }
            tokio::time::sleep(POLL).await;
        }

        let total = (f64::from(self.rate) * self.seconds) as u64 / WRITERS * WRITERS;
        let blank = || (0..total).map(|_| AtomicU64::new(0)).collect();
        let times = Arc::new(Times { sent: blank(), acknowledged: blank() });
        let (origin, finished) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (source, times) = (source.clone(), times.clone());
            let steady = Steady { database: self.database.clone(), collection: self.collection.clone(), ..*self };
            writers.spawn(async move { steady.write(&source, writer, total, &times, origin).await });
        }
        let watching = self.watch(target, &times, origin, finished.clone());
        let writing = async {
            while let Some(ended) = writers.join_next().await {
                ended.expect("a writer does not panic")?;
            }
            let seconds = origin.elapsed().as_secs_f64();
            finished.store(true, Ordering::Release);
            Ok::<_, Failure>(seconds)
        };
        let (seen, seconds) = tokio::try_join!(watching, writing)?;
        let since = |starts: &[AtomicU64]| {
            let waits = seen.iter().zip(starts).map(|(seen, start)| seen.saturating_sub(start.load(Ordering::Acquire)));
            percentiles(waits.map(|micros| micros as f64 / 1000.0).collect())
        };
        Ok(Latency {
            asked_per_second: self.rate,
            inserts: total,
            inserts_per_second: total as f64 / seconds,
            from_acknowledged_ms: since(&times.acknowledged),
            from_sent_ms: since(&times.sent),
        })
    }

    async fn write(&self, source: &Client, writer: u64, total: u64, times: &Times, origin: Instant) -> Result<()> {
        let every = Duration::from_secs_f64(WRITERS as f64 / f64::from(self.rate.max(1)));
        let offset = every.mul_f64(writer as f64 / WRITERS as f64);
        let mut ticks = tokio::time::interval_at(origin + offset, every);
        // A late tick is made up for, so that the rate holds.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for n in (writer..total).step_by(WRITERS as usize) {
            ticks.tick().await;
            times.sent[n as usize].store(micros(origin), Ordering::Release);
            self.insert(source, n as i64).await?;
            times.acknowledged[n as usize].store(micros(origin), Ordering::Release);
        }
        Ok(())
    }

    async fn insert(&self, source: &Client, id: i64) -> Result<()> {
        let note = "a note ".repeat(128);
        let document = rawdoc! { "_id": id, "at": DateTime::now(), "note": note };
        let command = rawdoc! { "insert": self.collection.as_str(), "documents": [document] };
        let reply = source.database(&self.database).run_raw_command(command).await?;
        if matches!(reply.get_i32("n"), Ok(1)) { Ok(()) } else { Err(Failure::new(format!("the steady load: {reply}"))) }
    }

    /// When each document was first seen, in microseconds.
    async fn watch(&self, target: &Client, times: &Times, origin: Instant, finished: Arc<AtomicBool>) -> Result<Vec<u64>> {
        let total = times.sent.len();
        let mut seen = vec![0; total];
        let (mut first, mut left) = (0, total);
        let mut ended = None;
        while left > 0 {
            // What was sent and not seen yet. Writers go in step, so little behind `first` is seen already.
            while first < total && seen[first] > 0 {
                first += 1;
            }
            let missing = (first..total).take_while(|&n| n < first + 4 * WRITERS as usize || times.sent[n].load(Ordering::Acquire) > 0);
            let missing = missing.filter(|&n| seen[n] == 0 && times.sent[n].load(Ordering::Acquire) > 0);
            let missing: Vec<i64> = missing.map(|n| n as i64).collect();
            if !missing.is_empty() {
                let found = self.visible(target, &missing).await?;
                let now = micros(origin);
                for id in found {
                    seen[id as usize] = now;
                    left -= 1;
                }
            }
            if finished.load(Ordering::Acquire) && ended.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err(Failure::new(format!("{left} inserts of the steady load did not reach the target")));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(seen)
    }

    /// Which of these are on the target.
    async fn visible(&self, target: &Client, ids: &[i64]) -> Result<Vec<i64>> {
        let size = i32::try_from(ids.len() + 1).unwrap_or(i32::MAX);
        let mut list = mongodb::bson::RawArrayBuf::new();
        ids.iter().for_each(|id| list.push(*id));
        let find = rawdoc! {
            "find": self.collection.as_str(),
            "filter": { "_id": { "$in": list } },
            "projection": { "_id": 1 },
            "batchSize": size,
        };
        let mut cursor = target.database(&self.database).run_raw_cursor_command(find).batch().await?;
        let mut found = Vec::new();
        while let Some(reply) = cursor.next().await {
            for document in reply?.doc_slices()? {
                let document = document?;
                let id = document.as_document().and_then(|document| document.get_i64("_id").ok());
                found.push(id.ok_or_else(|| Failure::new("a document of the steady load without its number"))?);
            }
        }
        Ok(found)
    }
}

fn micros(origin: Instant) -> u64 {
    // Never 0, which is "not yet".
    origin.elapsed().as_micros().max(1) as u64
}

fn percentiles(mut values: Vec<f64>) -> Percentiles {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let n = (share * values.len() as f64).ceil() as usize;
        values.get(n.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    };
    Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
}
