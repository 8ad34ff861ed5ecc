//! Ingress: which service answers at which host and path.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, at, get, has, list, number, object_mut, set, text};
use crate::names;
use crate::resource::{Column, Resource, Rules, Subresource, words};
use crate::rules::declared;
use crate::status::Status;
use crate::table::{age, first_three, name, or_none};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// The annotation that named the class before there was a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["ing"]),
        subresources: vec![Subresource::status("Ingress")],
        columns: vec![
            Column::name(),
            Column::text("Class", "Who serves it."),
            Column::text("Hosts", "The hosts that it answers for."),
            Column::text("Address", "Where it is reached."),
            Column::text("Ports", "The ports that it is reached at."),
            Column::age(),
        ],
        cells: Arc::new(cells),
        generation: true,
        rules: Rules {
            default: Arc::new(|ingress| {
                object_mut(object_mut(ingress, "status"), "loadBalancer");
            }),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate_create),
            validate_update: Arc::new(|new, _| validate(new)),
            validate_status: Arc::new(|new, _| validate_status(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "networking.k8s.io",
            "v1",
            "Ingress",
            "ingresses",
            "ingress",
            "api.networking.v1.Ingress",
        )
    }
}

fn prepare_create(ingress: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(ingress, "status", json!({"loadBalancer": {}}));
    Ok(())
}

fn validate_create(ingress: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let annotation = at(ingress, "metadata.annotations").get(CLASS_ANNOTATION);
    if let Some(class) = annotation.filter(|_| has(ingress, "spec.ingressClassName")) {
        let path = Path::new("annotations").child(CLASS_ANNOTATION);
        causes.invalid(&path, class.clone(), "can not be set when the class field is also set");
    }
    causes.append(validate(ingress));
    causes.into_vec()
}

fn validate(ingress: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(ingress, "spec"), Path::new("spec"));
    if list(spec, "rules").is_empty() && !has(spec, "defaultBackend") {
        let why = "either `defaultBackend` or `rules` must be specified";
        causes.invalid(&path, json!([]), why);
    }
    if has(spec, "defaultBackend") {
        backend(get(spec, "defaultBackend"), &path.child("defaultBackend"), &mut causes);
    }
    for (index, rule) in list(spec, "rules").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("rules").index(index);
        host(text(rule, "host"), &path.child("host"), &mut causes);
        for (index, entry) in list(rule, "http.paths").iter().enumerate() {
            if causes.is_full() {
                break;
            }
            http_path(entry, &path.child("http").child("paths").index(index), &mut causes);
        }
    }
    for (index, tls) in list(spec, "tls").iter().enumerate() {
        let path = path.child("tls").index(index);
        for (index, name) in list(tls, "hosts").iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let name = name.as_str().unwrap_or_default();
            let path = path.child("hosts").index(index);
            causes.invalid_all(&path, name, host_name(name));
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            causes.invalid_all(&path.child("secretName"), secret, names::dns_subdomain(secret));
        }
    }
    let class = text(spec, "ingressClassName");
    if has(spec, "ingressClassName") {
        causes.invalid_all(&path.child("ingressClassName"), class, names::dns_subdomain(class));
    }
    declared::validate("api.networking.v1.Ingress", ingress, &mut causes);
    causes.into_vec()
}

fn host(name: &str, path: &Path, causes: &mut Causes) {
    if name.is_empty() {
        return;
    }
    if name.parse::<IpAddr>().is_ok() {
        causes.invalid(path, name, "must be a DNS name, not an IP address");
    }
    causes.invalid_all(path, name, host_name(name));
}

/// A host, whose first label may stand for any.
fn host_name(name: &str) -> Vec<String> {
    match name.strip_prefix("*.") {
        Some(rest) => names::dns_subdomain(rest),
        None if name.contains('*') => vec![
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com')".to_owned(),
        ],
        None => names::dns_subdomain(name),
    }
}

/// What would mean another path to some of those who read it.
const AMBIGUOUS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];

fn http_path(entry: &Value, path: &Path, causes: &mut Causes) {
    let (given, place) = (text(entry, "path"), path.child("path"));
    match text(entry, "pathType") {
        "Exact" | "Prefix" => {
            if given.starts_with('/') {
                for part in AMBIGUOUS.iter().filter(|part| given.contains(**part)) {
                    causes.invalid(&place, given, &format!("must not contain '{part}'"));
                }
                for end in ["/..", "/."].iter().filter(|end| given.ends_with(**end)) {
                    causes.invalid(&place, given, &format!("cannot end with '{end}'"));
                }
            } else {
                causes.invalid(&place, given, "must be an absolute path");
            }
        }
        "ImplementationSpecific" if !given.is_empty() && !given.starts_with('/') => {
            causes.invalid(&place, given, "must be an absolute path");
        }
        _ => {}
    }
    if has(entry, "backend") {
        backend(get(entry, "backend"), &path.child("backend"), causes);
    }
}

fn backend(backend: &Value, path: &Path, causes: &mut Causes) {
    match (has(backend, "resource"), has(backend, "service")) {
        (true, true) => {
            causes.invalid(path, "", "cannot set both resource and service backends");
        }
        (true, false) => {
            let (group, path) = (text(backend, "resource.apiGroup"), path.child("resource"));
            if !group.is_empty() {
                causes.invalid_all(&path.child("apiGroup"), group, names::dns_subdomain(group));
            }
        }
        (false, true) => service(get(backend, "service"), path, causes),
        (false, false) => causes.invalid(path, "", "resource or service backend is required"),
    }
}

fn service(service: &Value, backend: &Path, causes: &mut Causes) {
    let path = backend.child("service");
    let service_name = text(service, "name");
    if !service_name.is_empty() {
        causes.invalid_all(&path.child("name"), service_name, names::dns_1035_label(service_name));
    }
    let port = path.child("port");
    let number_of = number(service, "port.number").filter(|number| *number != 0);
    match (text(service, "port.name"), number_of) {
        ("", None) => causes.required(backend, "port name or number is required"),
        ("", Some(number)) => {
            if let Some(why) = names::port_number(number) {
                causes.invalid(&port.child("number"), number, why);
            }
        }
        (name, None) => causes.invalid_all(&port.child("name"), name, names::port_name(name)),
        (_, Some(_)) => causes.invalid(backend, "", "cannot set both port name & port number"),
    }
}

fn validate_status(ingress: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    for (index, reached) in list(ingress, "status.loadBalancer.ingress").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let (path, ip, name) = (path.index(index), text(reached, "ip"), text(reached, "hostname"));
        if !ip.is_empty() {
            causes.invalid_all(&path.child("ip"), ip, names::ip(ip));
        }
        if !name.is_empty() {
            causes.invalid_all(&path.child("hostname"), name, names::dns_subdomain(name));
            if name.parse::<IpAddr>().is_ok() {
                let why = "must be a DNS name, not an IP address";
                causes.invalid(&path.child("hostname"), name, why);
            }
        }
    }
    causes.into_vec()
}

fn cells(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let hosts: Vec<String> = list(ingress, "spec.rules")
        .iter()
        .map(|rule| text(rule, "host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let addresses: Vec<&str> = list(ingress, "status.loadBalancer.ingress")
        .iter()
        .map(|reached| match text(reached, "ip") {
            "" => text(reached, "hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    let ports = if list(ingress, "spec.tls").is_empty() { "80" } else { "80, 443" };
    let class = match text(ingress, "spec.ingressClassName") {
        "" => at(ingress, "metadata.annotations").get(CLASS_ANNOTATION).and_then(Value::as_str),
        class => Some(class),
    };
    vec![
        name(ingress),
        or_none(class.unwrap_or_default()),
        first_three(&hosts, "*"),
        addresses.join(",").into(),
        ports.into(),
        age(ingress, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_somewhere_and_means_one_place() {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let path = |kind: &str, path: &str| json!({"rules": [{"http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}}]});
        let to = |backend: Value| json!({"defaultBackend": backend});
        let first = "spec.rules[0].http.paths[0].path";
        let rows = [
            (path("Prefix", "/a"), ""),
            (path("Prefix", "/a//b"), first),
            (path("Exact", "/a/.."), first),
            (path("ImplementationSpecific", ""), ""),
            (path("ImplementationSpecific", "a"), first),
            (path("Exact", ""), first),
            (json!({"rules": [{"host": "10.0.0.1"}]}), "spec.rules[0].host"),
            (json!({"rules": [{"host": "*.example.com"}]}), ""),
            (json!({"rules": [{"host": "a.*.com"}]}), "spec.rules[0].host"),
            (to(backend.clone()), ""),
            (to(json!({})), "spec.defaultBackend"),
            (to(json!({"service": {"name": "s"}})), "spec.defaultBackend"),
            (
                to(json!({"service": {"name": "s", "port": {"name": "a", "number": 1}}})),
                "spec.defaultBackend",
            ),
            (
                to(json!({"service": {"name": "s", "port": {"number": 70_000}}})),
                "spec.defaultBackend.service.port.number",
            ),
            (to(json!({"service": {"port": {"number": 7}}})), "spec.defaultBackend.service.name"),
            (to(json!({"resource": {"kind": "K"}})), "spec.defaultBackend.resource.name"),
            (
                json!({"defaultBackend": backend, "tls": [{"hosts": ["A"], "secretName": "a b"}]}),
                "spec.tls[0].hosts[0] spec.tls[0].secretName",
            ),
            (json!({"defaultBackend": backend, "ingressClassName": ""}), "spec.ingressClassName"),
        ];
        for (spec, expected) in rows {
            let causes = validate(&json!({"spec": spec}));
            let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
            assert_eq!(fields.join(" "), expected, "{spec}");
        }
    }

    #[test]
    fn a_class_is_named_once_and_addresses_are_some() {
        let both = json!({"metadata": {"annotations": {CLASS_ANNOTATION: "a"}},
            "spec": {"ingressClassName": "a", "rules": [{}]}});
        let fields = |causes: Vec<Cause>| causes.into_iter().map(|it| it.field).collect::<Vec<_>>();
        assert_eq!(fields(validate_create(&both)), [format!("annotations.{CLASS_ANNOTATION}")]);
        let reached = json!({"status": {"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "1.2.3.4"}]}}});
        let path = "status.loadBalancer.ingress";
        assert_eq!(
            fields(validate_status(&reached)),
            [format!("{path}[0].ip"), format!("{path}[1].hostname")]
        );
    }
}
