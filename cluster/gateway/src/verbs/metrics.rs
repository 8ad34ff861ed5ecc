//! What nodes and pods use (`metrics.k8s.io`): the objects themselves are read, and what was measured of them is put beside
//! their names. What nothing is known of is not there.

use super::read::list_of;
use super::show;
use crate::answer::Body;
use crate::call::ResourceCall;
use crate::gateway::Gateway;
use crate::listed::Instead;
use crate::usage::UsageSource;
use hyper::Response;
use impresario_api::catalog::find;
use impresario_api::resource::{Resource, Row};
use impresario_api::status::{Reason, Status};
use impresario_client::protocol::usage::Amounts;
use impresario_registry_api::Consistency;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What one node or pod uses.
pub async fn get(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let measured = measured_of(&call.resource)?;
    let (namespace, name) = (call.path.namespace.as_str(), call.path.name.as_str());
    let found = gateway.objects().find(&measured, namespace, name, Consistency::Local).await?;
    let told = found
        .and_then(|stored| metrics(&call.resource, &stored.object, &**gateway.usage()))
        .ok_or_else(|| not_found(&call.resource, namespace, name))?;
    show(call, 200, told)
}

/// What all of them use that are selected.
pub async fn list(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let (usage, resource) = (Arc::clone(gateway.usage()), Row::clone(&call.resource));
    let told = move |object: &Value| metrics(&resource, object, &*usage);
    let measured = measured_of(&call.resource)?;
    list_of(gateway, call, &measured, Some(Instead(Arc::new(told)))).await
}

/// What is measured: the kind of this name whose objects are kept.
fn measured_of(resource: &Resource) -> Result<Row, Status> {
    find("", "v1", &resource.plural).ok_or_else(Status::no_such_path)
}

fn not_found(resource: &Resource, namespace: &str, name: &str) -> Status {
    // Kubernetes names the kind and both parts of the name here.
    let kind = resource.kind.to_lowercase();
    let whole = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    Status::new(Reason::NotFound, format!("{kind}.{} {whole:?} not found", resource.group))
}

/// What a node or a pod uses, if it is known.
fn metrics(resource: &Resource, object: &Value, usage: &dyn UsageSource) -> Option<Value> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = text("/metadata/name");
    if !resource.namespaced {
        let known = usage.node(name)?;
        let mut told = told(resource, object, known.taken, known.window);
        told["usage"] = amounts(known.of);
        return Some(told);
    }
    if !text("/metadata/deletionTimestamp").is_empty() || text("/status/phase") != "Running" {
        return None;
    }
    let known = usage.pod(text("/spec/nodeName"), text("/metadata/uid"))?;
    let mut told = told(resource, object, known.taken, known.window);
    let containers = known.of.containers.iter();
    let containers = containers.map(|one| json!({"name": one.name, "usage": amounts(one.amounts)}));
    told["containers"] = containers.collect();
    Some(told)
}

fn told(resource: &Resource, object: &Value, taken: Timestamp, window: Duration) -> Value {
    let taken = taken.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels"] {
        if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    metadata.insert("creationTimestamp".to_owned(), taken.clone().into());
    json!({
        "kind": resource.kind,
        "apiVersion": resource.api_version(),
        "metadata": metadata,
        "timestamp": taken,
        "window": in_go(window),
    })
}

/// A time as Go writes it: `5.001s`, `1m5s`.
fn in_go(time: Duration) -> String {
    let (minutes, millis) = (time.as_secs() / 60, time.as_millis() % 60_000);
    let whole = format!("{}", millis / 1000);
    let rest = format!(".{:03}", millis % 1000);
    let seconds = format!("{whole}{}s", rest.trim_end_matches('0').trim_end_matches('.'));
    if minutes == 0 { seconds } else { format!("{minutes}m{seconds}") }
}

/// Billionths of a CPU, and kibibytes: as the metrics server of Kubernetes has them.
fn amounts(amounts: Amounts) -> Value {
    let spelt = |number: u64, unit: &str| match number {
        0 => "0".to_owned(),
        number => format!("{number}{unit}"),
    };
    json!({"cpu": spelt(amounts.cpu_nanos, "n"), "memory": spelt(amounts.memory_bytes / 1024, "Ki")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_are_spelt_as_the_metrics_server_spells_them() {
        let of = |cpu_nanos, memory_bytes| amounts(Amounts { cpu_nanos, memory_bytes });
        assert_eq!(of(0, 1023), json!({"cpu": "0", "memory": "0"}));
        assert_eq!(of(12_345_678, 5 << 20), json!({"cpu": "12345678n", "memory": "5120Ki"}));
        let go = |millis| in_go(Duration::from_millis(millis));
        let spelt = [go(5000), go(4_990), go(5_001), go(65_000), go(0)];
        assert_eq!(spelt, ["5s", "4.99s", "5.001s", "1m5s", "0s"]);
    }
}
