//! What the users must be allowed to do, and the command that allows it.
//!
//! Asked from `connectionStatus`, which tells everybody their own privileges. The roles that hold each action
//! were read off 6.0.5 (`rolesInfo` with `showPrivileges`).

use crate::{
    error::{Error, Result},
    model::{CollectionInfo, Namespace, Side},
    mongo::{Cluster, Topology},
};
use bson::{Bson, Document, doc};
use std::collections::BTreeSet;

/// What an action is allowed on. Each is a resource of its own: who may read all databases, may not read these two by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Cluster,
    Databases,
    /// `system.buckets.*` of all databases.
    Buckets,
    /// `system.js` of all databases.
    Functions,
    /// `admin.system.users`.
    Users,
    /// `admin.system.roles`.
    Roles,
    /// The database `config` of a sharded cluster.
    Config,
}

/// An action we need, and the built-in role by which it is granted.
struct Need {
    action: &'static str,
    on: On,
    role: &'static str,
}

const fn need(action: &'static str, on: On, role: &'static str) -> Need {
    Need { action, on, role }
}

const SOURCE: [Need; 6] = [
    need("find", On::Databases, "readAnyDatabase"),
    need("changeStream", On::Databases, "readAnyDatabase"),
    need("listCollections", On::Databases, "readAnyDatabase"),
    need("listIndexes", On::Databases, "readAnyDatabase"),
    need("collStats", On::Databases, "readAnyDatabase"),
    need("listDatabases", On::Cluster, "readAnyDatabase"),
];

/// For a source that is a replica set, besides.
const SOURCE_SET: [Need; 3] =
    [need("replSetGetConfig", On::Cluster, "clusterMonitor"), need("serverStatus", On::Cluster, "clusterMonitor"), NOTES];

/// For a source that is sharded, besides: it is told apart, and its chunks, shards and write block are seen, in its `config`, and
/// its shards' indexes are compared. The role has both so (RAN on 6.0.5).
const SOURCE_SHARDED: [Need; 2] = [need("find", On::Config, "clusterMonitor"), need("indexStats", On::Databases, "clusterMonitor")];

/// A sharded source can do without: the servers themselves write into their oplogs every ten seconds.
const NOTES: Need = need("appendOplogNote", On::Cluster, "backup");

const TARGET: [Need; 15] = [
    need("find", On::Databases, "readWriteAnyDatabase"),
    need("insert", On::Databases, "readWriteAnyDatabase"),
    need("update", On::Databases, "readWriteAnyDatabase"),
    need("remove", On::Databases, "readWriteAnyDatabase"),
    need("createCollection", On::Databases, "readWriteAnyDatabase"),
    need("dropCollection", On::Databases, "readWriteAnyDatabase"),
    need("renameCollectionSameDB", On::Databases, "readWriteAnyDatabase"),
    need("createIndex", On::Databases, "readWriteAnyDatabase"),
    need("dropIndex", On::Databases, "readWriteAnyDatabase"),
    need("listCollections", On::Databases, "readWriteAnyDatabase"),
    need("listIndexes", On::Databases, "readWriteAnyDatabase"),
    need("listDatabases", On::Cluster, "readWriteAnyDatabase"),
    need("dropDatabase", On::Databases, "dbAdminAnyDatabase"),
    need("collMod", On::Databases, "dbAdminAnyDatabase"),
    need("bypassDocumentValidation", On::Databases, "dbAdminAnyDatabase"),
];

/// For a target that is a replica set, besides.
const TARGET_SET: [Need; 1] = [need("replSetGetConfig", On::Cluster, "clusterMonitor")];

/// For a sharded target, besides. What each command of a router asks for was read in the source of `mongos` 6.0: `enableSharding` and
/// `shardCollection` the first, `split` and `moveChunk` one each. To end what a former process left running takes `killop`; without, it is waited for.
const TARGET_SHARDED: [Need; 5] = [
    need("enableSharding", On::Databases, "clusterManager"),
    need("splitChunk", On::Databases, "clusterManager"),
    need("moveChunk", On::Databases, "clusterManager"),
    need("find", On::Config, "clusterMonitor"),
    // `$currentOp`, also of our own: on the shards they are the router's.
    need("inprog", On::Cluster, "clusterMonitor"),
];

/// Of a sharded target that is to get zones: `addShardToZone` asks for the first, `updateZoneKeyRange` for both.
const TARGET_ZONES: [Need; 2] = [need("update", On::Config, "clusterManager"), need("remove", On::Config, "clusterManager")];

/// In `backup`, `restore` and `root` (RAN on 6.0.5).
const FENCE: Need = need("setUserWriteBlockMode", On::Cluster, "backup");
/// Of a sharded source: to let transactions go first, see [`Source::block_writes`](crate::source::Source::block_writes).
const FENCE_SHARDED: [Need; 3] = [FENCE, need("inprog", On::Cluster, "clusterMonitor"), need("killop", On::Cluster, "hostManager")];
/// In `restore` and `root` (RAN on 6.0.5).
const BYPASS: Need = need("bypassWriteBlockingMode", On::Cluster, "restore");

/// For time series and for `system.js`, where such are selected. The built-in roles have them with the others (RAN on 6.0.5 and 6.0.27).
const SOURCE_SYSTEM: [Need; 4] = [
    need("find", On::Buckets, "readAnyDatabase"),
    need("listIndexes", On::Buckets, "readAnyDatabase"),
    need("find", On::Functions, "readAnyDatabase"),
    need("listIndexes", On::Functions, "readAnyDatabase"),
];

const TARGET_SYSTEM: [Need; 12] = [
    need("find", On::Buckets, "readWriteAnyDatabase"),
    need("insert", On::Buckets, "readWriteAnyDatabase"),
    need("update", On::Buckets, "readWriteAnyDatabase"),
    need("remove", On::Buckets, "readWriteAnyDatabase"),
    need("createIndex", On::Buckets, "readWriteAnyDatabase"),
    need("collMod", On::Buckets, "dbAdminAnyDatabase"),
    need("bypassDocumentValidation", On::Buckets, "dbAdminAnyDatabase"),
    need("find", On::Functions, "readWriteAnyDatabase"),
    need("insert", On::Functions, "readWriteAnyDatabase"),
    need("update", On::Functions, "readWriteAnyDatabase"),
    need("remove", On::Functions, "readWriteAnyDatabase"),
    // A `system.js` is dropped by another name.
    need("renameCollectionSameDB", On::Functions, "readWriteAnyDatabase"),
];

/// For users and roles, where they are replicated (roles RAN on 6.0.5 and 6.0.27).
const SOURCE_ACCOUNTS: [Need; 2] = [need("find", On::Users, "backup"), need("find", On::Roles, "backup")];

const TARGET_ACCOUNTS: [Need; 9] = [
    need("find", On::Roles, "backup"),
    need("find", On::Users, "restore"),
    need("update", On::Users, "restore"),
    need("insert", On::Users, "restore"),
    need("remove", On::Users, "restore"),
    need("createRole", On::Databases, "restore"),
    need("dropRole", On::Databases, "restore"),
    need("grantRole", On::Databases, "restore"),
    need("revokeRole", On::Databases, "restore"),
];

/// What is missing for every migration. `None` where nothing is, or where the cluster runs without access control.
pub(super) async fn missing(cluster: &Cluster, topology: Topology) -> Result<Option<Missing>> {
    let (any, besides): (&[Need], &[Need]) = match (cluster.side(), topology) {
        (Side::Source, Topology::Sharded) => (&SOURCE, &SOURCE_SHARDED),
        (Side::Source, Topology::ReplicaSet | Topology::Standalone) => (&SOURCE, &SOURCE_SET),
        (Side::Target, Topology::Sharded) => (&TARGET, &TARGET_SHARDED),
        (Side::Target, Topology::ReplicaSet | Topology::Standalone) => (&TARGET, &TARGET_SET),
    };
    let needs = any.iter().chain(besides).collect();
    lacking(cluster, needs).await
}

/// What is missing besides, for these: time series and functions are resources of their own.
pub(super) async fn missing_for(cluster: &Cluster, selected: &[CollectionInfo]) -> Result<Option<Missing>> {
    let needs: &[Need] = match cluster.side() {
        Side::Source => &SOURCE_SYSTEM,
        Side::Target => &TARGET_SYSTEM,
    };
    let any = |of: fn(&Namespace) -> bool| selected.iter().any(|c| of(&c.ns));
    let (buckets, functions) = (any(Namespace::is_buckets), any(Namespace::is_functions));
    let wanted = |on: On| (on == On::Buckets && buckets) || (on == On::Functions && functions);
    let needs: Vec<&Need> = needs.iter().filter(|need| wanted(need.on)).collect();
    if needs.is_empty() { Ok(None) } else { lacking(cluster, needs).await }
}

/// What is missing besides, for users and roles.
pub(super) async fn missing_for_accounts(cluster: &Cluster) -> Result<Option<Missing>> {
    let needs: &[Need] = match cluster.side() {
        Side::Source => &SOURCE_ACCOUNTS,
        Side::Target => &TARGET_ACCOUNTS,
    };
    lacking(cluster, needs.iter().collect()).await
}

/// What is missing to block writes of users on the source.
pub(super) async fn missing_for_fence(source: &Cluster) -> Result<Option<Missing>> {
    let needs: &[Need] = if source.topology().await? == Topology::Sharded { &FENCE_SHARDED } else { &[FENCE] };
    lacking(source, needs.iter().collect()).await
}

/// What is missing to write to a cluster that keeps users from writing: a role that `check` does not ask for.
pub(super) async fn missing_for_bypass(target: &Cluster) -> Result<Option<Missing>> {
    lacking(target, vec![&BYPASS]).await
}

/// What is missing to give a sharded target the zones of the source.
pub(super) async fn missing_for_zones(target: &Cluster) -> Result<Option<Missing>> {
    lacking(target, TARGET_ZONES.iter().collect()).await
}

/// What is missing to move the clocks of quiet shards.
pub(super) async fn missing_for_notes(source: &Cluster) -> Result<Option<Missing>> {
    lacking(source, vec![&NOTES]).await
}

/// Whether the cluster knows us as a user. Without access control nobody is one.
pub(super) async fn is_user(cluster: &Cluster) -> Result<bool> {
    let status = cluster.run("admin", "asking who we are", &doc! {"connectionStatus": 1}).await?;
    Ok(status.get_document("authInfo").and_then(|a| a.get_array("authenticatedUsers")).is_ok_and(|users| !users.is_empty()))
}

/// The actions that are missing, and the command that grants them.
pub(super) type Missing = (Vec<String>, String);

/// What a user may not do, with the command that grants it.
pub(super) fn not_allowed(side: Side, (actions, command): Missing) -> Error {
    Error::UnfitCluster {
        side,
        problem: format!("does not allow its user: {}", actions.join(", ")),
        hint: format!("grant it in mongosh: {command}"),
    }
}

async fn lacking(cluster: &Cluster, needs: Vec<&Need>) -> Result<Option<Missing>> {
    let status = cluster.run("admin", "asking for our privileges", &doc! {"connectionStatus": 1, "showPrivileges": true}).await?;
    let Ok(auth) = status.get_document("authInfo") else { return Ok(None) };
    let Some(user) = auth.get_array("authenticatedUsers").ok().and_then(|users| users.first()).and_then(Bson::as_document) else {
        return Ok(None);
    };
    let held = auth.get_array("authenticatedUserPrivileges").map(Vec::as_slice).unwrap_or_default();
    let held: Vec<&Document> = held.iter().filter_map(Bson::as_document).collect();
    let lacking: Vec<&Need> = needs.into_iter().filter(|need| !held.iter().any(|p| grants(p, need))).collect();
    if lacking.is_empty() {
        return Ok(None);
    }
    let roles: BTreeSet<&str> = lacking.iter().map(|need| need.role).collect();
    let roles: Vec<String> = roles.into_iter().map(|role| format!("\"{role}\"")).collect();
    let (name, db) = (user.get_str("user").unwrap_or("USER"), user.get_str("db").unwrap_or("admin"));
    let command =
        format!("db.getSiblingDB(\"{db}\").grantRolesToUser(\"{name}\", [{}].map(role => ({{role, db: \"admin\"}})))", roles.join(", "));
    Ok(Some((lacking.iter().map(|need| need.told()).collect(), command)))
}

impl Need {
    fn told(&self) -> String {
        match self.on {
            On::Cluster | On::Databases => self.action.to_owned(),
            On::Buckets => format!("{} on system.buckets.*", self.action),
            On::Functions => format!("{} on system.js", self.action),
            On::Users => format!("{} on admin.system.users", self.action),
            On::Roles => format!("{} on admin.system.roles", self.action),
            On::Config => format!("{} on config", self.action),
        }
    }
}

fn grants(privilege: &Document, need: &Need) -> bool {
    let Ok(resource) = privilege.get_document("resource") else { return false };
    let everything = resource.get_bool("anyResource").unwrap_or(false);
    let is = |field: &str, value: &str| resource.get_str(field).is_ok_and(|v| v == value);
    let covered = match need.on {
        On::Cluster => resource.get_bool("cluster").unwrap_or(false),
        On::Databases => is("db", "") && is("collection", ""),
        // Without a database it means all of them; the built-in roles have it so.
        On::Buckets => is("system_buckets", "") && resource.get_str("db").is_ok_and(str::is_empty) == resource.contains_key("db"),
        On::Functions => is("db", "") && is("collection", "system.js"),
        On::Users => (is("db", "") || is("db", "admin")) && is("collection", "system.users"),
        On::Roles => (is("db", "") || is("db", "admin")) && is("collection", "system.roles"),
        On::Config => is("db", "config") && is("collection", ""),
    };
    (everything || covered) && privilege.get_array("actions").is_ok_and(|actions| actions.iter().any(|a| a.as_str() == Some(need.action)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_action_must_hold_for_all_databases() {
        let need = need("find", On::Databases, "readAnyDatabase");
        assert!(grants(&doc! {"resource": {"db": "", "collection": ""}, "actions": ["find"]}, &need));
        assert!(grants(&doc! {"resource": {"anyResource": true}, "actions": ["find"]}, &need));
        assert!(!grants(&doc! {"resource": {"db": "shop", "collection": ""}, "actions": ["find"]}, &need));
        assert!(!grants(&doc! {"resource": {"cluster": true}, "actions": ["find"]}, &need));
    }

    #[test]
    fn the_servers_own_database_is_a_resource_of_its_own() {
        let need = need("find", On::Config, "clusterMonitor");
        assert!(!grants(&doc! {"resource": {"db": "", "collection": ""}, "actions": ["find"]}, &need));
        assert!(grants(&doc! {"resource": {"db": "config", "collection": ""}, "actions": ["find"]}, &need));
    }

    #[test]
    fn buckets_and_functions_are_resources_of_their_own() {
        let (buckets, functions) = (need("find", On::Buckets, "readAnyDatabase"), need("find", On::Functions, "readAnyDatabase"));
        let all = doc! {"resource": {"db": "", "collection": ""}, "actions": ["find"]};
        assert!(!grants(&all, &buckets) && !grants(&all, &functions));
        assert!(grants(&doc! {"resource": {"system_buckets": ""}, "actions": ["find"]}, &buckets));
        assert!(grants(&doc! {"resource": {"db": "", "system_buckets": ""}, "actions": ["find"]}, &buckets));
        assert!(!grants(&doc! {"resource": {"db": "shop", "system_buckets": ""}, "actions": ["find"]}, &buckets));
        assert!(grants(&doc! {"resource": {"db": "", "collection": "system.js"}, "actions": ["find"]}, &functions));
        assert!(grants(&doc! {"resource": {"anyResource": true}, "actions": ["find"]}, &functions));
    }
}
