//! What is asked, by whom, and how it is refused.

use impresario_runtime::PeerRole;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use thiserror::Error;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who<'a> {
    /// A control member, by its certificate.
    Member,
    /// The node of this name.
    Node(&'a str),
    /// A pod's own process.
    Guest,
    /// A program of this name that uses the SDK.
    Client(&'a str),
    /// An operator.
    Admin,
}

impl<'a> Who<'a> {
    /// Who holds a certificate of this name and role. A control member is one by its role and because the group
    /// counts it among its members: one that was removed is a node like others.
    pub fn holder(name: &'a str, role: &PeerRole, is_member: impl Fn(&str) -> bool) -> Self {
        match role {
            PeerRole::Control if is_member(name) => Self::Member,
            PeerRole::Control | PeerRole::Node => Self::Node(name),
            PeerRole::Guest { .. } => Self::Guest,
            PeerRole::Client => Self::Client(name),
            PeerRole::Admin => Self::Admin,
        }
    }

    /// The user who writes over the wire by this name. Machines and guests are told by their prefix from people, whose
    /// names they could choose.
    pub fn user(self, name: &str) -> String {
        match self {
            Self::Member | Self::Node(_) => user_of_node(name),
            Self::Guest => user_of_guest(name),
            Self::Client(_) | Self::Admin => name.to_owned(),
        }
    }

    /// The role in a word.
    pub fn role(self) -> &'static str {
        match self {
            Self::Member => "control member",
            Self::Node(_) => "node",
            Self::Guest => "guest",
            Self::Client(_) => "client",
            Self::Admin => "admin",
        }
    }
}

/// The user that a machine is, whose name whoever has it join may choose.
pub fn user_of_node(name: &str) -> String {
    format!("system:node:{name}")
}

/// The user that the process of a pod is.
pub fn user_of_guest(name: &str) -> String {
    format!("impresario:guest:{name}")
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection.
    Watch,
    /// Make a new object.
    Create,
    /// Replace an object; where the change is judged, change it in parts, too.
    Update,
    /// Remove an object.
    Delete,
    /// Give a pod its node.
    Bind,
    /// Change an object in parts.
    Patch,
}

impl Verb {
    pub(super) fn reads(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Bind => "bind",
            Self::Patch => "patch",
        })
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What is to be done.
    pub verb: Verb,
    /// `group/plural`, or the plural alone for the core group.
    pub resource: &'a str,
    /// Such as `status` or `log`; empty for the object itself.
    pub subresource: &'a str,
    /// The namespace; empty for all of them and at cluster scope.
    pub namespace: &'a str,
    /// The name; empty for a collection.
    pub name: &'a str,
    /// The node to whose a collection is narrowed: pods that are bound to it, volumes that are its folders.
    pub on_node: Option<&'a str>,
    /// The object as it is; nothing where there is none, or where it is not known yet.
    pub old: Option<&'a Value>,
    /// The object as it is to be.
    pub new: Option<&'a Value>,
}

impl<'a> Ask<'a> {
    /// A question about one object of which nothing is known but where it lies.
    pub fn of(verb: Verb, resource: &'a str, namespace: &'a str, name: &'a str) -> Self {
        Self {
            verb,
            resource,
            subresource: "",
            namespace,
            name,
            on_node: None,
            old: None,
            new: None,
        }
    }

    /// The refusal by a rule of who asks it.
    pub fn denied(&self, who: Who<'_>, rule: Rule) -> Denied {
        Denied {
            who: match who {
                Who::Node(name) => format!("node {name}"),
                other => format!("a {}", other.role()),
            },
            verb: self.verb,
            what: what(self),
            rule,
        }
    }

    /// With the object before and after.
    pub fn change(self, old: Option<&'a Value>, new: Option<&'a Value>) -> Self {
        Self { old, new, ..self }
    }
}

/// The rule that a refusal stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    /// The role has nothing to do with objects.
    NoObjects,
    /// A node has no business with this resource, or none of this kind.
    NodeResources,
    /// A node reads and writes its own Node object.
    OwnNode,
    /// Labels, taints, owners and finalizers of a Node are others' to set.
    ProtectedFields,
    /// A node has to do with pods that are bound to it.
    OwnPods,
    /// A node writes the status of a pod and nothing else.
    StatusAlone,
    /// A node makes mirror pods of its own and no others.
    MirrorPods,
    /// A node reads what pods that are bound to it name.
    NamedByOwnPods,
    /// A node tells events of itself and its pods.
    OwnEvents,
    /// A node keeps its own lease.
    OwnLease,
    /// A node has to do with volumes that are its folders or its pods'.
    OwnVolumes,
    /// Nodes settle what they own; others create, change and delete.
    Settles,
    /// No rule allows it.
    Nothing,
    /// The roles have not been read yet.
    Unread,
}

impl Rule {
    /// What the rule allows.
    pub fn allows(self) -> &'static str {
        match self {
            Self::NoObjects => "this role talks to the actors of its own job alone",
            Self::NodeResources => {
                "a node reads nodes, services, endpoints, namespaces and what its pods name, and writes its Node, its \
                 lease, the status of its pods and events"
            }
            Self::OwnNode => "a node changes its own Node object alone",
            Self::ProtectedFields => {
                "a node leaves alone its taints, owners, finalizers and labels of kubernetes.io that are not the kubelet's"
            }
            Self::OwnPods => "a node has to do with pods that are bound to it alone",
            Self::StatusAlone => "a node changes the status of its pods and nothing else of them",
            Self::MirrorPods => {
                "a node creates mirror pods alone: annotated kubernetes.io/config.mirror, bound to it, owned by its Node, \
                 without account, secrets, config maps or claims"
            }
            Self::NamedByOwnPods => {
                "a node gets secrets, config maps, claims and accounts that pods bound to it name, one at a time"
            }
            Self::OwnEvents => "a node tells events of its Node and of its pods, as their source",
            Self::OwnLease => "a node keeps the lease of its own name in kube-node-lease",
            Self::OwnVolumes => {
                "a node reads volumes that are its folders or whose claims its pods name, and removes its own when they are \
                 deleted"
            }
            Self::Settles => {
                "nodes alone settle the state of what they own; others create, change or delete it"
            }
            Self::Nothing => "no role that is bound to it allows it",
            Self::Unread => {
                "the roles of the cluster have not been read here yet: try again in a moment"
            }
        }
    }
}

/// A refusal: which rule, and what would be allowed. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{who} may not {verb} {what}: {}", rule.allows())]
pub struct Denied {
    /// Who asked, for people.
    pub who: String,
    /// What was to be done.
    pub verb: Verb,
    /// With what.
    pub what: String,
    /// Why not.
    pub rule: Rule,
}

/// What is bound where: how far a node reaches.
pub trait Bound {
    /// The node that a pod is bound to, or was until it went a moment ago; nothing for others.
    fn node_of(&self, namespace: &str, pod: &str) -> Option<String>;
    /// Whether a pod that is bound to the node names this object.
    fn names(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool;
}

/// Nothing is bound anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingBound;

impl Bound for NothingBound {
    fn node_of(&self, _: &str, _: &str) -> Option<String> {
        None
    }

    fn names(&self, _: &str, _: &str, _: &str, _: &str) -> bool {
        false
    }
}

fn what(ask: &Ask<'_>) -> String {
    let mut what = ask.resource.to_owned();
    if !ask.subresource.is_empty() {
        what = what + "/" + ask.subresource;
    }
    if ask.name.is_empty() {
        return what;
    }
    let place = if ask.namespace.is_empty() { "" } else { "/" };
    format!("{what} \"{}{place}{}\"", ask.namespace, ask.name)
}
