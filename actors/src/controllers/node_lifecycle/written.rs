//! What is written into the objects of nodes that are lost, and of their pods.

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// What a node says of itself, and nobody else does: of one that is lost it is unknown.
const ITS_OWN: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What the node said of itself becomes unknown.
pub fn lose(node: &mut Value, now: Timestamp) {
    let time = seconds(now);
    let conditions = &mut node["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    for kind in ITS_OWN {
        let said = conditions.iter_mut().find(|condition| condition["type"] == kind);
        let (said, reason, message) = match said {
            Some(said) => (said, "NodeStatusUnknown", "The node stopped sending heartbeats."),
            // Of a node that never said anything the rest is nobody's business.
            None if kind != "Ready" => continue,
            None => {
                conditions.push(json!({ "type": kind }));
                let Some(said) = conditions.last_mut() else { continue };
                (said, "NodeStatusNeverUpdated", "The node has never sent a heartbeat.")
            }
        };
        said["status"] = "Unknown".into();
        said["reason"] = reason.into();
        said["message"] = message.into();
        said["lastTransitionTime"] = time.clone().into();
    }
}

/// These are the node's taints.
pub fn retaint(node: &mut Value, taints: &[Taint]) {
    if !taints.is_empty() {
        node["spec"]["taints"] = json!(taints);
    } else if let Some(spec) = node["spec"].as_object_mut() {
        spec.remove("taints");
    }
}

/// The pod's `Ready` becomes false.
pub fn unready(pod: &mut Value, now: Timestamp) {
    for condition in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
        if condition["type"] == "Ready" && condition["status"] == "True" {
            condition["status"] = "False".into();
            condition["lastTransitionTime"] = seconds(now).into();
        }
    }
}

/// The pod says why it is about to be deleted (Kubernetes documentation, "Disruptions", "Pod disruption conditions"):
/// jobs go by it.
pub fn disrupt(pod: &mut Value, reason: &str, message: &str, now: Timestamp) {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": seconds(now),
    });
    let conditions = &mut pod["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(all) => {
            all.retain(|other| other["type"] != condition["type"]);
            all.push(condition);
        }
        None => *conditions = json!([condition]),
    }
}

/// The pod has failed: nobody is left who could say how it ended, and jobs that replace only what has ended wait for it
/// (Kubernetes documentation, "Pod Lifecycle", "Garbage collection of Pods").
pub fn fail(pod: &mut Value) {
    pod["status"]["phase"] = "Failed".into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_lost_node_only_what_it_said_itself_becomes_unknown() {
        let says = |kind: &str| json!({"type": kind, "status": "False"});
        let mut node = json!({"status": {"conditions":
            [says("Ready"), says("NetworkUnavailable"), says("DiskPressure"), says("of-a-user")]}});
        lose(&mut node, Timestamp::UNIX_EPOCH);
        let statuses = node["status"]["conditions"].as_array().unwrap().iter();
        let statuses: Vec<_> = statuses.map(|said| said["status"].as_str().unwrap()).collect();
        assert_eq!(statuses, ["Unknown", "False", "Unknown", "False"]);
        let mut silent = json!({"metadata": {"name": "n"}});
        lose(&mut silent, Timestamp::UNIX_EPOCH);
        let said = &silent["status"]["conditions"];
        assert_eq!(said[0]["reason"], "NodeStatusNeverUpdated");
        assert_eq!((said.as_array().unwrap().len(), &said[0]["type"]), (1, &json!("Ready")));
    }

    #[test]
    fn a_node_without_taints_looks_as_one_that_never_had_any() {
        let before = json!({"spec": {"podCIDR": "127.1.0.0/24"}});
        let mut node = before.clone();
        retaint(&mut node, &[Taint { key: "k".into(), effect: "e".into(), ..Taint::default() }]);
        assert_eq!(node["spec"]["taints"][0]["key"], "k");
        retaint(&mut node, &[]);
        assert_eq!(node, before);
    }

    #[test]
    fn a_pod_says_once_why_it_goes() {
        let mut pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        for reason in ["one", "other"] {
            disrupt(&mut pod, reason, "", Timestamp::UNIX_EPOCH);
        }
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        assert_eq!((conditions.len(), &conditions[1]["reason"]), (2, &json!("other")));
        let mut bare = json!({});
        disrupt(&mut bare, "one", "", Timestamp::UNIX_EPOCH);
        assert_eq!(bare["status"]["conditions"][0]["status"], "True");
    }
}
