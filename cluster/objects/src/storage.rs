//! What classes of storage mean for a write: the class of a claim that names none, and whether a claim may grow.
//!
//! They are read as this member has them: as in Kubernetes a write may go by what was there a moment ago, and the controller
//! of claims gives one its class later that got none.

use super::Objects;
use impresario_api::catalog::find;
use impresario_api::resource::{Resource, Row};
use impresario_api::status::Status;
use impresario_api::storage::{
    IS_DEFAULT_CLASS, LOCAL, LOCAL_CLASS, asked, default_class, names_no_class,
};
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::text;
use impresario_registry_api::{Consistency, ListRequest, Selection};
use serde_json::{Value, json};

/// The class of volumes that are folders of a node, for claims that name none unless somebody says otherwise.
pub(super) fn local_class() -> Value {
    json!({
        "kind": "StorageClass",
        "apiVersion": "storage.k8s.io/v1",
        "metadata": { "name": LOCAL_CLASS, "annotations": { IS_DEFAULT_CLASS: "true" } },
        "provisioner": LOCAL,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    })
}

fn is_claim(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "persistentvolumeclaims"
}

impl Objects {
    /// A new claim that names no class, with that which is for such claims.
    pub(super) async fn with_default_class(
        &self,
        resource: &Row,
        mut object: Value,
    ) -> Result<Value, Status> {
        if !is_claim(resource) || !names_no_class(&object) || !object["spec"].is_object() {
            return Ok(object);
        }
        let select = Selection::all("storage.k8s.io/storageclasses");
        let request = ListRequest { consistency: Consistency::Local, ..ListRequest::of(select) };
        let page = self.registry().list(request).await.map_err(|error| read_refused(&error))?;
        let classes: Vec<Value> = page
            .entries
            .iter()
            .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
            .collect();
        if let Some(class) = default_class(&classes) {
            object["spec"]["storageClassName"] = class.into();
        }
        Ok(object)
    }

    /// Refuses that a claim asks for more, where its class does not say that its volumes grow.
    pub(super) async fn allow_growth(
        &self,
        resource: &Resource,
        old: &Value,
        new: &Value,
    ) -> Result<(), Status> {
        if asked(old).zip(asked(new)).is_none_or(|(old, new)| new <= old) {
            return Ok(());
        }
        let named = text(new, "/spec/storageClassName");
        let classes = find("storage.k8s.io", "v1", "storageclasses")
            .ok_or_else(|| Status::internal("no storage classes are served"))?;
        let mut grows = false;
        if !named.is_empty() {
            let found = self.find(&classes, "", named, Consistency::Linearizable).await?;
            grows = found.is_some_and(|class| class.object["allowVolumeExpansion"] == true);
        }
        if grows {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                   support resize";
        Err(Status::forbidden(resource, text(new, "/metadata/name"), why))
    }
}
