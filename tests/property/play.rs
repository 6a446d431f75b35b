//! Plays a history on a pair of real servers, hands over, and compares.

use super::history::Step;
use crate::{
    scenarios::{
        notation::{Node, Scope, document},
        scenario::failure,
    },
    support::{Ferry, Pair, reached, run, slow_down, speed_up},
};
use bson::{RawDocumentBuf, doc};
use futures_util::{FutureExt, TryStreamExt};
use mongodb::{Client, ClientSession, error::ErrorKind, options::Hint};
use std::{panic::AssertUnwindSafe, time::Duration};
use testbed::parity;
use tokio::time::{sleep, timeout};

/// What placeholders stand for.
pub(super) const SCOPE: Scope<'_> = Scope { db: "history", n: 0 };
/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a cutover is asked for again, as gates may shut in between.
const CUTOVERS: usize = 5;
/// Differences told.
const TOLD: usize = 10;

/// What the server turned down: the command's place in its transaction (0 without one), and the code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Refused {
    pub at: usize,
    pub code: i32,
}

/// How a history went.
#[derive(Debug)]
pub(super) struct Played {
    /// Of each step that was taken on the source, what became of it there; in their order.
    pub refused: Vec<Option<Refused>>,
    /// What is wrong with the target.
    pub verdict: Result<(), String>,
}

/// Plays it on servers that are cleared before.
pub(super) async fn play(pair: &Pair, history: &[Step]) -> Played {
    clear(pair).await;
    let mut refused = Vec::new();
    // What the support finds wrong, it says by panicking.
    let verdict = match AssertUnwindSafe(arrives(pair, history, &mut refused)).catch_unwind().await {
        Ok(verdict) => verdict,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default())
        }
    };
    Played { refused, verdict }
}

/// Nothing is left of the history before.
async fn clear(pair: &Pair) {
    for client in [&pair.from, &pair.to] {
        speed_up(client).await;
        run(client, "admin", doc! {"setUserWriteBlockMode": 1, "global": false}).await;
        for name in client.list_database_names().await.unwrap() {
            if !matches!(name.as_str(), "admin" | "local" | "config") {
                run(client, &name, doc! {"dropDatabase": 1, "writeConcern": {"w": "majority"}}).await;
            }
        }
    }
    // Something to compare, whatever is left of a history.
    run(&pair.from, "always", doc! {"insert": "there", "documents": [{"_id": 1}]}).await;
}

async fn arrives(pair: &Pair, history: &[Step], refused: &mut Vec<Option<Refused>>) -> Result<(), String> {
    let mut ferry = None;
    for step in history {
        match step {
            Step::Source(node) => {
                let taken = timeout(PATIENCE, on_source(&pair.from, node)).await;
                refused.push(taken.map_err(|_| format!("the source does not answer: {node:?}"))??);
            }
            Step::Start(arguments) => ferry = Some(pair.ferry(arguments)),
            Step::Slow(by) => slow_down(&pair.to, &["insert"], *by).await,
            Step::Fast => speed_up(&pair.to).await,
            Step::Wait(time) => sleep(*time).await,
            step => {
                if let Some(ferry) = &mut ferry {
                    steer(pair, ferry, step).await?;
                }
            }
        }
    }
    speed_up(&pair.to).await;
    let mut ferry = ferry.unwrap_or_else(|| pair.ferry(&[]));
    steer(pair, &mut ferry, &Step::CaughtUp).await?;
    hand_over(&mut ferry).await?;
    compare(pair).await
}

/// A step on mongoferry itself.
async fn steer(pair: &Pair, ferry: &mut Ferry, step: &Step) -> Result<(), String> {
    match step {
        Step::Kill => ferry.restart(),
        Step::Terminate => {
            ferry.signal("TERM");
            ferry.wait_exit().await;
            ferry.restart();
        }
        Step::Pause => {
            ferry.status().await;
            ferry.verb(&["pause"]).await;
        }
        Step::Resume => {
            if ferry.status().await["activity"] == "paused" {
                ferry.verb(&["resume"]).await.expect(0, "resume");
            }
        }
        Step::Tailing | Step::CaughtUp => {
            Box::pin(steer(pair, ferry, &Step::Resume)).await?;
            let tailing = ferry.wait_within(PATIENCE, "tailing", |status| reached(status, "tailing")).await;
            tailing.map_err(|status| format!("it does not come to tail: {status:#}\n{}", ferry.log()))?;
            if *step == Step::CaughtUp {
                ferry.wait_until_caught_up(&pair.from).await;
            }
        }
        Step::Source(_) | Step::Start(_) | Step::Slow(_) | Step::Fast | Step::Wait(_) => {}
    }
    Ok(())
}

/// Takes a step, and tells what the server turned down. Fails on what is no command at all.
async fn on_source(client: &Client, node: &Node) -> Result<Option<Refused>, String> {
    let Node::Fields(fields) = node else { return Err(format!("no step: {node:?}")) };
    let (verb, commands) = &fields[0];
    if !matches!(verb.as_str(), "$transaction" | "$aborted") {
        return Ok(command(client, fields, None).await?.map(|code| Refused { at: 0, code }));
    }
    let mut session = client.start_session().await.map_err(|e| e.to_string())?;
    session.start_transaction().await.map_err(|e| e.to_string())?;
    for (at, each) in commands.list().unwrap_or_default().iter().enumerate() {
        let Node::Fields(fields) = each else { return Err(format!("no step: {each:?}")) };
        if let Some(code) = command(client, fields, Some(&mut session)).await? {
            // The server has given it up already; this only tells the session.
            let _ = session.abort_transaction().await;
            return Ok(Some(Refused { at, code }));
        }
    }
    let ended = if verb == "$aborted" { session.abort_transaction().await } else { session.commit_transaction().await };
    let at = commands.list().map_or(0, <[_]>::len);
    Ok(failure(ended.map(|()| doc! {})).map(|(code, _)| Refused { at, code }))
}

async fn command(client: &Client, fields: &[(String, Node)], session: Option<&mut ClientSession>) -> Result<Option<i32>, String> {
    let (ours, theirs): (Vec<_>, Vec<_>) = fields.iter().cloned().partition(|(name, _)| name == "$db");
    let admin = if theirs[0].0 == "renameCollection" { "admin" } else { SCOPE.db };
    let database = ours.first().and_then(|(_, name)| name.text(SCOPE)).unwrap_or_else(|| admin.to_owned());
    let command = document(&theirs, SCOPE).map_err(|why| format!("{}: {why}", theirs[0].0))?;
    let database = client.database(&database);
    let reply = match session {
        Some(session) => database.run_raw_command(command).session(session).await,
        None => database.run_raw_command(command).await,
    };
    // The driver takes no reply with invalid UTF-8: an upsert's, which names the `_id` and was done, or the text of a refusal.
    if reply.as_ref().is_err_and(|e| matches!(e.kind.as_ref(), ErrorKind::Bson(_) | ErrorKind::InvalidResponse { .. })) {
        return Ok(None);
    }
    match failure(reply) {
        Some((0, why)) => Err(format!("{} got no answer from the source: {why}", theirs[0].0)),
        other => Ok(other.map(|(code, _)| code)),
    }
}

/// mongoferry's own comparison has to agree before, and the cutover to succeed.
async fn hand_over(ferry: &mut Ferry) -> Result<(), String> {
    let mut told = String::new();
    for _ in 0..CUTOVERS {
        let ready = ferry.wait_within(PATIENCE, "every gate to be open", |status| status["can_cut_over"] == true).await;
        ready.map_err(|status| format!("the gates stay shut: {status:#}\n{}", ferry.log()))?;
        let verified = ferry.verb(&["verify", "--output", "json"]).await;
        if verified.code != 0 {
            return Err(format!("verify says {}: {}{}\n{}", verified.code, verified.stdout, verified.stderr, ferry.log()));
        }
        let cutover = ferry.verb(&["cutover", "--yes"]).await;
        if cutover.code == 0 {
            let code = ferry.wait_exit().await;
            return if code == 0 { Ok(()) } else { Err(format!("after the cutover, it ended with {code}\n{}", ferry.log())) };
        }
        told = format!("{}{}", cutover.stdout, cutover.stderr);
    }
    Err(format!("the cutover fails: {told}\n{}", ferry.log()))
}

/// The test bed's own reader, and the order in capped collections.
async fn compare(pair: &Pair) -> Result<(), String> {
    let report = testbed::compare(&pair.from, &pair.to, parity::everything).await.map_err(|e| e.to_string())?;
    if report.documents().0 == 0 {
        return Err("nothing was compared".into());
    }
    if !report.is_equal() {
        let few: Vec<_> = report.differences.iter().take(TOLD).map(ToString::to_string).collect();
        return Err(format!("{} differences, such as\n{}", report.differences.len(), few.join("\n")));
    }
    for database in pair.from.list_database_names().await.map_err(|e| e.to_string())? {
        let capped = doc! {"options.capped": true};
        let listed = pair.from.database(&database).list_collections().filter(capped).await.map_err(|e| e.to_string())?;
        let listed: Vec<_> = listed.try_collect().await.map_err(|e: mongodb::error::Error| e.to_string())?;
        for name in listed.iter().map(|c| &c.name).filter(|_| !matches!(database.as_str(), "admin" | "local" | "config")) {
            let (here, there) = (in_order(&pair.from, &database, name).await?, in_order(&pair.to, &database, name).await?);
            if here != there {
                return Err(format!("{database}.{name} is capped, and its documents stand in another order"));
            }
        }
    }
    Ok(())
}

/// Documents as they stand there.
async fn in_order(client: &Client, database: &str, coll: &str) -> Result<Vec<RawDocumentBuf>, String> {
    let all = client.database(database).collection::<RawDocumentBuf>(coll);
    let found = all.find(doc! {}).hint(Hint::Keys(doc! {"$natural": 1})).await.map_err(|e| e.to_string())?;
    found.try_collect().await.map_err(|e| e.to_string())
}
