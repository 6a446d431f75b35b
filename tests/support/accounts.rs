//! Users of an application whose data and accounts lie in `shop`.

use super::DEADLINE;
use bson::{Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Client;
use std::time::Duration;
use testbed::{connect, end};
use tokio::time::{Instant, sleep};

/// What one may do there: whether the password is accepted, and whether orders may be read and written.
pub type Access = (bool, bool, bool);

/// `uri` names the user, as one of `admin`.
pub async fn access(uri: &str) -> Access {
    let client = connect(&uri.replace("authSource=admin", "authSource=shop")).await.unwrap();
    let shop = client.database("shop");
    let orders = shop.collection::<Document>("orders");
    // Answered to whoever is there, but not before the password is looked at.
    let logged_in = shop.run_command(doc! {"connectionStatus": 1}).await.is_ok();
    let read = logged_in && orders.find_one(doc! {}).await.is_ok();
    let write = read && orders.update_one(doc! {"_id": "nobody"}, doc! {"$set": {"a": 1}}).await.is_ok();
    end(client).await;
    (logged_in, read, write)
}

/// Waits until it is so.
pub async fn wait_for_access(uri: &str, wanted: Access) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let now = access(uri).await;
        if now == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{uri} was to have {wanted:?} and has {now:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Users and roles of the application, as they are stored.
pub async fn stored(on: &Client) -> Vec<RawDocumentBuf> {
    let mut all = Vec::new();
    for name in ["system.users", "system.roles"] {
        let of = on.database("admin").collection::<RawDocumentBuf>(name);
        let found = of.find(doc! {"db": "shop"}).sort(doc! {"_id": 1}).await.unwrap();
        all.extend(found.try_collect::<Vec<_>>().await.unwrap());
    }
    all
}
