//! The cluster-wide change stream, with its own policy of resuming.
//!
//! The driver's `watch()` is not used: it resumes without a pause and without a limit, and hides empty
//! batches, whose post-batch resume token is what moves an idle stream.

use super::{
    super::{
        EventBatch, EventStream, StartAt,
        decode::{Names, decode},
    },
    large,
    sharded::none_since,
    token,
};
use crate::{
    error::{Error, Remedy, Result, Trouble},
    model::{Change, ChangeEvent, ClusterTime, Position, ResumeToken, raw},
    mongo::{Cluster, CursorOptions, RawCursor, Reply, Topology},
};
use bson::{RawArrayBuf, RawDocumentBuf, Timestamp, rawdoc};
use mongodb::options::{ReadPreference, SelectionCriteria};
use std::time::Duration;

/// How long a `getMore` waits on the server for news, and so how stale the position of an idle stream gets. Each drain of a cutover
/// waits for it while writes are blocked: nothing else comes then.
const AWAIT: Duration = Duration::from_millis(100);

/// Code of an unknown field in a stage: a server that does not know the option (RAN on 5.0.4: 40415).
const UNKNOWN_FIELD: i32 = 40415;

/// What a stream shows, as far as its server knows how to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    /// Expanded events: all structural changes, and the identity of collections.
    Everything {
        /// Updates as the oplog's own diffs.
        raw_diffs: bool,
    },
    /// Servers before 6.0: documents, drops and renames. See [`super::watch`].
    Documents,
}

/// An open stream. Opens itself again behind the last event it gave.
pub struct MongoStream {
    cluster: Cluster,
    cursor: Option<RawCursor>,
    from: StartAt,
    names: Names,
    shows: Shows,
}

impl MongoStream {
    /// Opens a stream that shows what the server can show.
    ///
    /// # Errors
    /// [`Error::PositionLost`] where the oplog no longer reaches back.
    pub async fn open(cluster: Cluster, from: StartAt, raw_diffs: bool) -> Result<Self> {
        let mut stream = Self { cluster, cursor: None, from, names: Names::default(), shows: Shows::Everything { raw_diffs } };
        let retry = stream.cluster.retry().clone();
        let mut cursor = retry.run(|| open(&stream.cluster, &stream.from, stream.shows, &[], None)).await;
        if cursor.as_ref().is_err_and(unknown_field) {
            stream.shows = Shows::Documents;
            cursor = retry.run(|| open(&stream.cluster, &stream.from, stream.shows, &[], None)).await;
        }
        stream.cursor = Some(cursor.map_err(|e| stream.explained(e))?);
        Ok(stream)
    }

    /// What it shows.
    pub(super) fn shows(&self) -> Shows {
        self.shows
    }

    /// Up to which time it has told everything.
    pub(super) fn time(&self) -> ClusterTime {
        self.from.time()
    }

    /// Opens it again where it is, for the next batch.
    pub(super) fn reopen(&mut self) {
        self.cursor = None;
    }

    /// Events of which one does not fit into a reply as it is.
    async fn large_event(&mut self) -> Result<EventBatch> {
        let (cluster, from, shows) = (&self.cluster, &self.from, self.shows);
        let found = cluster.retry().run(|| large::without_documents(cluster, from, shows)).await?;
        tracing::info!(events = found.len(), "a change event is larger than a reply may be: documents are read again");
        let events = found.iter().map(|event| decode(event, &mut self.names)).collect::<Result<Vec<_>>>()?;
        self.cursor = None;
        if let Some(last) = events.last() {
            self.from = StartAt::After(last.position.clone());
        }
        Ok(EventBatch { events })
    }

    /// Puts the place we wanted into an error that says it is lost.
    fn explained(&self, error: Error) -> Error {
        match error {
            Error::PositionLost { oldest, .. } => Error::PositionLost { wanted: self.from.time(), oldest },
            other => other,
        }
    }

    async fn reply(&mut self) -> Result<Reply> {
        let retry = self.cluster.retry().clone();
        let (cluster, from, shows) = (self.cluster.clone(), self.from.clone(), self.shows);
        // The cursor is handed in and out, so that a failed one is dropped and opened again behind what was given.
        let cursor = tokio::sync::Mutex::new(self.cursor.take());
        let read = || async {
            let mut slot = cursor.lock().await;
            let mut open_cursor = match slot.take() {
                Some(open) => open,
                None => open(&cluster, &from, shows, &[], None).await?,
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

pub(super) fn closed(cluster: &Cluster) -> Error {
    Error::Unreachable {
        side: cluster.side(),
        doing: "reading the change stream".into(),
        why: Trouble::Other,
        source: "the server closed the stream".into(),
    }
}

impl EventStream for MongoStream {
    async fn next(&mut self) -> Result<EventBatch> {
        let reply = match self.reply().await {
            Err(error) if large::is_too_large(&error) => return self.large_event().await,
            reply => reply?,
        };
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
                (None, from) => from.time(),
            };
            let time = token::time(&token).unwrap_or(so_far);
            events.push(ChangeEvent { position: Position { token: ResumeToken(token), time }, change: Change::Idle, bytes: 0 });
        }
        if let Some(last) = events.last() {
            self.from = StartAt::After(last.position.clone());
        }
        Ok(EventBatch { events })
    }
}

fn unknown_field(error: &Error) -> bool {
    error.remedy() == Remedy::Operate && error.code() == Some(UNKNOWN_FIELD)
}

/// Opens a stream with further stages behind it, and so many events in a reply at most.
pub(super) async fn open(
    cluster: &Cluster,
    from: &StartAt,
    shows: Shows,
    stages: &[RawDocumentBuf],
    batch_documents: Option<u32>,
) -> Result<RawCursor> {
    let mut stage = rawdoc! {"allChangesForCluster": true};
    if let Shows::Everything { raw_diffs } = shows {
        stage.append(bson::cstr!("showExpandedEvents"), true);
        stage.append(bson::cstr!("showRawUpdateDescription"), raw_diffs);
        stage.append(bson::cstr!("showSystemEvents"), true);
    }
    match from {
        StartAt::Time(time) => stage.append(bson::cstr!("startAtOperationTime"), Timestamp::from(*time)),
        StartAt::After(position) => stage.append(bson::cstr!("resumeAfter"), position.token.0.clone()),
    }
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(rawdoc! {"$changeStream": stage});
    if shows == Shows::Documents {
        // What an update changed is not asked for: the document is read again, whatever it says.
        pipeline.push(rawdoc! {"$project": {"updateDescription": 0}});
    }
    stages.iter().for_each(|stage| pipeline.push(stage.clone()));
    // The first reply is empty and has a token, so that a position is known before the first event.
    let command = rawdoc! {"aggregate": 1, "pipeline": pipeline, "cursor": {"batchSize": 0}, "readConcern": {"level": "majority"}};
    let primary_first = SelectionCriteria::ReadPreference(ReadPreference::PrimaryPreferred { options: None });
    let options = CursorOptions { batch_documents, await_time: Some(AWAIT), on: Some(primary_first) };
    match cluster.open("admin", "opening the change stream", command, options).await {
        Err(Error::PositionLost { wanted, .. }) => {
            let oldest = super::catalog::oplog_window(cluster).await.ok().flatten().map(|w| w.oldest);
            Err(Error::PositionLost { wanted, oldest })
        }
        Ok(cursor) => {
            if cluster.topology().await? == Topology::Sharded {
                Box::pin(none_since(cluster, from.time())).await?;
            }
            Ok(cursor)
        }
        other => other,
    }
}

/// What a stream that is opened now shows; used by the preflight.
pub(crate) async fn probe(cluster: &Cluster) -> Result<Shows> {
    let now = StartAt::Time(cluster.operation_time().await?);
    let expanded = Shows::Everything { raw_diffs: true };
    match open(cluster, &now, expanded, &[], None).await {
        Ok(_) => Ok(expanded),
        Err(error) if unknown_field(&error) => open(cluster, &now, Shows::Documents, &[], None).await.map(|_| Shows::Documents),
        Err(error) => Err(error),
    }
}
