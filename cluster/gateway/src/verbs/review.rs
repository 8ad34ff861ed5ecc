//! Questions about access: what is posted is answered, and nothing is kept of it.

use super::show;
use super::token::user_info;
use crate::answer::{self, Body};
use crate::authenticate::User;
use crate::authorize::{asker, explain};
use crate::call::{ResourceCall, target_of};
use crate::gateway::Gateway;
use crate::invalid::{bad_value, invalid};
use crate::options;
use hyper::Response;
use impresario_api::status::{Cause, Status};
use impresario_objects::rbac::{Asked, Asker, PolicyRule, Verdict, unread};
use serde_json::{Value, json};

/// Answers a question.
pub fn create(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let query = &call.call.query;
    // Nothing is written in any case; what is wrong with the options is said as ever.
    options::write("CreateOptions", &call.call)?;
    let validation = options::field_validation("CreateOptions", query)?;
    let mut decoded = call.call.decode(target_of(&call.resource), validation)?;
    let warnings = std::mem::take(&mut decoded.warnings);
    let mut review = decoded.object;
    let user = &call.call.user;
    let status = match &*call.resource.kind {
        "SelfSubjectReview" => json!({ "userInfo": user_info(user) }),
        "SelfSubjectRulesReview" => rules(gateway, user, &review)?,
        "SelfSubjectAccessReview" => {
            well_formed(call, &review)?;
            access(gateway, asker(user), &review)?
        }
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            well_formed(call, &review)?;
            let groups = texts(&review["spec"]["groups"]);
            let name = text(&review["spec"], "user");
            access(gateway, Asker { name, groups: &groups }, &review)?
        }
        kind => return Err(Status::internal(format!("nothing answers a {kind}"))),
    };
    review["status"] = status;
    let mut response = show(call, 201, review)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// Everything that a user may do in a namespace.
fn rules(gateway: &Gateway, user: &User, review: &Value) -> Result<Value, Status> {
    let namespace = text(&review["spec"], "namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = gateway.roles().rules_of(asker(user), namespace)?;
    let (paths, resources): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| !rule.urls.is_empty());
    let written = |rules: Vec<&PolicyRule>| -> Vec<Value> {
        rules.into_iter().map(PolicyRule::write).collect()
    };
    Ok(json!({
        "resourceRules": written(resources),
        "nonResourceRules": written(paths),
        "incomplete": false,
    }))
}

/// Whether somebody may do what a review asks about.
fn access(gateway: &Gateway, asker: Asker<'_>, review: &Value) -> Result<Value, Status> {
    let (resource, path) =
        (&review["spec"]["resourceAttributes"], &review["spec"]["nonResourceAttributes"]);
    let asked = if resource.is_object() {
        Asked::Resource {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
        }
    } else {
        Asked::Path { verb: text(path, "verb"), path: text(path, "path") }
    };
    match explain(gateway.roles(), asker, asked) {
        Verdict::Allowed(why) if why.is_empty() => Ok(json!({"allowed": true})),
        Verdict::Allowed(why) => Ok(json!({"allowed": true, "reason": why})),
        Verdict::Denied => Ok(json!({"allowed": false})),
        Verdict::Unread => Err(unread()),
    }
}

/// Refuses a review that asks about nothing, about two things, or about nobody.
fn well_formed(call: &ResourceCall, review: &Value) -> Result<(), Status> {
    let (kind, spec) = (&*call.resource.kind, &review["spec"]);
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut causes: Vec<Cause> = Vec::new();
    match (resource.is_object(), path.is_object()) {
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            causes.push(bad_value("spec.nonResourceAttributes", path, why));
        }
        (false, false) => {
            let why =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            causes.push(bad_value("spec.resourceAttributes", "null", why));
        }
        _ => {}
    }
    let of_others = kind != "SelfSubjectAccessReview";
    if of_others && text(spec, "user").is_empty() && texts(&spec["groups"]).is_empty() {
        let why = "at least one of user or group must be specified";
        causes.push(bad_value("spec.user", "\"\"", why));
    }
    if kind == "LocalSubjectAccessReview" {
        let namespace = call.path.namespace.as_str();
        if !["", namespace].contains(&text(&review["metadata"], "namespace")) {
            let why = format!(
                "the namespace of the review ({}) does not match the namespace on the URL ({namespace})",
                text(&review["metadata"], "namespace")
            );
            return Err(Status::bad_request(why));
        }
        if path.is_object() {
            let why = "disallowed on this kind of request";
            causes.push(bad_value("spec.nonResourceAttributes", path, why));
        }
        if resource.is_object() && text(resource, "namespace") != namespace {
            let (given, why) = (&resource["namespace"], "must match metadata.namespace");
            causes.push(bad_value("spec.resourceAttributes.namespace", given, why));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(invalid(&call.resource.group, kind, "", causes)) }
}
