//! What a pod may know of itself: fields by path, and its containers' resources.
//! The same values serve `env[].valueFrom` and `downwardAPI` volumes.

use impresario_api::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// The value of a field path such as `metadata.labels['app']`; `None` when there is no such field.
pub fn field(pod: &Value, path: &str) -> Option<String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        if !matches!(map, "metadata.labels" | "metadata.annotations") {
            return None;
        }
        let value = pod.pointer(&format!("/{}", map.replace('.', "/")))?.get(key);
        return Some(value.and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    match path {
        "metadata.labels" | "metadata.annotations" => {
            let map = pod.pointer(&format!("/{}", path.replace('.', "/")));
            let pairs = map.and_then(Value::as_object).into_iter().flatten();
            let mut lines: Vec<_> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
            lines.sort();
            Some(lines.join("\n"))
        }
        "status.podIPs" => {
            let addresses = pod.pointer("/status/podIPs").and_then(Value::as_array)?;
            let addresses = addresses.iter().filter_map(|a| a.get("ip")?.as_str());
            Some(addresses.collect::<Vec<_>>().join(","))
        }
        "metadata.name"
        | "metadata.namespace"
        | "metadata.uid"
        | "spec.nodeName"
        | "spec.serviceAccountName"
        | "status.hostIP"
        | "status.podIP" => {
            let value = pod.pointer(&format!("/{}", path.replace('.', "/")));
            Some(value.and_then(Value::as_str).unwrap_or_default().to_owned())
        }
        _ => None,
    }
}

/// A container's request or limit, such as `limits.cpu`, in multiples of `divisor`, rounded up.
/// Where it names no limit, what the node can give stands in.
pub fn resource(
    pod: &Value,
    container: &str,
    path: &str,
    divisor: Option<&str>,
    allocatable: &BTreeMap<String, String>,
) -> Option<String> {
    let (list, name) = path.split_once('.')?;
    if !matches!(list, "limits" | "requests") {
        return None;
    }
    let containers = ["containers", "initContainers"].into_iter();
    let mut containers = containers.filter_map(|list| pod["spec"][list].as_array()).flatten();
    let found = containers.find(|c| c["name"] == container)?;
    let own = found["resources"][list].get(name).and_then(Value::as_str).map(str::to_owned);
    let stand_in = || if list == "limits" { allocatable.get(name).cloned() } else { None };
    let amount: Quantity = own.or_else(stand_in).unwrap_or_else(|| "0".into()).parse().ok()?;
    // Zero is how an absent divisor is written out.
    let divisor: Option<Quantity> = divisor.filter(|d| *d != "0").and_then(|d| d.parse().ok());
    let divisor = divisor.map_or(1000, |d| i128::from(d.millis())).max(1);
    let amount = i128::from(amount.millis());
    Some(((amount + divisor - 1) / divisor).to_string())
}
