//! Who a client is: servers are told with each command, as by a `mongos`, and show it beside what they do for it (`clientMetadata` in
//! `$currentOp`). And whether it may write where users may not, which they cannot see from the router's own login.

use std::rc::Rc;

use mongodb::bson::raw::cstr;
use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};

tokio::task_local! {
    static CLIENT: (Option<Rc<RawDocumentBuf>>, Option<bool>);
}

/// Answers a command of this client; nothing is told of one that has not said who it is, and, without access control, nothing
/// of the user write block: a client says itself that it passes it then.
pub async fn on_behalf_of<F: Future>(client: Option<Rc<RawDocumentBuf>>, bypasses: Option<bool>, answering: F) -> F::Output {
    CLIENT.scope((client, bypasses), answering).await
}

/// What a client's greeting says of it, as servers are told.
pub fn of_greeting(body: &RawDocument) -> Option<Rc<RawDocumentBuf>> {
    let mut client = body.get_document("client").ok()?.to_owned();
    client.append(cstr!("mongos"), rawdoc! { "host": "front", "client": "127.0.0.1:0", "version": "6.0.5" });
    Some(Rc::new(client))
}

pub fn tell(body: &mut RawDocumentBuf) {
    let _ = CLIENT.try_with(|(client, bypasses)| {
        if let Some(client) = client {
            body.append(cstr!("$client"), client.as_ref().clone());
        }
        if let Some(bypasses) = bypasses {
            body.append(cstr!("mayBypassWriteBlocking"), *bypasses);
        }
    });
}
