//! DeviceClass: a sort of devices that claims may ask for.

use crate::cause::Cause;
use crate::field::{Causes, Path, get, object_mut, text};
use crate::resource::{Resource, Rules};
use crate::rules::resources::is_extended;
use crate::rules::{declared, devices};
use serde_json::Value;
use std::sync::Arc;

/// The row. Name and age are all its table shows.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        generation: true,
        rules: Rules {
            default: Arc::new(|class| {
                object_mut(class, "spec");
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "resource.k8s.io",
            "v1",
            "DeviceClass",
            "deviceclasses",
            "deviceclass",
            "api.resource.v1.DeviceClass",
        )
    }
}

fn validate(class: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(class, "spec"), Path::new("spec"));
    devices::selectors(spec, &path, &mut causes);
    devices::configs(spec, None, &path, &mut causes);
    let name = text(spec, "extendedResourceName");
    if !name.is_empty() && !is_extended(name) {
        let why = "must be an extended resource name, as example.com/gpu";
        causes.invalid(&path.child("extendedResourceName"), name, why);
    }
    declared::validate("api.resource.v1.DeviceClass", class, &mut causes);
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_says_which_devices_are_of_it() {
        let rows = [
            (json!({}), ""),
            (json!({"selectors": [{"cel": {"expression": "device.driver == 'a.b'"}}]}), ""),
            (json!({"selectors": [{"cel": {}}]}), "spec.selectors[0].cel.expression"),
            (json!({"config": [{"opaque": {"driver": "a.b", "parameters": {}}}]}), ""),
            (
                json!({"config": [{"opaque": {"driver": "a b", "parameters": {}}}]}),
                "spec.config[0].opaque.driver",
            ),
            (
                json!({"config": [{"opaque": {"driver": "a.b"}}]}),
                "spec.config[0].opaque.parameters",
            ),
            (json!({"extendedResourceName": "gpu"}), "spec.extendedResourceName"),
        ];
        for (spec, expected) in rows {
            let causes = validate(&json!({"spec": spec}));
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{spec}");
        }
    }
}
