//! The cluster-wide change stream, with its own policy of resuming.
//!
//! The driver's `watch()` is not used: it resumes without a pause and without a limit, and hides empty
//! batches, whose post-batch resume token is what moves an idle stream.

use super::super::{
    EventBatch, EventStream, StartAt,
    decode::{Names, decode},
};
use crate::{
    error::{Error, Remedy, Result, Trouble},
    model::{Change, ChangeEvent, ClusterTime, Position, ResumeToken, raw},
    mongo::{Cluster, CursorOptions, RawCursor, Reply},
};
use bson::{Timestamp, rawdoc};
use mongodb::options::{ReadPreference, SelectionCriteria};
use std::time::Duration;

/// How long a `getMore` waits on the server for news, and so how stale the position of an idle stream gets.
const AWAIT: Duration = Duration::from_millis(500);

/// Code of an unknown field in a stage: a server that does not know the option (RAN on 5.0.4: 40415).
const UNKNOWN_FIELD: i32 = 40415;

/// An open stream. Opens itself again behind the last event it gave.
pub struct MongoStream {
    cluster: Cluster,
    cursor: Option<RawCursor>,
    from: StartAt,
    names: Names,
    raw_diffs: bool,
}

impl MongoStream {
    /// # Errors
    /// [`Error::PositionLost`] where the oplog no longer reaches back; [`Error::UnfitCluster`] where the
    /// server has no expanded events.
    pub async fn open(cluster: Cluster, from: StartAt, raw_diffs: bool) -> Result<Self> {
        let mut stream = Self { cluster, cursor: None, from, names: Names::default(), raw_diffs };
        let retry = stream.cluster.retry().clone();
        let cursor = retry.run(|| open(&stream.cluster, &stream.from, raw_diffs)).await;
        stream.cursor = Some(cursor.map_err(|e| stream.explained(e))?);
        Ok(stream)
    }

    /// Puts the place we wanted into an error that says it is lost.
    fn explained(&self, error: Error) -> Error {
        match (error, &self.from) {
            (Error::PositionLost { oldest, .. }, StartAt::Time(wanted) | StartAt::After(Position { time: wanted, .. })) => {
                Error::PositionLost { wanted: *wanted, oldest }
            }
            (other, _) => other,
        }
    }

    async fn reply(&mut self) -> Result<Reply> {
        let retry = self.cluster.retry().clone();
        let (cluster, from, raw_diffs) = (self.cluster.clone(), self.from.clone(), self.raw_diffs);
        // The cursor is handed in and out, so that a failed one is dropped and opened again behind what was given.
        let cursor = tokio::sync::Mutex::new(self.cursor.take());
        let read = || async {
            let mut slot = cursor.lock().await;
            let mut open_cursor = match slot.take() {
                Some(open) => open,
                None => open(&cluster, &from, raw_diffs).await?,
            };
            let reply = open_cursor.next().await?.ok_or_else(|| closed(&cluster))?;
            *slot = Some(open_cursor);
            Ok(reply)
        };
        let reply = retry.run(read).await;
        self.cursor = cursor.into_inner();
        reply.map_err(|e| self.explained(e))
    }
}

fn closed(cluster: &Cluster) -> Error {
    Error::Unreachable {
        side: cluster.side(),
        doing: "reading the change stream".into(),
        why: Trouble::Other,
        source: "the server closed the stream".into(),
    }
}

impl EventStream for MongoStream {
    async fn next(&mut self) -> Result<EventBatch> {
        let reply = self.reply().await?;
        let documents = reply.documents()?;
        let mut events: Vec<ChangeEvent> = Vec::new();
        for e in raw::elements(documents) {
            let event = e.document().ok_or_else(|| Error::Bug("a change stream's batch holds no documents".into()))?;
            events.push(decode(event, &mut self.names)?);
        }
        if let Some(token) = reply.post_batch_resume_token() {
            // Where the time cannot be read off the token, that of the last event is safe: it is not newer.
            let so_far = match (events.last(), &self.from) {
                (Some(last), _) => last.position.time,
                (None, StartAt::Time(time) | StartAt::After(Position { time, .. })) => *time,
            };
            let time = token_time(&token).unwrap_or(so_far);
            events.push(ChangeEvent { position: Position { token: ResumeToken(token), time }, change: Change::Idle, bytes: 0 });
        }
        if let Some(last) = events.last() {
            self.from = StartAt::After(last.position.clone());
        }
        Ok(EventBatch { events })
    }
}

/// The cluster time inside a resume token, which a post-batch token tells in no other way: `_data` is hex;
/// behind the leading byte `82` come seconds and increment, four bytes each (RAN on 4.4.2 to 6.0.27). `None`
/// for any other shape; the position itself stays opaque.
fn token_time(token: &bson::RawDocument) -> Option<ClusterTime> {
    let data = raw::get(token, "_data")?.str()?;
    let number = |range: std::ops::Range<usize>| u32::from_str_radix(data.get(range)?, 16).ok();
    data.starts_with("82").then(|| Some(ClusterTime { t: number(2..10)?, i: number(10..18)? }))?
}

async fn open(cluster: &Cluster, from: &StartAt, raw_diffs: bool) -> Result<RawCursor> {
    let mut stage =
        rawdoc! {"allChangesForCluster": true, "showExpandedEvents": true, "showRawUpdateDescription": raw_diffs, "showSystemEvents": true};
    match from {
        StartAt::Time(time) => stage.append(bson::cstr!("startAtOperationTime"), Timestamp::from(*time)),
        StartAt::After(position) => stage.append(bson::cstr!("resumeAfter"), position.token.0.clone()),
    }
    let command = rawdoc! {
        "aggregate": 1,
        "pipeline": [{"$changeStream": stage}],
        "cursor": {},
        "readConcern": {"level": "majority"},
    };
    let primary_first = SelectionCriteria::ReadPreference(ReadPreference::PrimaryPreferred { options: None });
    let options = CursorOptions { batch_documents: None, await_time: Some(AWAIT), on: Some(primary_first) };
    match cluster.open("admin", "opening the change stream", command, options).await {
        Err(error) if error.remedy() == Remedy::Operate && error.code() == Some(UNKNOWN_FIELD) => Err(Error::UnfitCluster {
            side: cluster.side(),
            problem: "has change streams without expanded events: its server is older than 6.0".into(),
            hint: "this version replicates from MongoDB 6.0 and newer".into(),
        }),
        Err(Error::PositionLost { wanted, .. }) => {
            let oldest = super::catalog::oplog_window(cluster).await.ok().flatten().map(|w| w.oldest);
            Err(Error::PositionLost { wanted, oldest })
        }
        other => other,
    }
}

/// Whether a stream of this kind can be opened now; used by the preflight.
pub(crate) async fn probe(cluster: &Cluster) -> Result<()> {
    let now = cluster.operation_time().await?;
    open(cluster, &StartAt::Time(now), true).await.map(drop)
}
