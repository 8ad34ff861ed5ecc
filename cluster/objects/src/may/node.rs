//! What a node may do: its own Node, the pods that are bound to it, and what those name.
//!
//! From Kubernetes 1.36: `plugin/pkg/auth/authorizer/node` and `plugin/pkg/admission/noderestriction`.
//! Narrower where our nodes need less: they follow no secrets, and delete no Node.

use super::ask::{Ask, Bound, Rule, Verb};
use crate::named::{named_by, named_resource};
use impresario_api::storage::{FOLDER_FINALIZER, FOLDER_MADE, LOCAL_DRIVER, NODE_ATTRIBUTE};
use serde_json::Value;

const LEASES: &str = "coordination.k8s.io/leases";
/// Where nodes keep their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// What says of a pod that it is a picture of one that its node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Who serves traffic to pods must know them, as `system:node-proxier` does in Kubernetes; nodes are
/// read for the addresses of their actors.
const PUBLIC: [&str; 5] =
    ["nodes", "services", "endpoints", "discovery.k8s.io/endpointslices", "namespaces"];
/// Where the certificates stand that are trusted no more: each machine refuses them, so each follows this.
pub const REVOKED_CERTIFICATES: (&str, &str) = ("kube-system", "revoked-certificates");

pub(super) fn may(node: &str, ask: &Ask<'_>, bound: &dyn Bound) -> Result<(), Rule> {
    if !matches!(ask.subresource, "" | "status") {
        return Err(Rule::NodeResources);
    }
    match ask.resource {
        "nodes" if !ask.verb.reads() => own_node(node, ask),
        "pods" => pods(node, ask),
        "events" => events(node, ask, bound),
        LEASES => lease(node, ask),
        "persistentvolumes" => volumes(node, ask, bound),
        "storage.k8s.io/csinodes" => own(ask.name == node, Rule::OwnNode),
        resource if PUBLIC.contains(&resource) && ask.verb.reads() => Ok(()),
        "configmaps" if ask.verb.reads() && (ask.namespace, ask.name) == REVOKED_CERTIFICATES => {
            Ok(())
        }
        resource if named_resource(resource).is_some() => {
            let named = ask.verb == Verb::Get
                && !ask.name.is_empty()
                && bound.names(node, resource, ask.namespace, ask.name);
            own(named, Rule::NamedByOwnPods)
        }
        _ => Err(Rule::NodeResources),
    }
}

fn own(is: bool, rule: Rule) -> Result<(), Rule> {
    if is { Ok(()) } else { Err(rule) }
}

fn at<'a>(object: Option<&'a Value>, pointer: &str) -> &'a Value {
    object.and_then(|object| object.pointer(pointer)).unwrap_or(&Value::Null)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The same, where absent, null and empty are one.
fn same(one: &Value, other: &Value) -> bool {
    one == other || (is_empty(one) && is_empty(other))
}

/// Whether two objects have the same fields, some aside.
fn same_but(one: &Value, other: &Value, but: &[&str]) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else {
        return same(one, other);
    };
    let nothing = Value::Null;
    one.keys()
        .chain(other.keys())
        .filter(|key| !but.contains(&key.as_str()))
        .all(|key| same(one.get(key).unwrap_or(&nothing), other.get(key).unwrap_or(&nothing)))
}

/// The keys of a map of strings that two objects do not have alike.
fn changed<'a>(old: &'a Value, new: &'a Value) -> Vec<&'a str> {
    let keys = |map: &'a Value| map.as_object().into_iter().flat_map(serde_json::Map::keys);
    keys(old).chain(keys(new)).filter(|key| old.get(*key) != new.get(*key)).map(|k| &**k).collect()
}

fn own_node(node: &str, ask: &Ask<'_>) -> Result<(), Rule> {
    if ask.name != node || !matches!(ask.verb, Verb::Create | Verb::Update) {
        return Err(Rule::OwnNode);
    }
    let Some(new) = ask.new else { return Ok(()) };
    let new_at = |pointer: &str| at(Some(new), pointer);
    if new_at("/metadata/name") != node {
        return Err(Rule::OwnNode);
    }
    let labels = changed(at(ask.old, "/metadata/labels"), new_at("/metadata/labels"));
    let kept = match ask.old {
        // A new node says which addresses and taints it starts with, and belongs to nobody.
        None => ["ownerReferences", "finalizers", "deletionTimestamp"]
            .iter()
            .all(|field| is_empty(&new["metadata"][field])),
        // Later that is for others to say. It may only stop taking pods, or take them again, as `Drain` asks.
        Some(old) => {
            const FREE: [&str; 4] = ["labels", "annotations", "managedFields", "resourceVersion"];
            same_but(old, new, &["metadata", "spec", "status"])
                && same_but(&old["metadata"], &new["metadata"], &FREE)
                && same_but(&old["spec"], &new["spec"], &["unschedulable"])
        }
    };
    own(kept && !labels.into_iter().any(is_protected), Rule::ProtectedFields)
}

/// Whether a label of a Node is for others to set: what is under `kubernetes.io` and `k8s.io` but the
/// kubelet's own, and all that selects nodes for isolation.
fn is_protected(label: &str) -> bool {
    const KUBELET: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let prefix = label.split_once('/').map_or("", |(prefix, _)| prefix);
    let below = |domain: &str| {
        prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if below("node-restriction.kubernetes.io") {
        return true;
    }
    let reserved = below("kubernetes.io") || below("k8s.io");
    let kubelets =
        KUBELET.contains(&label) || below("kubelet.kubernetes.io") || below("node.kubernetes.io");
    reserved && !kubelets
}

fn pods(node: &str, ask: &Ask<'_>) -> Result<(), Rule> {
    let is_bound = |pod: Option<&Value>| at(pod, "/spec/nodeName") == node;
    match ask.verb {
        Verb::List | Verb::Watch => own(ask.on_node == Some(node), Rule::OwnPods),
        // Who asks for what is not there learns that, and nothing else.
        Verb::Get => own(ask.old.is_none() || is_bound(ask.old), Rule::OwnPods),
        Verb::Create => own(ask.new.is_none_or(|pod| is_mirror(node, pod)), Rule::MirrorPods),
        Verb::Delete => {
            own(is_bound(ask.old), Rule::OwnPods)?;
            // What is held by a finalizer is marked, and never removed past it.
            let free = ask.new.is_some() || is_empty(at(ask.old, "/metadata/finalizers"));
            own(free, Rule::StatusAlone)
        }
        Verb::Update => {
            own(is_bound(ask.old), Rule::OwnPods)?;
            let (Some(old), Some(new)) = (ask.old, ask.new) else { return Ok(()) };
            let going = !is_empty(at(Some(old), "/metadata/deletionTimestamp"));
            let mut free = vec!["resourceVersion", "managedFields"];
            if going {
                free.push("deletionGracePeriodSeconds"); // over, as its node says
            }
            let kept = same_but(old, new, &["status", "metadata"])
                && same_but(at(Some(old), "/metadata"), at(Some(new), "/metadata"), &free);
            own(kept, Rule::StatusAlone)
        }
        Verb::Bind | Verb::Patch => Err(Rule::OwnPods),
    }
}

/// Whether a pod is the picture of one that the node runs by itself, and asks for nothing of others.
fn is_mirror(node: &str, pod: &Value) -> bool {
    let at = |pointer: &str| at(Some(pod), pointer);
    let annotated = at("/metadata/annotations").get(MIRROR).is_some_and(|mark| !is_empty(mark));
    let account = at("/spec/serviceAccountName");
    let owners = at("/metadata/ownerReferences").as_array().map_or(&[][..], Vec::as_slice);
    let owned = matches!(owners, [owner] if owner["kind"] == "Node" && owner["name"] == node
        && owner["controller"] == true && owner["blockOwnerDeletion"] != true);
    annotated
        && owned
        && at("/spec/nodeName") == node
        && (is_empty(account)
            || account == "default" && at("/spec/automountServiceAccountToken") == false)
        && named_by(pod).iter().all(|(resource, _)| *resource == "serviceaccounts")
}

/// Volumes: those that are folders of the node, and those whose claims its pods name. It removes its own, when they are deleted
/// and nothing but the folder holds them, and says when it has made the folder.
fn volumes(node: &str, ask: &Ask<'_>, bound: &dyn Bound) -> Result<(), Rule> {
    let is_folder = |volume: &Value| {
        let csi = &volume["spec"]["csi"];
        csi["driver"] == LOCAL_DRIVER && csi["volumeAttributes"][NODE_ATTRIBUTE] == node
    };
    let is_named = |volume: &Value| {
        let claim = &volume["spec"]["claimRef"];
        let text = |field: &str| claim[field].as_str().unwrap_or_default();
        bound.names(node, "persistentvolumeclaims", text("namespace"), text("name"))
    };
    let may = match ask.verb {
        Verb::List | Verb::Watch => ask.on_node == Some(node),
        // Who asks for what is not there learns that, and nothing else.
        Verb::Get => ask.old.is_none_or(|volume| is_folder(volume) || is_named(volume)),
        Verb::Delete => {
            ask.new.is_none()
                && ask.old.is_some_and(|volume| {
                    let metadata = &volume["metadata"];
                    is_folder(volume)
                        && !is_empty(&metadata["deletionTimestamp"])
                        && metadata["finalizers"] == serde_json::json!([FOLDER_FINALIZER])
                })
        }
        Verb::Update => {
            ask.old.is_some_and(is_folder) && ask.new.is_none_or(|new| is_made(ask.old, new))
        }
        Verb::Create | Verb::Bind | Verb::Patch => false,
    };
    own(may, Rule::OwnVolumes)
}

/// Whether of a volume nothing is written but that its folder was made.
fn is_made(old: Option<&Value>, new: &Value) -> bool {
    const FREE: [&str; 3] = ["annotations", "managedFields", "resourceVersion"];
    let was = at(old, "/metadata");
    let marks = changed(at(old, "/metadata/annotations"), at(Some(new), "/metadata/annotations"));
    same_but(at(old, ""), new, &["metadata"])
        && same_but(was, &new["metadata"], &FREE)
        && marks.into_iter().all(|mark| mark == FOLDER_MADE)
        && new["metadata"]["annotations"][FOLDER_MADE] == new["metadata"]["uid"]
}

fn events(node: &str, ask: &Ask<'_>, bound: &dyn Bound) -> Result<(), Rule> {
    let is_source = |event: &Value| {
        let said = |pointer: &str| event.pointer(pointer).is_some_and(|name| name == node);
        said("/source/host") || said("/reportingInstance")
    };
    let is_about = |event: &Value| {
        let object = &event["involvedObject"];
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        match text("kind") {
            "Node" => text("name") == node,
            // Of a pod that has just gone there is still something to say.
            "Pod" => {
                bound.node_of(text("namespace"), text("name")).is_some_and(|found| found == node)
            }
            _ => false,
        }
    };
    let allowed = match ask.verb {
        Verb::Get => ask.old.is_none_or(is_source),
        Verb::Create => ask.new.is_none_or(|new| is_source(new) && is_about(new)),
        Verb::Update => ask.old.is_some_and(|old| {
            // Said again: how often, and when at last.
            const FREE: [&str; 4] = ["count", "lastTimestamp", "series", "metadata"];
            const NOT_KEPT: [&str; 2] = ["managedFields", "resourceVersion"];
            is_source(old)
                && ask.new.is_none_or(|new| {
                    same_but(old, new, &FREE)
                        && same_but(&old["metadata"], &new["metadata"], &NOT_KEPT)
                })
        }),
        Verb::List | Verb::Watch | Verb::Delete | Verb::Bind | Verb::Patch => false,
    };
    own(allowed, Rule::OwnEvents)
}

fn lease(node: &str, ask: &Ask<'_>) -> Result<(), Rule> {
    let mine = ask.namespace == LEASE_NAMESPACE && ask.name == node;
    let used = matches!(ask.verb, Verb::Get | Verb::Create | Verb::Update | Verb::Delete);
    own(mine && used, Rule::OwnLease)
}

#[cfg(test)]
mod tests;
