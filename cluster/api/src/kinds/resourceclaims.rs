//! ResourceClaim: devices that somebody wants, and those that they got.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{Causes, Path, at, get, has, list, object_mut, same, set, text};
use crate::resource::{Column, Resource, Rules, Subresource};
use crate::rules::{declared, devices};
use crate::status::Status;
use crate::table::{age, name};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

const RESERVED_MAX: usize = 256;

/// The row.
pub fn resource() -> Resource {
    Resource {
        subresources: vec![Subresource::status("ResourceClaim")],
        columns: vec![
            Column::name(),
            Column::text("State", "Whether it has got its devices, and somebody uses them."),
            Column::age(),
        ],
        cells: Arc::new(|claim, now| vec![name(claim), state(claim).into(), age(claim, now)]),
        rules: Rules {
            default: Arc::new(|claim| {
                devices::default_claim(object_mut(claim, "spec"));
                object_mut(claim, "status");
            }),
            prepare_create: Arc::new(prepare_create),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, old| {
                let mut causes = Causes::default();
                causes.unchanged(&Path::new("spec"), get(new, "spec"), at(old, "spec"));
                causes.into_vec()
            }),
            validate_status: Arc::new(validate_status),
            ..Rules::plain()
        },
        ..Resource::named(
            "resource.k8s.io",
            "v1",
            "ResourceClaim",
            "resourceclaims",
            "resourceclaim",
            "api.resource.v1.ResourceClaim",
        )
    }
}

fn state(claim: &Value) -> String {
    let mut state = Vec::new();
    if has(claim, "metadata.deletionTimestamp") {
        state.push("deleted");
    }
    if has(claim, "status.allocation") {
        state.push("allocated");
        if !list(claim, "status.reservedFor").is_empty() {
            state.push("reserved");
        }
    } else if state.is_empty() {
        state.push("pending");
    }
    state.join(",")
}

fn prepare_create(claim: &mut Value, _: &Context<'_>) -> Result<(), Status> {
    set(claim, "status", json!({}));
    Ok(())
}

fn validate(claim: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    devices::claim(get(claim, "spec"), &Path::new("spec"), &mut causes);
    declared::validate("api.resource.v1.ResourceClaim", claim, &mut causes);
    causes.into_vec()
}

/// What was given stays for as long as it is given; who uses it is named once.
fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("status");
    let (allocated, was) = (at(new, "status.allocation"), at(old, "status.allocation"));
    if !allocated.is_null() && !was.is_null() && !same(allocated, was) {
        causes.invalid(&path.child("allocation"), allocated.clone(), "field is immutable");
    }
    let (users, users_path) = (list(new, "status.reservedFor"), path.child("reservedFor"));
    if users.len() > RESERVED_MAX {
        causes.too_many(&users_path, users.len(), RESERVED_MAX);
    }
    if !users.is_empty() && allocated.is_null() {
        causes.forbidden(&users_path, "may not be specified when `allocated` is not set");
    }
    let mut seen = HashSet::new();
    for (index, user) in users.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let uid = text(user, "uid");
        if !seen.insert(uid) {
            causes.duplicate(&users_path.index(index).child("uid"), uid);
        }
    }
    let mut seen = HashSet::new();
    for (index, device) in list(new, "status.devices").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let key = ["driver", "pool", "device", "shareID"].map(|field| text(device, field));
        if !seen.insert(key) {
            causes.duplicate(&path.child("devices").index(index), device.clone());
        }
    }
    declared::validate_part(
        "api.resource.v1.ResourceClaimStatus",
        get(new, "status"),
        &path,
        &mut causes,
    );
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_claim_has_got_stays_and_each_of_its_users_is_named_once() {
        let told = |causes: Vec<Cause>| {
            causes.into_iter().map(|it| it.field).collect::<Vec<_>>().join(" ")
        };
        let user = json!({"resource": "pods", "name": "p", "uid": "u"});
        let claim = |allocation: Value, users: Value| json!({"status": {"allocation": allocation, "reservedFor": users}});
        let (one, other) = (
            json!({"devices": {}}),
            json!({"devices": {}, "allocationTimestamp": "2026-01-01T00:00:00Z"}),
        );
        assert_eq!(told(validate_status(&claim(one.clone(), json!([user])), &json!({}))), "");
        assert_eq!(
            told(validate_status(&claim(one.clone(), json!([user, user])), &json!({}))),
            "status.reservedFor[1].uid"
        );
        assert_eq!(
            told(validate_status(&claim(Value::Null, json!([user])), &json!({}))),
            "status.reservedFor"
        );
        let changed = validate_status(&claim(other, json!([])), &claim(one.clone(), json!([])));
        assert_eq!(told(changed), "status.allocation");
        let states = [json!({}), claim(one.clone(), json!([])), claim(one, json!([user]))]
            .map(|it| state(&it));
        assert_eq!(states, ["pending", "allocated", "allocated,reserved"]);
        assert_eq!(state(&json!({"metadata": {"deletionTimestamp": "x"}})), "deleted");
    }
}
