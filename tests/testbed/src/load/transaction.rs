//! Transactions of up to a thousand operations over several collections.

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Result;
use rand::Rng;
use rand::rngs::StdRng;

use super::counts::Kind;
use super::worker::Namespace;
use super::{documents, updates};

/// Operations in one command.
const CHUNK: usize = 100;

/// The commands of a transaction, and what will be there when it commits.
pub struct Plan {
    commands: Vec<(String, Document)>,
    /// By index of the collection.
    pub inserted: Vec<(usize, Vec<Bson>)>,
}

/// Deals `size` operations out to the collections, in chunks of inserts, updates and deletes.
pub fn plan(rng: &mut StdRng, namespaces: &mut [Namespace], mut new: Vec<Bson>, size: usize) -> Plan {
    let mut plan = Plan { commands: Vec::new(), inserted: Vec::new() };
    let mut left = size;
    while left > 0 {
        let count = left.min(rng.random_range(1..=CHUNK));
        left -= count;
        let at = rng.random_range(0..namespaces.len());
        let namespace = &mut namespaces[at];
        let command = match rng.random_range(0..4) {
            0 if namespace.alive.len() >= count => {
                // Deleted documents are forgotten even if the transaction fails; they are only never used again.
                let ids = namespace.take(rng, count);
                let deletes: Vec<_> = ids.iter().map(|id| doc! { "q": { "_id": id }, "limit": 1 }).collect();
                doc! { "delete": &namespace.collection, "deletes": deletes }
            }
            1 | 2 if namespace.alive.len() >= count => {
                let ids = namespace.take(rng, count);
                let statements = updates::statements(rng, Kind::Update, &ids);
                namespace.alive.extend(ids);
                doc! { "update": &namespace.collection, "updates": statements }
            }
            _ => {
                let ids = new.split_off(new.len() - count);
                let documents: Vec<_> = ids.iter().map(|id| documents::document(rng, id.clone())).collect();
                plan.inserted.push((at, ids));
                doc! { "insert": &namespace.collection, "documents": documents }
            }
        };
        plan.commands.push((namespace.database.clone(), command));
    }
    plan
}

/// True when it was committed. A failure leaves nothing behind, and it is not tried again.
pub async fn run(client: &Client, plan: &Plan, abort: bool) -> Result<bool> {
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    for (database, command) in &plan.commands {
        let reply = client.database(database).run_command(command.clone()).session(&mut session).await;
        // A duplicate `_id` comes as a write error, and the server has aborted by then.
        if reply.as_ref().is_ok_and(|reply| reply.contains_key("writeErrors")) {
            let _ = session.abort_transaction().await;
            return Ok(false);
        }
        if let Err(error) = reply {
            let _ = session.abort_transaction().await;
            return Err(error);
        }
    }
    if abort {
        session.abort_transaction().await?;
        return Ok(false);
    }
    session.commit_transaction().await?;
    Ok(true)
}
