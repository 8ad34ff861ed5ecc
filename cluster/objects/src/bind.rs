//! Binding: giving a pod its node, once.
//!
//! The only write that sets `spec.nodeName` of a pod that exists. It holds only for a pod that has no
//! node, waits for no gate and is not going, and that is the one that was meant, whoever else binds at the
//! same moment.

use super::Objects;
use super::managers;
use super::write::{Change, Step};
use crate::may::Verb;
use impresario_api::catalog::find;
use impresario_api::managed;
use impresario_api::rules::{self, metadata};
use impresario_api::status::Status;
use impresario_client::objects::{Binding, WriteOptions};
use impresario_runtime::clock;
use serde_json::{Value, json};

/// Why another pod was meant than this one.
fn misses(binding: &Binding, pod: &Value) -> Option<String> {
    let meant = [
        ("UID", "uid", &binding.uid),
        ("ResourceVersion", "resourceVersion", &binding.resource_version),
    ];
    meant.into_iter().find_map(|(what, field, wanted)| {
        let wanted = wanted.as_deref().filter(|wanted| !wanted.is_empty())?;
        let found = pod["metadata"][field].as_str().unwrap_or_default();
        (wanted != found).then(|| {
            format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            )
        })
    })
}

/// The pod with the labels and annotations of its binding. Labels that it has already stay as they are, since it may be
/// selected by them; annotations are its binder's to set.
fn noted(mut pod: Value, noted: &Value) -> Result<Value, Status> {
    for (field, replaces) in [("annotations", true), ("labels", false)] {
        let Some(entries) = noted[field].as_object().filter(|entries| !entries.is_empty()) else {
            continue;
        };
        if !pod["metadata"][field].is_object() {
            pod["metadata"][field] = json!({});
        }
        for (key, value) in entries {
            let place = &mut pod["metadata"][field][key];
            if replaces || place.is_null() {
                *place = value.clone();
            }
        }
    }
    let causes = metadata::validate_again(&pod);
    if causes.is_empty() {
        return Ok(pod);
    }
    let pods = find("", "v1", "pods").ok_or_else(|| Status::internal("no pods are served"))?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    Err(Status::invalid(&pods, name, causes))
}

impl Objects {
    /// Binds a pod to a node.
    pub async fn bind(
        &self,
        namespace: &str,
        pod: &str,
        binding: &Binding,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.bind_noting(namespace, pod, binding, &Value::Null, options).await
    }

    /// Binds a pod to a node and gives it the `labels` and `annotations` of this metadata.
    pub async fn bind_noting(
        &self,
        namespace: &str,
        pod: &str,
        binding: &Binding,
        metadata: &Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let pods = find("", "v1", "pods").ok_or_else(|| Status::internal("no pods are served"))?;
        let now = clock::timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (_, object) = self
            .settle(
                Verb::Bind,
                &pods,
                namespace,
                pod,
                options,
                Step::Decided(&mut |stored, _| {
                    let refused = |why: String| {
                        let mut status = Status::conflict(&pods, pod, &why);
                        status.message =
                            format!("Operation cannot be fulfilled on pods/binding {pod:?}: {why}");
                        status
                    };
                    if let Some(why) = misses(binding, &stored.object) {
                        return Err(refused(why));
                    }
                    if impresario_runtime::mutant!(BindUnchecked) {
                        let mut bound = stored.object.clone();
                        bound["spec"]["nodeName"] = binding.node.clone().into();
                        return Ok(Change::Put(scheduled(bound, &now)));
                    }
                    let bound = rules::pod::bind(&stored.object, &binding.node).map_err(refused)?;
                    let mut bound = noted(scheduled(bound, &now), metadata)?;
                    let writer = self.writer(options, "");
                    managed::updated(&pods, &stored.object, &mut bound, &writer)
                        .map_err(|error| managers::refused(&pods, &bound, &error))?;
                    Ok(Change::Put(bound))
                }),
            )
            .await?;
        Ok(object)
    }
}

/// The pod with the condition that tells of its node.
fn scheduled(mut pod: Value, now: &str) -> Value {
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
