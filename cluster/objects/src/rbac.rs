//! Who may do what by role, as Kubernetes has it: roles are lists of rules, bindings give them to users, groups and
//! service accounts, in a namespace or everywhere.
//!
//! [`Roles`] follows the roles and bindings of the registry and answers by itself: to ask it costs no message. What no
//! rule allows is refused, and before the roles have been read nobody is told anything but that. The group of masters
//! may do everything whatever is bound: otherwise nobody could put a cluster right whose bindings were deleted.
//!
//! Who gives rights away must have them (or the verbs `escalate` and `bind`): [`Roles::guard`] looks at every write of a
//! role or a binding.

mod aggregate;
mod cover;
mod defaults;
mod escalation;
mod follow;
mod index;
mod lay;
mod params;
mod policy;
mod program;

pub use aggregate::settle;
pub use follow::{Roles, Verdict, unread};
pub use index::{Asked, Asker, Grant, Index, account};
pub use policy::PolicyRule;
pub(crate) use program::groups as program_groups;

/// The group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";
