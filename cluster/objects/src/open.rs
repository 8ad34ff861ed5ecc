//! What must be there for a write: an open namespace, and the kind as its writer knows it.

use super::Objects;
use super::address::closing;
use super::familiar::Familiar;
use impresario_api::catalog::{MOST_TAKEN, find};
use impresario_api::resource::{Row, resource_key};
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_client::objects::key_of;
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::text;
use impresario_registry_api::{Compare, Consistency, ListRequest, Operation, Selection};
use serde_json::Value;
use std::sync::Arc;

/// Group and plural of definitions of kinds.
const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");

/// What a write needs of the namespace that it is made in.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// What must hold.
    pub(super) compares: Vec<Compare>,
    /// The namespace as it was read.
    pub(super) space: Arc<Value>,
    /// What is to be done with it.
    pub(super) operations: Vec<Operation>,
}

impl Objects {
    /// The conditions that the namespace is there, and not going. What else is changed of it stops nobody: a
    /// controller that writes its conditions all the time must not keep everything from being made in it. Where an
    /// earlier try found it closed, and it is open all the same, what closed it is left of another of its name, which
    /// a program removed that knows of no such keys: it is taken away if both are still so.
    pub(super) async fn open_namespace(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        attempt: usize,
        is_closed: bool,
    ) -> Result<Opened, Status> {
        if !resource.namespaced {
            return Ok(Opened::default());
        }
        let namespaces = find("", "v1", "namespaces")
            .ok_or_else(|| Status::internal("no namespaces are served"))?;
        // The first look may be at an older state: the compare finds out. Absence must be certain.
        let mut found = None;
        if attempt == 0 {
            found = self.familiar(&namespaces, "", namespace, Consistency::Local).await?;
        }
        if found.is_none() {
            found = self.familiar(&namespaces, "", namespace, Consistency::Linearizable).await?;
        }
        let Some(stored) = found else { return Err(Status::not_found(&namespaces, namespace)) };
        if !text(&stored.object, "/metadata/deletionTimestamp").is_empty() {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let status = Status::forbidden(resource, name, why);
            return Err(status.with_cause(Cause {
                field: "metadata.namespace".into(),
                reason: CauseReason::NamespaceTerminating,
                message: format!("namespace {namespace} is being terminated"),
            }));
        }
        let (open, key) = (key_of(&namespaces, "", namespace), closing(namespace));
        if is_closed {
            let left = self.registry().get(key.clone(), Consistency::Linearizable).await;
            if let Some(left) = left.map_err(|error| read_refused(&error))?.0 {
                tracing::warn!(
                    namespace,
                    "what closed an earlier namespace of this name is removed"
                );
                let compares = vec![
                    Compare::Revision { key: open, revision: stored.revision },
                    Compare::Revision { key: key.clone(), revision: left.mod_revision },
                ];
                let operations = vec![Operation::Delete { key }];
                return Ok(Opened { compares, operations, space: stored.object });
            }
        }
        let compares = vec![Compare::Exists { key: open }, Compare::Absent { key }];
        Ok(Opened { compares, operations: Vec::new(), space: stored.object })
    }

    /// The condition that a kind, where it has a definition, is open for new objects: nothing is created of one that goes,
    /// whichever member knows it by then.
    pub(super) async fn open_kind(
        &self,
        resource: &Row,
        attempt: usize,
    ) -> Result<Option<Compare>, Status> {
        let Some((stored, condition)) = self.defined(resource, attempt).await? else {
            return Ok(None);
        };
        if !text(&stored.object, "/metadata/deletionTimestamp").is_empty() {
            let status = Status::method_not_allowed(resource, "create");
            let message = "create not allowed while custom resource definition is terminating";
            return Err(Status { message: message.to_owned(), ..status });
        }
        Ok(Some(condition))
    }

    /// Refuses definitions beyond the kinds that can be served: every member keeps each of them, served or not. Those that
    /// are made at a time may be a few more.
    pub(super) async fn has_room(&self, resource: &Row, name: &str) -> Result<(), Status> {
        if (&*resource.group, &*resource.plural) != DEFINITIONS {
            return Ok(());
        }
        let all = ListRequest::of(Selection::all(resource_key(resource)));
        let request = ListRequest { limit: Some(1), consistency: Consistency::Local, ..all };
        let page = self.registry().list(request).await.map_err(|error| read_refused(&error))?;
        if page.entries.len() + page.remaining < MOST_TAKEN {
            return Ok(());
        }
        let why =
            format!("there are {MOST_TAKEN} definitions, and no more are kept: delete one first");
        Err(Status::forbidden(resource, name, why))
    }

    /// The definition of a kind, where it has one, and the condition that it stays as it is. A row of an earlier one does
    /// not know the fields that are new, and would take them out of every object that it writes.
    pub(super) async fn defined(
        &self,
        resource: &Row,
        attempt: usize,
    ) -> Result<Option<(Familiar, Compare)>, Status> {
        let Some(made_of) = &resource.definition else { return Ok(None) };
        let name = &made_of.name;
        let definitions = find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .ok_or_else(|| Status::internal("no definitions are served"))?;
        // As of namespaces: the first look may be at an older state.
        let mut found = None;
        if attempt == 0 {
            found = self.familiar(&definitions, "", name, Consistency::Local).await?;
        }
        if found.is_none() {
            found = self.familiar(&definitions, "", name, Consistency::Linearizable).await?;
        }
        let stored = found.ok_or_else(Status::no_such_path)?;
        let generation = stored.object.pointer("/metadata/generation").and_then(Value::as_u64);
        let is_present = text(&stored.object, "/metadata/uid") == made_of.uid
            && generation.unwrap_or(1) == made_of.generation;
        if !is_present {
            let why =
                format!("the definition {name} has changed and is not served here yet: try again");
            return Err(Status::unavailable(why, 1));
        }
        let condition =
            Compare::Revision { key: key_of(&definitions, "", name), revision: stored.revision };
        Ok(Some((stored, condition)))
    }
}
