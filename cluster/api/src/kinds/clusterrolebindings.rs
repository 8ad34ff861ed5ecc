//! ClusterRoleBinding: who has a cluster role in all namespaces and outside them.

use crate::resource::{Effect, Resource, Rules};
use crate::rules::access::{self, Scope};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        columns: access::binding_columns(),
        cells: Arc::new(access::binding_cells),
        effect: Effect::by("every request and message"),
        rules: Rules {
            default: Arc::new(access::default_binding),
            validate: Arc::new(|binding| access::validate_binding(binding, Scope::Cluster)),
            validate_update: Arc::new(|new, old| {
                access::validate_changed_binding(new, old, Scope::Cluster)
            }),
            ..Rules::plain()
        },
        ..access::row(
            "ClusterRoleBinding",
            "clusterrolebindings",
            "clusterrolebinding",
            "api.rbac.v1.ClusterRoleBinding",
        )
    }
}
