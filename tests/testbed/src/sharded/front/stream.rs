//! A change stream over all shards, merged in the order of their tokens.
//!
//! Each shard has a change stream of its own, and says with each batch up to which token it has told everything. What
//! is not beyond the least of these promises is released, in token order; and that least promise is what the merged
//! stream promises. A shard that takes no writes holds the others back, as it does behind a `mongos`.
//!
//! To resume, each shard starts at the time of the token, and what is not beyond the token is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use mongodb::bson::raw::cstr;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, doc, rawdoc};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::command::{Command, copy_fields};
use super::failure::{Answer, Code, Failure};
use super::upstream::{Upstream, documents};

/// How long a shard may wait for events before it tells its promise again.
const SHARD_WAIT: Duration = Duration::from_millis(50);
/// How long a client waits for events if it does not say, as on a server.
const CLIENT_WAIT: Duration = Duration::from_secs(1);
/// After how long without a question servers end a cursor.
const ABANDONED: Duration = Duration::from_secs(600);
/// Bytes of events in one answer, as on a server.
const FULL: usize = 16 * 1024 * 1024;

/// A resume token's text; tokens of one cluster sort in stream order.
type Token = String;

pub struct MergedStream {
    db: String,
    collection: String,
    /// What a shard is asked; without a starting point.
    request: RawDocumentBuf,
    /// Where it starts, if not now; nothing at or before this token is told.
    after: Option<Token>,
    shards: Vec<ShardStream>,
    /// The newest promise given to the client.
    told: Option<Token>,
    asked: Instant,
}

struct ShardStream {
    shard: Arc<Upstream>,
    cursor: i64,
    waiting: VecDeque<(Token, RawDocumentBuf)>,
    promise: Token,
    /// It has met, once more, the invalidate event that the client wants to go on after.
    met_invalidate: bool,
}

/// Where a shard's stream starts.
enum Start {
    At(Timestamp),
    After(Token),
}

/// What one answer to the client holds.
pub struct Released {
    events: RawArrayBuf,
    promise: Token,
    /// The stream has ended: an invalidate event is the last one.
    pub ended: bool,
}

impl Released {
    /// The answer to the command.
    pub fn reply(self, stream: &MergedStream, id: i64, batch: &mongodb::bson::raw::CStr) -> RawDocumentBuf {
        let mut cursor = RawDocumentBuf::new();
        cursor.append(batch, self.events);
        cursor.append(cstr!("postBatchResumeToken"), rawdoc! { "_data": self.promise });
        cursor.append(cstr!("id"), if self.ended { 0 } else { id });
        cursor.append(cstr!("ns"), format!("{}.{}", stream.db, stream.collection));
        rawdoc! { "cursor": cursor, "ok": 1.0 }
    }
}

/// Whether an `aggregate` opens a change stream; answers the stage's document.
pub fn change_stream(command: &Command) -> Option<&RawDocument> {
    let first = command.body.get_array("pipeline").ok()?.into_iter().next()?.ok()?;
    first.as_document()?.get_document("$changeStream").ok()
}

impl MergedStream {
    /// Opens a cursor on every shard.
    pub async fn open(cluster: &Cluster, command: &Command) -> Result<MergedStream, Failure> {
        let stage = change_stream(command).ok_or_else(|| Failure::new(Code::BadValue, "no change stream"))?;
        let token = match stage.get_document("resumeAfter").or_else(|_| stage.get_document("startAfter")) {
            Ok(token) => Some(token.get_str("_data")?.to_owned()),
            Err(_) => None,
        };
        let start = match &token {
            Some(token) => time_of(token)?,
            None => match stage.get_timestamp("startAtOperationTime") {
                Ok(time) => time,
                Err(_) => now(cluster).await?,
            },
        };
        let mut stream = MergedStream {
            db: command.db.clone(),
            collection: command.text().unwrap_or("$cmd.aggregate").into(),
            request: request(command)?,
            told: token.clone(),
            after: token,
            shards: Vec::new(),
            asked: Instant::now(),
        };
        stream.shards = try_join_all(cluster.shards().into_iter().map(|shard| stream.open_shard(shard, Start::At(start)))).await?;
        Ok(stream)
    }

    async fn open_shard(&self, shard: Arc<Upstream>, start: Start) -> Result<ShardStream, Failure> {
        let mut pipeline = RawArrayBuf::new();
        for (at, stage) in self.request.get_array("pipeline")?.into_iter().enumerate() {
            let stage = stage?;
            match stage.as_document() {
                Some(first) if at == 0 => {
                    let mut options = first.get_document("$changeStream")?.to_owned();
                    match &start {
                        Start::At(time) => options.append(cstr!("startAtOperationTime"), *time),
                        Start::After(token) => options.append(cstr!("startAfter"), rawdoc! { "_data": token.as_str() }),
                    }
                    pipeline.push(rawdoc! { "$changeStream": options });
                }
                _ => pipeline.push(stage),
            }
        }
        let mut command = RawDocumentBuf::new();
        for field in &self.request {
            let (key, value) = field?;
            if key.as_str() == "pipeline" {
                command.append(cstr!("pipeline"), &pipeline);
            } else {
                command.append(key, value);
            }
        }
        let reply = shard.run(command).await?;
        let cursor = reply.get_document("cursor")?;
        let mut stream = ShardStream { shard, cursor: 0, waiting: VecDeque::new(), promise: Token::new(), met_invalidate: false };
        stream.take(cursor, "firstBatch", self.after.as_deref())?;
        Ok(stream)
    }

    /// Waits until there is something to tell, at most as long as the client wants to.
    pub async fn more(&mut self, cluster: &Cluster, command: &Command) -> Result<Released, Failure> {
        let wait = command.number("maxTimeMS").and_then(|ms| u64::try_from(ms).ok()).map_or(CLIENT_WAIT, Duration::from_millis);
        let limit = command.number("batchSize").and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        let deadline = Instant::now() + wait;
        self.asked = Instant::now();
        loop {
            self.follow_new_shards(cluster).await?;
            self.pass_invalidate().await?;
            let released = self.release(limit.unwrap_or(usize::MAX))?;
            if !released.events.is_empty() || released.ended || Instant::now() >= deadline {
                return Ok(released);
            }
            let rest = deadline.saturating_duration_since(Instant::now()).min(SHARD_WAIT);
            let (collection, db, after) = (&self.collection, &self.db, self.after.as_deref());
            try_join_all(self.shards.iter_mut().map(|shard| shard.more(db, collection, limit, rest, after))).await?;
        }
    }

    /// What can be told now.
    pub fn release(&mut self, limit: usize) -> Result<Released, Failure> {
        let promise = self.shards.iter().map(|shard| shard.promise.as_str()).min().unwrap_or_default();
        let mut promise = promise.max(self.told.as_deref().unwrap_or_default()).to_owned();
        let (mut events, mut bytes, mut count, mut ended) = (RawArrayBuf::new(), 0, 0, false);
        loop {
            let next = self.shards.iter_mut().filter(|shard| !shard.waiting.is_empty()).min_by(|a, b| a.waiting[0].0.cmp(&b.waiting[0].0));
            let Some(shard) = next.filter(|shard| shard.waiting[0].0 <= promise) else { break };
            bytes += shard.waiting[0].1.as_bytes().len();
            if count == limit || (bytes > FULL && count > 0) {
                // The next one is within the promise but not in this answer.
                break;
            }
            let Some((token, event)) = shard.waiting.pop_front() else { break };
            ended = event.get_str("operationType").is_ok_and(|kind| kind == "invalidate");
            events.push(event);
            count += 1;
            self.told = Some(token);
            if ended {
                break;
            }
        }
        let more = self.shards.iter().any(|shard| shard.waiting.front().is_some_and(|(token, _)| *token <= promise));
        match self.told.clone().filter(|_| more || ended) {
            Some(last) => promise = last,
            None => self.told = Some(promise.clone()),
        }
        Ok(Released { events, promise, ended })
    }

    /// Whether its client has left it alone for so long that the shards have ended their cursors.
    pub fn is_abandoned(&self) -> bool {
        self.asked.elapsed() > ABANDONED
    }

    /// Ends the shards' cursors, but for those of shards that have no primary: they have died with it.
    pub async fn close(&self) {
        let open = self.shards.iter().filter(|shard| shard.cursor != 0 && shard.shard.has_primary());
        let kill = |shard: &ShardStream| (shard.shard.clone(), doc! { "killCursors": &self.collection, "cursors": [shard.cursor] });
        let kills: Vec<_> = open.map(kill).collect();
        join_all(kills.iter().map(|(shard, kill)| shard.command(&self.db, kill))).await;
    }

    /// A shard that has joined the cluster can have nothing to tell from before the newest promise: it had no part in
    /// the cluster when that was given, and nothing is moved to it before it is known here.
    async fn follow_new_shards(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        for shard in cluster.shards() {
            if !self.shards.iter().any(|known| known.shard.name == shard.name) {
                let start = time_of(self.told.as_deref().unwrap_or_default())?;
                let stream = self.open_shard(shard, Start::At(start)).await?;
                self.shards.push(stream);
            }
        }
        Ok(())
    }

    /// A shard that starts at the time of an invalidate event ends with it again; only its own token leads past it.
    async fn pass_invalidate(&mut self) -> Result<(), Failure> {
        for at in 0..self.shards.len() {
            if let (true, Some(after)) = (self.shards[at].met_invalidate, self.after.clone()) {
                self.shards[at] = self.open_shard(self.shards[at].shard.clone(), Start::After(after)).await?;
            }
        }
        Ok(())
    }
}

impl ShardStream {
    async fn more(&mut self, db: &str, collection: &str, limit: Option<usize>, wait: Duration, after: Option<&str>) -> Result<(), Failure> {
        if !self.waiting.is_empty() || self.cursor == 0 {
            return Ok(());
        }
        let mut command = rawdoc! { "getMore": self.cursor, "collection": collection, "maxTimeMS": wait.as_millis().max(1) as i64 };
        if let Some(limit) = limit {
            command.append(cstr!("batchSize"), limit as i64);
        }
        command.append(cstr!("$db"), db);
        let reply = self.shard.run(command).await?;
        self.take(reply.get_document("cursor")?, "nextBatch", after)
    }

    /// Takes in a batch and the promise that comes with it.
    fn take(&mut self, cursor: &RawDocument, batch: &str, after: Option<&str>) -> Result<(), Failure> {
        self.cursor = cursor.get_i64("id")?;
        for event in documents(cursor.get_array(batch)?)? {
            let token = event.get_document("_id")?.get_str("_data")?.to_owned();
            if after.is_none_or(|after| token.as_str() > after) {
                self.waiting.push_back((token, event.to_owned()));
            } else {
                self.met_invalidate |= after == Some(&token) && self.cursor == 0;
            }
        }
        if let Ok(promise) = cursor.get_document("postBatchResumeToken") {
            self.promise = promise.get_str("_data")?.to_owned();
        }
        Ok(())
    }
}

/// The client's command without what is the front's: starting points, session.
fn request(command: &Command) -> Answer {
    let mut pipeline = RawArrayBuf::new();
    for (at, stage) in command.body.get_array("pipeline")?.into_iter().enumerate() {
        let stage = stage?;
        match stage.as_document().and_then(|stage| stage.get_document("$changeStream").ok()) {
            Some(options) if at == 0 => {
                let mut kept = RawDocumentBuf::new();
                let names: Vec<&str> = options.iter().filter_map(|field| field.ok().map(|(name, _)| name.as_str())).collect();
                let starts = ["resumeAfter", "startAfter", "startAtOperationTime"];
                let names: Vec<&str> = names.into_iter().filter(|name| !starts.contains(name)).collect();
                copy_fields(options, &mut kept, &names)?;
                pipeline.push(rawdoc! { "$changeStream": kept });
            }
            _ => pipeline.push(stage),
        }
    }
    let mut request = command.rewritten(cstr!("aggregate"), command.value()?, &["pipeline", "$readPreference"])?;
    request.append(cstr!("pipeline"), pipeline);
    Ok(request)
}

/// Bytes 1 to 9 of a token are the cluster time of its event.
fn time_of(token: &str) -> Result<Timestamp, Failure> {
    let number = |range: std::ops::Range<usize>| token.get(range).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    match (token.get(..2), number(2..10), number(10..18)) {
        (Some("82"), Some(time), Some(increment)) => Ok(Timestamp { time, increment }),
        _ => Err(Failure::new(Code::BadValue, "the resume token is not one of a change stream")),
    }
}

/// One tick beyond the cluster's time, so that the newest operation of before is not told. Each shard hears of the time
/// with the command that opens its stream, so that whatever is written after that has a later one.
async fn now(cluster: &Cluster) -> Result<Timestamp, Failure> {
    cluster.config.command("admin", &doc! { "ping": 1 }).await?;
    let time = cluster.clock.time().ok_or_else(|| Failure::new(Code::BadValue, "the servers tell no cluster time"))?;
    Ok(Timestamp { increment: time.increment + 1, ..time })
}
