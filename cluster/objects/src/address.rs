//! What objects hold beside themselves: addresses and ports of services, and the closed door of a namespace that goes.
//!
//! An address or a port is held by a key of the registry. It is written in the transaction that writes the service,
//! with the condition that nobody has it, and removed in the one that removes the service: no two services ever hold the same one,
//! whichever members wrote them, and none is lost.

use super::Objects;
use super::quota::mark_of;
use impresario_api::admission::{Account, RandomAllocator};
use impresario_api::catalog::find;
use impresario_api::policy::priority;
use impresario_api::resource::Resource;
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::{CLOSING_NAMESPACES, bytes_of, text};
use impresario_registry_api::{
    Compare, Consistency, Key, ListRequest, Operation, Selection, Transaction,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

const ADDRESSES: &str = "impresario.dev/serviceaddresses";
const PORTS: &str = "impresario.dev/nodeports";
/// What the one priority class holds that is for pods that name none.
const DEFAULT_CLASSES: &str = "impresario.dev/defaultpriorityclasses";
/// Namespace and name of the Service that the API has.
pub(super) const API_SERVICE: (&str, &str) = ("default", "kubernetes");
/// Blind draws before it is looked what is taken.
const BLIND_DRAWS: usize = 4;

/// The key of the priority class that is for pods that name none.
pub(super) fn default_class() -> Key {
    key(DEFAULT_CLASSES, "default")
}

/// The name of who holds a key.
pub(super) fn holder_of(value: &[u8]) -> String {
    let holder: Value = serde_json::from_slice(value).unwrap_or_default();
    let holder = text(&holder, "/service");
    holder.split_once('/').map_or(holder, |(_, name)| name).to_owned()
}

fn key(resource: &str, name: impl ToString) -> Key {
    Key { resource: resource.into(), namespace: String::new(), name: name.to_string() }
}

/// The key that is there while a namespace is going: nothing is created in it then.
pub(super) fn closing(namespace: &str) -> Key {
    key(CLOSING_NAMESPACES, namespace)
}

/// Adds to a transaction what opens or closes a namespace that is written so.
fn open_or_close(before: Option<&Value>, after: Option<&Value>, transaction: &mut Transaction) {
    let goes = |object: &Value| !text(object, "/metadata/deletionTimestamp").is_empty();
    let Some(object) = after.or(before) else { return };
    let key = closing(text(object, "/metadata/name"));
    match (before, after) {
        // Whoever began to delete it may be of a version that closes nothing.
        (Some(_), Some(after)) if goes(after) => {
            transaction.operations.push(Operation::Put { key, value: "{}".into() });
        }
        // It is gone, new, or stays: then it is open, whatever was left of another of its name.
        _ => transaction.operations.push(Operation::Delete { key }),
    }
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

pub(super) fn is_priority_class(resource: &Resource) -> bool {
    resource.group == "scheduling.k8s.io" && resource.plural == "priorityclasses"
}

/// Notes in a transaction that a quota has come to a namespace, or asks for something else than before.
fn mark_quota(before: Option<&Value>, after: Option<&Value>, transaction: &mut Transaction) {
    let Some(after) = after else { return };
    if before.is_none_or(|before| before["spec"] != after["spec"]) {
        let key = mark_of(text(after, "/metadata/namespace"));
        transaction.operations.push(Operation::Put { key, value: "{}".into() });
    }
}

/// The keys that a service holds, each with the path of the field that asks for it and its value.
pub(super) fn held(resource: &Resource, object: &Value) -> BTreeMap<Key, (String, String)> {
    let mut keys = BTreeMap::new();
    if is_priority_class(resource) && priority::is_default(object) {
        keys.insert(default_class(), ("globalDefault".into(), "true".into()));
    }
    if !is_service(resource) || text(object, "/spec/type") == "ExternalName" {
        return keys;
    }
    let address = text(object, "/spec/clusterIP");
    if !address.is_empty() && address != "None" {
        keys.insert(key(ADDRESSES, address), ("spec.clusterIPs".into(), address.into()));
    }
    let ports = object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    for (index, port) in ports.enumerate() {
        if let Some(number) =
            port.get("nodePort").and_then(Value::as_u64).filter(|number| *number > 0)
        {
            keys.insert(
                key(PORTS, number),
                (format!("spec.ports[{index}].nodePort"), number.to_string()),
            );
        }
    }
    let health = object.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0);
    if health > 0 {
        keys.insert(key(PORTS, health), ("spec.healthCheckNodePort".into(), health.to_string()));
    }
    keys
}

/// Adds to a transaction what must hold and change for an object to hold other keys than before.
pub(super) fn exchange(
    resource: &Resource,
    before: Option<&Value>,
    after: Option<&Value>,
    transaction: &mut Transaction,
) -> Result<(), Status> {
    if resource.group.is_empty() && resource.plural == "namespaces" {
        open_or_close(before, after, transaction);
        if let (Some(before), None) = (before, after) {
            let key = mark_of(text(before, "/metadata/name"));
            transaction.operations.push(Operation::Delete { key });
        }
    }
    if resource.group.is_empty() && resource.plural == "resourcequotas" {
        mark_quota(before, after, transaction);
    }
    let old = before.map(|object| held(resource, object)).unwrap_or_default();
    let new = after.map(|object| held(resource, object)).unwrap_or_default();
    for taken in new.keys().filter(|key| !old.contains_key(*key)) {
        let object = after.unwrap_or(&Value::Null);
        let holder = json!({
            "service": format!("{}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name")),
            "uid": text(object, "/metadata/uid"),
        });
        transaction.compares.push(Compare::Absent { key: taken.clone() });
        transaction
            .operations
            .push(Operation::Put { key: taken.clone(), value: bytes_of(&holder)? });
    }
    for given in old.keys().filter(|key| !new.contains_key(*key)) {
        transaction.operations.push(Operation::Delete { key: given.clone() });
    }
    Ok(())
}

/// Whether a key is one of those that services hold.
pub(super) fn is_drawn(key: &Key) -> bool {
    key.resource == ADDRESSES || key.resource == PORTS
}

/// The refusal when an address or port that its author chose is another's.
pub(super) fn already_held(
    resource: &Resource,
    name: &str,
    object: &Value,
    conflict: &Key,
) -> Status {
    let (field, value) = held(resource, object).remove(conflict).unwrap_or_default();
    let message = if conflict.resource == ADDRESSES {
        format!(
            "Invalid value: [\"{value}\"]: failed to allocate IP {value}: provided IP is already allocated"
        )
    } else {
        format!("Invalid value: {value}: provided port is already allocated")
    };
    Status::invalid(resource, name, vec![Cause { field, reason: CauseReason::Invalid, message }])
}

impl Objects {
    /// What an admission of such an object may draw from. `attempt` counts how often somebody was quicker.
    ///
    /// The first draws are blind: in a range that is mostly free a collision is rare, and the transaction finds it
    /// out. Later ones know what was taken when they began.
    pub(super) async fn draws(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        attempt: usize,
    ) -> Result<RandomAllocator, Status> {
        let draws = RandomAllocator::new(self.ranges.clone());
        if !is_service(resource) {
            return Ok(draws);
        }
        let draws = if (namespace, name) == API_SERVICE { draws.for_api() } else { draws };
        if attempt < BLIND_DRAWS {
            return Ok(draws);
        }
        let (addresses, ports) = (self.taken(ADDRESSES).await?, self.taken(PORTS).await?);
        // The names of the keys are what was written by `exchange`: numbers.
        Ok(draws.without(addresses, ports.iter().filter_map(|port| port.parse().ok()).collect()))
    }

    /// The account that a new pod would act as; nothing for other kinds, or where there is none.
    pub(super) async fn account(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
    ) -> Result<Option<(String, Account)>, Status> {
        let is_pod = resource.group.is_empty() && resource.plural == "pods";
        let Some(accounts) = find("", "v1", "serviceaccounts").filter(|_| is_pod) else {
            return Ok(None);
        };
        let named = match text(object, "/spec/serviceAccountName") {
            "" => "default",
            named => named,
        };
        // Only absence must be certain, so an older state is looked at first.
        let mut found = self.familiar(&accounts, namespace, named, Consistency::Local).await?;
        if found.is_none() && named != "default" {
            found = self.familiar(&accounts, namespace, named, Consistency::Linearizable).await?;
        }
        Ok(found.map(|stored| (named.to_owned(), Account::of(&stored.object))))
    }

    async fn taken(&self, resource: &str) -> Result<HashSet<String>, Status> {
        let request = ListRequest::of(Selection::all(resource));
        let page = self.registry().list(request).await.map_err(|error| read_refused(&error))?;
        Ok(page.entries.into_iter().map(|entry| entry.key.name).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_service_holds_its_address_and_each_of_its_node_ports() {
        let services = &find("", "v1", "services").unwrap();
        let held = |spec: Value| held(services, &json!({ "spec": spec })).len();
        assert_eq!(held(json!({"type": "ClusterIP", "clusterIP": "127.96.0.9"})), 1);
        assert_eq!(held(json!({"type": "ClusterIP", "clusterIP": "None"})), 0);
        assert_eq!(held(json!({"type": "ExternalName", "clusterIP": "127.96.0.9"})), 0);
        assert_eq!(
            held(
                json!({"type": "NodePort", "clusterIP": "127.96.0.9", "ports": [{"nodePort": 30001}, {"port": 1}]})
            ),
            2
        );
    }
}
