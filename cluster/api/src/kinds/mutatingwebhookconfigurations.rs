//! MutatingWebhookConfiguration: programs of the users that may change what is written.

use crate::field::list;
use crate::resource::{Column, Resource, Rules, words};
use crate::rules::webhooks;
use crate::table::{age, name};
use std::sync::Arc;

/// Whether they may change what is written.
const MUTATING: bool = true;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        categories: words(["api-extensions"]),
        columns: vec![
            Column::name(),
            Column::integer("Webhooks", "How many webhooks it has."),
            Column::age(),
        ],
        cells: Arc::new(|object, now| {
            vec![name(object), list(object, "webhooks").len().into(), age(object, now)]
        }),
        generation: true,
        rules: Rules {
            default: Arc::new(|object| webhooks::fill_in(object, MUTATING)),
            validate: Arc::new(|object| webhooks::validate(object, MUTATING)),
            validate_update: Arc::new(|new, _| webhooks::validate(new, MUTATING)),
            warnings: Arc::new(webhooks::warnings),
            ..Rules::plain()
        },
        ..Resource::named(
            "admissionregistration.k8s.io",
            "v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            "mutatingwebhookconfiguration",
            "api.admissionregistration.v1.MutatingWebhookConfiguration",
        )
    }
}
