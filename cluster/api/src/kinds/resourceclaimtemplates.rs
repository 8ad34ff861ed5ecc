//! ResourceClaimTemplate: what claims of pods are made of.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, get, object_mut};
use crate::resource::{Resource, Rules};
use crate::rules::{declared, devices, metadata};
use serde_json::Value;
use std::sync::Arc;

/// The row. Name and age are all its table shows.
pub fn resource() -> Resource {
    Resource {
        rules: Rules {
            default: Arc::new(|template| {
                devices::default_claim(object_mut(object_mut(template, "spec"), "spec"));
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                causes.unchanged(&Path::new("spec"), get(new, "spec"), at(old, "spec"));
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "resource.k8s.io",
            "v1",
            "ResourceClaimTemplate",
            "resourceclaimtemplates",
            "resourceclaimtemplate",
            "api.resource.v1.ResourceClaimTemplate",
        )
    }
}

fn validate(template: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec");
    let meta = at(template, "spec.metadata");
    metadata::labels(meta, "labels", &path.child("metadata").child("labels"), &mut causes);
    metadata::annotations(meta, &path.child("metadata").child("annotations"), &mut causes);
    devices::claim(at(template, "spec.spec"), &path.child("spec"), &mut causes);
    declared::validate("api.resource.v1.ResourceClaimTemplate", template, &mut causes);
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_of_a_claim_that_could_be_made() {
        let template = json!({"spec": {"metadata": {"labels": {"a b": "c"}},
            "spec": {"devices": {"requests": [{"name": "a", "exactly": {}}]}}}});
        let causes = validate(&template);
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(
            fields,
            ["spec.metadata.labels", "spec.spec.devices.requests[0].exactly.deviceClassName"]
        );
    }
}
