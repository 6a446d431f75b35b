//! Users and custom roles: `admin.system.users` and `admin.system.roles`, kept as the source has them.
//!
//! No change stream shows them, so both sides are read and compared: every few seconds while the migration runs, and
//! inside the cutover once more. Those of the source win, with three exceptions, which `plan` decides:
//! - The users that mongoferry itself logs in as, on either side, are left alone.
//! - What is on the target only stays, unless we have made it: what we make is noted in the metadata first (`claims`).
//! - What is on both sides with other content, and not made by us, is in the way: an error, or, where the operator has
//!   chosen so, the target's own stays.
//!
//! Users are written as documents, so that their credentials arrive byte for byte and whoever logged in on the source
//! logs in on the target. Roles go through `createRole` and `updateRole`: no built-in role may write to
//! `admin.system.roles`, and `_mergeAuthzCollections`, which restores them from a dump, either leaves alone what is there
//! or drops what is not in the dump. The server keeps a role's lists in an order of its own, so roles are compared
//! without it. (All RAN on 6.0.5 and 6.0.27.)
//!
//! A block of users' writes does not hold the management of users back (RAN on 6.0.5 and 6.0.27): what is changed there
//! behind the fence is still taken over until the cutover's last comparison, and not after it.

mod account;
mod claims;
mod cluster;
mod plan;

pub use account::{Kind, Name};

use crate::{
    error::{Error, Result},
    model::{Side, UsersAndRoles},
    mongo::Cluster,
};
use account::Accounts as Listed;
use claims::Claims;
use plan::{Plan, plan};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// How often both sides are compared while the migration runs.
const EVERY: Duration = Duration::from_secs(5);
/// How often a comparison is begun anew because the source's users change meanwhile.
const LOOKS: usize = 3;

/// Both sides' users and roles. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Accounts {
    source: Cluster,
    target: Cluster,
    claims: Claims,
    which: UsersAndRoles,
    /// One comparison at a time. Holds what stays as the target has it, so that it is told once.
    told: Arc<Mutex<BTreeSet<Name>>>,
}

/// How a user or role differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unequal {
    /// Which.
    pub name: Name,
    /// In which way.
    pub how: How,
}

/// The ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// On the source only.
    Missing,
    /// Made by us, and by now on the target only.
    Extra,
    /// On both sides, with other content.
    Different,
}

impl Accounts {
    /// Those of two clusters; `None` where none are wanted. `database` is that of the migration's metadata.
    #[must_use]
    pub fn new(which: UsersAndRoles, source: &Cluster, target: &Cluster, database: &str) -> Option<Self> {
        let claims = Claims::new(target.clone(), database);
        let wanted = which != UsersAndRoles::None;
        wanted.then(|| Self { source: source.clone(), target: target.clone(), claims, which, told: Arc::default() })
    }

    /// The same through other connections or policies.
    #[must_use]
    pub fn with(&self, source: &Cluster, target: &Cluster) -> Self {
        Self { source: source.clone(), target: target.clone(), claims: self.claims.with(target.clone()), ..self.clone() }
    }

    /// Keeps the target's in step until `stop` fires.
    ///
    /// # Errors
    /// As [`Accounts::take_over`].
    pub async fn follow(self, stop: CancellationToken) -> Result<()> {
        let mut seen = None;
        let mut tick = tokio::time::interval(EVERY);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            // The target is only looked at when there is news: it is not ours to watch.
            let now = cluster::read(&self.source).await?;
            if seen.as_ref() != Some(&now) {
                self.take_over().await?;
                seen = Some(now);
            }
        }
        Ok(())
    }

    /// Makes the target's users and roles as the source has them. May be repeated; after a crash half way, it is.
    ///
    /// # Errors
    /// As classified; [`Error::UnfitCluster`] where the target has others of the same name, unless they are to stay.
    pub async fn take_over(&self) -> Result<()> {
        let mut told = self.told.lock().await;
        let plan = self.look().await?;
        self.judge(&plan)?;
        for name in plan.kept.iter().filter(|name| !told.contains(*name)) {
            tracing::warn!(%name, "stays as the target has it: it is not the source's, and was there before");
        }
        told.extend(plan.kept.iter().cloned());
        if plan.is_nothing() {
            return Ok(());
        }
        // Noted first: after a crash between the two it is still known whose they are.
        self.claims.add(plan.to_claim()).await?;
        cluster::carry_out(&self.target, &plan).await?;
        self.claims.remove(plan.drop.iter().map(|account| &account.name)).await?;
        tracing::info!(written = plan.put.len(), dropped = plan.drop.len(), "users and roles taken over");
        Ok(())
    }

    /// What a start would meet: the names of those that stay as the target has them.
    ///
    /// # Errors
    /// As [`Accounts::take_over`].
    pub async fn foresee(&self) -> Result<Vec<Name>> {
        let plan = self.look().await?;
        self.judge(&plan)?;
        Ok(plan.kept)
    }

    /// In what the target differs from the source, right now. Those that stay as the target has them do not count.
    ///
    /// # Errors
    /// As classified.
    pub async fn unequal(&self) -> Result<Vec<Unequal>> {
        let plan = self.look().await?;
        let missing = |name: &Name| if plan.before.contains_key(name) { How::Different } else { How::Missing };
        let put = plan.put.iter().map(|account| Unequal { name: account.name.clone(), how: missing(&account.name) });
        let extra = plan.drop.iter().map(|account| Unequal { name: account.name.clone(), how: How::Extra });
        let other = plan.in_the_way.iter().map(|name| Unequal { name: name.clone(), how: How::Different });
        Ok(put.chain(extra).chain(other).collect())
    }

    /// As [`Accounts::unequal`], for a migration that runs: what has just changed is taken over first.
    ///
    /// # Errors
    /// As classified.
    pub async fn settled(&self) -> Result<Vec<Unequal>> {
        let mut found = Vec::new();
        for _ in 0..LOOKS {
            self.take_over().await?;
            found = self.unequal().await?;
            if found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    async fn look(&self) -> Result<Plan> {
        let ours: BTreeSet<Name> =
            [cluster::users_logged_in(&self.source).await?, cluster::users_logged_in(&self.target).await?].concat().into_iter().collect();
        let (claimed, there): (BTreeSet<Name>, Listed) = (self.claims.all().await?, cluster::read(&self.target).await?);
        let wanted = cluster::read(&self.source).await?;
        Ok(plan(&wanted, &there, &claimed, &ours, self.which == UsersAndRoles::New))
    }

    fn judge(&self, plan: &Plan) -> Result<()> {
        if plan.in_the_way.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = plan.in_the_way.iter().map(|name| format!("the {} `{}`", name.kind.label(), name.id)).collect();
        Err(Error::UnfitCluster {
            side: Side::Target,
            problem: format!("has, with other content than the source: {}", names.join(", ")),
            hint: "drop them on the target, or let the target's own stay with `--users-and-roles new`".into(),
        })
    }
}
