//! Users and roles on a server.

use super::{
    account::{Account, Accounts, Kind, Name},
    plan::Plan,
};
use crate::{
    error::{Error, Result},
    model::{Side, raw},
    mongo::{Cluster, listing},
};
use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};

/// `RoleNotFound`.
const ROLE_NOT_FOUND: i32 = 31;
/// "Role already exists", which has no name (RAN on 6.0.5 and 6.0.27).
const ROLE_EXISTS: i32 = 51002;

/// All that are there, as a majority has them.
pub(super) async fn read(cluster: &Cluster) -> Result<Accounts> {
    let mut all = Accounts::new();
    for kind in [Kind::Role, Kind::User] {
        let doing = format!("reading `admin.{}`", kind.collection());
        let command = rawdoc! {"find": kind.collection(), "readConcern": {"level": "majority"}};
        for document in listing::found(cluster, "admin", &doing, &command).await? {
            let Some(account) = Account::of(kind, document) else {
                return Err(Error::Unsupported {
                    what: format!("a {} whose `_id` is no text", kind.label()),
                    ns: Some(format!("admin.{}", kind.collection())),
                    hint: "drop it on that cluster, or leave users and roles out with `--users-and-roles none`".into(),
                });
            };
            all.insert(account.name, account.document);
        }
    }
    Ok(all)
}

/// The users of the connection string.
pub(super) async fn users_logged_in(cluster: &Cluster) -> Result<Vec<Name>> {
    let status = cluster.run("admin", "asking who we are", &doc! {"connectionStatus": 1}).await?;
    let users = status.get_document("authInfo").and_then(|auth| auth.get_array("authenticatedUsers")).cloned().unwrap_or_default();
    let id = |user: &Document| Some(format!("{}.{}", user.get_str("db").ok()?, user.get_str("user").ok()?));
    Ok(users.iter().filter_map(Bson::as_document).filter_map(id).map(|id| Name { kind: Kind::User, id }).collect())
}

/// Writes what the plan wants, so that at no moment anybody holds more than the source gave or gives.
pub(super) async fn carry_out(target: &Cluster, plan: &Plan) -> Result<()> {
    let of = |kind: Kind| plan.put.iter().filter(move |account| account.name.kind == kind);
    let dropped = |kind: Kind| plan.drop.iter().filter(move |account| account.name.kind == kind);
    for user in dropped(Kind::User) {
        drop_user(target, user).await?;
    }
    // Which roles a role holds, in two rounds: what it keeps, once all exist, and then what is new. Neither can close a
    // circle: each is a part of what the target has, or of what the source has.
    for role in of(Kind::Role) {
        make_role(target, role, plan.before.get(&role.name)).await?;
    }
    for role in of(Kind::Role) {
        run_on_role(target, "updateRole", role, &document(&role.document)?).await?;
    }
    for role in dropped(Kind::Role) {
        // It may have gone by itself.
        ignoring(
            ROLE_NOT_FOUND,
            target.run(role.text("db"), "dropping a role", &doc! {"dropRole": role.text("role"), "writeConcern": {"w": "majority"}}).await,
        )?;
    }
    for user in of(Kind::User) {
        put_user(target, user).await?;
    }
    Ok(())
}

/// A role with the content of the source, that holds of other roles only what it held and will hold.
async fn make_role(target: &Cluster, role: &Account, before: Option<&RawDocumentBuf>) -> Result<()> {
    let mut now = document(&role.document)?;
    let held = match before {
        Some(before) => document(before)?.get_array("roles").cloned().unwrap_or_default(),
        None => Vec::new(),
    };
    if let Ok(roles) = now.get_array_mut("roles") {
        roles.retain(|role| held.contains(role));
    }
    if before.is_none() {
        ignoring(ROLE_EXISTS, run_on_role(target, "createRole", role, &now).await)?;
    }
    // Also after a creation: it may be an earlier one, whose answer was lost.
    run_on_role(target, "updateRole", role, &now).await
}

async fn run_on_role(target: &Cluster, verb: &str, role: &Account, content: &Document) -> Result<()> {
    let mut command = doc! {verb: role.text("role")};
    for list in ["privileges", "roles", "authenticationRestrictions"] {
        command.insert(list, content.get_array(list).cloned().unwrap_or_default());
    }
    command.insert("writeConcern", doc! {"w": "majority"});
    target.run(role.text("db"), &format!("`{verb}` of `{}`", role.name.id), &command).await.map(drop)
}

/// Puts a user's document in its place: the server notices, and asks for the new password from then on.
async fn put_user(target: &Cluster, user: &Account) -> Result<()> {
    let mut b = raw::Builder::with_capacity(user.document.as_bytes().len() + 256);
    b.str("update", Kind::User.collection()).begin_array("updates").begin("0");
    b.begin("q").str("_id", &user.name.id).end().doc("u", &user.document).bool("upsert", true).end().end();
    b.begin("writeConcern").str("w", "majority").end();
    let doing = format!("writing the user `{}`", user.name.id);
    let reply = target.write("admin", &doing, &b.finish()).await?;
    refused(&doing, &reply.errors)
}

/// One at a time as well: these are writes to a router's own database.
async fn drop_user(target: &Cluster, user: &Account) -> Result<()> {
    let statement = rawdoc! {"q": {"_id": &*user.name.id}, "limit": 1};
    let command = rawdoc! {"delete": Kind::User.collection(), "deletes": [statement], "writeConcern": {"w": "majority"}};
    let doing = format!("dropping the user `{}`", user.name.id);
    refused(&doing, &target.write("admin", &doing, &command).await?.errors)
}

fn refused(doing: &str, errors: &[crate::mongo::WriteError]) -> Result<()> {
    errors
        .first()
        .map_or(Ok(()), |e| Err(crate::mongo::refused_by_code(Side::Target, doing, e.code, "the server refused a user's document")))
}

fn ignoring<T>(code: i32, outcome: Result<T>) -> Result<()> {
    match outcome {
        Err(error) if error.code() == Some(code) => Ok(()),
        other => other.map(drop),
    }
}

fn document(raw: &RawDocumentBuf) -> Result<Document> {
    Document::try_from(&**raw).map_err(|_| Error::Unsupported {
        what: "a role whose document has text that is not UTF-8".into(),
        ns: Some("admin.system.roles".into()),
        hint: "drop it, or leave users and roles out with `--users-and-roles none`".into(),
    })
}
