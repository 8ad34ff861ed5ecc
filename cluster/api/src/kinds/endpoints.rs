//! Endpoints: the addresses behind a service.

use crate::cause::Cause;
use crate::field::{Causes, Path, default_text, list, list_mut, number, text};
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules, words};
use crate::rules::addresses::{PROTOCOLS, endpoint_ip};
use crate::table::{NONE, age, first_three, name};
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["ep"]),
        deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
            .into(),
        put_creates: true,
        columns: vec![
            Column::name(),
            Column::text("Endpoints", "The addresses and ports."),
            Column::age(),
        ],
        cells: Arc::new(|object, now| vec![name(object), addresses(object), age(object, now)]),
        effect: Effect::by("the controller of services, which writes it"),
        rules: Rules {
            default: Arc::new(|object| {
                for subset in list_mut(object, "subsets") {
                    for port in list_mut(subset, "ports") {
                        default_text(port, "protocol", "TCP");
                    }
                }
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..Resource::named("", "v1", "Endpoints", "endpoints", "endpoints", "api.core.v1.Endpoints")
    }
}

fn validate(object: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    for (index, subset) in list(object, "subsets").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = Path::new("subsets").index(index);
        let groups = ["addresses", "notReadyAddresses"];
        if groups.iter().all(|group| list(subset, group).is_empty()) {
            causes.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for group in groups {
            for (index, address) in list(subset, group).iter().enumerate() {
                if causes.is_full() {
                    break;
                }
                let path = path.child(group).index(index);
                endpoint_ip(&path.child("ip"), text(address, "ip"), &mut causes);
                for (field, check) in [
                    ("hostname", names::dns_label as names::Check),
                    ("nodeName", names::dns_subdomain),
                ] {
                    let value = text(address, field);
                    if !value.is_empty() {
                        causes.invalid_all(&path.child(field), value, check(value));
                    }
                }
            }
        }
        let ports = list(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            if causes.is_full() {
                break;
            }
            let path = path.child("ports").index(index);
            let port_name = text(port, "name");
            if port_name.is_empty() {
                if ports.len() > 1 {
                    causes.required(&path.child("name"), "");
                }
            } else {
                causes.invalid_all(&path.child("name"), port_name, names::dns_label(port_name));
            }
            let port_number = number(port, "port").unwrap_or(0);
            if let Some(why) = names::port_number(port_number) {
                causes.invalid(&path.child("port"), port_number, why);
            }
            causes.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
            let app = text(port, "appProtocol");
            if !app.is_empty() {
                causes.invalid_all(&path.child("appProtocol"), app, names::qualified(app));
            }
        }
    }
    causes.into_vec()
}

/// `<none>` says that nobody has looked yet; with subsets of which no address is ready, it is empty.
fn addresses(object: &Value) -> Value {
    let mut all = Vec::new();
    for subset in list(object, "subsets") {
        let addresses = || list(subset, "addresses").iter().map(|address| text(address, "ip"));
        let ports = list(subset, "ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let port = number(port, "port").unwrap_or(0);
            all.extend(addresses().map(|ip| {
                if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
            }));
        }
    }
    let none = if list(object, "subsets").is_empty() { NONE } else { "" };
    first_three(&all, none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn at_most_three_addresses_are_printed_and_only_ready_ones() {
        let ips = |ips: &[&str]| -> Value { ips.iter().map(|ip| json!({ "ip": ip })).collect() };
        let rows = [
            (json!([]), "<none>"),
            (json!([{"notReadyAddresses": ips(&["10.0.0.1"]), "ports": [{"port": 80}]}]), ""),
            (json!([{"addresses": ips(&["10.0.0.1"])}]), "10.0.0.1"),
            (
                json!([{"addresses": ips(&["10.0.0.1", "fd00::1"]), "ports": [{"port": 80}, {"port": 81}]}]),
                "10.0.0.1:80,[fd00::1]:80,10.0.0.1:81 + 1 more...",
            ),
        ];
        for (subsets, expected) in rows {
            assert_eq!(addresses(&json!({ "subsets": subsets })), expected);
        }
    }
}
