//! ServiceAccount: the identity that a pod's processes act with.

use crate::resource::Resource;

/// The row. Name and age are all its table shows.
pub const RESOURCE: Resource = Resource {
    short_names: &["sa"],
    ..Resource::named(
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        "serviceaccount",
        "api.core.v1.ServiceAccount",
    )
};
