//! Role: what may be done in its namespace, for whoever it is bound to.

use crate::cause::Cause;
use crate::field::Causes;
use crate::resource::{Effect, Resource, Rules};
use crate::rules::access::{self, Scope};
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        columns: access::role_columns(),
        cells: Arc::new(|role, _| access::role_cells(role)),
        effect: Effect::by("every request and message, by bindings"),
        rules: Rules {
            default: Arc::new(access::default_role),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..access::row("Role", "roles", "role", "api.rbac.v1.Role")
    }
}

fn validate(role: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    access::validate_rules(role, Scope::Namespace, &mut causes);
    causes.into_vec()
}
