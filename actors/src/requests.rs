//! From quantities in objects to exact amounts, and back.
//!
//! A pod's effective request is, per resource, the larger of what its containers ask together and
//! what any init container asks while it runs; sidecars count with both. Overhead comes on top,
//! and the pod itself counts as one. A container that sets only a limit asks for that limit.

use impresario_api::quantity::Quantity;
use impresario_client::protocol::resources::{CPU, MEMORY, PODS, Resources};
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use std::collections::BTreeMap;

/// An amount as [`Resources`] counts it: thousandths of a CPU, units of everything else. What
/// cannot be read counts as more than any node has: such a pod is not placed by mistake.
fn amount(name: &str, written: &Written) -> u64 {
    let Ok(quantity) = written.0.parse::<Quantity>() else { return u64::MAX };
    let amount = if name == CPU { quantity.millis() } else { quantity.units() };
    u64::try_from(amount).unwrap_or(0)
}

/// The amounts of a resource list.
pub fn amounts(list: &BTreeMap<String, Written>) -> Resources {
    let mut resources = Resources::default();
    for (name, written) in list {
        resources.set(name, amount(name, written));
    }
    resources
}

/// A resource list with these amounts, in canonical form.
pub fn list(resources: &Resources) -> BTreeMap<String, Written> {
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let written = |quantity: Quantity| Written(quantity.to_string());
    let mut list = BTreeMap::from([
        (CPU.to_owned(), written(Quantity::from_millis(signed(resources.cpu_milli)))),
        (MEMORY.to_owned(), written(Quantity::from_bytes(signed(resources.memory_bytes)))),
        (PODS.to_owned(), written(Quantity::from_units(signed(resources.pods)))),
    ]);
    for (name, amount) in &resources.extended {
        list.insert(name.clone(), written(Quantity::from_units(signed(*amount))));
    }
    list
}

/// What one container asks.
pub fn of_container(container: &Container) -> Resources {
    let Some(resources) = &container.resources else { return Resources::default() };
    let mut asked = resources.limits.as_ref().map(amounts).unwrap_or_default();
    for (name, written) in resources.requests.iter().flatten() {
        asked.set(name, amount(name, written));
    }
    asked.pods = 0;
    asked
}

/// What a pod asks of a node, itself counted as one pod.
pub fn of_pod(spec: &PodSpec) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of_container(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let asked = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&asked);
            peak.raise_to(&sidecars);
        } else {
            let mut beside = asked;
            beside.add(&sidecars);
            peak.raise_to(&beside);
        }
    }
    running.add(&sidecars);
    running.raise_to(&peak);
    if let Some(overhead) = &spec.overhead {
        running.add(&amounts(overhead));
    }
    running.pods = 1;
    running
}

/// A container's limit or request, as the downward API and `resourceFieldRef` tell it: divided and
/// rounded up; a limit that is not set is what the node has to give.
pub fn field(
    container: &Container,
    path: &str,
    divisor: Option<&Written>,
    allocatable: &Resources,
) -> Option<u64> {
    let (kind, name) = path.split_once('.')?;
    let resources = container.resources.as_ref();
    let written = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return None,
    };
    let set = written.and_then(|map| map.get(name)).map(|written| amount(name, written));
    let amount = match (set, kind) {
        (Some(set), _) => set,
        (None, "limits") => allocatable.get(name),
        (None, _) => 0,
    };
    let divisor = divisor.map_or(0, |written| self::amount(name, written));
    let default = if name == CPU { 1000 } else { 1 };
    Some(amount.div_ceil(if divisor == 0 { default } else { divisor }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn requests(spec: Value) -> Resources {
        of_pod(&serde_json::from_value(spec).unwrap())
    }

    fn container(name: &str, requests: Value) -> Value {
        json!({"name": name, "resources": {"requests": requests}})
    }

    #[test]
    fn containers_add_up_and_the_largest_init_container_counts() {
        let asked = requests(json!({
            "containers": [container("a", json!({"cpu": "100m"})), container("b", json!({"cpu": "0.2", "memory": "1Gi"}))],
            "initContainers": [container("i", json!({"cpu": "250m"})), container("j", json!({"cpu": "400m"}))],
            "overhead": {"memory": "1Ki"}
        }));
        assert_eq!((asked.cpu_milli, asked.memory_bytes, asked.pods), (400, (1 << 30) + 1024, 1));
    }

    #[test]
    fn a_sidecar_counts_with_what_comes_after_it() {
        let asked = requests(json!({
            "containers": [container("a", json!({"cpu": "100m"}))],
            "initContainers": [
                container("before", json!({"cpu": "250m"})),
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m"}}},
                container("after", json!({"cpu": "150m"}))
            ]
        }));
        assert_eq!(asked.cpu_milli, 350);
    }

    #[test]
    fn a_limit_without_a_request_is_the_request() {
        let asked = requests(json!({"containers": [
            {"name": "a", "resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "1"}, "requests": {"cpu": "500m"}}}
        ]}));
        assert_eq!((asked.gpus(), asked.cpu_milli), (2, 500));
    }

    #[test]
    fn what_cannot_be_read_fits_nowhere() {
        let asked = requests(json!({"containers": [container("a", json!({"cpu": "much"}))]}));
        assert_eq!(asked.cpu_milli, u64::MAX);
    }

    #[test]
    fn a_list_is_written_as_it_is_read() {
        let mut resources =
            Resources { cpu_milli: 1500, memory_bytes: 3 << 30, pods: 110, ..Resources::default() };
        resources.set("nvidia.com/gpu", 2);
        let list = list(&resources);
        assert_eq!((list["cpu"].0.as_str(), list["memory"].0.as_str()), ("1500m", "3Gi"));
        assert_eq!(amounts(&list), resources);
    }

    #[test]
    fn fields_are_divided_and_rounded_up() {
        let spec = json!({"name": "a", "resources": {"limits": {"cpu": "1500m", "memory": "1Mi"}}});
        let container: Container = serde_json::from_value(spec).unwrap();
        let node = Resources { memory_bytes: 7, ..Resources::default() };
        let told = |path: &str, divisor: &str| {
            field(&container, path, Some(&Written(divisor.to_owned())), &node)
        };
        assert_eq!(told("limits.cpu", "0"), Some(2));
        assert_eq!(told("limits.cpu", "1m"), Some(1500));
        assert_eq!(told("limits.memory", "1Ki"), Some(1024));
        assert_eq!(told("requests.memory", "1"), Some(0));
        assert_eq!(told("weights.cpu", "1"), None);
    }
}
