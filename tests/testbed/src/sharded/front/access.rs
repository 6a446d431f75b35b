//! Who a client is, and whether it may do what it asks for.
//!
//! The config server decides the former: the conversation of a login goes there, over a connection of the client's own, and so
//! does what is about users and roles. The latter is decided [here](super::privileges), by the privileges that the config server
//! tells of the user.

use std::time::Duration;

use mongodb::bson::{RawDocumentBuf, rawdoc};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::command::{Command, append_majority};
use super::failure::{Answer, Code, Failure, is_ok};
use super::privileges::Privileges;
use super::upstream::{Connection, exchange};
use super::wire;

/// How long a grant or a revocation may go unnoticed. With a `mongos` it is 30 s.
const MEMORY: Duration = Duration::from_millis(500);

/// What is answered to anybody.
const FOR_ALL: [&str; 10] =
    ["hello", "isMaster", "ismaster", "ping", "buildInfo", "buildinfo", "isdbgrid", "endSessions", "whatsmyuri", "logout"];

/// Whether a command is about users and roles, which the config server keeps.
pub fn is_about_accounts(name: &str) -> bool {
    name != "setUserWriteBlockMode" && ["User", "Role", "usersInfo", "rolesInfo"].iter().any(|word| name.contains(word))
}

/// As a `mongos` sends it to the config server: what changes users and roles is acknowledged once a majority has it.
pub fn sent_on(command: &Command) -> Result<RawDocumentBuf, Failure> {
    let mut body = command.plain()?;
    let changes = is_about_accounts(&command.name) && !command.name.ends_with("Info");
    if changes && body.get("writeConcern")?.is_none() {
        append_majority(&mut body);
    }
    Ok(body)
}

/// The login of one client.
#[derive(Default)]
pub struct Login {
    on_config_server: Option<Connection>,
    known: Option<(Privileges, Instant)>,
}

impl Login {
    /// Nothing where the command may be run, else the answer.
    pub async fn admit(&mut self, cluster: &Cluster, command: &Command) -> Result<Option<RawDocumentBuf>, Failure> {
        let name = command.name.as_str();
        if cluster.key.is_none() || FOR_ALL.contains(&name) {
            return Ok(None);
        }
        if ["saslStart", "saslContinue"].contains(&name) {
            self.known = None;
            return self.asked(cluster, command).await.map(Some);
        }
        let refused = |why: String| Err(Failure::new(Code::Unauthorized, why));
        if self.on_config_server.is_none() {
            return refused(format!("command {name} requires authentication"));
        }
        if name == "connectionStatus" || is_about_accounts(name) {
            self.known = None;
            return self.asked(cluster, command).await.map(Some);
        }
        if self.known.as_ref().is_none_or(|(_, at)| at.elapsed() > MEMORY) {
            let status = rawdoc! { "connectionStatus": 1, "showPrivileges": true, "$db": "admin" };
            self.known = Some((Privileges::told(&self.sent(cluster, &status).await?)?, Instant::now()));
        }
        let privileges = &self.known.as_ref().expect("just asked for").0;
        match privileges.lacking(command)? {
            None => Ok(None),
            Some(what) => refused(format!("not authorized on {} to execute command {name}: {what}", command.db)),
        }
    }

    /// As the servers are to be told; nothing without access control.
    pub fn may_bypass_write_blocking(&self) -> Option<bool> {
        self.known.as_ref().map(|(privileges, _)| privileges.may_bypass_write_blocking())
    }

    async fn asked(&mut self, cluster: &Cluster, command: &Command) -> Answer {
        self.sent(cluster, &sent_on(command)?).await
    }

    async fn sent(&mut self, cluster: &Cluster, body: &RawDocumentBuf) -> Answer {
        if self.on_config_server.is_none() {
            self.on_config_server = Some(cluster.config.for_a_login().await?);
        }
        let connection = self.on_config_server.as_mut().expect("just made");
        let Ok(reply) = exchange(connection, &wire::encode(1, 0, body, &[])).await else {
            (self.on_config_server, self.known) = (None, None);
            return Err(Failure::unreachable("the config server has gone"));
        };
        if is_ok(&reply) { Ok(reply) } else { Err(Failure::Server(reply)) }
    }
}
