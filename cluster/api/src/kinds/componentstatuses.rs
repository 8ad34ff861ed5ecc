//! ComponentStatus: how parts of a control plane are that runs as programs of their own. There are none here, so that
//! the list is empty.

use crate::field::{list, text};
use crate::resource::{Column, Resource, Verb, words};
use crate::table::name;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["cs"]),
        namespaced: false,
        verbs: &[Verb::Get, Verb::List],
        deprecated: "v1 ComponentStatus is deprecated in v1.19+".into(),
        columns: vec![
            Column::name(),
            Column::text("Status", "Whether the part is healthy."),
            Column::text("Message", "What it says."),
            Column::text("Error", "What is wrong with it."),
        ],
        cells: Arc::new(|part, _| {
            let healthy = list(part, "conditions").iter().find(|it| text(it, "type") == "Healthy");
            let healthy = healthy.unwrap_or(&Value::Null);
            let status = match text(healthy, "status") {
                "True" => "Healthy",
                "False" => "Unhealthy",
                _ => "Unknown",
            };
            let said = |field| text(healthy, field).into();
            vec![name(part), status.into(), said("message"), said("error")]
        }),
        ..Resource::named(
            "",
            "v1",
            "ComponentStatus",
            "componentstatuses",
            "componentstatus",
            "api.core.v1.ComponentStatus",
        )
    }
}
