//! Commands on servers, and hindrances there.

use bson::{Document, doc};
use mongodb::Client;
use std::{collections::BTreeMap, time::Duration};

/// A digest of every database by the server itself, but for those that it writes to by itself: what must not change
/// when nothing may be written.
pub async fn contents(client: &Client) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in client.list_database_names().await.unwrap() {
        if !matches!(name.as_str(), "local" | "config") {
            let digest = run(client, &name, doc! {"dbHash": 1}).await.get_document("collections").unwrap().to_string();
            found.insert(name, digest);
        }
    }
    found
}

/// Runs a command; a reply with errors of single statements is a failure, too.
pub async fn run(client: &Client, database: &str, command: Document) -> Document {
    let name = command.keys().next().cloned().unwrap_or_default();
    match client.database(database).run_command(command).await {
        Ok(reply) if !reply.contains_key("writeErrors") => reply,
        other => panic!("{name} on `{database}`: {other:?}"),
    }
}

/// A hindrance on a server, as a command for its `admin`: commands of mongoferry are answered late. Needs
/// `enableTestCommands`, as the test bed's servers have.
pub fn slowness(commands: &[&str], by: Duration) -> Document {
    let data = doc! {
        "failCommands": commands.to_vec(), "blockConnection": true, "blockTimeMS": i64::try_from(by.as_millis()).unwrap(),
        "appName": "mongoferry",
    };
    doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data}
}

/// What takes it back.
pub fn no_slowness() -> Document {
    doc! {"configureFailPoint": "failCommand", "mode": "off"}
}

/// Slows the primary down.
pub async fn slow_down(client: &Client, commands: &[&str], by: Duration) {
    run(client, "admin", slowness(commands, by)).await;
}

/// Lets commands of mongoferry fail on the primary.
pub async fn fail(client: &Client, commands: &[&str], code: i32) {
    let data = doc! {"failCommands": commands.to_vec(), "errorCode": code, "appName": "mongoferry"};
    run(client, "admin", doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data}).await;
}

/// Takes [`slow_down`] and [`fail`] back.
pub async fn speed_up(client: &Client) {
    run(client, "admin", no_slowness()).await;
}
