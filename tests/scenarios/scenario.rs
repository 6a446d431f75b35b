//! A scenario as its folder tells it, and what to do with its steps.

use super::notation::{Node, Scope, document, parse};
use bson::{Document, Timestamp};
use mongodb::{Client, ClientSession};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

/// When the steps of a scenario happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Before mongoferry starts.
    Copy,
    /// While it copies.
    During,
    /// While it tails.
    Tail,
}

/// The exact refusal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// Parts of the reason.
    pub says: Vec<String>,
    /// The exit code.
    pub exit: i32,
}

/// `scenario.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    shows: String,
    #[serde(default)]
    before: String,
    steps: String,
    placements: Option<Vec<Placement>>,
    #[serde(default)]
    pending: BTreeMap<Placement, String>,
    #[serde(default)]
    rename: BTreeMap<String, String>,
    halt: Option<Halt>,
    #[serde(default)]
    clusters: OnClusters,
}

/// What is different between sharded clusters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnClusters {
    /// Why its collections are not sharded there.
    unsharded: Option<String>,
    /// Why it is not played there at all.
    none: Option<String>,
}

/// One scenario. Everything it touches lies in databases called `{name}` or `{name}-…`.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    /// What it shows, in a sentence.
    pub shows: String,
    pub before: Vec<Node>,
    pub steps: Vec<Node>,
    placements: Vec<Placement>,
    /// What is known not to work yet, and why.
    pub pending: BTreeMap<Placement, String>,
    /// Namespaces with another name on the target.
    pub rename: BTreeMap<String, String>,
    /// Instead of parity.
    pub halt: Option<Halt>,
    /// Whether its collections are sharded where it is played on sharded clusters.
    pub sharded: bool,
    /// Why it is not played on sharded clusters.
    pub not_on_clusters: Option<String>,
}

impl Scenario {
    /// All of them, by name. Fails on a folder that is none.
    pub fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))).collect()
    }

    fn read(folder: &Path) -> Result<Self, String> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') || name.len() > 50 {
            return Err("a scenario's name is its database: at most 50 of a-z, 0-9 and _".into());
        }
        let text = fs::read_to_string(folder.join("scenario.toml")).map_err(|e| e.to_string())?;
        let written: Written = toml::from_str(&text).map_err(|e| e.to_string())?;
        let own = |text: String| text.replace("{db}", &name);
        Ok(Self {
            shows: written.shows,
            before: parse(&written.before).map_err(|why| format!("before: {why}"))?,
            steps: parse(&written.steps).map_err(|why| format!("steps: {why}"))?,
            placements: written.placements.unwrap_or_else(|| vec![Placement::Copy, Placement::During, Placement::Tail]),
            pending: written.pending,
            rename: written.rename.into_iter().map(|(from, to)| (own(from), own(to))).collect(),
            halt: written.halt,
            sharded: written.clusters.unsharded.is_none(),
            not_on_clusters: written.clusters.none,
            name,
        })
    }

    /// Whether it makes sense there.
    pub fn plays(&self, placement: Placement) -> bool {
        self.placements.contains(&placement)
    }

    /// Whether a database is this scenario's.
    pub fn owns(&self, database: &str) -> bool {
        database.strip_prefix(self.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

/// Takes the steps of one scenario.
pub struct Player<'a> {
    pub scenario: &'a Scenario,
    source: &'a Client,
    target: &'a Client,
    /// Transactions left open, by name, with the time at which they were prepared.
    open: HashMap<String, (ClientSession, Option<Timestamp>)>,
    /// Sessions whose transaction numbers the driver does not know: not to be used again.
    used: Vec<ClientSession>,
}

impl<'a> Player<'a> {
    pub fn new(scenario: &'a Scenario, source: &'a Client, target: &'a Client) -> Self {
        Self { scenario, source, target, open: HashMap::new(), used: Vec::new() }
    }

    /// What is there before.
    ///
    /// # Errors
    /// The step that went wrong, in words.
    pub async fn before(&mut self) -> Result<(), String> {
        self.take(&self.scenario.before, 0, &mut None).await.map_err(|why| format!("before: {why}"))
    }

    /// What happens.
    ///
    /// # Errors
    /// As [`Player::before`].
    pub async fn steps(&mut self) -> Result<(), String> {
        self.take(&self.scenario.steps, 0, &mut None).await.map_err(|why| format!("steps: {why}"))
    }

    async fn take(&mut self, steps: &[Node], n: i64, session: &mut Option<ClientSession>) -> Result<(), String> {
        for (at, step) in steps.iter().enumerate() {
            let taken = Box::pin(self.step(step, n, session)).await;
            taken.map_err(|why| format!("{}. {why}", at + 1))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Node, n: i64, session: &mut Option<ClientSession>) -> Result<(), String> {
        let Node::Fields(fields) = step else { return Err("a step is an object".into()) };
        let (verb, first) = fields.first().ok_or("an empty step")?;
        let scope = Scope { db: &self.scenario.name, n };
        let steps = || step.get("do").or(Some(first)).and_then(Node::list).ok_or_else(|| format!("`{verb}` wants a list of steps"));
        let name = || first.text(scope).ok_or_else(|| format!("`{verb}` wants a name"));
        match verb.as_str() {
            "$repeat" => {
                for n in 0..first.whole().ok_or("`$repeat` wants a number")? {
                    self.take(steps()?, n, session).await?;
                }
                Ok(())
            }
            "$session" => {
                let mut own = Some(self.session().await?);
                let taken = self.take(steps()?, n, &mut own).await;
                self.used.extend(own);
                taken
            }
            "$transaction" | "$aborted" => {
                let mut own = Some(self.session().await?);
                begin(own.as_mut()).await?;
                self.take(steps()?, n, &mut own).await?;
                let own = own.as_mut().ok_or("no session")?;
                let ended = if verb == "$transaction" { own.commit_transaction().await } else { own.abort_transaction().await };
                ended.map_err(|e| e.to_string())
            }
            "$begin" => {
                let mut own = Some(self.session().await?);
                begin(own.as_mut()).await?;
                self.take(steps()?, n, &mut own).await?;
                self.open.extend(own.map(|session| (name().unwrap_or_default(), (session, None))));
                Ok(())
            }
            "$prepare" => self.prepare(&name()?).await,
            "$commit" => self.commit(&name()?).await,
            _ => self.command(fields, scope, session.as_mut()).await,
        }
    }

    async fn session(&self) -> Result<ClientSession, String> {
        self.source.start_session().await.map_err(|e| e.to_string())
    }

    /// As a shard does in the first half of a two-phase commit.
    async fn prepare(&mut self, name: &str) -> Result<(), String> {
        let (session, prepared) = self.open.get_mut(name).ok_or("no such transaction")?;
        let command = bson::doc! {"prepareTransaction": 1, "writeConcern": {"w": "majority"}};
        let reply = self.source.database("admin").run_command(command).session(&mut *session).await.map_err(|e| e.to_string())?;
        *prepared = Some(reply.get_timestamp("prepareTimestamp").map_err(|e| e.to_string())?);
        Ok(())
    }

    async fn commit(&mut self, name: &str) -> Result<(), String> {
        let (mut session, prepared) = self.open.remove(name).ok_or("no such transaction")?;
        let Some(at) = prepared else { return session.commit_transaction().await.map_err(|e| e.to_string()) };
        let command = bson::doc! {"commitTransaction": 1, "commitTimestamp": at, "writeConcern": {"w": "majority"}};
        self.source.database("admin").run_command(command).session(&mut session).await.map(drop).map_err(|e| e.to_string())
    }

    async fn command(&self, fields: &[(String, Node)], scope: Scope<'_>, session: Option<&mut ClientSession>) -> Result<(), String> {
        let (ours, theirs): (Vec<_>, Vec<_>) =
            fields.iter().cloned().partition(|(name, _)| matches!(name.as_str(), "$db" | "$fails" | "$target"));
        let ours = Node::Fields(ours);
        let verb = theirs.first().map_or("", |(verb, _)| verb.as_str());
        let admin = if verb == "renameCollection" { "admin" } else { scope.db };
        let database = ours.get("$db").and_then(|db| db.text(scope)).unwrap_or_else(|| admin.to_owned());
        let client = if ours.get("$target") == Some(&Node::Bool(true)) { self.target } else { self.source };
        let command = document(&theirs, scope).map_err(|why| format!("{verb}: {why}"))?;
        let database = client.database(&database);
        let run = database.run_raw_command(command);
        let reply = match session {
            Some(session) => run.session(session).await,
            None => run.await,
        };
        let wanted = ours.get("$fails").and_then(Node::whole);
        match (failure(reply), wanted) {
            (None, None) => Ok(()),
            (Some((code, _)), Some(wanted)) if i64::from(code) == wanted => Ok(()),
            (Some((code, why)), _) => Err(format!("{verb} failed with {code}: {why}")),
            (None, Some(wanted)) => Err(format!("{verb} was to fail with {wanted} and did not")),
        }
    }
}

/// Code and message of a command that failed, or of its first statement that did.
pub fn failure(reply: mongodb::error::Result<Document>) -> Option<(i32, String)> {
    match reply {
        Ok(reply) => {
            let errors = reply.get_array("writeErrors").ok()?;
            let first = errors.first()?.as_document()?;
            Some((first.get_i32("code").unwrap_or_default(), first.get_str("errmsg").unwrap_or_default().to_owned()))
        }
        Err(error) => match error.kind.as_ref() {
            mongodb::error::ErrorKind::Command(refused) => Some((refused.code, refused.message.clone())),
            other => Some((0, other.to_string())),
        },
    }
}

async fn begin(session: Option<&mut ClientSession>) -> Result<(), String> {
    session.ok_or("no session")?.start_transaction().await.map_err(|e| e.to_string())
}
