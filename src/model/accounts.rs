//! Which users and roles are replicated.

/// What the operator chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UsersAndRoles {
    /// None.
    #[default]
    None,
    /// All users and custom roles of the source. A target that has others of the same name is refused.
    All,
    /// Those which the target does not have by itself.
    New,
}
