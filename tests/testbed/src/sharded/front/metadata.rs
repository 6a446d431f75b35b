//! Who a client is: servers are told with each command, as by a `mongos`, and show it beside what they do for it (`clientMetadata` in
//! `$currentOp`).

use std::rc::Rc;

use mongodb::bson::raw::cstr;
use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};

tokio::task_local! {
    static CLIENT: Option<Rc<RawDocumentBuf>>;
}

/// Answers a command of this client; nothing is told of one that has not said who it is.
pub async fn on_behalf_of<F: Future>(client: Option<Rc<RawDocumentBuf>>, answering: F) -> F::Output {
    CLIENT.scope(client, answering).await
}

/// What a client's greeting says of it, as servers are told.
pub fn of_greeting(body: &RawDocument) -> Option<Rc<RawDocumentBuf>> {
    let mut client = body.get_document("client").ok()?.to_owned();
    client.append(cstr!("mongos"), rawdoc! { "host": "front", "client": "127.0.0.1:0", "version": "6.0.5" });
    Some(Rc::new(client))
}

pub fn tell(body: &mut RawDocumentBuf) {
    let _ = CLIENT.try_with(|client| {
        if let Some(client) = client {
            body.append(cstr!("$client"), client.as_ref().clone());
        }
    });
}
