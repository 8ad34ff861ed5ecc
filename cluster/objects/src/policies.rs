//! What priority classes, limit ranges and pod security levels mean for a write.
//!
//! What they say is decided in `impresario_api::policy`; here they are looked up. They are read as this member has them:
//! as in Kubernetes a write may go by what was there a moment ago. That no two classes are the default one holds always.

use super::Objects;
use super::address::{default_class, holder_of, is_priority_class};
use impresario_api::admission::{Allocator as _, RandomAllocator};
use impresario_api::catalog::find;
use impresario_api::policy::limits;
use impresario_api::policy::priority::{Class, is_default};
use impresario_api::policy::security::{Level, Policy, pod_of, told_of_present, violations};
use impresario_api::resource::{Resource, Row};
use impresario_api::status::Status;
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::text;
use impresario_registry_api::{Consistency, Entry, ListRequest, Selection};
use serde_json::Value;

/// Pods that are looked at when the level of their namespace becomes stricter.
const LOOKED_AT: usize = 3000;

fn is_core(resource: &Resource, plural: &str) -> bool {
    resource.group.is_empty() && resource.plural == plural
}

fn read(entries: &[Entry]) -> Vec<Value> {
    // What cannot be read says nothing; who reads it by itself is told why.
    entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
}

impl Objects {
    /// What an admission of a new object may draw from, with the class and the limits of a pod.
    pub(super) async fn looked_up(
        &self,
        resource: &Row,
        namespace: &str,
        object: &Value,
        mut draws: RandomAllocator,
    ) -> Result<RandomAllocator, Status> {
        if is_core(resource, "pods") {
            let named = text(object, "/spec/priorityClassName");
            if let Some(class) = self.class(named).await? {
                draws = draws.with_class(named, class);
            }
        }
        if is_core(resource, "pods") || is_core(resource, "persistentvolumeclaims") {
            draws = draws.with_limit_ranges(self.limit_ranges(namespace).await?);
        }
        Ok(draws)
    }

    async fn limit_ranges(&self, namespace: &str) -> Result<Vec<Value>, Status> {
        let select = Selection::all("limitranges").within(namespace);
        let request = ListRequest { consistency: Consistency::Local, ..ListRequest::of(select) };
        let page = self.registry().list(request).await.map_err(|error| read_refused(&error))?;
        Ok(read(&page.entries))
    }

    /// The class of this name; of no name that which is the default.
    async fn class(&self, named: &str) -> Result<Option<Class>, Status> {
        let classes = find("scheduling.k8s.io", "v1", "priorityclasses")
            .ok_or_else(|| Status::internal("no priority classes are served"))?;
        let name = match named {
            "" => match self.default_class(Consistency::Local).await? {
                Some(name) => name,
                None => return Ok(None),
            },
            named => named.to_owned(),
        };
        let mut found = self.familiar(&classes, "", &name, Consistency::Local).await?;
        // Only absence must be certain.
        if found.is_none() && Class::of_system(&name).is_none() {
            found = self.familiar(&classes, "", &name, Consistency::Linearizable).await?;
        }
        Ok(found.map(|stored| Class::of(&stored.object)))
    }

    async fn default_class(&self, consistency: Consistency) -> Result<Option<String>, Status> {
        let read = self.registry().get(default_class(), consistency).await;
        let (found, _) = read.map_err(|error| read_refused(&error))?;
        Ok(found.map(|entry| holder_of(&entry.value)))
    }

    /// Refuses a second class that is for pods that name none. The transaction makes sure of it.
    pub(super) async fn sole_default(
        &self,
        resource: &Resource,
        object: &Value,
    ) -> Result<(), Status> {
        if !is_priority_class(resource) || !is_default(object) {
            return Ok(());
        }
        let name = text(object, "/metadata/name");
        match self.default_class(Consistency::Linearizable).await? {
            Some(other) if other != name => {
                let why = format!(
                    "PriorityClass {other} is already marked as default. Only one default can exist"
                );
                Err(Status::forbidden(resource, name, why))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a new object that is not within the limits of its namespace, or a pod that its namespace allows too little.
    pub(super) fn allow(
        resource: &Resource,
        object: &Value,
        draws: &RandomAllocator,
        space: &Value,
    ) -> Result<(), Status> {
        let name = text(object, "/metadata/name");
        let refused = |why: String| Status::forbidden(resource, name, why);
        if is_core(resource, "pods") {
            limits::check_pod(object, draws.limit_ranges()).map_err(refused)?;
        } else if is_core(resource, "persistentvolumeclaims") {
            limits::check_claim(object, draws.limit_ranges()).map_err(refused)?;
        }
        let Some(pod) = pod_of(resource, object) else { return Ok(()) };
        let policy = Policy::of(space);
        if policy.is_silent() {
            return Ok(());
        }
        if let Some(found) = violations(pod, policy.audit) {
            let namespace = text(space, "/metadata/name");
            let (kind, violations) = (&resource.kind, found.told(true));
            tracing::info!(namespace, %kind, name, violations, "pod security");
        }
        if is_core(resource, "pods")
            && let Some(found) = violations(pod, policy.enforce)
        {
            return Err(refused(found.told(false)));
        }
        Ok(())
    }

    /// Refuses a change of an object that takes it out of the limits of its namespace, or makes it a second default.
    pub(super) async fn allow_change(
        &self,
        resource: &Resource,
        namespace: &str,
        (old, new): (&Value, &Value),
    ) -> Result<(), Status> {
        self.sole_default(resource, new).await?;
        if is_core(resource, "persistentvolumeclaims") && old["spec"] != new["spec"] {
            let ranges = self.limit_ranges(namespace).await?;
            limits::check_claim(new, &ranges)
                .map_err(|why| Status::forbidden(resource, text(new, "/metadata/name"), why))?;
            self.allow_growth(resource, old, new).await?;
        }
        Ok(())
    }

    /// An object before it is changed, as far as [`Objects::warnings`] needs it: a namespace, of which the level may change.
    pub async fn before(&self, resource: &Row, name: &str) -> Option<Value> {
        if !is_core(resource, "namespaces") {
            return None;
        }
        let found = self.find(resource, "", name, Consistency::Local).await.ok().flatten();
        found.map(|stored| stored.object)
    }

    /// What who wrote this should know of its namespace's level, or of the pods of a namespace that became stricter.
    /// Nobody waits long for it, and a write that is done does not fail over it.
    pub async fn warnings(
        &self,
        resource: &Row,
        namespace: &str,
        before: Option<&Value>,
        object: &Value,
    ) -> Vec<String> {
        if is_core(resource, "namespaces") {
            let policy = Policy::of(object).enforce;
            let was = before.map(|before| Policy::of(before).enforce);
            let is_stricter = was.is_some_and(|was| was != policy && policy.level >= was.level);
            if !is_stricter || policy.level == Level::Privileged {
                return Vec::new();
            }
            return self.warnings_of_present(object).await;
        }
        let (Some(pod), Some(namespaces)) =
            (pod_of(resource, object), find("", "v1", "namespaces"))
        else {
            return Vec::new();
        };
        let found = self.familiar(&namespaces, "", namespace, Consistency::Local).await;
        let Ok(Some(space)) = found else { return Vec::new() };
        let found = violations(pod, Policy::of(&space.object).warn);
        found.map(|found| found.told(true)).into_iter().collect()
    }

    async fn warnings_of_present(&self, space: &Value) -> Vec<String> {
        let select = Selection::all("pods").within(text(space, "/metadata/name"));
        let request = ListRequest {
            limit: Some(LOOKED_AT),
            consistency: Consistency::Local,
            ..ListRequest::of(select)
        };
        match self.registry().list(request).await {
            Ok(page) => told_of_present(space, read(&page.entries).iter(), page.remaining == 0),
            Err(error) => {
                tracing::debug!(%error, "the pods of a namespace that became stricter were not read");
                Vec::new()
            }
        }
    }
}
