//! MutatingWebhookConfiguration: programs that are asked before an object is written, and may change it.

use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::{expressions, webhooks};
use crate::table;
use std::sync::Arc;

const MESSAGE: &str = "api.admissionregistration.v1.MutatingWebhookConfiguration";

/// The row.
pub fn resource() -> Resource {
    Resource {
        categories: words(["api-extensions"]),
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::integer("Webhooks", "How many are asked."),
            Column::age(),
        ],
        cells: Arc::new(table::admission::webhooks),
        generation: true,
        effect: Effect::by("every write that comes through the API"),
        rules: Rules {
            default: Arc::new(|configuration| webhooks::default_webhooks(configuration, true)),
            validate: Arc::new(|new| webhooks::validate_webhooks(MESSAGE, new)),
            validate_update: Arc::new(|new, _| webhooks::validate_webhooks(MESSAGE, new)),
            warnings: Arc::new(expressions::not_done_of_webhooks),
            ..Rules::plain()
        },
        ..Resource::named(
            "admissionregistration.k8s.io",
            "v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            "mutatingwebhookconfiguration",
            MESSAGE,
        )
    }
}
