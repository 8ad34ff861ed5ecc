//! The Node object: what this machine says of itself.
//!
//! The node owns its addresses, capacity, conditions and the labels and annotations below; what an
//! operator sets (other labels, taints, `unschedulable`) is left as it is.

use crate::{
    change::{self, ChangeError},
    requests,
};
use impresario_client::protocol::resources::Resources;
use impresario_registry_api::{Key, RegistryHandle, Remedy, Transaction};
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// Where a node's actors are reached.
pub const QUIC_ADDRESS: &str = "impresario.dev/quic-address";
/// Where a control member serves the REST API.
pub const API_ADDRESS: &str = "impresario.dev/api-address";
/// SHA-256 of a node's certificate.
pub const FINGERPRINT: &str = "impresario.dev/certificate-fingerprint";
/// Marks control members.
pub const CONTROL_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// The annotation with which a node says which process it is.
pub const PROCESS: &str = "impresario.dev/pid";
/// The annotation of a node that may not open all ports: the first one that it may.
pub const FIRST_PORT: &str = "impresario.dev/first-port";
const SYSTEM_UUID: &str = "impresario.dev/incarnation";

/// What a node's object says.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Its own address.
    pub address: IpAddr,
    /// The machine's name.
    pub hostname: String,
    /// Whether it is a control member.
    pub is_control: bool,
    /// Where it serves the REST API to others, if it does.
    pub api_address: Option<SocketAddr>,
    /// Where its actors are reached.
    pub quic_address: SocketAddr,
    /// SHA-256 of its certificate, in hexadecimal.
    pub fingerprint: String,
    /// Which life of its process it is.
    pub incarnation: u64,
    /// The number of its process on its machine.
    pub process: u32,
    /// What there is.
    pub capacity: Resources,
    /// What pods may use of it.
    pub allocatable: Resources,
    /// The first port that it may open; 0 where it may open all.
    pub first_port: u16,
    /// The range of its pods' addresses.
    pub pod_range: String,
    /// The name of its container driver, and its version.
    pub runtime: String,
    /// Further labels.
    pub labels: Vec<(String, String)>,
    /// Taints that it starts with.
    pub taints: Vec<v1::Taint>,
    /// The machine.
    pub system: System,
}

/// The machine and its operating system.
#[derive(Debug, Clone, Default)]
pub struct System {
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_image: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Which start of the machine it is.
    pub boot_id: String,
}

/// Whether a node's object says that it is ready.
pub fn is_ready(node: &v1::Node) -> bool {
    let conditions =
        node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Creates the object or brings it up to date: the node is ready.
pub async fn register(
    registry: &RegistryHandle,
    key: &Key,
    facts: &NodeFacts,
    now: Timestamp,
) -> Result<(), ChangeError> {
    match change::change(registry, key, None, None, |node| describe(node, facts, now)).await {
        Ok(_) => return Ok(()),
        Err(ChangeError::Gone { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": key.name, "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": seconds(now)
        },
        "spec": {"podCIDR": facts.pod_range, "podCIDRs": [facts.pod_range]}
    });
    if !facts.taints.is_empty() {
        node["spec"]["taints"] = serde_json::to_value(&facts.taints).unwrap_or_default();
    }
    describe(&mut node, facts, now);
    match registry.transact(Transaction::create(key.clone(), node.to_string())).await {
        Ok(_) => Ok(()),
        // Written by our own earlier attempt.
        Err(error) if error.remedy() == Remedy::ReadAgain => {
            change::change(registry, key, None, None, |node| describe(node, facts, now))
                .await
                .map(drop)
        }
        Err(error) => Err(error.into()),
    }
}

fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// Puts what the node owns into its object.
pub fn describe(node: &mut Value, facts: &NodeFacts, now: Timestamp) {
    let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (os, arch) = (std::env::consts::OS, architecture());
    let mut labels = vec![
        ("kubernetes.io/hostname".to_owned(), name.clone()),
        ("kubernetes.io/os".to_owned(), os.to_owned()),
        ("kubernetes.io/arch".to_owned(), arch.to_owned()),
        ("beta.kubernetes.io/os".to_owned(), os.to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), arch.to_owned()),
    ];
    if facts.is_control {
        labels.push((CONTROL_LABEL.to_owned(), String::new()));
    }
    labels.extend(facts.labels.iter().cloned());
    for (label, value) in labels {
        node["metadata"]["labels"][label] = value.into();
    }
    let annotations = [
        (QUIC_ADDRESS, facts.quic_address.to_string()),
        (FINGERPRINT, facts.fingerprint.clone()),
        (SYSTEM_UUID, format!("{:x}", facts.incarnation)),
        (PROCESS, facts.process.to_string()),
    ];
    for (annotation, value) in annotations {
        node["metadata"]["annotations"][annotation] = value.into();
    }
    if facts.first_port > 0 {
        node["metadata"]["annotations"][FIRST_PORT] = facts.first_port.to_string().into();
    } else if let Some(annotations) = node["metadata"]["annotations"].as_object_mut() {
        annotations.remove(FIRST_PORT);
    }
    if let Some(address) = facts.api_address {
        node["metadata"]["annotations"][API_ADDRESS] = address.to_string().into();
    } else if let Some(annotations) = node["metadata"]["annotations"].as_object_mut() {
        annotations.remove(API_ADDRESS);
    }
    let before = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let status = &mut node["status"];
    status["addresses"] = json!([
        {"type": "InternalIP", "address": facts.address.to_string()},
        {"type": "Hostname", "address": facts.hostname}
    ]);
    let amounts =
        |resources: &Resources| serde_json::to_value(requests::list(resources)).unwrap_or_default();
    status["capacity"] = amounts(&facts.capacity);
    status["allocatable"] = amounts(&facts.allocatable);
    status["conditions"] = conditions(&before, now);
    status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": facts.quic_address.port()}});
    let version = format!("v1.36.0+impresario.{}", env!("CARGO_PKG_VERSION"));
    status["nodeInfo"] = json!({
        "architecture": arch, "operatingSystem": os,
        "bootID": facts.system.boot_id, "machineID": facts.system.machine_id, "systemUUID": facts.system.machine_id,
        "kernelVersion": facts.system.kernel, "osImage": facts.system.os_image,
        "containerRuntimeVersion": facts.runtime, "kubeletVersion": version, "kubeProxyVersion": version
    });
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The node's conditions; their transition times change only with their status.
fn conditions(before: &[Value], now: Timestamp) -> Value {
    let ours = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let now = seconds(now);
    let mut all: Vec<_> = ours
        .into_iter()
        .map(|(type_, status, reason, message)| {
            let earlier = before.iter().find(|earlier| earlier["type"] == type_);
            let since = earlier.filter(|earlier| earlier["status"] == status);
            let since =
                since.and_then(|earlier| earlier["lastTransitionTime"].as_str()).unwrap_or(&now);
            json!({
                "type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": since, "lastHeartbeatTime": now
            })
        })
        .collect();
    let others =
        before.iter().filter(|other| !ours.iter().any(|(type_, ..)| other["type"] == *type_));
    all.extend(others.cloned());
    all.into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use impresario_registry::MemoryRegistry;
    use std::sync::Arc;

    pub(crate) fn facts(cpu_milli: u64) -> NodeFacts {
        let all = Resources { cpu_milli, memory_bytes: 4 << 30, pods: 110, ..Resources::default() };
        NodeFacts {
            address: IpAddr::from([127, 0, 0, 1]),
            hostname: "host".into(),
            is_control: true,
            api_address: None,
            quic_address: SocketAddr::from(([127, 0, 0, 1], 7000)),
            fingerprint: "ab".into(),
            incarnation: 7,
            process: 70,
            capacity: all.clone(),
            allocatable: all,
            first_port: 0,
            pod_range: "127.1.0.0/24".into(),
            runtime: "process://1".into(),
            labels: vec![("zone".into(), "a".into())],
            taints: Vec::new(),
            system: System::default(),
        }
    }

    #[tokio::test]
    async fn registering_again_keeps_what_an_operator_has_set() {
        let registry: RegistryHandle = Arc::new(MemoryRegistry::new());
        let key = Key::new("nodes", "", "n1");
        register(&registry, &key, &facts(2000), Timestamp::UNIX_EPOCH).await.unwrap();
        change::change(&registry, &key, None, None, |node| {
            node["spec"]["unschedulable"] = true.into();
            node["metadata"]["labels"]["mine"] = "yes".into();
            for condition in node["status"]["conditions"].as_array_mut().unwrap() {
                condition["status"] = "Unknown".into();
            }
        })
        .await
        .unwrap();
        let later = Timestamp::UNIX_EPOCH + std::time::Duration::from_mins(1);
        register(&registry, &key, &facts(3000), later).await.unwrap();

        let node: v1::Node = change::get(&registry, key).await.unwrap().unwrap();
        assert!(is_ready(&node));
        assert_eq!(node.spec.as_ref().unwrap().unschedulable, Some(true));
        let labels = node.metadata.labels.unwrap();
        assert_eq!((labels["mine"].as_str(), labels["zone"].as_str()), ("yes", "a"));
        let status = node.status.unwrap();
        assert_eq!(status.allocatable.unwrap()["cpu"].0, "3");
        let ready = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(ready.last_transition_time.unwrap().0, later);
    }
}
