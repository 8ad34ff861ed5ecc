//! A cluster in which kinds are defined, and one kind.

use crate::harness::{Answer, Harness};
use crate::lines::Lines;
use futures_util::StreamExt as _;
use impresario_objects::definitions::{Definitions, Settler};
use impresario_objects::{Objects, Reader};
use impresario_runtime::clock;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// For a busy machine: a passing test never spends it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A server that follows definitions, and the control actor of the cluster.
pub struct Cluster {
    pub server: Harness,
    pub settling: JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.settling.abort();
    }
}

impl Cluster {
    pub async fn start() -> Self {
        let server = Harness::start().await;
        let objects = Objects::new(server.registry.clone());
        let definitions = Definitions::follow(Reader::new(server.registry.clone()));
        let settling = tokio::spawn(async move {
            let mut changes = definitions.changes();
            let settler = Settler::new(objects, definitions, || true);
            loop {
                let again = settler.settle().await.ok().flatten();
                let pause = again.map(|at| at.duration_since(clock::timestamp()));
                let pause = pause.map_or(LIMIT, |pause| pause.try_into().unwrap_or_default());
                if let Ok(None) = timeout(pause, changes.next()).await {
                    return;
                }
            }
        });
        Self { server, settling }
    }

    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        self.server.ask(method, path, &body).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, Value::Null).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.json());
        answer.json()
    }

    /// Defines a kind and waits until a condition of it is as it should be.
    pub async fn define(&self, definition: &Value, condition: &str, status: &str) -> Value {
        let made = self.ask("POST", DEFINITIONS, definition.clone()).await;
        assert_eq!(made.code, 201, "{}", made.json());
        let name = definition["metadata"]["name"].as_str().unwrap();
        self.until(name, |now| said(now, condition)["status"] == status).await
    }

    /// Follows a definition until it is as it should be.
    pub async fn until(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let path = format!("{DEFINITIONS}?fieldSelector=metadata.name%3D{name}&watch=true");
        let mut lines = Lines::of(&self.server, &path, "application/json").await;
        loop {
            let line = lines.next().await.expect("a definition that is there");
            if line["type"] != "DELETED" && is_so(&line["object"]) {
                return line["object"].clone();
            }
        }
    }
}

pub fn said<'a>(definition: &'a Value, condition: &str) -> &'a Value {
    let all = definition["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|one| one["type"] == condition).unwrap_or(&Value::Null)
}

/// `CronTab` of a group of its own for each test.
pub fn crontabs(group: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("crontabs.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "spec": {
                            "type": "object",
                            "required": ["cronSpec"],
                            "properties": {
                                "cronSpec": {"type": "string", "pattern": "^[0-9*/ ]+$", "description": "When."},
                                "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1,
                                    "x-kubernetes-validations": [{
                                        "rule": "self >= oldSelf", "message": "replicas may not shrink"}]},
                                "image": {"type": "string", "nullable": true},
                            },
                        },
                        "status": {"type": "object", "properties": {
                            "replicas": {"type": "integer"}, "labelSelector": {"type": "string"},
                        }},
                    },
                }},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.labelSelector",
                }},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                ],
                "selectableFields": [{"jsonPath": ".spec.cronSpec"}],
            }],
        },
    })
}

pub fn crontab(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}
