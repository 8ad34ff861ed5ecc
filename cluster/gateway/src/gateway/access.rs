//! As whom somebody acts, and whether they may.

use super::Gateway;
use crate::aim::no_such_method;
use crate::authenticate::{AUTHENTICATED, User};
use crate::authorize::{self, MASTERS};
use crate::brief::brief;
use crate::call::ResourceCall;
use crate::impersonate;
use crate::query::Query;
use crate::request::{Action, ResourcePath, Target};
use hyper::HeaderMap;
use impresario_api::catalog::served;
use impresario_api::selector::FieldSelector;
use impresario_api::status::{Reason, Status};
use impresario_objects::rbac::{Asked, GROUP, Verdict, unread};
use serde_json::Value;
use std::time::Duration;

/// How long a new binding waits for its role to be known.
const ROLE_LIMIT: Duration = Duration::from_secs(2);

impl Gateway {
    /// The user who acts: who asks, or the one whom they ask to be, if they may.
    pub(super) fn acting(&self, user: User, headers: &HeaderMap) -> Result<User, Status> {
        let Some((whom, needs)) = impersonate::wanted(headers)? else { return Ok(user) };
        for need in &needs {
            match authorize::decide(self.roles(), &user, need.asked()) {
                Verdict::Allowed(_) => continue,
                Verdict::Unread => return Err(unread()),
                Verdict::Denied => {}
            }
            if let Some(unsaid) = self.count_refusal(role(&user), &user.name, "Impersonation") {
                tracing::info!(
                    user = user.name,
                    whom = brief(&need.name),
                    unsaid,
                    "impersonation was refused"
                );
            }
            let why = authorize::refusal(&user, need.asked());
            let message = format!("{} {:?} is forbidden: {why}", need.what(), need.name);
            return Err(Status::new(Reason::Forbidden, message));
        }
        tracing::debug!(user = user.name, whom = brief(&whom.name), "acts as somebody else");
        Ok(whom)
    }

    /// Whether who replaces an object may also make it.
    pub(crate) fn permit_create(&self, call: &ResourceCall) -> Result<(), Status> {
        let collection = ResourcePath { name: String::new(), ..call.path.clone() };
        let (path, target) = (call.call.parts.uri.path(), Target::Resource(collection));
        self.permit(&call.call.user, "POST", path, &target, &call.call.query)
    }

    /// Waits a moment for the role that a new binding names: it may have been made just before, and whether its rights may
    /// be given away is judged by what is known here.
    pub(crate) async fn know_role(&self, call: &ResourceCall, object: &Value) {
        let resource = &call.resource;
        if resource.group != GROUP
            || object.get("roleRef").is_none()
            || call.call.user.is_in(MASTERS)
        {
            return;
        }
        let (objects, namespace) = (self.objects().reader(), call.path.namespace.as_str());
        if !self.roles().has_seen_role_within(objects, namespace, object, ROLE_LIMIT).await {
            tracing::debug!(namespace, "the role of a binding is judged as it was");
        }
    }

    pub(super) fn permit(
        &self,
        user: &User,
        method: &str,
        raw_path: &str,
        target: &Target,
        query: &Query,
    ) -> Result<(), Status> {
        let (method_in_rules, named);
        let asked = match target {
            Target::Resource(path) => {
                let action = path.action(method, query).ok_or_else(no_such_method)?;
                named = name(path, action, query);
                Asked::Resource {
                    verb: action.as_str(),
                    group: &path.group,
                    resource: &path.plural,
                    subresource: &path.subresource,
                    namespace: path.scope(),
                    name: &named,
                }
            }
            _ => {
                method_in_rules = method.to_ascii_lowercase();
                Asked::Path { verb: &method_in_rules, path: raw_path }
            }
        };
        match authorize::decide(self.roles(), user, asked) {
            Verdict::Allowed(_) => return Ok(()),
            Verdict::Unread => return Err(unread()),
            Verdict::Denied => {}
        }
        let why = authorize::refusal(user, asked);
        if let Some(unsaid) = self.count_refusal(role(user), &user.name, "Nothing") {
            tracing::info!(user = user.name, why = brief(&why), unsaid, "access was refused");
        }
        Err(match target {
            Target::Resource(path) => forbidden(path, &why),
            _ => Status::new(Reason::Forbidden, format!("forbidden: {why}")),
        })
    }
}

/// The object that a request is about. One that selects a collection by the name of an object is about that one.
fn name(path: &ResourcePath, action: Action, query: &Query) -> String {
    let selects = matches!(action, Action::List | Action::Watch | Action::DeleteCollection);
    if !path.name.is_empty() || !selects {
        return path.name.clone();
    }
    let selector = query.get("fieldSelector").map(FieldSelector::parse);
    let selected = selector.and_then(Result::ok);
    selected.as_ref().and_then(FieldSelector::name).unwrap_or_default().to_owned()
}

/// The role under which refusals are counted.
fn role(user: &User) -> &'static str {
    if user.is_in(AUTHENTICATED) { "user" } else { "stranger" }
}

/// Refusals name the resource even where it does not exist, so that they tell nothing about that.
fn forbidden(path: &ResourcePath, why: &str) -> Status {
    let known = served().find_any_version(&path.group, &path.plural);
    if let Some(resource) = known {
        return Status::forbidden(&resource, &path.name, why);
    }
    let mut what = path.plural.clone();
    if !path.group.is_empty() {
        what = format!("{what}.{}", path.group);
    }
    let named = if path.name.is_empty() { String::new() } else { format!(" {:?}", path.name) };
    let mut status = Status::new(Reason::Forbidden, format!("{what}{named} is forbidden: {why}"));
    (status.group, status.kind, status.name) =
        (path.group.clone(), path.plural.clone(), path.name.clone());
    status
}
