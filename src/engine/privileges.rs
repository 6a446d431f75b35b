//! What the users must be allowed to do, and the command that allows it.
//!
//! Asked from `connectionStatus`, which tells everybody their own privileges. The roles that hold each action
//! were read off 6.0.5 (`rolesInfo` with `showPrivileges`).

use crate::{error::Result, model::Side, mongo::Cluster};
use bson::{Bson, Document, doc};
use std::collections::BTreeSet;

/// An action we need, and the built-in role by which it is granted.
struct Need {
    action: &'static str,
    /// Whether it is of the cluster rather than of databases.
    cluster: bool,
    role: &'static str,
}

const fn need(action: &'static str, cluster: bool, role: &'static str) -> Need {
    Need { action, cluster, role }
}

const SOURCE: [Need; 7] = [
    need("find", false, "readAnyDatabase"),
    need("changeStream", false, "readAnyDatabase"),
    need("listCollections", false, "readAnyDatabase"),
    need("listDatabases", true, "readAnyDatabase"),
    need("replSetGetConfig", true, "clusterMonitor"),
    need("serverStatus", true, "clusterMonitor"),
    need("appendOplogNote", true, "backup"),
];

const TARGET: [Need; 9] = [
    need("find", false, "readWriteAnyDatabase"),
    need("insert", false, "readWriteAnyDatabase"),
    need("update", false, "readWriteAnyDatabase"),
    need("remove", false, "readWriteAnyDatabase"),
    need("createIndex", false, "readWriteAnyDatabase"),
    need("listDatabases", true, "readWriteAnyDatabase"),
    need("collMod", false, "dbAdminAnyDatabase"),
    need("bypassDocumentValidation", false, "dbAdminAnyDatabase"),
    need("replSetGetConfig", true, "clusterMonitor"),
];

/// What is missing: the actions, and the command that grants them. `None` where nothing is, or where the
/// cluster runs without access control.
pub(super) async fn missing(cluster: &Cluster) -> Result<Option<(Vec<&'static str>, String)>> {
    let status = cluster.run("admin", "asking for our privileges", &doc! {"connectionStatus": 1, "showPrivileges": true}).await?;
    let Ok(auth) = status.get_document("authInfo") else { return Ok(None) };
    let Some(user) = auth.get_array("authenticatedUsers").ok().and_then(|users| users.first()).and_then(Bson::as_document) else {
        return Ok(None);
    };
    let held = auth.get_array("authenticatedUserPrivileges").map(Vec::as_slice).unwrap_or_default();
    let held: Vec<&Document> = held.iter().filter_map(Bson::as_document).collect();
    let needs: &[Need] = match cluster.side() {
        Side::Source => &SOURCE,
        Side::Target => &TARGET,
    };
    let lacking: Vec<&Need> = needs.iter().filter(|need| !held.iter().any(|p| grants(p, need))).collect();
    if lacking.is_empty() {
        return Ok(None);
    }
    let roles: BTreeSet<&str> = lacking.iter().map(|need| need.role).collect();
    let roles: Vec<String> = roles.into_iter().map(|role| format!("\"{role}\"")).collect();
    let (name, db) = (user.get_str("user").unwrap_or("USER"), user.get_str("db").unwrap_or("admin"));
    let command =
        format!("db.getSiblingDB(\"{db}\").grantRolesToUser(\"{name}\", [{}].map(role => ({{role, db: \"admin\"}})))", roles.join(", "));
    Ok(Some((lacking.iter().map(|need| need.action).collect(), command)))
}

fn grants(privilege: &Document, need: &Need) -> bool {
    let Ok(resource) = privilege.get_document("resource") else { return false };
    let everything = resource.get_bool("anyResource").unwrap_or(false);
    let all_databases = resource.get_str("db").is_ok_and(str::is_empty) && resource.get_str("collection").is_ok_and(str::is_empty);
    let covered = if need.cluster { resource.get_bool("cluster").unwrap_or(false) } else { all_databases };
    (everything || covered) && privilege.get_array("actions").is_ok_and(|actions| actions.iter().any(|a| a.as_str() == Some(need.action)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_action_must_hold_for_all_databases() {
        let need = need("find", false, "readAnyDatabase");
        assert!(grants(&doc! {"resource": {"db": "", "collection": ""}, "actions": ["find"]}, &need));
        assert!(grants(&doc! {"resource": {"anyResource": true}, "actions": ["find"]}, &need));
        assert!(!grants(&doc! {"resource": {"db": "shop", "collection": ""}, "actions": ["find"]}, &need));
        assert!(!grants(&doc! {"resource": {"cluster": true}, "actions": ["find"]}, &need));
    }
}
