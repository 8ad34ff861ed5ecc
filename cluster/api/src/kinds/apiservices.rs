//! APIService: that a group and version of the API is served by somebody else.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, default, existing_mut, flag, get, has, list, number, set, text};
use crate::names;
use crate::resource::{Column, Effect, FieldLabel, Resource, Rules, Subresource, words};
use crate::rules::declared;
use crate::status::Status;
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        categories: words(["api-extensions"]),
        namespaced: false,
        subresources: vec![Subresource::status("APIService")],
        columns: vec![
            Column::name(),
            Column::text("Service", "Who serves it."),
            Column::text("Available", "Whether that answers."),
            Column::age(),
        ],
        cells: Arc::new(cells),
        effect: Effect::missing("no request is passed on by it"),
        rules: Rules {
            default: Arc::new(|service| {
                let reference =
                    service.get_mut("spec").and_then(|spec| existing_mut(spec, "service"));
                if let Some(reference) = reference {
                    default(reference, "port", 443);
                }
                crate::field::object_mut(service, "status");
            }),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            validate_status: Arc::new(|new, _| validate_status(new)),
            ..Rules::plain()
        },
        fields: vec![
            FieldLabel::new("spec.service.name", "/spec/service/name"),
            FieldLabel::new("spec.service.namespace", "/spec/service/namespace"),
        ],
        ..Resource::named(
            "apiregistration.k8s.io",
            "v1",
            "APIService",
            "apiservices",
            "apiservice",
            "kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        )
    }
}

fn prepare_create(service: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(service, "status", json!({}));
    Ok(())
}

fn validate(service: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(service, "spec"), Path::new("spec"));
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let wanted = format!("{version}.{group}");
    if text(service, "metadata.name") != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        causes.invalid(&Path::new("metadata").child("name"), text(service, "metadata.name"), &why);
    }
    if group.is_empty() {
        causes.required(
            &path.child("group"),
            "only v1 may have an empty group and it better be legacy kube",
        );
    } else {
        causes.invalid_all(&path.child("group"), group, names::dns_subdomain(group));
    }
    if version.is_empty() {
        causes.required(&path.child("version"), "");
    } else {
        causes.invalid_all(&path.child("version"), version, names::dns_1035_label(version));
    }
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let number = number(spec, field).unwrap_or(0);
        if number <= 0 || number > most {
            causes.invalid(
                &path.child(field),
                number,
                &format!("must be positive and less than {most}"),
            );
        }
    }
    let insecure = path.child("insecureSkipTLSVerify");
    if !has(spec, "service") {
        if !text(spec, "caBundle").is_empty() {
            let why = "local APIServices may not have a caBundle";
            causes.invalid(&path.child("caBundle"), "<bytes>", why);
        }
        if flag(spec, "insecureSkipTLSVerify") {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            causes.invalid(&insecure, true, why);
        }
        return causes.into_vec();
    }
    let (reference, service_path) = (get(spec, "service"), path.child("service"));
    for field in ["namespace", "name"] {
        if text(reference, field).is_empty() {
            causes.required(&service_path.child(field), "");
        }
    }
    if let Some(why) = names::port_number(number(reference, "port").unwrap_or(443)) {
        causes.invalid(&service_path.child("port"), number(reference, "port"), why);
    }
    if flag(spec, "insecureSkipTLSVerify") && !text(spec, "caBundle").is_empty() {
        causes.invalid(&insecure, true, "may not be true if caBundle is present");
    }
    declared::validate(
        "kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        service,
        &mut causes,
    );
    causes.into_vec()
}

fn validate_status(service: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("status").child("conditions");
    for (index, condition) in list(service, "status.conditions").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.index(index);
        if text(condition, "type").is_empty() {
            causes.required(&path.child("type"), "");
        }
        causes.one_of(
            &path.child("status"),
            text(condition, "status"),
            &["True", "False", "Unknown"],
        );
    }
    causes.into_vec()
}

fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let reference = get(get(service, "spec"), "service");
    let by = if reference.is_null() {
        "Local".to_owned()
    } else {
        format!("{}/{}", text(reference, "namespace"), text(reference, "name"))
    };
    let mut conditions = list(service, "status.conditions").iter();
    let available = match conditions.find(|one| text(one, "type") == "Available") {
        None => "Unknown".to_owned(),
        Some(one) if text(one, "status") == "True" => "True".to_owned(),
        Some(one) => format!("{} ({})", text(one, "status"), text(one, "reason")),
    };
    vec![name(service), by.into(), available.into(), age(service, now)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_after_what_it_serves() {
        let told = |causes: Vec<Cause>| {
            causes.into_iter().map(|it| it.field).collect::<Vec<_>>().join(" ")
        };
        let rows = [
            (json!({}), ""),
            (json!({"group": "b.c"}), "metadata.name"),
            (json!({"groupPriorityMinimum": 0}), "spec.groupPriorityMinimum"),
            (json!({"versionPriority": 1_001}), "spec.versionPriority"),
            (json!({"service": {"name": "s"}}), "spec.service.namespace"),
            (json!({"service": {"name": "s", "namespace": "d", "port": 0}}), "spec.service.port"),
            (json!({"caBundle": "YQ=="}), "spec.caBundle"),
            (
                json!({"service": {"name": "s", "namespace": "d"}, "caBundle": "YQ==", "insecureSkipTLSVerify": true}),
                "spec.insecureSkipTLSVerify",
            ),
        ];
        for (more, expected) in rows {
            let mut service = json!({"metadata": {"name": "v1.a.b"}, "spec": {"group": "a.b",
                "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}});
            for (field, value) in more.as_object().unwrap() {
                service["spec"][field] = value.clone();
            }
            assert_eq!(told(validate(&service)), expected, "{more}");
        }
    }
}
