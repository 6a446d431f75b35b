//! How a server is asked for the collection of a UUID, whatever its name is by now.

use super::super::CollectionRef;
use crate::{
    error::{Error, Result},
    model::raw,
    mongo::Cluster,
};
use bson::doc;

/// What a server understands; found by [`Identity::probe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// From 6.0 on: the name, and `collectionUUID` to check it by.
    Checked,
    /// Before: the UUID in place of the name. RAN on 4.4.2, 5.0.4 and 6.0.5 for `find` and `listIndexes`; it finds the
    /// collection under any name in its database, and answers NamespaceNotFound where it is gone. Needs the action
    /// `useUUID`, which is in the roles `clusterMonitor` and `backup`.
    Direct,
}

impl Identity {
    /// Tries it on a collection that is not there, by a command that reads nothing.
    ///
    /// # Errors
    /// As classified.
    pub(crate) async fn probe(cluster: &Cluster) -> Result<Self> {
        let none = format!("none_{:016x}", rand::random::<u64>());
        let command = doc! {"find": none, "limit": 1, "collectionUUID": bson::Uuid::new()};
        match cluster.run("admin", "trying how collections are told apart", &command).await {
            // FailedToParse on 4.4, an unknown field on 5.0; 6.0 finds that nothing has this UUID.
            Err(Error::Refused { code: 9 | 40415, .. }) => Ok(Self::Direct),
            Ok(_) | Err(Error::Refused { .. }) => Ok(Self::Checked),
            Err(error) => Err(error),
        }
    }

    /// Begins a command on a collection.
    pub(crate) fn begin(self, b: &mut raw::Builder, verb: &str, of: &CollectionRef) {
        match self {
            Self::Checked => b.str(verb, of.ns.coll()).uuid("collectionUUID", of.uuid),
            Self::Direct => b.uuid(verb, of.uuid),
        };
    }
}
