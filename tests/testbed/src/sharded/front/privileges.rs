//! What a command needs to be allowed, as a `mongos` of 6.0 asks for it (read in its source, `src/mongo/s/commands`), and whether
//! a user's privileges hold it.

use mongodb::bson::{RawDocument, RawDocumentBuf};

use super::command::Command;
use super::failure::Failure;
use super::upstream::documents;
use super::wire;

/// What an action is on.
#[derive(Debug)]
enum On {
    Cluster,
    Database(String),
    Namespace(String, String),
    /// All ordinary collections of all databases.
    Everywhere,
}

/// All of these, or one of the others.
type Needs = Vec<(On, &'static str)>;

#[derive(Debug)]
pub struct Privileges(Vec<(RawDocumentBuf, Vec<String>)>);

impl Privileges {
    /// From the answer to `connectionStatus` with `showPrivileges`.
    pub fn told(reply: &RawDocument) -> Result<Privileges, Failure> {
        let held = documents(reply.get_document("authInfo")?.get_array("authenticatedUserPrivileges")?)?;
        let privilege = |held: &RawDocument| -> Result<_, Failure> {
            let actions = held.get_array("actions")?.into_iter().flatten().filter_map(|action| action.as_str().map(String::from));
            Ok((held.get_document("resource")?.to_owned(), actions.collect()))
        };
        Ok(Privileges(held.into_iter().map(privilege).collect::<Result<_, _>>()?))
    }

    /// What is missing for a command.
    pub fn lacking(&self, command: &Command) -> Result<Option<String>, Failure> {
        let mut ways = needs(command)?.into_iter();
        let first = ways.next().and_then(|needs| self.missing(&needs));
        Ok(if first.is_some() && ways.any(|needs| self.missing(&needs).is_none()) { None } else { first })
    }

    pub fn may_bypass_write_blocking(&self) -> bool {
        self.hold(&On::Cluster, "bypassWriteBlockingMode")
    }

    fn missing(&self, needs: &Needs) -> Option<String> {
        needs.iter().find(|(on, action)| !self.hold(on, action)).map(|(on, action)| format!("{action} on {on:?}"))
    }

    fn hold(&self, on: &On, action: &str) -> bool {
        self.0.iter().any(|(resource, actions)| actions.iter().any(|held| held == action) && covers(resource, on))
    }
}

/// The server's rules of `resource_pattern.h`.
fn covers(resource: &RawDocument, on: &On) -> bool {
    let flag = |name: &str| matches!(resource.get_bool(name), Ok(true));
    let text = |name: &str| resource.get_str(name).ok();
    let own = |db: &str| ["local", "config"].contains(&db);
    if flag("anyResource") {
        return true;
    }
    let (db, coll, buckets) = (text("db"), text("collection"), text("system_buckets"));
    match on {
        On::Cluster => flag("cluster"),
        On::Everywhere => db == Some("") && coll == Some(""),
        On::Database(of) => coll == Some("") && (db == Some(of) || db == Some("") && !own(of)),
        On::Namespace(of, name) => {
            let here = db.is_none_or(|db| db.is_empty() || db == of);
            match name.strip_prefix("system.buckets.") {
                Some(series) => here && buckets.is_some_and(|held| held.is_empty() || held == series),
                None if coll == Some("") => !name.starts_with("system.") && (db == Some(of) || db == Some("") && !own(of)),
                None => here && coll == Some(name),
            }
        }
    }
}

/// Ways to be allowed; nothing is needed by who goes on with a cursor that is their own.
fn needs(command: &Command) -> Result<Vec<Needs>, Failure> {
    let here = || Ok::<_, Failure>(On::Namespace(command.db.clone(), command.text()?.into()));
    let named = || command.full_name().map(|(db, coll)| On::Namespace(db.into(), coll.into()));
    let config = |coll: &str| On::Namespace("config".into(), coll.into());
    let bypassing = |mut needs: Needs| {
        if command.flag("bypassDocumentValidation") {
            needs.push((here()?, "bypassDocumentValidation"));
        }
        Ok::<_, Failure>(vec![needs])
    };
    let only = |on: On, action: &'static str| Ok(vec![vec![(on, action)]]);
    match command.name.as_str() {
        "getMore" | "killCursors" | "refreshSessions" | "startSession" | "commitTransaction" | "abortTransaction" => Ok(vec![vec![]]),
        "find" | "count" | "distinct" => only(here()?, "find"),
        "aggregate" => aggregate(command),
        "explain" => {
            let Some((name, coll)) = command.body.get_document("explain")?.iter().next().transpose()? else { return Ok(vec![vec![]]) };
            let action = match name.as_str() {
                "update" => "update",
                "delete" => "remove",
                _ => "find",
            };
            only(On::Namespace(command.db.clone(), coll.as_str().unwrap_or_default().into()), action)
        }
        "insert" => bypassing(vec![(here()?, "insert")]),
        "delete" => only(here()?, "remove"),
        "update" => {
            let upserts = statements(command, "updates")?.iter().any(|update| matches!(update.get_bool("upsert"), Ok(true)));
            let mut needs = vec![(here()?, "update")];
            needs.extend(upserts.then_some((here()?, "insert")));
            bypassing(needs)
        }
        "findAndModify" | "findandmodify" => {
            let change = if command.flag("remove") { "remove" } else { "update" };
            let mut needs = vec![(here()?, "find"), (here()?, change)];
            needs.extend(command.flag("upsert").then_some((here()?, "insert")));
            bypassing(needs)
        }
        "create" => Ok(vec![vec![(here()?, "createCollection")], vec![(here()?, "insert")]]),
        "drop" => only(here()?, "dropCollection"),
        "dropDatabase" => only(On::Database(command.db.clone()), "dropDatabase"),
        "renameCollection" => rename(command),
        "collMod" => only(here()?, "collMod"),
        "convertToCapped" => only(here()?, "convertToCapped"),
        "createIndexes" => only(here()?, "createIndex"),
        "dropIndexes" | "deleteIndexes" => only(here()?, "dropIndex"),
        "listCollections" => only(On::Database(command.db.clone()), "listCollections"),
        "listIndexes" => only(here()?, "listIndexes"),
        "listDatabases" => only(On::Cluster, "listDatabases"),
        "collStats" => only(here()?, "collStats"),
        "dbStats" => only(On::Database(command.db.clone()), "dbStats"),
        "enableSharding" => only(On::Database(command.text()?.into()), "enableSharding"),
        "shardCollection" => only(named()?, "enableSharding"),
        "split" | "mergeChunks" => only(named()?, "splitChunk"),
        "moveChunk" | "moveRange" => only(named()?, "moveChunk"),
        "movePrimary" => only(On::Database(command.text()?.into()), "moveChunk"),
        "refineCollectionShardKey" => only(named()?, "refineCollectionShardKey"),
        "reshardCollection" => only(named()?, "reshardCollection"),
        "addShardToZone" | "removeShardFromZone" => Ok(vec![vec![(config("shards"), "update")], vec![(On::Cluster, "enableSharding")]]),
        "updateZoneKeyRange" => {
            let actions = ["find", "update", "remove"].map(|action| (config("tags"), action));
            Ok(vec![[(config("shards"), "find")].into_iter().chain(actions).collect(), vec![(On::Cluster, "enableSharding")]])
        }
        "balancerStatus" => only(config("settings"), "find"),
        "balancerStart" | "balancerStop" => only(config("settings"), "update"),
        "listShards" => only(On::Cluster, "listShards"),
        "addShard" => only(On::Cluster, "addShard"),
        "removeShard" => only(On::Cluster, "removeShard"),
        "setUserWriteBlockMode" => only(On::Cluster, "setUserWriteBlockMode"),
        "setFeatureCompatibilityVersion" => only(On::Cluster, "setFeatureCompatibilityVersion"),
        "appendOplogNote" => only(On::Cluster, "appendOplogNote"),
        "serverStatus" => only(On::Cluster, "serverStatus"),
        "flushRouterConfig" => only(On::Cluster, "flushRouterConfig"),
        // Of a shard's operation: nobody's own (read in `kill_op_cmd_base.cpp`).
        "killOp" => only(On::Cluster, "killop"),
        "hostInfo" => only(On::Cluster, "hostInfo"),
        "getParameter" => only(On::Cluster, "getParameter"),
        "getCmdLineOpts" => only(On::Cluster, "getCmdLineOpts"),
        "getLog" => only(On::Cluster, "getLog"),
        // Unknown here, and to be added before it is used.
        _ => only(On::Cluster, "anyAction"),
    }
}

/// By its first stage, and by those that need more.
fn aggregate(command: &Command) -> Result<Vec<Needs>, Failure> {
    let stages = documents(command.body.get_array("pipeline")?)?;
    let here = || command.text().map_or(On::Database(command.db.clone()), |coll| On::Namespace(command.db.clone(), coll.into()));
    let mut needs = Needs::new();
    for (n, stage) in stages.into_iter().enumerate() {
        let Some(Ok((name, value))) = stage.iter().next() else { continue };
        let of_all = |option: &str| value.as_document().is_some_and(|options| matches!(options.get_bool(option), Ok(true)));
        match name.as_str() {
            "$changeStream" => {
                let all = || if of_all("allChangesForCluster") { On::Everywhere } else { here() };
                needs.extend([(all(), "changeStream"), (all(), "find")]);
            }
            // Also for operations of one's own: those on shards are the router's there.
            "$currentOp" => needs.push((On::Cluster, "inprog")),
            "$indexStats" => needs.push((here(), "indexStats")),
            "$collStats" => needs.push((here(), "collStats")),
            "$documents" => {}
            _ if n == 0 => needs.push((here(), "find")),
            _ => {}
        }
    }
    if needs.is_empty() && command.text().is_ok() && command.body.get_array("pipeline")?.is_empty() {
        needs.push((here(), "find"));
    }
    Ok(vec![needs])
}

/// `renameCollectionSameDB`, or what a copy and a drop would need.
fn rename(command: &Command) -> Result<Vec<Needs>, Failure> {
    let (from, to) = (command.full_name()?, command.body.get_str("to")?);
    let to = to.split_once('.').unwrap_or((to, ""));
    let on = |(db, coll): (&str, &str)| On::Namespace(db.into(), coll.into());
    let mut onto = vec![(on(to), "insert"), (on(to), "createIndex")];
    onto.extend(command.flag("dropTarget").then(|| (on(to), "dropCollection")));
    let long = [(on(from), "find"), (on(from), "dropCollection")].into_iter().chain(onto).collect();
    let mut ways = vec![long];
    if from.0 == to.0 {
        let mut short = vec![(on(from), "renameCollectionSameDB"), (on(to), "renameCollectionSameDB")];
        short.extend(command.flag("dropTarget").then(|| (on(to), "dropCollection")));
        ways.insert(0, short);
    }
    Ok(ways)
}

/// The statements of a write, in the body or beside it.
fn statements(command: &Command, name: &str) -> Result<Vec<RawDocumentBuf>, Failure> {
    if let Ok(array) = command.body.get_array(name) {
        return Ok(documents(array)?.into_iter().map(ToOwned::to_owned).collect());
    }
    let beside = command.sequences.iter().filter(|sequence| sequence.identifier == name);
    let read = beside.flat_map(|sequence| wire::documents(&sequence.documents)).map(|found| found.map(ToOwned::to_owned));
    read.collect::<std::io::Result<_>>().map_err(|_| Failure::unreachable("a sequence that cannot be read"))
}
