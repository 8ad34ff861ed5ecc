//! The roles and bindings that every cluster has: Kubernetes' own, as far as what they are about is served, and one for
//! those who only look.
//!
//! `admin`, `edit` and `view` have no rules of their own: they gather those of the roles that carry their label, so that
//! whoever defines a kind can add it to them. Nodes have no role: what a node may do depends on which pods are bound to
//! it, and [`may`](crate::may) decides it.

use super::GROUP;
use super::policy::PolicyRule;
use crate::may::{MASTERS, VIEWERS};
use impresario_api::catalog::resources;
use impresario_api::kinds;
use impresario_api::kinds::metrics::METRICS;
use impresario_api::kinds::reviews::{AUTHENTICATION, AUTHORIZATION};
use impresario_api::resource::resource_key;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What says of a default role or binding that it is kept complete: anything but `false`.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// What roles are labelled with that are a part of another: this, and the name of the other.
const PART_OF: &str = "rbac.authorization.k8s.io/aggregate-to-";
/// The label of everything that is here from the beginning.
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

/// The role of those who look at everything but secrets, and its binding.
pub const LOOKS: &str = "impresario:viewers";
/// The organization in the certificates of programs that use the SDK.
pub const CLIENTS: &str = "impresario:client";

/// The role of those who read who signs tokens of accounts, and with which keys; and its binding.
const ISSUER_DISCOVERY: &str = "system:service-account-issuer-discovery";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const HPA: &[&str] = &["horizontalpodautoscalers", "horizontalpodautoscalers/status"];
const BUDGETS: &[&str] = &["poddisruptionbudgets", "poddisruptionbudgets/status"];

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> PolicyRule {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    PolicyRule {
        verbs: words(verbs),
        groups: words(&[group]),
        resources: words(resources),
        ..PolicyRule::default()
    }
}

fn urls(urls: &[&str]) -> PolicyRule {
    PolicyRule {
        verbs: vec!["get".to_owned()],
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        ..PolicyRule::default()
    }
}

fn metadata(name: &str, labels: &[String]) -> Value {
    let labels = labels.iter().map(|label| (label.clone(), json!("true")));
    let bootstrapping = (BOOTSTRAPPING.0.to_owned(), json!(BOOTSTRAPPING.1));
    let labels: Map<String, Value> = labels.chain([bootstrapping]).collect();
    json!({"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}})
}

fn object(kind: &str, metadata: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata})
}

fn role(name: &str, part_of: Option<&str>, rules: &[PolicyRule]) -> Value {
    let labels: Vec<String> =
        part_of.map(|whole| format!("{PART_OF}{whole}")).into_iter().collect();
    let mut role = object("ClusterRole", metadata(name, &labels));
    role["rules"] = rules.iter().map(PolicyRule::write).collect();
    role
}

/// A role that is put together of those with its label; itself it may be a part of a larger one.
fn gathering(name: &str, part_of: Option<&str>) -> Value {
    let mut role = role(name, part_of, &[]);
    let label = format!("{PART_OF}{name}");
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    role
}

/// All default cluster roles.
pub fn roles() -> Vec<Value> {
    let everything = rule(&["*"], "*", &["*"]);
    let all_urls = PolicyRule { verbs: vec!["*".to_owned()], ..urls(&["*"]) };
    let reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"];
    let basic = [
        rule(&["create"], AUTHORIZATION, &reviews),
        rule(&["create"], AUTHENTICATION, &["selfsubjectreviews"]),
    ];
    let health = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"];
    let monitoring = ["/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*"];
    let delegating = [
        rule(&["create"], AUTHENTICATION, &["tokenreviews"]),
        rule(&["create"], AUTHORIZATION, &["subjectaccessreviews"]),
    ];
    let issuer = [
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/",
        "/openid/v1/jwks",
        "/openid/v1/jwks/",
    ];
    vec![
        role("cluster-admin", None, &[everything, all_urls]),
        role("system:basic-user", None, &basic),
        role("system:discovery", None, &[urls(&[&health[..], &discovery].concat())]),
        role("system:public-info-viewer", None, &[urls(&health)]),
        role("system:monitoring", None, &[urls(&monitoring)]),
        role("system:auth-delegator", None, &delegating),
        role(ISSUER_DISCOVERY, None, &[urls(&issuer)]),
        gathering("admin", None),
        gathering("edit", Some("admin")),
        gathering("view", Some("edit")),
        role("system:aggregate-to-admin", Some("admin"), &administering()),
        role("system:aggregate-to-edit", Some("edit"), &editing()),
        role("system:aggregate-to-view", Some("view"), &viewing()),
        measures(),
        role(LOOKS, None, &looking()),
    ]
}

/// What is used may be read by whoever may view, edit or administer, as Kubernetes' metrics server has it.
fn measures() -> Value {
    let name = "system:aggregated-metrics-reader";
    let mut measures = role(name, Some("view"), &[rule(READ, METRICS, &["pods", "nodes"])]);
    for whole in ["edit", "admin"] {
        measures["metadata"]["labels"][format!("{PART_OF}{whole}")] = json!("true");
    }
    measures
}

/// All default bindings.
pub fn bindings() -> Vec<Value> {
    let authenticated = "system:authenticated";
    let of = |role: &str, groups: &[&str]| {
        let subject = |group: &&str| json!({"apiGroup": GROUP, "kind": "Group", "name": group});
        let mut binding = object("ClusterRoleBinding", metadata(role, &[]));
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
        binding["subjects"] = groups.iter().map(subject).collect();
        binding
    };
    vec![
        of("cluster-admin", &[MASTERS]),
        of("system:basic-user", &[authenticated]),
        of("system:discovery", &[authenticated]),
        of("system:public-info-viewer", &[authenticated, "system:unauthenticated"]),
        of("system:monitoring", &["system:monitoring"]),
        of(ISSUER_DISCOVERY, &["system:serviceaccounts"]),
        of(LOOKS, &[VIEWERS, CLIENTS]),
    ]
}

fn administering() -> Vec<PolicyRule> {
    vec![
        rule(&["create"], AUTHORIZATION, &["localsubjectaccessreviews"]),
        rule(ALL, GROUP, &["roles", "rolebindings"]),
    ]
}

fn editing() -> Vec<PolicyRule> {
    let reached = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"];
    let workloads = [
        "daemonsets",
        "deployments",
        "deployments/rollback",
        "deployments/scale",
        "replicasets",
        "replicasets/scale",
        "statefulsets",
        "statefulsets/scale",
    ];
    let core = [
        "configmaps",
        "events",
        "persistentvolumeclaims",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "secrets",
        "serviceaccounts",
        "services",
        "services/proxy",
    ];
    vec![
        rule(READ, "", &[&reached[..], &["secrets", "services/proxy"]].concat()),
        rule(&["impersonate"], "", &["serviceaccounts"]),
        rule(WRITE, "", &[&["pods"][..], &reached].concat()),
        rule(&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
        rule(WRITE, "", &core),
        rule(WRITE, "apps", &workloads),
        rule(WRITE, "autoscaling", &HPA[..1]),
        rule(WRITE, "batch", &["cronjobs", "jobs"]),
        rule(WRITE, "policy", &BUDGETS[..1]),
        rule(WRITE, "networking.k8s.io", &["ingresses", "networkpolicies"]),
        rule(ALL, "coordination.k8s.io", &["leases"]),
        rule(WRITE, "training.impresario.dev", &["trainingjobs", "trainingjobs/scale"]),
    ]
}

fn viewing() -> Vec<PolicyRule> {
    let core = [
        "bindings",
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "namespaces/status",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "replicationcontrollers/status",
        "resourcequotas",
        "resourcequotas/status",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    let workloads = [
        "controllerrevisions",
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
        "statefulsets",
        "statefulsets/scale",
        "statefulsets/status",
    ];
    let training = ["trainingjobs", "trainingjobs/scale", "trainingjobs/status"];
    vec![
        rule(READ, "", &core),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(READ, "apps", &workloads),
        rule(READ, "autoscaling", HPA),
        rule(READ, "batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
        rule(READ, "policy", BUDGETS),
        rule(READ, "networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
        rule(READ, "training.impresario.dev", &training),
    ]
}

/// What tells something of an object; other subresources reach into it: to run a command in a pod is a GET, too.
const TELLING: [&str; 3] = ["status", "scale", "log"];

/// Everything that is served but secrets, to be read. There is no word for that in a role, so it is told kind by kind;
/// kinds that users define are added as they come.
pub fn looking() -> Vec<PolicyRule> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in resources().iter().filter(|row| resource_key(row) != "secrets") {
        let told = groups.entry(row.group.to_string()).or_default();
        told.push(row.plural.to_string());
        let below = row.subresources.iter().filter(|sub| TELLING.contains(&sub.name));
        told.extend(below.map(|sub| format!("{}/{}", row.plural, sub.name)));
    }
    let measured = kinds::metrics::resources().iter();
    let measured: Vec<String> = measured.map(|row| row.plural.to_string()).collect();
    groups.insert(METRICS.to_owned(), measured);
    let rules = groups.iter().map(|(group, resources)| {
        let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
        rule(READ, group, &resources)
    });
    rules.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_api::admission::{Context, RandomAllocator, admit_create};
    use impresario_api::catalog::find_object;
    use impresario_api::wire::{self, FieldValidation};

    #[test]
    fn every_default_is_valid_and_of_its_own_name() {
        let mut names = std::collections::BTreeSet::new();
        for object in roles().into_iter().chain(bindings()) {
            let row = find_object(&object).unwrap();
            let body = serde_json::to_vec(&object).unwrap();
            let read = wire::decode(row.target(), wire::JSON, &body, FieldValidation::Strict);
            let draws = RandomAllocator::default();
            let context = Context {
                namespace: "",
                user: "",
                now: jiff::Timestamp::UNIX_EPOCH,
                allocator: &draws,
            };
            admit_create(&row, read.unwrap().object, &context).unwrap();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            assert!(names.insert((row.plural.to_string(), name)), "{object}");
        }
        for binding in bindings() {
            let role = binding["roleRef"]["name"].as_str().unwrap().to_owned();
            assert!(names.contains(&("clusterroles".to_owned(), role)), "{binding}");
        }
    }

    #[test]
    fn who_looks_reads_all_but_secrets_and_reaches_into_nothing() {
        let rules = looking();
        let may = |verb: &str, resource: &str, subresource: &str| {
            rules.iter().any(|rule| rule.allows(verb, "", resource, subresource, "a"))
        };
        for subresource in ["", "log", "status"] {
            assert!(may("get", "pods", subresource), "{subresource}");
        }
        for subresource in ["exec", "attach", "portforward", "proxy", "binding", "token"] {
            assert!(!may("get", "pods", subresource), "{subresource}");
        }
        assert!(!may("get", "secrets", ""));
        for verb in ["create", "update", "patch", "delete"] {
            assert!(!may(verb, "pods", ""), "{verb}");
        }
        for rule in &rules {
            assert!(!rule.resources.iter().any(|resource| resource.starts_with('*')), "{rule}");
        }
    }
}
