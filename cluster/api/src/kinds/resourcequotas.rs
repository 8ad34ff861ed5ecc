//! ResourceQuota: how much of what a namespace may have together.

use crate::cause::Cause;
use crate::context::Context;
use crate::field::{
    Causes, Path, copy, entries, existing_mut, get, list, object_mut, remove, text,
};
use crate::names;
use crate::policy::quota::{SCOPES, is_quota_resource};
use crate::quantity;
use crate::resource::{Column, Effect, Resource, Rules, Subresource, words};
use crate::rules::metadata;
use crate::rules::resources::{canonical_amounts, quantity_value};
use crate::status::Status;
use crate::table::{age, name};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        short_names: words(["quota"]),
        subresources: vec![Subresource::status("ResourceQuota")],
        columns: vec![
            Column::name(),
            Column::text("Request", "What is used of what may be asked for."),
            Column::text("Limit", "What is used of what may be used at most."),
            Column::age(),
        ],
        cells: Arc::new(cells),
        effect: Effect::by("every write that raises what it counts, and its recount"),
        rules: Rules {
            default: Arc::new(default_quota),
            prepare_create: Arc::new(|quota, _: &Context<'_>| -> Result<(), Status> {
                remove(quota, "status");
                Ok(())
            }),
            validate: Arc::new(validate),
            validate_update: Arc::new(validate_update),
            validate_status: Arc::new(|new, _| metadata::validate_again(new)),
            ..Rules::plain()
        },
        ..Resource::named(
            "",
            "v1",
            "ResourceQuota",
            "resourcequotas",
            "resourcequota",
            "api.core.v1.ResourceQuota",
        )
    }
}

fn default_quota(quota: &mut Value) {
    let spec = object_mut(quota, "spec");
    if let Some(hard) = existing_mut(spec, "hard") {
        canonical_amounts(hard);
    }
    if let Some(status) = existing_mut(quota, "status") {
        for side in ["hard", "used"] {
            if let Some(amounts) = existing_mut(status, side) {
                canonical_amounts(amounts);
            }
        }
    }
    let empty = get(quota, "status").as_object().is_some_and(serde_json::Map::is_empty);
    if empty {
        copy(&Value::Null, quota, "status");
    }
}

fn validate(quota: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    let path = Path::new("spec");
    for (resource, amount) in entries(get(quota, "spec"), "hard") {
        if causes.is_full() {
            break;
        }
        let path = path.child("hard").key(resource);
        let wrong = names::qualified(resource);
        let is_name = wrong.is_empty();
        causes.invalid_all(&path, resource, wrong);
        if is_name && !resource.contains('/') && !is_quota_resource(resource) {
            causes.invalid(&path, resource, "must be a standard resource for quota");
        }
        quantity_value(&path, resource, amount, &mut causes);
    }
    scopes(get(quota, "spec"), &path, &mut causes);
    causes.into_vec()
}

fn scopes(spec: &Value, path: &Path, causes: &mut Causes) {
    let scopes: BTreeSet<&str> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    let terms = list(spec, "scopeSelector.matchExpressions");
    let named = terms.iter().map(|term| text(term, "scopeName"));
    let all: BTreeSet<&str> = scopes.iter().copied().chain(named).collect();
    for (index, scope) in list(spec, "scopes").iter().filter_map(Value::as_str).enumerate() {
        if !SCOPES.contains(&scope) {
            causes.invalid(&path.child("scopes").index(index), scope, "unsupported scope");
        }
    }
    let selector = path.child("scopeSelector").child("matchExpressions");
    for (index, term) in terms.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        let path = selector.index(index);
        let scope = text(term, "scopeName");
        if !SCOPES.contains(&scope) {
            causes.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        let values = list(term, "values");
        let operator = text(term, "operator");
        let only_exists = !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        match operator {
            "In" | "NotIn" if values.is_empty() => causes.required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => causes.invalid(
                &path.child("values"),
                values.to_vec(),
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                causes.invalid(&path.child("operator"), other, "not a valid selector operator");
            }
        }
        if only_exists && operator != "Exists" {
            let why = format!("must be 'Exist' when scope is {scope}");
            causes.invalid(&path.child("operator"), operator, &why);
        }
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if all.contains(one) && all.contains(other) {
            let shown: Vec<Value> = all.iter().map(|scope| (*scope).into()).collect();
            causes.invalid(&path.child("scopes"), shown, "conflicting scopes");
        }
    }
    // What has a scope at all are the standard resources: what is somebody's own may have any.
    for (resource, _) in entries(spec, "hard").filter(|(resource, _)| !resource.contains('/')) {
        for scope in all.iter().filter(|scope| SCOPES.contains(scope)) {
            if !crate::policy::quota::goes_with(scope, resource) {
                let shown: Vec<Value> = all.iter().map(|scope| (*scope).into()).collect();
                let why = format!("unsupported scope applied to resource {resource}");
                causes.invalid(&path.child("scopes"), shown, &why);
            }
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    causes.append(metadata::validate_again(new));
    causes.append(validate(new));
    let scopes = |quota: &Value| -> BTreeSet<String> {
        let scopes = list(quota, "spec.scopes").iter().filter_map(Value::as_str);
        scopes.map(str::to_owned).collect()
    };
    if scopes(new) != scopes(old) {
        let shown = crate::field::at(new, "spec.scopes").clone();
        causes.invalid(&Path::new("spec").child("scopes"), shown, "field is immutable");
    }
    causes.into_vec()
}

fn cells(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = crate::field::at(quota, "status.used");
    let hard: std::collections::BTreeMap<&str, &Value> = entries(quota, "status.hard").collect();
    for (resource, hard) in hard {
        let shown = |amount: &Value| quantity::canonical(amount).unwrap_or_else(|| "0".to_owned());
        let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{resource}: {}/{}", shown(get(used, resource)), shown(hard)));
    }
    vec![name(quota), requests.join(", ").into(), limits.join(", ").into(), age(quota, now)]
}
