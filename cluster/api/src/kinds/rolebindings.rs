//! RoleBinding: who has a role in its namespace.

use crate::resource::{Effect, Resource, Rules};
use crate::rules::access::{self, Scope};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        columns: access::binding_columns(),
        cells: Arc::new(access::binding_cells),
        effect: Effect::by("every request and message"),
        rules: Rules {
            default: Arc::new(access::default_binding),
            validate: Arc::new(|binding| access::validate_binding(binding, Scope::Namespace)),
            validate_update: Arc::new(|new, old| {
                access::validate_changed_binding(new, old, Scope::Namespace)
            }),
            ..Rules::plain()
        },
        ..access::row("RoleBinding", "rolebindings", "rolebinding", "api.rbac.v1.RoleBinding")
    }
}
