//! ServiceAccount: the identity that a pod's processes act with.

use crate::resource::{DeletionRule, Resource};

/// The row. Name and age are all its table shows.
pub const RESOURCE: Resource = Resource {
    short_names: &["sa"],
    deletion: DeletionRule::ANSWERS_OBJECT,
    ..Resource::named(
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        "serviceaccount",
        "api.core.v1.ServiceAccount",
    )
};
