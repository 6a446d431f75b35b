//! The closed sets that labels are taken from. Nothing that grows with the data (namespaces, keys, hosts)
//! is ever a label.

/// An enum whose variants are the values of one label.
macro_rules! closed_set {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: [$name; [$($label),+].len()] = [$($name::$variant),+];

            /// All labels, in the order of the variants.
            pub const LABELS: [&'static str; [$($label),+].len()] = [$($label),+];

            /// The value of the label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }
    };
}

closed_set! {
    /// What came out of the change stream.
    EventOp {
        /// A new document.
        Insert = "insert",
        /// A changed one.
        Update = "update",
        /// Another one in its place.
        Replace = "replace",
        /// One gone.
        Delete = "delete",
        /// A change of structure.
        Ddl = "ddl",
        /// Anything else, as the end of a transaction's split event.
        Other = "other",
    }
}

closed_set! {
    /// What was done on the target for an event.
    AppliedOp {
        /// A new document, put in place of whatever was there.
        Insert = "insert",
        /// The oplog's own diff.
        Update = "update",
        /// A whole document.
        Replace = "replace",
        /// Removed by its key.
        Delete = "delete",
        /// Read again from the source in its lane, then replaced or removed.
        Reread = "reread",
        /// A change of structure.
        Ddl = "ddl",
    }
}

closed_set! {
    /// Why a call is made once more.
    RetryCause {
        /// The connection broke or could not be made.
        Network = "network",
        /// No primary, or another one now.
        Election = "election",
        /// The server asked for less.
        Overload = "overload",
        /// No answer in time.
        Timeout = "timeout",
        /// Another cause that may pass.
        Other = "other",
    }
}

closed_set! {
    /// How the two sides may differ.
    MismatchKind {
        /// On the source only.
        Missing = "missing",
        /// On the target only.
        Extra = "extra",
        /// On both, with other bytes.
        Different = "different",
        /// Options of a collection or view.
        Options = "options",
        /// Indexes of a collection.
        Indexes = "indexes",
    }
}

/// Names of the gates of a cutover. The engine makes its [`crate::model::Gate`]s with these names; one
/// with another name is not on the dashboards.
pub const GATES: [&str; 7] = ["tailing", "lag", "consistent", "copied", "indexes", "headroom", "parity"];

/// Values of `activity`.
pub(super) const ACTIVITIES: [&str; 3] = ["running", "paused", "halted"];

/// States of a partition of the copy.
pub(super) const PARTITION_STATES: [&str; 3] = ["waiting", "running", "done"];

/// States of an [`crate::model::UnfinishedIndex`].
pub(super) const INDEX_STATES: [&str; 3] = ["waiting", "building", "failed"];

/// Settings that are on or off.
pub(super) const SWITCHES: [&str; 2] = ["adaptive-throttle", "verification"];

/// What has a rate.
pub(super) const WORK: [&str; 2] = ["copy", "tail"];

/// In the order of [`crate::model::Side`]'s variants.
pub(super) const SIDES: [&str; 2] = ["source", "target"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Activity, Side};

    #[test]
    fn labels_stand_at_the_index_of_their_variant() {
        assert_eq!(EventOp::LABELS[EventOp::Other as usize], EventOp::Other.label());
        assert_eq!(AppliedOp::LABELS[AppliedOp::Ddl as usize], AppliedOp::Ddl.label());
        assert_eq!(RetryCause::LABELS[RetryCause::Other as usize], RetryCause::Other.label());
        assert_eq!(MismatchKind::LABELS[MismatchKind::Indexes as usize], MismatchKind::Indexes.label());
        assert_eq!([Side::Source, Side::Target].map(Side::label), SIDES);
        assert_eq!([Side::Source as usize, Side::Target as usize], [0, 1]);
    }

    #[test]
    fn activities_are_the_models() {
        let all = [
            Activity::Running,
            Activity::Paused { by: String::new() },
            Activity::Halted { reason: String::new(), remedy: String::new(), exit_code: 4 },
        ];
        assert_eq!(all.map(|a| a.label()), ACTIVITIES);
    }
}
