//! What can be done with pods alone: binding them to a node, and evicting them.

use super::with_told;
use super::write::other_name;
use crate::answer::{self, Body};
use crate::call::{ResourceCall, known};
use crate::gateway::Gateway;
use crate::invalid::invalid;
use crate::options;
use hyper::Response;
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_api::wire::FieldValidation;
use impresario_objects::Binding;
use serde_json::{Value, json};

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}

/// Binds a pod to the node that the body names.
pub async fn bind(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let write = options::write("CreateOptions", &call.call)?;
    let binding = call.call.decode(known("", "v1", "Binding")?, FieldValidation::Ignore)?.object;
    let said = |pointer: &str| binding.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, node) = (said("/target/kind"), said("/target/name"));
    let mut causes = Vec::new();
    if !kind.is_empty() && kind != "Node" {
        causes.push(Cause {
            field: "target.kind".into(),
            reason: CauseReason::NotSupported,
            message: format!(
                "Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""
            ),
        });
    }
    if node.is_empty() {
        causes.push(Cause {
            field: "target.name".into(),
            reason: CauseReason::Required,
            message: "Required value".into(),
        });
    }
    // Of those that are posted to the collection the body alone says which pod is meant.
    let name = if call.path.name.is_empty() { said("/metadata/name") } else { &call.path.name };
    if name.is_empty() {
        let why = "name or generateName is required";
        causes.push(Cause {
            field: "metadata.name".into(),
            reason: CauseReason::Required,
            message: format!("Required value: {why}"),
        });
    }
    if !causes.is_empty() {
        return Err(invalid("", "Binding", name, causes));
    }
    if !["", name].contains(&said("/metadata/name")) {
        return Err(other_name(said("/metadata/name"), name));
    }
    let namespace = call.path.namespace.as_str();
    if !["", namespace].contains(&said("/metadata/namespace")) {
        return Err(Status::bad_request(format!(
            "the namespace of the Binding object ({}) does not match the namespace on the URL ({namespace})",
            said("/metadata/namespace")
        )));
    }
    let given = |pointer: &str| Some(said(pointer).to_owned()).filter(|text| !text.is_empty());
    let meant = Binding {
        node: node.to_owned(),
        uid: given("/metadata/uid"),
        resource_version: given("/metadata/resourceVersion"),
    };
    let metadata = &binding["metadata"];
    gateway.objects().bind_noting(namespace, name, &meant, metadata, &write).await?;
    Ok(answer::json(201, &success(), call.call.pretty()))
}

/// Evicts a pod: deletes it in the way that the body asks for, if its disruption budget allows that.
pub async fn evict(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let eviction =
        call.call.decode(known("policy", "v1", "Eviction")?, FieldValidation::Ignore)?.object;
    let path = &call.path;
    let said = |field: &str| eviction["metadata"][field].as_str().unwrap_or_default();
    if !["", &path.name].contains(&said("name")) {
        return Err(Status::bad_request(format!(
            "name in URL does not match name in Eviction object: {} and {}",
            path.name,
            said("name")
        )));
    }
    if !["", &path.namespace].contains(&said("namespace")) {
        return Err(Status::bad_request(format!(
            "the namespace of the Eviction object ({}) does not match the namespace on the URL ({})",
            said("namespace"),
            path.namespace
        )));
    }
    let body = eviction.get("deleteOptions").cloned().unwrap_or(Value::Null);
    let (options, writing) = options::delete(&call.resource, &call.call, &body)?;
    gateway
        .objects()
        .evict(&call.resource, &path.namespace, &path.name, &options, &writing)
        .await?;
    with_told(Ok(answer::json(201, &success(), call.call.pretty())), &writing)
}
