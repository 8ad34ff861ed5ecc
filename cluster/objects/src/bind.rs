//! Binding: giving a pod its node, once.
//!
//! The only write that sets `spec.nodeName` of a pod that exists. It holds only for a pod that has no
//! node and is not going, whoever else binds at the same moment.

use super::Objects;
use super::stored::text;
use super::write::{Change, WriteOptions};
use impresario_api::resource::find;
use impresario_api::status::Status;
use jiff::Timestamp;
use serde_json::{Value, json};

impl Objects {
    /// Binds a pod to a node.
    pub async fn bind(
        &self,
        namespace: &str,
        pod: &str,
        node: &str,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let pods = find("", "v1", "pods").ok_or_else(|| Status::internal("no pods are served"))?;
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (_, object) = self
            .settle(pods, namespace, pod, options, &mut |stored, _| {
                let object = &stored.object;
                let bound = text(object, "/spec/nodeName");
                let refused = |why: String| {
                    let mut status = Status::conflict(pods, pod, &why);
                    status.message =
                        format!("Operation cannot be fulfilled on pods/binding {pod:?}: {why}");
                    status
                };
                if !text(object, "/metadata/deletionTimestamp").is_empty() {
                    return Err(refused(format!(
                        "pod {pod} is being deleted, cannot be assigned to a host"
                    )));
                }
                if !bound.is_empty() {
                    return Err(refused(format!(
                        "pod {pod} is already assigned to node {bound:?}"
                    )));
                }
                Ok(Change::Put(assigned(object, node, &now)))
            })
            .await?;
        Ok(object)
    }
}

/// The pod with its node and the condition that tells of it.
fn assigned(pod: &Value, node: &str, now: &str) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = node.into();
    let mut conditions =
        pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    }));
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    pod["status"]["conditions"] = conditions.into();
    pod
}
