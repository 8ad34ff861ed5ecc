//! The objects that every cluster has from its first moment on: namespaces and what clients look for
//! in them, and the priority classes of the system.
//!
//! Laying the foundation again changes nothing that is there: every control member does it at start.

use super::address::API_SERVICE;
use super::{Objects, WriteOptions};
use impresario_api::catalog::find;
use impresario_api::policy::priority::SYSTEM_CLASSES;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::stored::text;
use impresario_registry_api::Consistency;
use serde_json::{Value, json};

/// The namespaces that are always there.
pub const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl Objects {
    /// Creates what is missing. `authority` is the PEM that clients verify the API by, `port` where it
    /// is served. What cannot be created keeps nothing else from it; the error is the first one.
    pub async fn lay_foundation(&self, authority: &str, port: u16) -> Result<(), Status> {
        let mut outcome = Ok(());
        for class in SYSTEM_CLASSES {
            let laid = self.ensure_of("scheduling.k8s.io", "priorityclasses", "", class.object());
            keep(&mut outcome, laid.await)?;
        }
        let class = super::storage::local_class();
        let laid = self.ensure_of("storage.k8s.io", "storageclasses", "", class);
        keep(&mut outcome, laid.await)?;
        for namespace in NAMESPACES {
            let object = json!({
                "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": namespace },
            });
            keep(&mut outcome, self.ensure("namespaces", "", object).await)?;
            keep(&mut outcome, self.furnish(namespace, authority).await)?;
        }
        let address = self.ranges.api_address().to_string();
        let (namespace, name) = API_SERVICE;
        let service = json!({
            "kind": "Service",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": { "component": "apiserver", "provider": "kubernetes" },
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": address,
                "clusterIPs": [address],
                "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": port }],
            },
        });
        keep(&mut outcome, self.ensure("services", namespace, service).await)?;
        outcome.and(self.lay_roles().await)
    }

    /// Creates what every namespace has: an account for its pods and the authority's certificate.
    pub async fn furnish(&self, namespace: &str, authority: &str) -> Result<(), Status> {
        let mut outcome = Ok(());
        if find("", "v1", "serviceaccounts").is_some() {
            let account = json!({
                "kind": "ServiceAccount", "apiVersion": "v1",
                "metadata": { "name": "default", "namespace": namespace },
            });
            keep(&mut outcome, self.ensure("serviceaccounts", namespace, account).await)?;
        }
        let map = json!({
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": { "name": "kube-root-ca.crt", "namespace": namespace },
            "data": { "ca.crt": authority },
        });
        outcome.and(self.ensure("configmaps", namespace, map).await)
    }

    async fn ensure(&self, plural: &str, namespace: &str, object: Value) -> Result<(), Status> {
        self.ensure_of("", plural, namespace, object).await
    }

    async fn ensure_of(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        object: Value,
    ) -> Result<(), Status> {
        let resource = find(group, "v1", plural)
            .ok_or_else(|| Status::internal(format!("no {plural} are served")))?;
        // Nothing is asked of quotas, policies and webhooks for what is there.
        let name = text(&object, "/metadata/name");
        if self.find(&resource, namespace, name, Consistency::Local).await?.is_some() {
            return Ok(());
        }
        match self.create(&resource, namespace, object, &WriteOptions::default()).await {
            Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}

/// Keeps the first error of one thing that is laid. What keeps everything from being laid ends it.
fn keep(first: &mut Result<(), Status>, laid: Result<(), Status>) -> Result<(), Status> {
    match laid {
        Err(status) if status.code() >= 500 || status.code() == 429 => return Err(status),
        Err(status) if first.is_ok() => *first = Err(status),
        _ => {}
    }
    Ok(())
}
