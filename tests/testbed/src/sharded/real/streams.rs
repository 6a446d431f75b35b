//! Change streams over all shards.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Timestamp};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ResumeToken;
use mongodb::options::ChangeStreamOptions;
use tokio::time::timeout;

use super::*;

/// What a change stream has told, by replaying it.
#[derive(Default)]
struct Told {
    documents: BTreeMap<String, Document>,
    tokens: Vec<String>,
    times: Vec<Timestamp>,
    kinds: BTreeSet<String>,
}

impl Told {
    fn take(&mut self, event: &Document) {
        self.tokens.push(event.get_document("_id").unwrap().get_str("_data").unwrap().into());
        self.times.push(event.get_timestamp("clusterTime").unwrap());
        let kind = event.get_str("operationType").unwrap();
        self.kinds.insert(kind.into());
        let Ok(key) = event.get_document("documentKey") else { return };
        let key = key.to_string();
        match kind {
            "delete" => _ = self.documents.remove(&key),
            "update" => {
                let document = self.documents.get_mut(&key).expect("an update of a known document");
                document.extend(event.get_document("updateDescription").unwrap().get_document("updatedFields").unwrap().clone());
            }
            _ => _ = self.documents.insert(key, event.get_document("fullDocument").unwrap().clone()),
        }
    }
}

pub(super) async fn watch(client: &Client, after: Option<ResumeToken>) -> ChangeStream<Document> {
    let mut options = ChangeStreamOptions::default();
    options.resume_after = after;
    options.show_expanded_events = Some(true);
    options.max_await_time = Some(Duration::from_millis(200));
    client.watch().with_options(options).await.unwrap().with_type()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_over_moving_chunks_tells_everything_once_and_in_order() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let users = sharded(&cluster, &client, "users").await;
    let mut stream = watch(&client, None).await;
    let start = stream.resume_token();

    let balancer = cluster.balance(&["shop.users".into()]).await.unwrap();
    let mut writes = tokio::task::JoinSet::new();
    for worker in 0..3 {
        let users = users.clone();
        writes.spawn(async move {
            for n in 0..200 {
                let id = doc! { "_id": format!("{worker}-{}", n % 70) };
                users.replace_one(id.clone(), doc! { "n": n }).upsert(true).await.unwrap();
                users.update_one(id.clone(), doc! { "$inc": { "m": 1 } }).await.unwrap();
                if n % 3 == 0 {
                    users.delete_one(id).await.unwrap();
                }
            }
        });
    }
    // 3 workers, 200 rounds: a replace and an update each, and 67 deletes.
    let expected = 3 * (400 + 67);
    let mut told = Told::default();
    let deadline = Instant::now() + Duration::from_secs(120);
    while told.tokens.len() < expected {
        assert!(Instant::now() < deadline, "{} of {expected} events", told.tokens.len());
        while let Some(ended) = writes.try_join_next() {
            ended.unwrap();
        }
        if writes.is_empty() {
            cluster.move_clocks().await.unwrap();
        }
        if let Some(event) = stream.next_if_any().await.unwrap() {
            told.take(&event);
            if told.tokens.len() % 100 == 0 {
                stream = watch(&client, stream.resume_token()).await;
            }
        }
    }
    let moved = balancer.stop().await;
    assert!(moved > 0, "no chunk was moved");

    assert!(told.tokens.is_sorted() && told.times.is_sorted());
    let distinct: BTreeSet<&String> = told.tokens.iter().collect();
    assert_eq!(distinct.len(), expected);
    assert_eq!(told.kinds, ["delete", "insert", "replace", "update"].map(String::from).into());
    let found: Vec<Document> = users.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    let found: BTreeMap<String, Document> = found.into_iter().map(|d| (doc! { "_id": d.get("_id").unwrap() }.to_string(), d)).collect();
    assert_eq!(told.documents, found);

    // From the beginning, the same again.
    cluster.move_clocks().await.unwrap();
    let mut again = watch(&client, start).await;
    let mut tokens = Vec::new();
    while tokens.len() < expected {
        let event = timeout(Duration::from_secs(30), again.try_next()).await.expect("no event for 30 s").unwrap().unwrap();
        tokens.push(event.get_document("_id").unwrap().get_str("_data").unwrap().to_owned());
    }
    assert_eq!(tokens, told.tokens);
    end(client).await;
}

#[tokio::test]
async fn a_quiet_stream_moves_on_and_its_options_reach_the_shards() {
    let _slot = server_slot().await;
    let (cluster, client) = cluster().await;
    let users = sharded(&cluster, &client, "users").await;
    let options = doc! { "allChangesForCluster": true, "showExpandedEvents": true, "showRawUpdateDescription": true };
    let project = doc! { "$project": { "operationType": 1, "rawUpdateDescription": 1, "ns": 1 } };
    let command = doc! { "aggregate": 1, "pipeline": [{ "$changeStream": options }, project], "cursor": {} };
    let admin = client.database("admin");
    let reply = admin.run_command(command).await.unwrap();
    let cursor = reply.get_document("cursor").unwrap();
    let (id, promise) = (cursor.get_i64("id").unwrap(), cursor.get_document("postBatchResumeToken").unwrap().clone());

    // The shards' clocks move, without an event.
    let deadline = Instant::now() + Duration::from_secs(30);
    let more = async || {
        let reply = admin.run_command(doc! { "getMore": id, "collection": "$cmd.aggregate", "maxTimeMS": 200 }).await.unwrap();
        let cursor = reply.get_document("cursor").unwrap().clone();
        (cursor.get_array("nextBatch").unwrap().clone(), cursor.get_document("postBatchResumeToken").unwrap().clone())
    };
    loop {
        assert!(Instant::now() < deadline, "the promise does not move");
        // The first may land on the very tick that the stream starts at.
        cluster.move_clocks().await.unwrap();
        let (events, token) = more().await;
        assert!(events.is_empty(), "{events:?}");
        assert!(token.get_str("_data").unwrap() >= promise.get_str("_data").unwrap());
        if token != promise {
            break;
        }
    }
    users.insert_many(numbered(0..20)).await.unwrap();
    users.update_many(doc! {}, doc! { "$set": { "a.b": 1 } }).await.unwrap();
    let (mut kinds, mut diffs) = (Vec::new(), 0);
    while kinds.len() < 40 {
        assert!(Instant::now() < deadline, "{kinds:?}");
        cluster.move_clocks().await.unwrap();
        for event in more().await.0 {
            let Bson::Document(event) = event else { panic!("an event is a document") };
            kinds.push(event.get_str("operationType").unwrap().to_owned());
            diffs += usize::from(event.contains_key("rawUpdateDescription"));
            assert!(!event.contains_key("documentKey"), "projected away");
        }
    }
    assert_eq!(diffs, 20);
    admin.run_command(doc! { "killCursors": "$cmd.aggregate", "cursors": [id] }).await.unwrap();
    let gone = admin.run_command(doc! { "getMore": id, "collection": "$cmd.aggregate" }).await.unwrap_err();
    assert!(gone.to_string().contains("43"), "{gone}");
    end(client).await;
}

#[tokio::test]
async fn a_stream_follows_a_shard_that_joins_later() {
    let _slot = server_slot().await;
    let (mut cluster, client) = cluster().await;
    let users = sharded(&cluster, &client, "users").await;
    let mut stream = watch(&client, None).await;
    users.insert_many(numbered(0..100)).await.unwrap();
    cluster.add_shard().await.unwrap();
    let chunks = client.database("config").collection::<Document>("chunks");
    let mut next = 100;
    while chunks.count_documents(doc! { "shard": "shard2" }).await.unwrap() < 3 {
        cluster.move_chunk("shop.users", doc! { "_id": next }, "shard2").await.unwrap();
        next += 1;
    }
    users.insert_many(numbered(100..200)).await.unwrap();
    assert!(on_each_shard(&cluster, "users").await[2] > 0);

    let deadline = Instant::now() + Duration::from_secs(60);
    let mut told = Told::default();
    while told.tokens.len() < 200 {
        assert!(Instant::now() < deadline, "{} events", told.tokens.len());
        cluster.move_clocks().await.unwrap();
        while let Some(event) = stream.next_if_any().await.unwrap() {
            told.take(&event);
        }
    }
    assert!(told.tokens.is_sorted());
    assert_eq!(told.documents.len(), 200);
    end(client).await;
}
