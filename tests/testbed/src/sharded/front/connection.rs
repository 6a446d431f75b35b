//! The clients' connections: one command after another, each answered before the next is read.

use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering};

use mongodb::bson::{RawDocument, RawDocumentBuf};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::access::Login;
use super::cluster::Cluster;
use super::command::Command;
use super::failure::Failure;
use super::metadata;
use super::wire::{self, Message};

/// What servers tell each other or a router, and what the front says in their place.
const NOT_FOR_CLIENTS: [&str; 5] = ["operationTime", "$clusterTime", "$configTime", "$topologyTime", "lastCommittedOpTime"];

/// Takes connections until told to stop, then closes them all.
pub async fn serve(listener: TcpListener, cluster: Rc<Cluster>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            biased; // a stop wins over the next connection
            () = stop.cancelled() => break,
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                number += 1;
                connections.spawn_local(talk(client, cluster.clone(), number));
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Ends when the client closes, or says what is no message.
async fn talk(client: TcpStream, cluster: Rc<Cluster>, number: usize) {
    static NEXT: AtomicI32 = AtomicI32::new(1);
    let _ = client.set_nodelay(true);
    let mut client = BufReader::new(client);
    let (mut login, mut greeted) = (Login::default(), None);
    while let Ok(Some(message)) = wire::read(&mut client).await {
        greeted = greeted.or_else(|| metadata::of_greeting(&message.body));
        let (id, legacy, unanswered) = (message.id, message.legacy, message.unanswered);
        let answer = answer(&cluster, number, greeted.clone(), &mut login, message).await;
        if unanswered {
            continue;
        }
        let ours = NEXT.fetch_add(1, Ordering::Relaxed);
        let bytes = if legacy { wire::encode_legacy(ours, id, &answer) } else { wire::encode(ours, id, &answer, &[]) };
        if client.get_mut().write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn answer(
    cluster: &Cluster,
    number: usize,
    client: Option<Rc<RawDocumentBuf>>,
    login: &mut Login,
    message: Message,
) -> RawDocumentBuf {
    cluster.clock.hear(&message.body);
    let answer = match Command::new(message) {
        Ok(command) => match login.admit(cluster, &command).await {
            Ok(None) => metadata::on_behalf_of(client, login.may_bypass_write_blocking(), cluster.answer(number, &command)).await,
            Ok(Some(answered)) => Ok(answered),
            Err(refused) => Err(refused),
        },
        Err(failure) => Err(failure),
    };
    let mut answer = for_clients(&answer.unwrap_or_else(Failure::into_reply));
    cluster.clock.sign(&mut answer);
    answer
}

fn for_clients(reply: &RawDocument) -> RawDocumentBuf {
    let mut kept = RawDocumentBuf::new();
    for field in reply.iter().flatten() {
        if !NOT_FOR_CLIENTS.contains(&field.0.as_str()) {
            kept.append(field.0, field.1);
        }
    }
    kept
}
