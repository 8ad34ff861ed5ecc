//! Who may do what: one question, one answer, one place.
//!
//! [`Authorize`] is what the gateway asks for every request. [`GroupPolicy`] is the thin answer of
//! today, by group alone; RBAC replaces it behind the same trait. What no rule allows is refused.
//! The words of a refusal are Kubernetes's, because clients and people search for them.

use crate::authenticate::User;
use crate::request::Action;
use futures_util::future::BoxFuture;
use impresario_objects::may::{Ask, NothingBound, Rule, Verb, Who, may};

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Something with a resource.
    Resource {
        /// What is to be done.
        action: Action,
        /// API group; empty for the core group.
        group: String,
        /// Plural name of the resource.
        resource: String,
        /// Subresource or empty.
        subresource: String,
        /// Namespace; empty at cluster scope and for all namespaces.
        namespace: String,
        /// Object name or empty.
        name: String,
    },
    /// Anything else, such as `/version`.
    Path {
        /// The method in lower case.
        method: String,
        /// The path.
        path: String,
    },
}

/// The answer to a request for access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allow,
    /// It may not, by this rule.
    Deny(Rule),
}

/// Decides who may do what.
pub trait Authorize: Send + Sync + 'static {
    /// Decides one request. Must not change anything.
    fn authorize<'a>(&'a self, user: &'a User, request: &'a Request) -> BoxFuture<'a, Decision>;
}

pub use impresario_objects::may::{MASTERS, VIEWERS};

/// Access by group: masters everything, viewers read, anyone authenticated discovers, the rest only
/// asks whether we live.
#[derive(Debug, Clone, Copy, Default)]
pub struct GroupPolicy;

impl Authorize for GroupPolicy {
    fn authorize<'a>(&'a self, user: &'a User, request: &'a Request) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(decide(user, request)))
    }
}

/// The policy as a plain function.
pub fn decide(user: &User, request: &Request) -> Decision {
    let verdict = match request {
        _ if user.is_in(MASTERS) => Ok(()),
        Request::Path { method, path } => {
            let reads = matches!(method.as_str(), "get" | "head");
            let known = user.is_in(crate::authenticate::AUTHENTICATED);
            let allowed = reads && (is_public(path) || (known && is_discovery(path)));
            if allowed { Ok(()) } else { Err(Rule::Nothing) }
        }
        Request::Resource { action, resource, group, subresource, namespace, name } => {
            let key =
                if group.is_empty() { resource.clone() } else { format!("{group}/{resource}") };
            let verb = match action {
                Action::Get => Verb::Get,
                Action::List => Verb::List,
                Action::Watch => Verb::Watch,
                Action::Create => Verb::Create,
                Action::Update | Action::Patch => Verb::Update,
                Action::Delete | Action::DeleteCollection => Verb::Delete,
            };
            let ask = Ask { subresource, ..Ask::of(verb, &key, namespace, name) };
            may(Who::User(&user.groups), &ask, &NothingBound).map_err(|denied| denied.rule)
        }
    };
    verdict.map_or_else(Decision::Deny, |()| Decision::Allow)
}

fn is_public(path: &str) -> bool {
    let root = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(root, "healthz" | "livez" | "readyz") || path == "/version"
}

fn is_discovery(path: &str) -> bool {
    let root = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(root, "" | "api" | "apis" | "openapi")
}

/// The message of a refusal, without the part that names the object: in Kubernetes' words, then what
/// the rule allows, where it allows anything.
pub fn refusal(user: &User, request: &Request, rule: Rule) -> String {
    let end = if rule == Rule::Nothing { String::new() } else { format!(": {}", rule.allows()) };
    match request {
        Request::Path { method, path } => {
            format!("User \"{}\" cannot {method} path \"{path}\"{end}", user.name)
        }
        Request::Resource { action, group, resource, subresource, namespace, .. } => {
            let what = if subresource.is_empty() {
                resource.clone()
            } else {
                format!("{resource}/{subresource}")
            };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace \"{namespace}\"")
            };
            let action = action.as_str();
            format!(
                "User \"{}\" cannot {action} resource \"{what}\" in API group \"{group}\" {place}{end}",
                user.name
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn on(action: Action, resource: &str) -> Request {
        Request::Resource {
            action,
            group: String::new(),
            resource: resource.into(),
            subresource: String::new(),
            namespace: "default".into(),
            name: String::new(),
        }
    }

    fn path(path: &str) -> Request {
        Request::Path { method: "get".into(), path: path.into() }
    }

    #[test]
    fn masters_do_everything_viewers_read_strangers_ask_whether_we_live() {
        let master = User::new("root", [MASTERS]);
        let viewer = User::new("eve", [VIEWERS, crate::authenticate::AUTHENTICATED]);
        let stranger = User::anonymous();
        let allowed = |user: &User, request: &Request| decide(user, request) == Decision::Allow;

        assert!(allowed(&master, &on(Action::DeleteCollection, "secrets")));
        assert!(allowed(&viewer, &on(Action::Watch, "pods")));
        assert!(!allowed(&viewer, &on(Action::Get, "secrets")));
        assert!(!allowed(&viewer, &on(Action::Patch, "pods")));
        // To run a command in a pod, or to reach its ports, is a GET too.
        for (subresource, may) in
            [("log", true), ("exec", false), ("attach", false), ("proxy", false)]
        {
            let Request::Resource { action, group, resource, namespace, name, .. } =
                on(Action::Get, "pods")
            else {
                unreachable!()
            };
            let subresource = subresource.to_owned();
            let request =
                Request::Resource { action, group, resource, subresource, namespace, name };
            assert_eq!(allowed(&viewer, &request), may, "{request:?}");
        }
        assert!(allowed(&viewer, &path("/apis")));
        assert!(!allowed(&stranger, &path("/apis")));
        assert!(!allowed(&stranger, &on(Action::List, "pods")));
        for open in ["/healthz", "/livez", "/readyz", "/readyz/registry", "/version"] {
            assert!(allowed(&stranger, &path(open)), "{open}");
        }
    }

    #[test]
    fn a_refusal_reads_as_in_kubernetes() {
        let text = refusal(&User::anonymous(), &on(Action::List, "pods"), Rule::Nothing);
        assert_eq!(
            text,
            "User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let viewer = User::new("eve", [VIEWERS]);
        let Decision::Deny(rule) = decide(&viewer, &on(Action::Delete, "pods")) else { panic!() };
        let told = refusal(&viewer, &on(Action::Delete, "pods"), rule);
        assert!(told.ends_with("this role reads everything but secrets and changes nothing"));
    }
}
