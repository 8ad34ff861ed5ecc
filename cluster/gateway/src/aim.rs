//! What a request is about: found in the table of resources before any of its body is read.

use crate::call::Needs;
use crate::query::Query;
use crate::request::{Action, ResourcePath, Target};
use impresario_api::catalog::{find, find_unkept};
use impresario_api::resource::{Row, Verb};
use impresario_api::status::{Reason, Status};

/// What a request is about, found in the table of resources.
pub(crate) enum Aim {
    /// A resource that is served, and something that can be done with it.
    Resource { action: Action, resource: Row, path: ResourcePath },
    /// Everything else, which is read.
    Other(Target),
}

impl Aim {
    /// How much of the body it takes to answer.
    pub(crate) fn needs(&self) -> Needs {
        match self {
            Self::Resource { action, .. } => Needs::of(*action),
            Self::Other(_) => Needs::Nothing,
        }
    }
}

/// What a request is about, if there is such a thing and this can be done with it.
pub(crate) fn aim(target: Target, method: &str, query: &Query) -> Result<Aim, Status> {
    let Target::Resource(path) = target else {
        let reads = matches!(method, "GET" | "HEAD");
        return if reads { Ok(Aim::Other(target)) } else { Err(no_such_method()) };
    };
    let action = path.action(method, query).ok_or_else(no_such_method)?;
    if is_bindings(&path) {
        return bindings(action, path);
    }
    let resource = find(&path.group, &path.version, &path.plural)
        .or_else(|| find_unkept(&path.group, &path.version, &path.plural))
        .filter(|resource| resource.namespaced || path.namespace.is_empty())
        .ok_or_else(Status::no_such_path)?;
    let not_allowed = || Status::method_not_allowed(&resource, action.as_str());
    if resource.namespaced && path.namespace.is_empty() {
        if !path.name.is_empty() {
            return Err(Status::no_such_path());
        }
        if !matches!(action, Action::List | Action::Watch) {
            return Err(not_allowed());
        }
    }
    let allowed = if path.subresource.is_empty() {
        resource.verbs
    } else {
        let found = resource.subresource(&path.subresource);
        found.filter(|_| !path.name.is_empty()).ok_or_else(Status::no_such_path)?.verbs
    };
    if !allowed.contains(&verb(action)) {
        return Err(not_allowed());
    }
    Ok(Aim::Resource { action, resource, path })
}

/// The plural of what is posted to bind a pod, another door to pods.
const BINDINGS: &str = "bindings";

/// What is posted to the bindings of a namespace is what is posted to the pod that it names.
fn bindings(action: Action, path: ResourcePath) -> Result<Aim, Status> {
    if action != Action::Create {
        let bindings = find_unkept("", "v1", BINDINGS).ok_or_else(Status::no_such_path)?;
        return Err(Status::method_not_allowed(&bindings, action.as_str()));
    }
    let resource = find("", "v1", "pods").ok_or_else(Status::no_such_path)?;
    let (plural, subresource) = ("pods".to_owned(), "binding".to_owned());
    Ok(Aim::Resource { action, resource, path: ResourcePath { plural, subresource, ..path } })
}

/// Whether a path is that of the bindings of a namespace, of which none is ever kept.
fn is_bindings(path: &ResourcePath) -> bool {
    (path.group.as_str(), path.version.as_str(), path.plural.as_str()) == ("", "v1", BINDINGS)
        && !path.namespace.is_empty()
        && path.name.is_empty()
}

fn verb(action: Action) -> Verb {
    match action {
        Action::Get => Verb::Get,
        Action::List => Verb::List,
        Action::Watch => Verb::Watch,
        Action::Create => Verb::Create,
        Action::Update => Verb::Update,
        Action::Patch => Verb::Patch,
        Action::Delete => Verb::Delete,
        Action::DeleteCollection => Verb::DeleteCollection,
    }
}

/// 405: the method means nothing here.
pub(crate) fn no_such_method() -> Status {
    Status::new(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}
