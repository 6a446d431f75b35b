//! Values of some fields in a random sample of a collection.

use super::super::CollectionRef;
use crate::{
    error::{Error, Result},
    mongo::{Cluster, listing},
};
use bson::{Document, RawDocumentBuf, doc};

/// At most `size` documents with these fields only, in ascending order of the fields.
pub(crate) async fn sample(cluster: &Cluster, of: &CollectionRef, fields: &[&str], size: u32) -> Result<Vec<RawDocumentBuf>> {
    let in_order: Document = fields.iter().map(|field| ((*field).to_owned(), 1.into())).collect();
    let mut shown = in_order.clone();
    if !fields.contains(&"_id") {
        shown.insert("_id", 0);
    }
    let pipeline = vec![doc! {"$sample": {"size": size}}, doc! {"$project": shown}, doc! {"$sort": in_order}];
    let command = doc! {"aggregate": of.ns.coll(), "pipeline": pipeline, "cursor": {"batchSize": 100_000}, "allowDiskUse": true};
    let command = RawDocumentBuf::try_from(&command).map_err(|e| Error::Bug(e.to_string()))?;
    listing::found(cluster, of.ns.db(), &format!("sampling `{}`", of.ns), &command).await
}
