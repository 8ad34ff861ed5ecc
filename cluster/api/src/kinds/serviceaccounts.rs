//! ServiceAccount: the identity that a pod's processes act with.

use crate::resource::{DeletionRule, Resource, words};

/// The row. Name and age are all its table shows.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["sa"]),
        deletion: DeletionRule::ANSWERS_OBJECT,
        ..Resource::named(
            "",
            "v1",
            "ServiceAccount",
            "serviceaccounts",
            "serviceaccount",
            "api.core.v1.ServiceAccount",
        )
    }
}
