//! IngressClass: who serves an ingress.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, default_text, existing_mut, has, text};
use crate::names;
use crate::resource::{Column, Resource, Rules};
use crate::rules::declared;
use crate::table::{NONE, age, name};
use serde_json::Value;
use std::sync::Arc;

const CONTROLLER_MAX: usize = 250;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("Controller", "Who serves it."),
            Column::text("Parameters", "What says more about it."),
            Column::age(),
        ],
        cells: Arc::new(|class, now| {
            vec![
                name(class),
                text(class, "spec.controller").into(),
                parameters(class),
                age(class, now),
            ]
        }),
        generation: true,
        rules: Rules {
            default: Arc::new(|class| {
                let parameters =
                    class.get_mut("spec").and_then(|spec| existing_mut(spec, "parameters"));
                if let Some(parameters) = parameters {
                    default_text(parameters, "scope", "Cluster");
                }
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                causes.append(validate(new));
                let path = Path::new("spec").child("controller");
                causes.unchanged(&path, at(new, "spec.controller"), at(old, "spec.controller"));
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "networking.k8s.io",
            "v1",
            "IngressClass",
            "ingressclasses",
            "ingressclass",
            "api.networking.v1.IngressClass",
        )
    }
}

fn parameters(class: &Value) -> Value {
    let parameters = at(class, "spec.parameters");
    if parameters.is_null() {
        return NONE.into();
    }
    let group = match text(parameters, "apiGroup") {
        "" => String::new(),
        group => format!(".{group}"),
    };
    format!("{}{group}/{}", text(parameters, "kind"), text(parameters, "name")).into()
}

fn validate(class: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec");
    let (controller, controller_path) = (text(class, "spec.controller"), path.child("controller"));
    if controller.is_empty() {
        causes.required(&controller_path, "");
    } else {
        causes.invalid_all(&controller_path, controller, names::domain_prefixed(controller));
    }
    if controller.len() > CONTROLLER_MAX {
        causes.too_long(&controller_path, CONTROLLER_MAX);
    }
    let (parameters, path) = (at(class, "spec.parameters"), path.child("parameters"));
    if parameters.is_object() {
        let group = text(parameters, "apiGroup");
        if !group.is_empty() {
            causes.invalid_all(&path.child("apiGroup"), group, names::dns_subdomain(group));
        }
        let scope = text(parameters, "scope");
        let (namespace, namespace_path) = (text(parameters, "namespace"), path.child("namespace"));
        causes.one_of(&path.child("scope"), scope, &["Cluster", "Namespace"]);
        if scope == "Namespace" {
            if namespace.is_empty() {
                causes.required(&namespace_path, "`parameters.scope` is set to 'Namespace'");
            } else {
                causes.invalid_all(&namespace_path, namespace, names::dns_label(namespace));
            }
        } else if has(parameters, "namespace") {
            let why = "`parameters.scope` is set to 'Cluster'";
            causes.forbidden(&namespace_path, why);
        }
    }
    declared::validate("api.networking.v1.IngressClass", class, &mut causes);
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_names_its_controller_and_where_its_parameters_are() {
        let rows = [
            (json!({"controller": "example.com/c"}), "", NONE),
            (json!({}), "spec.controller", NONE),
            (json!({"controller": "c"}), "spec.controller", NONE),
            (
                json!({"controller": "example.com/c", "parameters": {"apiGroup": "a.b", "kind": "K", "name": "n"}}),
                "",
                "K.a.b/n",
            ),
            (
                json!({"controller": "example.com/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}}),
                "spec.parameters.namespace",
                "K/n",
            ),
            (
                json!({"controller": "example.com/c", "parameters": {"kind": "K", "name": "n", "namespace": "d"}}),
                "spec.parameters.namespace",
                "K/n",
            ),
            (
                json!({"controller": "example.com/c", "parameters": {"kind": "K"}}),
                "spec.parameters.name",
                "K/",
            ),
        ];
        for (spec, expected, shown) in rows {
            let mut class = json!({"spec": spec});
            (resource().rules.default)(&mut class);
            let causes = validate(&class);
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{class}");
            assert_eq!(parameters(&class), shown, "{class}");
        }
    }
}
