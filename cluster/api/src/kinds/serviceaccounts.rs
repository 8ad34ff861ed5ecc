//! ServiceAccount: the identity that a pod's processes act with.

use crate::resource::{DeletionRule, Effect, Resource, words};

/// The row. Name and age are all its table shows.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["sa"]),
        deletion: DeletionRule::ANSWERS_OBJECT,
        effect: Effect::by("the pods that act as it"),
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
