//! CustomResourceDefinition: a kind that users define, which is served from when its names are accepted until its
//! last object is gone.

use crate::context::Context;
use crate::crd;
use crate::field::{at, text};
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::status::Status;
use crate::table::name;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["crd", "crds"]),
        categories: words(["api-extensions"]),
        namespaced: false,
        subresources: vec![Subresource::status("CustomResourceDefinition")],
        columns: vec![
            Column::name(),
            Column {
                kind: "date".into(),
                ..Column::text("Created At", "When the definition was created.")
            },
        ],
        cells: Arc::new(|definition, _| {
            vec![name(definition), text(definition, "metadata.creationTimestamp").into()]
        }),
        generation: true,
        effect: Effect::by("every member, which serves the kind"),
        rules: Rules {
            default: Arc::new(crd::default),
            prepare_create: Arc::new(prepare_create),
            prepare_update: Arc::new(prepare_update),
            validate: Arc::new(crd::validate),
            validate_update: Arc::new(crd::validate_update),
            validate_status: Arc::new(|new, _| crd::validate_status(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "customresourcedefinition",
            "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        )
    }
}

fn prepare_create(definition: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    crd::begin(definition);
    Ok(())
}

/// One that goes may be let go; any other is held as before.
fn prepare_update(new: &mut Value, old: &Value, _: &Context<'_>) -> Result<(), Status> {
    if at(old, "metadata.deletionTimestamp").is_null() {
        crd::hold(new);
    }
    Ok(())
}
