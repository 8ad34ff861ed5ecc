//! ServiceCIDR: a range that addresses of services are drawn from.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, get, list, object_mut, same, set};
use crate::names;
use crate::resource::{Column, Effect, Resource, Rules, Subresource};
use crate::status::Status;
use crate::table::{age, name};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        subresources: vec![Subresource::status("ServiceCIDR")],
        columns: vec![
            Column::name(),
            Column::text("CIDRs", "The ranges, one a family."),
            Column::age(),
        ],
        cells: Arc::new(|range, now| {
            let ranges: Vec<&str> =
                list(range, "spec.cidrs").iter().filter_map(Value::as_str).collect();
            vec![name(range), ranges.join(",").into(), age(range, now)]
        }),
        effect: Effect::missing("no address is drawn from it"),
        rules: Rules {
            default: Arc::new(|range| {
                object_mut(range, "spec");
                object_mut(range, "status");
            }),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        ..Resource::named(
            "networking.k8s.io",
            "v1",
            "ServiceCIDR",
            "servicecidrs",
            "servicecidr",
            "api.networking.v1.ServiceCIDR",
        )
    }
}

fn prepare_create(range: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(range, "status", json!({}));
    Ok(())
}

fn validate(range: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec").child("cidrs");
    let ranges = list(range, "spec.cidrs");
    if ranges.is_empty() {
        causes.required(&path, "at least one CIDR required");
    }
    if ranges.len() > 2 {
        let why = "may only hold up to 2 values";
        causes.invalid(&path, get(get(range, "spec"), "cidrs").clone(), why);
        return causes.into_vec();
    }
    let mut families = Vec::new();
    for (index, cidr) in ranges.iter().enumerate() {
        let (path, cidr) = (path.index(index), cidr.as_str().unwrap_or_default());
        let wrong = names::cidr(cidr);
        if wrong.is_empty() {
            families.extend(cidr.split_once('/').and_then(|(ip, _)| ip.parse::<IpAddr>().ok()));
        }
        causes.invalid_all(&path, cidr, wrong);
    }
    if let [one, other] = families.as_slice()
        && one.is_ipv4() == other.is_ipv4()
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
        causes.invalid(&path, get(get(range, "spec"), "cidrs").clone(), why);
    }
    causes.into_vec()
}

/// A range of one family may get one of the other.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (now, was) = (list(new, "spec.cidrs"), list(old, "spec.cidrs"));
    let grows = was.len() == 1 && now.len() == 2 && same(&now[0], &was[0]);
    if grows {
        causes.append(validate(new));
    } else if now != was {
        let path = Path::new("spec").child("cidrs");
        causes.invalid(&path, json!(now), "field is immutable");
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_of_one_family_or_of_both_and_stays() {
        let range = |ranges: Value| json!({"spec": {"cidrs": ranges}});
        let told = |causes: Vec<Cause>| {
            causes.into_iter().map(|it| it.field).collect::<Vec<_>>().join(" ")
        };
        let rows = [
            (json!(["10.0.0.0/16"]), ""),
            (json!(["10.0.0.0/16", "fd00::/64"]), ""),
            (json!(["10.0.0.0/16", "10.1.0.0/16"]), "spec.cidrs"),
            (json!([]), "spec.cidrs"),
            (json!(["10.0.0.0/33"]), "spec.cidrs[0]"),
        ];
        for (ranges, expected) in rows {
            assert_eq!(told(validate(&range(ranges.clone()))), expected, "{ranges}");
        }
        let one = range(json!(["10.0.0.0/16"]));
        assert_eq!(told(validate_update(&range(json!(["10.0.0.0/16", "fd00::/64"])), &one)), "");
        assert_eq!(told(validate_update(&range(json!(["10.1.0.0/16"])), &one)), "spec.cidrs");
    }
}
