//! Roles and bindings, held so that a question costs what the asker's own bindings cost.
//!
//! Bindings are found by whom they name, and of those that give the same role to the same subject one is looked at:
//! however many there are of others, and of the same, a question does not become slower.

use super::policy::PolicyRule;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// Who asks, as bindings name them.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The user; service accounts are users, too.
    pub name: &'a str,
    /// The groups that they belong to.
    pub groups: &'a [String],
}

impl Asker<'_> {
    /// Whether they belong to a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// What is asked: whether something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// With a resource.
    Resource {
        /// What is to be done.
        verb: &'a str,
        /// API group; empty for the core group.
        group: &'a str,
        /// Plural name of the resource.
        resource: &'a str,
        /// Subresource or empty.
        subresource: &'a str,
        /// Namespace; empty at cluster scope and for all namespaces.
        namespace: &'a str,
        /// Object name or empty.
        name: &'a str,
    },
    /// With anything else, such as `/version`.
    Path {
        /// The method in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

/// Where an object lies: its namespace, empty at cluster scope, and its name.
pub type Place = (String, String);

/// A role as a binding names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct RoleRef {
    kind: String,
    name: String,
}

impl RoleRef {
    fn read(binding: &Value) -> Self {
        let word = |field: &str| word(&binding["roleRef"], field).to_owned();
        Self { kind: word("kind"), name: word("name") }
    }

    /// Where the role lies that a binding of this namespace names.
    fn place(&self, namespace: &str) -> Place {
        let namespace = if self.kind == "Role" { namespace } else { "" };
        (namespace.to_owned(), self.name.clone())
    }
}

/// What a subject has in one scope: roles, and the bindings that give each.
type Given = HashMap<RoleRef, (Place, BTreeSet<String>)>;

/// The bindings of one namespace, or of the cluster, by whom they name.
#[derive(Debug, Default)]
struct Scope {
    users: HashMap<String, Given>,
    groups: HashMap<String, Given>,
}

impl Scope {
    fn subjects(&mut self, is_group: bool) -> &mut HashMap<String, Given> {
        if is_group { &mut self.groups } else { &mut self.users }
    }

    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }
}

/// A binding: its role, and the users and groups that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Binding {
    role: RoleRef,
    subjects: BTreeSet<(bool, String)>,
}

/// All roles and bindings.
#[derive(Debug, Default)]
pub struct Index {
    roles: HashMap<Place, Arc<[PolicyRule]>>,
    bindings: BTreeMap<Place, Binding>,
    /// By namespace; the empty one is the cluster.
    scopes: HashMap<String, Scope>,
}

/// Which binding allows something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    namespace: &'a str,
    binding: &'a str,
    role: &'a RoleRef,
    is_group: bool,
    subject: &'a str,
}

/// As Kubernetes says why something is allowed.
impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, binding, role, is_group, subject } = self;
        f.write_str("RBAC: allowed by ")?;
        if namespace.is_empty() {
            write!(f, "ClusterRoleBinding {binding:?}")?;
        } else {
            write!(f, "RoleBinding \"{binding}/{namespace}\"")?;
        }
        write!(f, " of {} {:?} to ", role.kind, role.name)?;
        match account(subject).filter(|_| !is_group) {
            Some((namespace, name)) => write!(f, "ServiceAccount \"{name}/{namespace}\""),
            None if *is_group => write!(f, "Group {subject:?}"),
            None => write!(f, "User {subject:?}"),
        }
    }
}

/// What the names of the users begin with that service accounts are.
const ACCOUNTS: &str = "system:serviceaccount:";

/// The namespace and name of the service account that a user is.
pub fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNTS)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn word<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn place(object: &Value) -> Place {
    let metadata = &object["metadata"];
    (word(metadata, "namespace").to_owned(), word(metadata, "name").to_owned())
}

impl Index {
    /// Takes a role or a cluster role, in the place of an earlier state of it.
    pub fn put_role(&mut self, role: &Value) {
        self.roles.insert(place(role), PolicyRule::read_all(role).into());
    }

    /// Forgets a role or a cluster role.
    pub fn remove_role(&mut self, place: &Place) {
        self.roles.remove(place);
    }

    /// Takes a binding, in the place of an earlier state of it.
    pub fn put_binding(&mut self, binding: &Value) {
        let place = place(binding);
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        let subjects = subjects.filter_map(|subject| {
            let name = word(subject, "name");
            Some(match word(subject, "kind") {
                "User" => (false, name.to_owned()),
                "Group" => (true, name.to_owned()),
                "ServiceAccount" => {
                    let own = word(subject, "namespace");
                    let namespace = if own.is_empty() { &place.0 } else { own };
                    (false, format!("{ACCOUNTS}{namespace}:{name}"))
                }
                _ => return None,
            })
        });
        let new = Binding { role: RoleRef::read(binding), subjects: subjects.collect() };
        if self.bindings.get(&place) == Some(&new) {
            return;
        }
        self.remove_binding(&place);
        let scope = self.scopes.entry(place.0.clone()).or_default();
        let at = new.role.place(&place.0);
        for (is_group, name) in &new.subjects {
            let given = scope.subjects(*is_group).entry(name.clone()).or_default();
            let role =
                given.entry(new.role.clone()).or_insert_with(|| (at.clone(), BTreeSet::new()));
            role.1.insert(place.1.clone());
        }
        self.bindings.insert(place, new);
    }

    /// Forgets a binding.
    pub fn remove_binding(&mut self, place: &Place) {
        let Some(old) = self.bindings.remove(place) else { return };
        let Some(scope) = self.scopes.get_mut(&place.0) else { return };
        for (is_group, name) in &old.subjects {
            let subjects = scope.subjects(*is_group);
            let Some(given) = subjects.get_mut(name) else { continue };
            if let Some((_, bindings)) = given.get_mut(&old.role) {
                bindings.remove(&place.1);
                if bindings.is_empty() {
                    given.remove(&old.role);
                }
            }
            if given.is_empty() {
                subjects.remove(name);
            }
        }
        if scope.is_empty() {
            self.scopes.remove(&place.0);
        }
    }

    /// Where the roles are that are of the cluster, or those of namespaces.
    pub fn roles(&self, of_cluster: bool) -> Vec<Place> {
        self.roles.keys().filter(|place| place.0.is_empty() == of_cluster).cloned().collect()
    }

    /// Where the bindings are that are of the cluster, or those of namespaces.
    pub fn bindings(&self, of_cluster: bool) -> Vec<Place> {
        self.bindings.keys().filter(|place| place.0.is_empty() == of_cluster).cloned().collect()
    }

    /// The rules of the role that a binding of this namespace names, if there is such a role.
    pub fn rules_of_role(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Option<&Arc<[PolicyRule]>> {
        let role = RoleRef { kind: kind.to_owned(), name: name.to_owned() };
        self.roles.get(&role.place(namespace))
    }

    /// Everything that somebody has in a namespace: what the cluster gives, then what the namespace does.
    fn given<'i>(
        &'i self,
        asker: Asker<'i>,
        namespace: &'i str,
    ) -> impl Iterator<Item = (&'i Arc<[PolicyRule]>, Grant<'i>)> {
        let own = Some(namespace).filter(|namespace| !namespace.is_empty());
        std::iter::once("").chain(own).flat_map(move |namespace| {
            let scope = self.scopes.get(namespace).into_iter();
            scope.flat_map(move |scope| {
                let user = scope.users.get(asker.name).map(|given| (false, asker.name, given));
                let groups = asker.groups.iter().filter_map(move |group| {
                    scope.groups.get(group).map(|given| (true, group.as_str(), given))
                });
                let all = user.into_iter().chain(groups);
                all.flat_map(move |(is_group, subject, given)| {
                    given.iter().filter_map(move |(role, (place, bindings))| {
                        let rules = self.roles.get(place)?;
                        let binding = bindings.first()?;
                        let grant = Grant { namespace, binding, role, is_group, subject };
                        Some((rules, grant))
                    })
                })
            })
        })
    }

    /// Which binding allows it, if any does.
    pub fn allows<'i>(&'i self, asker: Asker<'i>, asked: Asked<'i>) -> Option<Grant<'i>> {
        let namespace = match asked {
            Asked::Resource { namespace, .. } => namespace,
            Asked::Path { .. } => "",
        };
        let allows = |rule: &PolicyRule| match asked {
            Asked::Resource { verb, group, resource, subresource, name, .. } => {
                rule.allows(verb, group, resource, subresource, name)
            }
            Asked::Path { verb, path } => rule.allows_path(verb, path),
        };
        self.given(asker, namespace)
            .find(|(rules, _)| rules.iter().any(allows))
            .map(|(_, grant)| grant)
    }

    /// The rules of every role that somebody has in a namespace. They are shared: to take them costs no more than
    /// there are roles.
    pub fn roles_of(&self, asker: Asker<'_>, namespace: &str) -> Vec<Arc<[PolicyRule]>> {
        self.given(asker, namespace).map(|(rules, _)| rules.clone()).collect()
    }
}

/// Every rule of these roles, each once; those that hold for all names first, which are the likeliest to allow something.
pub fn rules_in(roles: &[Arc<[PolicyRule]>]) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = roles.iter().flat_map(|rules| rules.iter().cloned()).collect();
    rules.sort();
    rules.dedup();
    rules.sort_by_key(|rule| rule.names.len());
    rules
}

#[cfg(test)]
mod tests;
