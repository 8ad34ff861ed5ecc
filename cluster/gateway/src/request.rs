//! What a request asks for, read from its method and path alone.
//!
//! The grammar is Kubernetes's: `/api/v1/…` for the core group, `/apis/GROUP/VERSION/…` for the
//! others, then `[namespaces/NS/]PLURAL[/NAME[/SUBRESOURCE]]`. Which plurals exist is not known here:
//! the table of resources decides that, so a new kind needs no new route. No IO, no table, no failure.

use crate::query::{Query, decode};

/// The target of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A resource, or something under it.
    Resource(ResourcePath),
    /// The list of resources of one group version: `/api/v1`, `/apis/batch/v1`.
    GroupVersion {
        /// Empty for the core group.
        group: String,
        /// For example `v1`.
        version: String,
    },
    /// One group: `/apis/batch`.
    Group(String),
    /// Everything else: `/version`, `/healthz`, `/openapi/v3`.
    Path(String),
}

/// The parts of a resource's path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Namespace that the object is in, empty when it is in none. Access is decided in [`ResourcePath::scope`].
    pub namespace: String,
    /// Plural name of the resource.
    pub plural: String,
    /// Object name, empty for collections.
    pub name: String,
    /// Subresource such as `status`, empty for the object itself.
    pub subresource: String,
}

/// What is to be done, named as access rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection.
    Watch,
    /// Make a new object.
    Create,
    /// Replace an object.
    Update,
    /// Change parts of an object.
    Patch,
    /// Remove one object.
    Delete,
    /// Remove a collection.
    DeleteCollection,
}

impl Action {
    /// The word used in access rules and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

impl Target {
    /// Reads a path. Empty segments are dropped, escapes decoded after splitting.
    pub fn parse(path: &str) -> Self {
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| decode(part, false))
            .collect();
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["api", version] => {
                Self::GroupVersion { group: String::new(), version: (*version).into() }
            }
            ["apis", group] => Self::Group((*group).into()),
            ["apis", group, version] => {
                Self::GroupVersion { group: (*group).into(), version: (*version).into() }
            }
            ["api", version, rest @ ..] => Self::Resource(resource("", version, rest)),
            ["apis", group, version, rest @ ..] => Self::Resource(resource(group, version, rest)),
            _ => Self::Path(format!("/{}", parts.join("/"))),
        }
    }
}

/// `namespaces/NS` alone is the object NS of the resource `namespaces`, and so are its subresources.
fn resource(group: &str, version: &str, rest: &[&str]) -> ResourcePath {
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize", ..] => ("", rest),
        ["namespaces", namespace, more @ ..] if !more.is_empty() => (*namespace, more),
        _ => ("", rest),
    };
    let at = |i: usize| rest.get(i).copied().unwrap_or_default().to_owned();
    ResourcePath {
        group: group.into(),
        version: version.into(),
        namespace: namespace.into(),
        plural: at(0),
        name: at(1),
        subresource: rest.get(2..).unwrap_or_default().join("/"),
    }
}

impl ResourcePath {
    /// The namespace that a request is about, in which access is decided: a namespace is in itself, as Kubernetes has
    /// it. Empty where it is about all of them, or none.
    pub fn scope(&self) -> &str {
        let is_namespace = self.group.is_empty() && self.plural == "namespaces";
        if is_namespace { &self.name } else { &self.namespace }
    }

    /// Whether it reaches into a pod: what is done there is a right of its own, however it is asked for.
    fn reaches_in(&self) -> bool {
        self.group.is_empty()
            && self.plural == "pods"
            && !self.name.is_empty()
            && matches!(self.subresource.as_str(), "exec" | "attach" | "portforward")
    }

    /// The action a method means here; `None` if the method means nothing at all.
    pub fn action(&self, method: &str, query: &Query) -> Option<Action> {
        let one = !self.name.is_empty();
        Some(match method {
            "GET" | "HEAD" if query.flag("watch") && self.subresource.is_empty() => Action::Watch,
            // Not a reading, though a WebSocket begins with a GET: a role that may read everything runs nothing.
            "GET" if self.reaches_in() => Action::Create,
            "GET" | "HEAD" if one => Action::Get,
            "GET" | "HEAD" => Action::List,
            // An object is created in its collection, what is under an object at the object.
            "POST" if !one || !self.subresource.is_empty() => Action::Create,
            "PUT" if one => Action::Update,
            "PATCH" if one => Action::Patch,
            "DELETE" if one => Action::Delete,
            "DELETE" => Action::DeleteCollection,
            _ => return None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn show(path: &str) -> String {
        match Target::parse(path) {
            Target::Resource(p) => format!(
                "{}|{}|{}|{}|{}|{}",
                p.group,
                p.version,
                p.scope(),
                p.plural,
                p.name,
                p.subresource
            ),
            Target::GroupVersion { group, version } => format!("gv {group} {version}"),
            Target::Group(group) => format!("group {group}"),
            Target::Path(path) => format!("path {path}"),
        }
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let table = [
            ("/api/v1/pods", "|v1||pods||"),
            ("/api/v1/namespaces", "|v1||namespaces||"),
            ("/api/v1/namespaces/default", "|v1|default|namespaces|default|"),
            ("/api/v1/namespaces/default/status", "|v1|default|namespaces|default|status"),
            ("/api/v1/namespaces/default/finalize", "|v1|default|namespaces|default|finalize"),
            ("/api/v1/namespaces/default/pods/", "|v1|default|pods||"),
            ("/api/v1/namespaces/default/pods/web-1/log", "|v1|default|pods|web-1|log"),
            ("/api/v1/nodes/a%2Fb/status", "|v1||nodes|a/b|status"),
            ("/apis/batch/v1/namespaces/x/jobs/j", "batch|v1|x|jobs|j|"),
            ("/apis/a.com/v1/namespaces/x/namespaces/n", "a.com|v1|x|namespaces|n|"),
            ("/apis/batch/v1", "gv batch v1"),
            ("/api/v1", "gv  v1"),
            ("/apis/batch", "group batch"),
            ("/apis", "path /apis"),
            ("/", "path /"),
            ("/openapi/v3/apis/batch/v1", "path /openapi/v3/apis/batch/v1"),
        ];
        for (path, expected) in table {
            assert_eq!(show(path), expected, "{path}");
        }
    }

    #[test]
    fn a_method_means_the_action_its_path_allows() {
        let one = ResourcePath { name: "x".into(), ..ResourcePath::default() };
        let all = ResourcePath::default();
        let none = Query::default();
        assert_eq!(all.action("GET", &none), Some(Action::List));
        assert_eq!(one.action("GET", &none), Some(Action::Get));
        assert_eq!(one.action("GET", &Query::parse("watch=true")), Some(Action::Watch));
        assert_eq!(all.action("DELETE", &none), Some(Action::DeleteCollection));
        assert_eq!(one.action("TRACE", &none), None);
        for subresource in ["exec", "attach", "portforward"] {
            let (plural, name) = ("pods".to_owned(), "x".to_owned());
            let path =
                ResourcePath { plural, name, subresource: subresource.into(), ..one.clone() };
            for method in ["GET", "POST"] {
                let action = path.action(method, &Query::parse("watch=true&command=ls"));
                assert_eq!(action, Some(Action::Create), "{method} {subresource}");
            }
        }
        for method in ["PUT", "PATCH"] {
            assert_eq!(all.action(method, &none), None, "{method} means one object");
        }
    }
}
