//! Remembers what was mended: a difference that comes back is made by somebody else.

use super::report::Difference;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// Differences remembered at most; of more, the rest is not known when it comes back.
const MOST: usize = 20_000;

/// What was mended since the process started. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Mended(Arc<Mutex<BTreeSet<String>>>);

impl Mended {
    /// It was mended.
    pub fn note(&self, difference: &Difference) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST {
            all.insert(name(difference));
        }
    }

    /// Whether it was mended before.
    #[must_use]
    pub fn knows(&self, difference: &Difference) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&name(difference))
    }

    /// Says in a difference that it has come back.
    pub(super) fn tell(&self, difference: &mut Difference) {
        if self.knows(difference) {
            difference.detail.push_str("; it was mended before and has come back: somebody else writes to the target");
        }
    }
}

/// The document, or the part of the structure.
fn name(difference: &Difference) -> String {
    let what = difference.id.as_deref().or(difference.part.as_deref()).unwrap_or(difference.kind.label());
    format!("{} {} {what}", difference.ns, difference.id.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Namespace, verify::DifferenceKind};

    #[test]
    fn what_comes_back_is_known_whatever_its_kind() {
        let mended = Mended::default();
        let of = |kind, id: &str| Difference { id: Some(id.into()), ..Difference::of(kind, &Namespace::new("d", "c"), "x".into()) };
        mended.note(&of(DifferenceKind::Missing, "7"));
        let (mut back, mut other) = (of(DifferenceKind::Different, "7"), of(DifferenceKind::Missing, "8"));
        mended.tell(&mut back);
        mended.tell(&mut other);
        assert!(back.detail.contains("somebody else writes to the target"));
        assert_eq!(other.detail, "x");
    }
}
