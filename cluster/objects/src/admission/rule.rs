//! Which writes a webhook or a policy is about.

use super::asked::{Action, Asked};
use impresario_api::resource::Resource;
use serde_json::Value;

/// A rule: each of its lists must have the word of the request, or `*`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    /// Of objects of these names; of all where there are none.
    names: Vec<String>,
}

impl Rule {
    pub(crate) fn read(value: &Value) -> Self {
        let words = |field: &str| -> Vec<String> {
            let list = value[field].as_array().into_iter().flatten();
            list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
        };
        Self {
            operations: words("operations"),
            groups: words("apiGroups"),
            versions: words("apiVersions"),
            resources: words("resources"),
            names: words("resourceNames"),
            scope: value["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    /// Whether a write is one of these.
    pub(crate) fn covers(&self, asked: &Asked<'_>) -> bool {
        (self.names.is_empty() || self.names.iter().any(|name| name == asked.name))
            && self.matches(asked.resource, asked.subresource, asked.action)
    }

    fn matches(&self, resource: &Resource, subresource: &str, action: Action) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|one| one == "*" || one == word);
        let in_scope = match self.scope.as_str() {
            "Namespaced" => resource.namespaced,
            "Cluster" => !resource.namespaced,
            _ => true,
        };
        in_scope
            && has(&self.operations, action.as_str())
            && has(&self.groups, &resource.group)
            && has(&self.versions, &resource.version)
            && self.resources.iter().any(|one| {
                let (plural, below) = one.split_once('/').unwrap_or((one, ""));
                (plural == "*" || plural == resource.plural)
                    && (below == "*" || below == subresource)
            })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_api::catalog::find;
    use serde_json::json;

    fn rule(operations: &str, group: &str, version: &str, resources: &str, scope: &str) -> Rule {
        let words = |list: &str| list.split(' ').map(str::to_owned).collect::<Vec<_>>();
        Rule::read(&json!({
            "operations": words(operations), "apiGroups": words(group), "apiVersions": words(version),
            "resources": words(resources), "scope": scope,
        }))
    }

    #[test]
    fn a_rule_names_operations_groups_versions_resources_and_scope() {
        let pods = find("", "v1", "pods").unwrap();
        let nodes = find("", "v1", "nodes").unwrap();
        let deployments = find("apps", "v1", "deployments").unwrap();
        let create = Action::Create;
        for (rule, resource, below, action, expected) in [
            (rule("CREATE", "", "v1", "pods", "*"), &pods, "", create, true),
            (rule("CREATE UPDATE", "", "v1", "pods", "*"), &pods, "", Action::Update, true),
            (rule("CREATE", "", "v1", "pods", "*"), &pods, "", Action::Delete, false),
            (rule("*", "", "v1", "pods", "*"), &pods, "", Action::Delete, true),
            (rule("CREATE", "apps", "v1", "pods", "*"), &pods, "", create, false),
            (rule("CREATE", "*", "*", "*", "*"), &deployments, "", create, true),
            (rule("CREATE", "apps", "v2", "*", "*"), &deployments, "", create, false),
            // A subresource is another thing than what it is of.
            (rule("CREATE", "", "v1", "pods", "*"), &pods, "status", create, false),
            (rule("CREATE", "", "v1", "*", "*"), &pods, "status", create, false),
            (rule("CREATE", "", "v1", "pods/*", "*"), &pods, "status", create, true),
            (rule("CREATE", "", "v1", "*/status", "*"), &pods, "status", create, true),
            (rule("CREATE", "", "v1", "*/*", "*"), &pods, "", create, true),
            (rule("CREATE", "", "v1", "services pods", "*"), &pods, "", create, true),
            (rule("CREATE", "", "v1", "*", "Cluster"), &pods, "", create, false),
            (rule("CREATE", "", "v1", "*", "Namespaced"), &pods, "", create, true),
            (rule("CREATE", "", "v1", "*", "Cluster"), &nodes, "", create, true),
        ] {
            assert_eq!(rule.matches(resource, below, action), expected, "{rule:?} {below}");
        }
        assert!(
            !Rule::default().matches(&pods, "", create),
            "a rule without words asks for nothing"
        );
    }
}
