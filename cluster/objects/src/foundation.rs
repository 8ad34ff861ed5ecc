//! The objects that every cluster has from its first moment on: namespaces and what clients look for
//! in them, and the priority classes of the system.
//!
//! Laying the foundation again changes nothing that is there: every control member does it at start.

use super::address::API_SERVICE;
use super::{Objects, WriteOptions};
use impresario_api::catalog::find;
use impresario_api::policy::priority::SYSTEM_CLASSES;
use impresario_api::status::{Reason, Status};
use serde_json::{Value, json};

/// The namespaces that are always there.
pub const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl Objects {
    /// Creates what is missing. `authority` is the PEM that clients verify the API by, `port` where it
    /// is served.
    pub async fn lay_foundation(&self, authority: &str, port: u16) -> Result<(), Status> {
        for class in SYSTEM_CLASSES {
            self.ensure_of("scheduling.k8s.io", "priorityclasses", "", class.object()).await?;
        }
        for namespace in NAMESPACES {
            self.ensure(
                "namespaces",
                "",
                json!({
                    "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": namespace },
                }),
            )
            .await?;
            self.furnish(namespace, authority).await?;
        }
        let address = self.ranges.api_address().to_string();
        let (namespace, name) = API_SERVICE;
        self.ensure("services", namespace, json!({
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
        }))
        .await?;
        self.lay_roles().await
    }

    /// Creates what every namespace has: an account for its pods and the authority's certificate.
    pub async fn furnish(&self, namespace: &str, authority: &str) -> Result<(), Status> {
        if find("", "v1", "serviceaccounts").is_some() {
            self.ensure(
                "serviceaccounts",
                namespace,
                json!({
                    "kind": "ServiceAccount", "apiVersion": "v1",
                    "metadata": { "name": "default", "namespace": namespace },
                }),
            )
            .await?;
        }
        self.ensure(
            "configmaps",
            namespace,
            json!({
                "kind": "ConfigMap",
                "apiVersion": "v1",
                "metadata": { "name": "kube-root-ca.crt", "namespace": namespace },
                "data": { "ca.crt": authority },
            }),
        )
        .await
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
        match self.create(&resource, namespace, object, &WriteOptions::default()).await {
            Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}
