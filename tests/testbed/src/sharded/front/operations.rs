//! What the shards are doing, asked of each of them: a shard's routing code stands still with the shard (seen while
//! `setUserWriteBlockMode` waits for a prepared transaction, 6.0.5), and a `mongos` does not.

use mongodb::bson::raw::cstr;
use mongodb::bson::{RawArrayBuf, RawDocumentBuf, doc, rawdoc};

use super::cluster::Cluster;
use super::command::Command;
use super::failure::{Answer, Code, Failure};
use super::upstream::first_batch;

/// Whether it is an aggregation that begins with `$currentOp`.
pub fn asks_for_operations(command: &Command) -> bool {
    let stages = command.body.get_array("pipeline").ok();
    let first = stages.and_then(|stages| stages.into_iter().next()).and_then(Result::ok);
    first.and_then(|stage| stage.as_document()).is_some_and(|stage| matches!(stage.get("$currentOp"), Ok(Some(_))))
}

impl Cluster {
    /// As the shards answer to a `mongos`: operations are `shard:number`. The whole pipeline runs on each of them, which is the
    /// same as long as its stages look at one operation at a time.
    pub async fn current_operations(&self, command: &Command) -> Answer {
        let mut found = RawArrayBuf::new();
        for shard in self.shards() {
            let mut body = command.rewritten(cstr!("aggregate"), 1, &["cursor"])?;
            body.append(cstr!("fromMongos"), true);
            body.append(cstr!("cursor"), rawdoc! { "batchSize": 100_000 });
            let reply = shard.run(body).await?;
            if reply.get_document("cursor")?.get_i64("id")? != 0 {
                return Err(Failure::new(Code::BadValue, "more operations than one batch holds"));
            }
            first_batch(&reply)?.into_iter().for_each(|operation| found.push(operation.to_owned()));
        }
        let cursor = rawdoc! { "firstBatch": found, "id": 0_i64, "ns": "admin.$cmd.aggregate" };
        Ok(rawdoc! { "cursor": cursor, "ok": 1.0 })
    }

    pub async fn kill_operation(&self, command: &Command) -> Result<RawDocumentBuf, Failure> {
        let operation = command.body.get_str("op")?;
        let parts = operation.split_once(':').and_then(|(shard, number)| Some((shard, number.parse::<i64>().ok()?)));
        let (shard, number) = parts.ok_or_else(|| Failure::new(Code::BadValue, format!("{operation:?} is no operation of a shard")))?;
        self.shard(shard)?.command("admin", &doc! { "killOp": 1, "op": number }).await
    }
}
