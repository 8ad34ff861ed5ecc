//! Binding: one transaction for all pods of a node, each still unbound at the revision that was
//! planned with. Where one of them changed meanwhile, each is tried on its own.

use impresario_api::managed::{self, Writer};
use impresario_registry_api::{Fence, Key, RegistryHandle, Remedy, Revision, Transaction};
use impresario_runtime::clock;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// A pod that has room on a node.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Its uid.
    pub uid: String,
    /// Its key.
    pub key: Key,
    /// The revision at which it was unbound.
    pub revision: Revision,
    /// The object at that revision.
    pub value: bytes::Bytes,
}

/// What came of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It is bound.
    Bound,
    /// It is not.
    Lost,
    /// It may be; the watch will tell.
    Unknown,
    /// Nothing may be written any more under this fence.
    Fenced,
}

/// The name under which a scheduler owns what it writes.
const MANAGER: &str = "impresario-scheduler";

/// Binds the pods to the node within `deadline`.
pub async fn bind(
    registry: &RegistryHandle,
    node: &str,
    bindings: Vec<Binding>,
    fence: Option<Fence>,
    deadline: Duration,
) -> BTreeMap<String, Placed> {
    let uids: Vec<_> = bindings.iter().map(|binding| binding.uid.clone()).collect();
    let within = tokio::time::timeout(deadline, bind_all(registry, node, bindings, fence));
    within.await.unwrap_or_else(|_| uids.into_iter().map(|uid| (uid, Placed::Unknown)).collect())
}

async fn bind_all(
    registry: &RegistryHandle,
    node: &str,
    bindings: Vec<Binding>,
    fence: Option<Fence>,
) -> BTreeMap<String, Placed> {
    let now = clock::timestamp();
    let mut placed = BTreeMap::new();
    let mut ready = Vec::new();
    for binding in bindings {
        match bound_value(&binding, node, now) {
            Some(value) => ready.push((binding, value)),
            None => drop(placed.insert(binding.uid, Placed::Lost)),
        }
    }
    let transaction = |pods: &[(Binding, Vec<u8>)]| {
        let mut transaction = Transaction::new();
        transaction.fence = fence;
        pods.iter().fold(transaction, |transaction, (binding, value)| {
            let compare = impresario_registry_api::Compare::Revision {
                key: binding.key.clone(),
                revision: binding.revision,
            };
            if impresario_runtime::mutant!(BindUnchecked) {
                return transaction.put(binding.key.clone(), value.clone());
            }
            transaction.when(compare).put(binding.key.clone(), value.clone())
        })
    };
    if ready.is_empty() {
        return placed;
    }
    let together = outcome(registry.transact(transaction(&ready)).await.map(drop), node);
    if together != Placed::Lost || ready.len() == 1 {
        placed.extend(ready.into_iter().map(|(binding, _)| (binding.uid, together)));
        return placed;
    }
    for pod in ready {
        let one = outcome(
            registry.transact(transaction(std::slice::from_ref(&pod))).await.map(drop),
            node,
        );
        placed.insert(pod.0.uid, one);
    }
    placed
}

fn outcome(answer: Result<(), impresario_registry_api::TransactError>, node: &str) -> Placed {
    let Err(error) = answer else { return Placed::Bound };
    tracing::debug!(%node, %error, "binding");
    match (&error, error.remedy()) {
        (_, Remedy::Stop) => Placed::Fenced,
        (impresario_registry_api::TransactError::Unknown { .. }, _) => Placed::Unknown,
        (_, Remedy::ReadAgain | Remedy::Retry | Remedy::GiveUp) => Placed::Lost,
    }
}

/// The object, bound. `None` where it is bound already or no object.
fn bound_value(binding: &Binding, node: &str, now: Timestamp) -> Option<Vec<u8>> {
    let mut pod: Value = serde_json::from_slice(&binding.value).ok()?;
    let spec = pod.get_mut("spec")?.as_object_mut()?;
    if spec.get("nodeName").and_then(Value::as_str).is_some_and(|name| !name.is_empty()) {
        return None;
    }
    spec.insert("nodeName".to_owned(), node.into());
    not_nominated(&mut pod);
    set_condition(&mut pod, json!({"type": "PodScheduled", "status": "True"}), now);
    managed::took(
        &mut pod,
        &Writer { manager: MANAGER, subresource: "", now },
        &["spec", "nodeName"],
    );
    Some(pod.to_string().into_bytes())
}

/// No room is kept for the pod any more: it has it, or looks elsewhere.
pub fn not_nominated(pod: &mut Value) {
    if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("nominatedNodeName");
    }
}

/// Sets a condition of a pod; its transition time changes only with its status.
pub fn set_condition(pod: &mut Value, mut condition: Value, now: Timestamp) {
    let generation = pod.pointer("/metadata/generation").cloned();
    let status = &mut pod["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    let earlier = conditions.iter_mut().find(|earlier| earlier["type"] == condition["type"]);
    let since = earlier.as_ref().filter(|earlier| earlier["status"] == condition["status"]);
    let since =
        since.and_then(|earlier| earlier.get("lastTransitionTime")).filter(|time| !time.is_null());
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    condition["lastTransitionTime"] = since.cloned().unwrap_or_else(|| seconds.into());
    condition["lastProbeTime"] = Value::Null;
    if let Some(generation) = generation {
        condition["observedGeneration"] = generation;
    }
    match earlier {
        Some(earlier) => *earlier = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_registry::{Consistency, MemoryRegistry};
    use std::sync::Arc;

    async fn created(registry: &RegistryHandle, name: &str) -> Binding {
        let key = Key::new("pods", "ns", name);
        let value = json!({"metadata": {"name": name, "uid": name}, "spec": {}, "status": {"phase": "Pending"}});
        let value = bytes::Bytes::from(value.to_string());
        let committed =
            registry.transact(Transaction::create(key.clone(), value.clone())).await.unwrap();
        Binding { uid: name.to_owned(), key, revision: committed.revision, value }
    }

    async fn node_of(registry: &RegistryHandle, name: &str) -> Value {
        let (entry, _) =
            registry.get(Key::new("pods", "ns", name), Consistency::Local).await.unwrap();
        serde_json::from_slice::<Value>(&entry.unwrap().value).unwrap()["spec"]["nodeName"].clone()
    }

    #[tokio::test]
    async fn a_pod_that_changed_meanwhile_does_not_keep_the_others_from_being_bound() {
        let registry: RegistryHandle = Arc::new(MemoryRegistry::new());
        let (a, b) = (created(&registry, "a").await, created(&registry, "b").await);
        let changed = Transaction::update(a.key.clone(), a.revision, a.value.clone());
        registry.transact(changed).await.unwrap();

        let placed = bind(&registry, "n1", vec![a, b], None, Duration::from_secs(10)).await;
        assert_eq!(
            placed,
            [("a".to_owned(), Placed::Lost), ("b".to_owned(), Placed::Bound)].into()
        );
        assert_eq!(
            (node_of(&registry, "a").await, node_of(&registry, "b").await),
            (Value::Null, json!("n1"))
        );
    }

    #[tokio::test]
    async fn nobody_is_bound_twice() {
        let registry: RegistryHandle = Arc::new(MemoryRegistry::new());
        let a = created(&registry, "a").await;
        let first = bind(&registry, "n1", vec![a.clone()], None, Duration::from_secs(10));
        let second = bind(&registry, "n2", vec![a], None, Duration::from_secs(10));
        let (first, second) = tokio::join!(first, second);
        assert_ne!(first["a"], second["a"]);
    }

    #[test]
    fn a_condition_keeps_its_time_as_long_as_its_status() {
        let early = Timestamp::UNIX_EPOCH;
        let late = early + Duration::from_mins(1);
        let mut pod = json!({"metadata": {"generation": 3}});
        let told =
            |message: &str| json!({"type": "PodScheduled", "status": "False", "message": message});
        set_condition(&mut pod, told("one"), early);
        set_condition(&mut pod, told("two"), late);
        let condition = &pod["status"]["conditions"][0];
        assert_eq!(condition["message"], "two");
        assert_eq!(condition["observedGeneration"], 3);
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
        set_condition(&mut pod, json!({"type": "PodScheduled", "status": "True"}), late);
        assert_eq!(pod["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:01:00Z");
    }
}
