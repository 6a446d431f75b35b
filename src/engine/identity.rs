//! What a cluster is and by which id it is known, and what that makes together with the options.

use super::{connect::Clusters, topology};
use crate::{
    config::Config,
    error::{Error, Result},
    model::Fingerprint,
    mongo::{Cluster, Topology},
};
use bson::doc;

/// What these options and clusters make.
pub(super) async fn fingerprint(config: &Config, clusters: &Clusters) -> Result<Fingerprint> {
    Ok(identified(config, identity(clusters.source.cluster()).await?, identity(clusters.target.cluster()).await?))
}

/// The same, of clusters with these ids.
pub(super) fn identified(config: &Config, source: String, target: String) -> Fingerprint {
    let (include, exclude, rename) = config.selection.describe();
    let shard = config.shard.iter().map(|(ns, key)| format!("{ns}={key}")).collect();
    Fingerprint { source, target, include, exclude, rename, shard, inverse: config.selection.is_inverse() }
}

/// What the cluster is, where it can take part.
pub(super) async fn fit(cluster: &Cluster) -> Result<Topology> {
    let side = cluster.side();
    match cluster.topology().await? {
        topology @ (Topology::ReplicaSet | Topology::Sharded) => Ok(topology),
        Topology::Standalone => {
            Err(Error::UnfitCluster {
                side,
                problem: "is a standalone server: it has no oplog, so no change streams and no majority".into(),
                hint: "make it a replica set: restart mongod with `--replSet rs0`, then run `rs.initiate()` in mongosh, and add `replicaSet=rs0` to the connection string".into(),
            })
        }
    }
}

/// The id that a cluster got when it was made.
///
/// # Errors
/// [`Error::UnfitCluster`] where it tells none; as classified.
pub(super) async fn identity(cluster: &Cluster) -> Result<String> {
    match cluster.topology().await? {
        Topology::Sharded => topology::identity(cluster).await,
        Topology::ReplicaSet | Topology::Standalone => identity_of_set(cluster).await,
    }
}

/// The id that a replica set got when it was initiated.
async fn identity_of_set(cluster: &Cluster) -> Result<String> {
    let side = cluster.side();
    let asked = cluster.run("admin", "asking for the configuration of the replica set", &doc! {"replSetGetConfig": 1}).await;
    let reply = match asked {
        // Whoever has a user was told of its privileges before.
        Err(Error::Forbidden { .. }) => {
            return Err(Error::UnfitCluster {
                side,
                problem: "wants a login, and the connection string names no user".into(),
                hint: "put `user:password@` in front of its hosts, and `authSource=admin` behind its `?`".into(),
            });
        }
        other => other?,
    };
    let settings = reply.get_document("config").and_then(|c| c.get_document("settings"));
    settings.and_then(|s| s.get_object_id("replicaSetId")).map(bson::oid::ObjectId::to_hex).map_err(|_| Error::UnfitCluster {
        side,
        problem: "does not tell the id of its replica set".into(),
        hint: "initiate the replica set again with MongoDB 4.0 or newer".into(),
    })
}
