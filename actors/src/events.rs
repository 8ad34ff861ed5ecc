//! Events of the cast, through the one recorder of the client library.

use impresario_objects::{
    Objects,
    events::{self, Severity},
};
use impresario_registry_api::{Key, RegistryHandle};
use serde_json::{Value, json};

/// Writes events in the name of one component. Cheap to clone; never waits and never fails.
#[derive(Debug, Clone)]
pub struct Recorder(events::Recorder);

impl Recorder {
    /// A recorder for `component` (`default-scheduler`, `kubelet`, ...) on the node `host`. Must be
    /// made within a tokio runtime.
    pub fn new(registry: RegistryHandle, component: &str, host: &str) -> Self {
        Self(events::Recorder::start(Objects::new(registry), component, host))
    }

    /// Something about a pod that is as it should be.
    pub fn normal(&self, pod: &Key, uid: &str, reason: &str, message: &str) {
        self.record(pod, uid, "", Severity::Normal, reason, message);
    }

    /// Something about a pod that someone should look at.
    pub fn warning(&self, pod: &Key, uid: &str, reason: &str, message: &str) {
        self.record(pod, uid, "", Severity::Warning, reason, message);
    }

    /// Something about a node; the kubelet gives such events the node's name as uid.
    pub fn about_node(&self, name: &str, severity: Severity, reason: &str, message: &str) {
        let about = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}
        });
        self.0.record(&about, severity, reason, message);
    }

    /// Something about any object.
    pub fn about(&self, object: &Value, severity: Severity, reason: &str, message: &str) {
        self.0.record(object, severity, reason, message);
    }

    /// Something about a part of a pod, such as `spec.containers{web}`.
    pub fn record(
        &self,
        pod: &Key,
        uid: &str,
        field: &str,
        severity: Severity,
        reason: &str,
        message: &str,
    ) {
        let about = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": uid}
        });
        self.0.record_field(&about, field, severity, reason, message);
    }
}
