//! IPAddress: an address of the cluster that is somebody's.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, text};
use crate::names;
use crate::resource::{Column, Resource, Rules, words};
use crate::rules::declared;
use crate::table::name;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["ip"]),
        namespaced: false,
        columns: vec![Column::name(), Column::text("ParentRef", "Whose it is.")],
        cells: Arc::new(|address, _| vec![name(address), parent(address).into()]),
        name: |name| {
            if name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_string() == name) {
                Vec::new()
            } else {
                vec![
                    "must be an IP address in canonical form (e.g. 10.9.8.7 or 2001:db8::ffff)"
                        .to_owned(),
                ]
            }
        },
        rules: Rules {
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                let path = Path::new("spec").child("parentRef");
                causes.unchanged(&path, at(new, "spec.parentRef"), at(old, "spec.parentRef"));
                causes.into_vec()
            }),
            ..Rules::plain()
        },
        ..Resource::named(
            "networking.k8s.io",
            "v1",
            "IPAddress",
            "ipaddresses",
            "ipaddress",
            "api.networking.v1.IPAddress",
        )
    }
}

/// `services/default/web`, with the group behind the resource.
fn parent(address: &Value) -> String {
    let field = |field: &str| text(at(address, "spec.parentRef"), field);
    let group = match field("group") {
        "" => String::new(),
        group => format!(".{group}"),
    };
    let namespace = match field("namespace") {
        "" => String::new(),
        namespace => format!("{namespace}/"),
    };
    format!("{}{group}/{namespace}{}", field("resource"), field("name"))
}

fn validate(address: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec").child("parentRef");
    let checks: [(&str, names::Check); 2] =
        [("group", names::dns_subdomain), ("namespace", names::dns_label)];
    for (field, check) in checks {
        let given = text(at(address, "spec.parentRef"), field);
        if !given.is_empty() {
            causes.invalid_all(&path.child(field), given, check(given));
        }
    }
    declared::validate("api.networking.v1.IPAddress", address, &mut causes);
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_is_somebodys_and_is_spelt_in_one_way() {
        let address = json!({"spec": {"parentRef": {"resource": "services", "namespace": "d", "name": "web"}}});
        assert_eq!(validate(&address), []);
        assert_eq!(parent(&address), "services/d/web");
        let causes = validate(&json!({"spec": {}}));
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["spec.parentRef.resource", "spec.parentRef.name"]);
        let name = resource().name;
        let wrong = ["10.0.0.1", "fd00::1", "fd00::0001", "a"].map(|it| name(it).len());
        assert_eq!(wrong, [0, 0, 1, 1]);
    }
}
