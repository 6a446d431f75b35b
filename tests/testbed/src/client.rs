//! Making clients, and ending them.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::Document;
use mongodb::options::ClientOptions;

use crate::Result;

/// How long a client may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// A client whose pool is large enough for a test's tasks, and which opens connections without queueing for them. To
/// be used in one runtime only, and to be given to [`end`].
pub async fn connect(uri: &str) -> Result<Client> {
    let mut options = ClientOptions::parse(uri).await?;
    options.app_name.get_or_insert_with(|| "testbed".into());
    options.max_pool_size = Some(options.max_pool_size.unwrap_or(64));
    options.max_connecting = Some(8);
    Ok(Client::with_options(options)?)
}

/// Ends a client before its runtime does, or else the driver's last tasks may panic.
///
/// With a limit: the driver (3.9.1) was seen to wait for ever here. The server's state changed in the same instant, and
/// the task that watches the server seems to have told it to a task that had just gone. What then stays behind is one
/// idle connection.
pub async fn end(client: Client) {
    let _ = tokio::time::timeout(END_TIMEOUT, async { client.shutdown().immediate(true).await }).await;
}

/// One command on the database `admin` by a client of its own.
pub(crate) async fn run(uri: &str, command: Document) -> Result<Document> {
    run_within(Duration::from_secs(5), uri, command).await
}

/// Gives up when the server cannot be reached for `patience`.
pub(crate) async fn run_within(patience: Duration, uri: &str, command: Document) -> Result<Document> {
    let mut options = ClientOptions::parse(uri).await?;
    options.connect_timeout = Some(patience);
    options.server_selection_timeout = Some(patience);
    let client = Client::with_options(options)?;
    let reply = client.database("admin").run_command(command).await;
    end(client).await;
    Ok(reply?)
}
