//! Service: one address for many pods.
//!
//! The row and its cells; defaults, rules and the drawing of addresses and ports are in
//! [`crate::rules::service`].

use crate::field::{list, number, text};
use crate::names;
use crate::resource::{
    Column, DeletionRule, Effect, FieldLabel, Resource, Rules, Subresource, words,
};
use crate::rules::service;
use crate::table::{NONE, UNKNOWN, age, label_list, name, or_none};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["svc"]),
        categories: words(["all"]),
        subresources: vec![Subresource::status("Service")],
        columns: vec![
            Column::name(),
            Column::text("Type", "How the service is reached."),
            Column::text("Cluster-IP", "Its address within the cluster."),
            Column::text("External-IP", "Its addresses for the world."),
            Column::text("Port(s)", "Its ports, with the node ports."),
            Column::age(),
            Column::text("Selector", "Which pods are behind it.").wide(),
        ],
        cells: Arc::new(cells),
        name: names::dns_1035_label,
        put_creates: true,
        effect: Effect::by("the controller of services, and the proxies of every node"),
        rules: Rules {
            default: Arc::new(service::default_service),
            prepare_create: Arc::new(service::prepare_create),
            prepare_update: Arc::new(service::prepare_update),
            validate: Arc::new(service::validate),
            validate_update: Arc::new(service::validate_update),
            allocate: Arc::new(service::allocate),
            ..Rules::plain()
        },
        fields: vec![
            FieldLabel::new("spec.clusterIP", "/spec/clusterIP"),
            FieldLabel::new("spec.type", "/spec/type"),
        ],
        deletion: DeletionRule::ANSWERS_OBJECT,
        ..Resource::named("", "v1", "Service", "services", "service", "api.core.v1.Service")
    }
}

fn joined(all: &[Value]) -> Vec<String> {
    all.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

fn external(service: &Value) -> Value {
    let mut own = joined(list(service, "spec.externalIPs"));
    match text(service, "spec.type") {
        "ClusterIP" | "NodePort" => or_none(&own.join(",")),
        "LoadBalancer" => {
            // In order and once each, however the balancer reports them.
            let reported: BTreeSet<&str> = list(service, "status.loadBalancer.ingress")
                .iter()
                .map(|ingress| match text(ingress, "ip") {
                    "" => text(ingress, "hostname"),
                    ip => ip,
                })
                .filter(|address| !address.is_empty())
                .collect();
            let mut all: Vec<String> = reported.into_iter().map(str::to_owned).collect();
            all.append(&mut own);
            if all.is_empty() { "<pending>".into() } else { all.join(",").into() }
        }
        "ExternalName" => text(service, "spec.externalName").into(),
        _ => UNKNOWN.into(),
    }
}

fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(service, "spec.ports")
        .iter()
        .map(|port| {
            let (number_of, protocol) = (number(port, "port").unwrap_or(0), text(port, "protocol"));
            match number(port, "nodePort").filter(|node_port| *node_port > 0) {
                Some(node_port) => format!("{number_of}:{node_port}/{protocol}"),
                None => format!("{number_of}/{protocol}"),
            }
        })
        .collect();
    let address = joined(list(service, "spec.clusterIPs"));
    vec![
        name(service),
        text(service, "spec.type").into(),
        address.first().map_or_else(|| NONE.into(), |first| first.as_str().into()),
        external(service),
        or_none(&ports.join(",")),
        age(service, now),
        label_list(service, "spec.selector"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_external_address_is_what_the_type_of_the_service_has() {
        let rows = [
            (json!({"type": "ClusterIP"}), json!([]), "<none>"),
            (json!({"type": "NodePort", "externalIPs": ["1.1.1.1"]}), json!([]), "1.1.1.1"),
            (json!({"type": "LoadBalancer"}), json!([]), "<pending>"),
            (
                json!({"type": "LoadBalancer", "externalIPs": ["1.1.1.1"]}),
                json!([{"ip": "5.6.7.8"}, {"hostname": "b.example"}, {"ip": "10.0.0.1"}, {"ip": "5.6.7.8"}, {}]),
                "10.0.0.1,5.6.7.8,b.example,1.1.1.1",
            ),
            (json!({"type": "ExternalName", "externalName": "a.example"}), json!([]), "a.example"),
        ];
        for (spec, ingress, expected) in rows {
            let service = json!({"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
            assert_eq!(external(&service), expected, "{service}");
        }
    }
}
