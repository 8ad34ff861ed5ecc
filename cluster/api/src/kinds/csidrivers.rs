//! CSIDriver: what a driver of storage can do, and what it needs.

use crate::cause::Cause;
use crate::field::{Causes, Path, at, default, flag, get, has, list, number, object_mut, text};
use crate::resource::{Column, Resource, Rules};
use crate::rules::{declared, storage};
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

const MODES: [&str; 2] = ["Ephemeral", "Persistent"];
const POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=(1 << 32);

/// The row.
pub fn resource() -> Resource {
    let boolean = |name: &'static str, description: &'static str| Column {
        kind: "boolean".into(),
        ..Column::text(name, description)
    };
    Resource {
        namespaced: false,
        columns: vec![
            Column::name(),
            boolean("AttachRequired", "Whether a volume is attached before it is mounted."),
            boolean("PodInfoOnMount", "Whether it is told which pod mounts."),
            boolean("StorageCapacity", "Whether it says how much room there is."),
            Column::text("TokenRequests", "For whom it needs tokens of a pod's account."),
            boolean("RequiresRepublish", "Whether it is called again now and then."),
            Column::text("Modes", "Whether its volumes outlive a pod."),
            Column::age(),
        ],
        cells: Arc::new(cells),
        generation: true,
        rules: Rules {
            default: Arc::new(default_driver),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            ..Rules::plain()
        },
        ..Resource::named(
            "storage.k8s.io",
            "v1",
            "CSIDriver",
            "csidrivers",
            "csidriver",
            "api.storage.v1.CSIDriver",
        )
    }
}

fn default_driver(driver: &mut Value) {
    let spec = object_mut(driver, "spec");
    for (field, value) in [
        ("attachRequired", true),
        ("podInfoOnMount", false),
        ("storageCapacity", false),
        ("requiresRepublish", false),
        ("seLinuxMount", false),
    ] {
        default(spec, field, value);
    }
    crate::field::default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if list(spec, "volumeLifecycleModes").is_empty() {
        crate::field::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}

fn validate(driver: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let (spec, path) = (get(driver, "spec"), Path::new("spec"));
    let own_name = text(driver, "metadata.name");
    if !own_name.is_empty() {
        storage::driver_name(own_name, &Path::new("metadata").child("name"), &mut causes);
    }
    for (index, mode) in list(spec, "volumeLifecycleModes").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        if !MODES.contains(&mode.as_str().unwrap_or_default()) {
            let path = path.child("volumeLifecycleModes").index(index);
            causes.not_supported(&path, mode.clone(), &MODES);
        }
    }
    let policy = text(spec, "fsGroupPolicy");
    if !POLICIES.contains(&policy) {
        causes.not_supported(&path.child("fsGroupPolicy"), policy, &POLICIES);
    }
    let mut audiences = HashSet::new();
    for (index, request) in list(spec, "tokenRequests").iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = path.child("tokenRequests").index(index);
        let audience = text(request, "audience");
        if !audiences.insert(audience) {
            causes.duplicate(&path.child("audience"), audience);
        }
        let seconds = number(request, "expirationSeconds");
        if let Some(seconds) = seconds.filter(|seconds| !TOKEN_SECONDS.contains(seconds)) {
            let why = "must be between 10 minutes and 2^32 seconds";
            causes.invalid(&path.child("expirationSeconds"), seconds, why);
        }
    }
    let period = number(spec, "nodeAllocatableUpdatePeriodSeconds");
    if let Some(period) = period.filter(|period| *period < 10) {
        let path = path.child("nodeAllocatableUpdatePeriodSeconds");
        causes.invalid(&path, period, "must be greater than or equal to 10 seconds");
    }
    if flag(spec, "serviceAccountTokenInSecrets") && !has(spec, "tokenRequests") {
        let path = path.child("serviceAccountTokenInSecrets");
        causes.invalid(&path, true, "must not be set without tokenRequests");
    }
    // An audience may be empty: it is that of the API then.
    let mut required = Causes::default();
    declared::validate("api.storage.v1.CSIDriver", driver, &mut required);
    causes.append(required.into_vec().into_iter().filter(|it| !it.field.ends_with(".audience")));
    causes.into_vec()
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(validate(new));
    let path = Path::new("spec");
    for field in ["attachRequired", "volumeLifecycleModes"] {
        let (new, old) = (get(get(new, "spec"), field), get(get(old, "spec"), field));
        causes.unchanged(&path.child(field), new, old);
    }
    causes.into_vec()
}

fn cells(driver: &Value, now: Timestamp) -> Vec<Value> {
    let spec = get(driver, "spec");
    let audiences: Vec<&str> =
        list(spec, "tokenRequests").iter().map(|request| text(request, "audience")).collect();
    let audiences = if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
    let modes: Vec<&str> =
        list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let attach = at(spec, "attachRequired").as_bool().unwrap_or(true);
    vec![
        name(driver),
        attach.into(),
        flag(spec, "podInfoOnMount").into(),
        flag(spec, "storageCapacity").into(),
        audiences.into(),
        flag(spec, "requiresRepublish").into(),
        modes.join(",").into(),
        age(driver, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_says_what_it_needs_in_words_that_are_known() {
        let told = |causes: Vec<Cause>| {
            causes.into_iter().map(|it| it.field).collect::<Vec<_>>().join(" ")
        };
        let driver = |spec: Value| {
            let mut driver = json!({"metadata": {"name": "a.b"}, "spec": spec});
            default_driver(&mut driver);
            driver
        };
        let rows = [
            (json!({}), ""),
            (json!({"volumeLifecycleModes": ["Now"]}), "spec.volumeLifecycleModes[0]"),
            (json!({"fsGroupPolicy": "All"}), "spec.fsGroupPolicy"),
            (
                json!({"tokenRequests": [{"audience": ""}, {"audience": ""}]}),
                "spec.tokenRequests[1].audience",
            ),
            (
                json!({"tokenRequests": [{"audience": "a", "expirationSeconds": 1}]}),
                "spec.tokenRequests[0].expirationSeconds",
            ),
            (
                json!({"nodeAllocatableUpdatePeriodSeconds": 1}),
                "spec.nodeAllocatableUpdatePeriodSeconds",
            ),
            (json!({"serviceAccountTokenInSecrets": true}), "spec.serviceAccountTokenInSecrets"),
        ];
        for (spec, expected) in rows {
            assert_eq!(told(validate(&driver(spec.clone()))), expected, "{spec}");
        }
        let detached = driver(json!({"attachRequired": false}));
        assert_eq!(told(validate_update(&detached, &driver(json!({})))), "spec.attachRequired");
    }
}
