//! Kinds of which nothing is kept: what is posted is answered, and that is all there is of it.

use crate::resource::{Resource, Row, Verb};
use std::sync::{Arc, LazyLock};

/// The group of questions about who may do what.
pub const AUTHORIZATION: &str = "authorization.k8s.io";
/// The group of questions about who somebody is.
pub const AUTHENTICATION: &str = "authentication.k8s.io";

/// The rows, in the order in which discovery lists them.
static UNKEPT: LazyLock<[Row; 7]> = LazyLock::new(|| {
    [
        Resource::named("", "v1", "Binding", "bindings", "binding", "api.core.v1.Binding"),
        Resource {
            namespaced: false,
            ..Resource::named(
                AUTHENTICATION,
                "v1",
                "SelfSubjectReview",
                "selfsubjectreviews",
                "selfsubjectreview",
                "api.authentication.v1.SelfSubjectReview",
            )
        },
        Resource {
            namespaced: false,
            ..Resource::named(
                AUTHENTICATION,
                "v1",
                "TokenReview",
                "tokenreviews",
                "tokenreview",
                "api.authentication.v1.TokenReview",
            )
        },
        Resource::named(
            AUTHORIZATION,
            "v1",
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            "localsubjectaccessreview",
            "api.authorization.v1.LocalSubjectAccessReview",
        ),
        Resource {
            namespaced: false,
            ..Resource::named(
                AUTHORIZATION,
                "v1",
                "SelfSubjectAccessReview",
                "selfsubjectaccessreviews",
                "selfsubjectaccessreview",
                "api.authorization.v1.SelfSubjectAccessReview",
            )
        },
        Resource {
            namespaced: false,
            ..Resource::named(
                AUTHORIZATION,
                "v1",
                "SelfSubjectRulesReview",
                "selfsubjectrulesreviews",
                "selfsubjectrulesreview",
                "api.authorization.v1.SelfSubjectRulesReview",
            )
        },
        Resource {
            namespaced: false,
            ..Resource::named(
                AUTHORIZATION,
                "v1",
                "SubjectAccessReview",
                "subjectaccessreviews",
                "subjectaccessreview",
                "api.authorization.v1.SubjectAccessReview",
            )
        },
    ]
    .map(|row| Arc::new(Resource { verbs: &[Verb::Create], is_kept: false, ..row }))
});

/// Every kind of which nothing is kept.
pub fn resources() -> &'static [Row] {
    &*UNKEPT
}
