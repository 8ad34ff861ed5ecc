//! EndpointSlice: a part of the addresses behind a service.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, default, default_text, list, list_mut, number, text};
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules};
use crate::rules::addresses::{PROTOCOLS, endpoint_ip};
use crate::table::{age, first_three, name};
use serde_json::Value;
use std::sync::Arc;

const UNSET: &str = "<unset>";
const MAX_ADDRESSES: usize = 100;
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20_000;

/// The row.
pub fn resource() -> Resource {
    Resource {
        columns: vec![
            Column::name(),
            Column::text("AddressType", "IPv4, IPv6 or FQDN."),
            Column::text("Ports", "The ports of every endpoint."),
            Column::text("Endpoints", "The addresses."),
            Column::age(),
        ],
        cells: Arc::new(|slice, now| {
            let ports: Vec<String> = list(slice, "ports")
                .iter()
                .map(|port| match (number(port, "port"), text(port, "name")) {
                    (Some(number), _) => number.to_string(),
                    (None, name) if !name.is_empty() => name.to_owned(),
                    _ => "*".to_owned(),
                })
                .collect();
            let addresses: Vec<String> = list(slice, "endpoints")
                .iter()
                .flat_map(|endpoint| list(endpoint, "addresses"))
                .filter_map(|address| address.as_str().map(str::to_owned))
                .collect();
            vec![
                name(slice),
                text(slice, "addressType").into(),
                first_three(&ports, UNSET),
                first_three(&addresses, UNSET),
                age(slice, now),
            ]
        }),
        generation: true,
        effect: Effect::by("the proxies of services"),
        rules: Rules {
            default: Arc::new(|slice| {
                for port in list_mut(slice, "ports") {
                    default(port, "name", "");
                    default_text(port, "protocol", "TCP");
                }
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                causes.append(validate(new));
                causes.unchanged(
                    &Path::new("addressType"),
                    at(new, "addressType"),
                    at(old, "addressType"),
                );
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "discovery.k8s.io",
            "v1",
            "EndpointSlice",
            "endpointslices",
            "endpointslice",
            "api.discovery.v1.EndpointSlice",
        )
    }
}

fn validate(slice: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let kind = text(slice, "addressType");
    causes.one_of(&Path::new("addressType"), kind, &["IPv4", "IPv6", "FQDN"]);
    let endpoints = list(slice, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        causes.too_many(&Path::new("endpoints"), endpoints.len(), MAX_ENDPOINTS);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = Path::new("endpoints").index(index);
        let addresses = list(endpoint, "addresses");
        let list_path = path.child("addresses");
        if addresses.is_empty() {
            causes.required(&list_path, "must contain at least 1 address");
        } else if addresses.len() > MAX_ADDRESSES {
            causes.too_many(&list_path, addresses.len(), MAX_ADDRESSES);
        }
        for (index, address) in addresses.iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let (path, address) = (list_path.index(index), address.as_str().unwrap_or_default());
            match kind {
                "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                    causes.invalid(&path, address, "must be a valid IPv4 address");
                }
                "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                    causes.invalid(&path, address, "must be a valid IPv6 address");
                }
                "IPv4" | "IPv6" => endpoint_ip(&path, address, &mut causes),
                "FQDN" => causes.invalid_all(&path, address, names::dns_subdomain(address)),
                _ => {}
            }
        }
        for (field, check) in
            [("hostname", names::dns_label as names::Check), ("nodeName", names::dns_subdomain)]
        {
            let value = text(endpoint, field);
            if !value.is_empty() {
                causes.invalid_all(&path.child(field), value, check(value));
            }
        }
    }
    let ports = list(slice, "ports");
    if ports.len() > MAX_PORTS {
        causes.too_many(&Path::new("ports"), ports.len(), MAX_PORTS);
    }
    let mut seen = std::collections::HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = Path::new("ports").index(index);
        let port_name = text(port, "name");
        if !port_name.is_empty() {
            causes.invalid_all(&path.child("name"), port_name, names::dns_label(port_name));
        }
        if !seen.insert(port_name) {
            causes.duplicate(&path.child("name"), port_name);
        }
        causes.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
        let app = text(port, "appProtocol");
        if !app.is_empty() {
            causes.invalid_all(&path.child("appProtocol"), app, names::qualified(app));
        }
    }
    causes.into_vec()
}
