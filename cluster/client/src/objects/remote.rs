//! What programs use: read through the door, written by the rules of the members.

use super::protocol::{Bind, Change, Create, Delete, Form, Part, Sender};
use super::{
    Binding, DeleteOptions, Deleted, Door, ListQuery, Listed, ObjectWatch, Patch, Propagation,
    Reader, RemoteDoor, WatchQuery, WriteOptions,
};
use bytes::Bytes;
use impresario_api::resource::{Row, resource_key};
use impresario_api::status::Status;
use impresario_registry_api::Consistency;
use serde_json::Value;
use std::sync::Arc;

/// Objects by message: read as they are, written by the members' rules.
#[derive(Debug, Clone)]
pub struct RemoteObjects {
    door: RemoteDoor,
    reads: Reader,
}

impl RemoteObjects {
    /// Objects behind this door.
    pub fn new(door: RemoteDoor) -> Self {
        let reads = Reader::new(Arc::new(door.clone()));
        Self { door, reads }
    }

    /// One object, as of every write that was acknowledged before.
    pub async fn get(&self, resource: &Row, namespace: &str, name: &str) -> Result<Value, Status> {
        self.reads.get(resource, namespace, name, Consistency::Linearizable).await
    }

    /// Lists objects.
    pub async fn list(&self, resource: &Row, query: &ListQuery) -> Result<Listed, Status> {
        self.reads.list(resource, query).await
    }

    /// Follows objects.
    pub async fn watch(&self, resource: &Row, query: WatchQuery) -> Result<ObjectWatch, Status> {
        self.reads.watch(resource, query).await
    }

    /// Creates an object; the answer is as it was stored.
    pub async fn create(
        &self,
        resource: &Row,
        namespace: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let message = Create {
            sender: self.sender(),
            resource: resource_key(resource),
            namespace: namespace.into(),
            object: bytes(&object)?,
            dry_run: options.dry_run,
        };
        value(&self.door.write(message).await?)
    }

    /// Replaces an object. With a resourceVersion in it only that very state is replaced.
    pub async fn update(
        &self,
        resource: &Row,
        door: Door,
        namespace: &str,
        name: &str,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        self.change(resource, door, (namespace, name), (Form::Whole, &object), options).await
    }

    /// Changes parts of an object.
    pub async fn patch(
        &self,
        resource: &Row,
        door: Door,
        namespace: &str,
        name: &str,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let body = match patch {
            Patch::Json(body) => (Form::Json, body),
            Patch::Merge(body) => (Form::Merge, body),
            Patch::Strategic(body) => (Form::Strategic, body),
        };
        self.change(resource, door, (namespace, name), body, options).await
    }

    async fn change(
        &self,
        resource: &Row,
        door: Door,
        (namespace, name): (&str, &str),
        (form, body): (Form, &Value),
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let message = Change {
            sender: self.sender(),
            resource: resource_key(resource),
            namespace: namespace.into(),
            name: name.into(),
            part: match door {
                Door::Main => Part::Main,
                Door::Status => Part::Status,
                Door::Scale => Part::Scale,
                Door::Finalize => Part::Finalize,
                // Whoever approves asks at the door of the API.
                Door::Approval => return Err(Status::method_not_allowed(resource, "approve")),
            },
            form,
            body: bytes(body)?,
            dry_run: options.dry_run,
        };
        value(&self.door.write(message).await?)
    }

    /// Deletes an object.
    pub async fn delete(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        deletion: &DeleteOptions,
        options: &WriteOptions,
    ) -> Result<Deleted, Status> {
        let propagation = match deletion.propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        };
        let message = Delete {
            sender: self.sender(),
            resource: resource_key(resource),
            namespace: namespace.into(),
            name: name.into(),
            grace_period_seconds: deletion.grace_period_seconds,
            propagation: propagation.into(),
            uid: deletion.uid.clone(),
            resource_version: deletion.resource_version.clone(),
            dry_run: options.dry_run,
        };
        let gone = self.door.write(message).await?;
        let object = value(&gone.object)?;
        Ok(if gone.lingers { Deleted::Lingers(object) } else { Deleted::Gone(object) })
    }

    /// Binds a pod to a node.
    pub async fn bind(
        &self,
        namespace: &str,
        pod: &str,
        binding: &Binding,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let message = Bind {
            sender: self.sender(),
            namespace: namespace.into(),
            pod: pod.into(),
            node: binding.node.clone(),
            uid: binding.uid.clone(),
            resource_version: binding.resource_version.clone(),
            dry_run: options.dry_run,
        };
        value(&self.door.write(message).await?)
    }

    fn sender(&self) -> Sender {
        self.door.sender().clone()
    }
}

fn bytes(object: &Value) -> Result<Bytes, Status> {
    serde_json::to_vec(object).map(Bytes::from).map_err(Status::internal)
}

fn value(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(Status::internal)
}
