//! Deleting: at once, after a grace period, or when the last finalizer is gone.
//!
//! What a deletion means for an object is decided in `impresario_api::admission`. A bound pod is only
//! marked: its node ends it and deletes it for good with a grace of zero.

use super::Objects;
use super::address::is_priority_class;
use super::write::{Change, Step};
use crate::may::Verb;
use futures_util::{StreamExt, stream};
use impresario_api::admission::{DeleteOptions, Deletion, RandomAllocator, admit_delete};
use impresario_api::policy::priority::SYSTEM_CLASSES;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_client::objects::stored::{take_revision, text};
use impresario_client::objects::{Deleted, ListQuery, Stored, WriteOptions};
use impresario_runtime::clock;
use serde_json::Value;

/// Deletions of a collection that are under way at once; the registry commits them in groups.
const CONCURRENT: usize = 16;
/// Namespaces that a cluster cannot be without.
const KEPT: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Objects {
    /// Deletes an object.
    pub async fn delete(
        &self,
        resource: &Row,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        write: &WriteOptions,
    ) -> Result<Deleted, Status> {
        if resource.group.is_empty() && resource.plural == "namespaces" && KEPT.contains(&name) {
            return Err(Status::forbidden(resource, name, "this namespace may not be deleted"));
        }
        if is_priority_class(resource) && SYSTEM_CLASSES.iter().any(|class| class.name == name) {
            let why = "this is a system priority class and cannot be deleted";
            return Err(Status::forbidden(resource, name, why));
        }
        let now = clock::timestamp();
        let mut decide = |stored: &Stored, _: &RandomAllocator| {
            let mut object = stored.object.clone();
            take_revision(&mut object);
            let revision = stored.revision.to_string();
            Ok(match admit_delete(resource, &object, &revision, options, now)? {
                Deletion::Gone => Change::Remove(object),
                Deletion::Marked(marked) => Change::Put(marked),
                Deletion::Unchanged => Change::Keep,
            })
        };
        let step = Step::Deleted(&mut decide);
        let (change, object) =
            self.settle(Verb::Delete, resource, namespace, name, write, step).await?;
        Ok(match change {
            Change::Remove(_) => Deleted::Gone(object),
            Change::Put(_) | Change::Keep => Deleted::Lingers(object),
        })
    }

    /// Deletes every object of a collection that matches; tells which they were. One that may not go keeps
    /// no other from going: the first refusal is told after all were tried.
    pub async fn delete_collection(
        &self,
        resource: &Row,
        query: &ListQuery,
        options: &DeleteOptions,
        write: &WriteOptions,
    ) -> Result<Vec<Value>, Status> {
        let listed = self.list(resource, query).await?;
        let deletions: Vec<_> = listed
            .items
            .into_iter()
            .map(|object| self.delete_listed(resource, object, options, write))
            .collect();
        let mut outcomes = stream::iter(deletions).buffered(CONCURRENT);
        let (mut deleted, mut first) = (Vec::new(), None);
        // One that may not go stops no other; it is told when all others are done.
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(Deleted::Gone(object) | Deleted::Lingers(object)) => deleted.push(object),
                Err(status) if status.code() == 404 || status.code() == 409 => {}
                // So it would be with the next.
                Err(status) if matches!(status.code(), 429 | 503 | 504) => return Err(status),
                Err(status) => first = first.or(Some(status)),
            }
        }
        if let Some(status) = first {
            return Err(status);
        }
        Ok(deleted)
    }

    /// Deletes what was listed, and not another of the same name that came since.
    async fn delete_listed(
        &self,
        resource: &Row,
        object: Value,
        options: &DeleteOptions,
        write: &WriteOptions,
    ) -> Result<Deleted, Status> {
        let uid = Some(text(&object, "/metadata/uid").to_owned());
        let options = DeleteOptions { uid, ..options.clone() };
        let (namespace, name) =
            (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        self.delete(resource, namespace, name, &options, write).await
    }
}
