//! ServiceAccount: the identity that a pod's processes act with.

use crate::kinds::reviews::AUTHENTICATION;
use crate::resource::{DeletionRule, Effect, Resource, Subresource, Verb, words};

/// The row. Name and age are all its table shows.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["sa"]),
        subresources: vec![Subresource {
            group: AUTHENTICATION,
            version: "v1",
            ..Subresource::own("token", &[Verb::Create], "TokenRequest")
        }],
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
