//! PodTemplate: a template of pods that is an object of its own.

use crate::cause::Cause;
use crate::field::{Causes, Path, get, object_mut};
use crate::resource::{Column, Resource, Rules};
use crate::rules::template;
use crate::table::{containers_and_images, label_list, name};
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        columns: vec![
            Column::name(),
            Column::text("Containers", "The containers of the template."),
            Column::text("Images", "Their images."),
            Column::text("Pod Labels", "The labels of its pods."),
        ],
        cells: Arc::new(|object, _| {
            let [containers, images] = containers_and_images(object, "template.spec.containers");
            vec![name(object), containers, images, label_list(object, "template.metadata.labels")]
        }),
        generation: true,
        rules: Rules {
            default: Arc::new(|object| template::default_template(object_mut(object, "template"))),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "",
            "v1",
            "PodTemplate",
            "podtemplates",
            "podtemplate",
            "api.core.v1.PodTemplate",
        )
    }
}

fn validate(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    template::validate_template(get(object, "template"), &Path::new("template"), &mut causes);
    causes.into_vec()
}
