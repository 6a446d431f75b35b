//! Secondary indexes on the target: parked while data flows, built beside it, sealed at the cutover.
//!
//! A unique index would make lanes depend on each other (one document gives a value up, another takes it), and
//! a TTL would delete on the target's own account: until the seal the first is built plain and the second
//! without its time. Which indexes are wanted stands in the catalog; the builder only ever compares that with
//! what is there, so it does not matter in which order wishes, builds and crashes came.

mod build;
mod seal;

pub use build::Builder;
pub use seal::{Sealed, seal, unseal};

use crate::model::IndexSpec;

/// Options that wait for the seal.
const PARKED: [&str; 3] = ["unique", "prepareUnique", "expireAfterSeconds"];

/// The form in which an index is built.
#[must_use]
pub fn park(spec: &IndexSpec) -> IndexSpec {
    spec.without(&PARKED)
}

/// Whether an index on the target in parked form is what the wanted one becomes at the seal.
#[must_use]
pub fn same_when_parked(a: &IndexSpec, b: &IndexSpec) -> bool {
    park(a).without(&["ns", "background"]) == park(b).without(&["ns", "background"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn unique_and_ttl_wait_for_the_seal_and_all_else_stays() {
        let spec = IndexSpec(
            rawdoc! {"v": 2, "unique": true, "key": {"a": 1}, "name": "a_1", "expireAfterSeconds": 5, "hidden": true, "sparse": true},
        );
        assert_eq!(park(&spec).0, rawdoc! {"v": 2, "key": {"a": 1}, "name": "a_1", "hidden": true, "sparse": true});
        assert!(same_when_parked(&spec, &park(&spec)));
    }
}
