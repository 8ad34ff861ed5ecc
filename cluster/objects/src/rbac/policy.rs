//! One rule: verbs, and what may be done by them.

use serde_json::{Map, Value, json};
use std::fmt;

/// Stands for everything of its kind.
const ALL: &str = "*";

/// A rule of a role. It is about resources, or about paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRule {
    /// What may be done.
    pub verbs: Vec<String>,
    /// The groups of the resources.
    pub groups: Vec<String>,
    /// The resources, with their subresources: `pods`, `pods/log`, `*/scale`.
    pub resources: Vec<String>,
    /// The objects; none for all of them.
    pub names: Vec<String>,
    /// The paths; one that ends with `*` stands for all that begin like it.
    pub urls: Vec<String>,
}

/// The fields of a rule in the order in which it is shown.
const FIELDS: [&str; 5] = ["apiGroups", "resources", "nonResourceURLs", "resourceNames", "verbs"];

impl PolicyRule {
    /// Reads a rule of a role.
    pub fn read(rule: &Value) -> Self {
        let words = |field: &str| -> Vec<String> {
            let list = rule.get(field).and_then(Value::as_array);
            let texts = list.into_iter().flatten().filter_map(Value::as_str);
            texts.map(ToOwned::to_owned).collect()
        };
        Self {
            verbs: words("verbs"),
            groups: words("apiGroups"),
            resources: words("resources"),
            names: words("resourceNames"),
            urls: words("nonResourceURLs"),
        }
    }

    /// Reads the rules of a role.
    pub fn read_all(role: &Value) -> Vec<Self> {
        role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Self::read).collect()
    }

    fn fields(&self) -> [&[String]; 5] {
        [&self.groups, &self.resources, &self.urls, &self.names, &self.verbs]
    }

    /// The rule as it stands in a role.
    pub fn write(&self) -> Value {
        let named = FIELDS.into_iter().zip(self.fields());
        let given = named.filter(|(name, words)| *name == "verbs" || !words.is_empty());
        given.map(|(name, words)| (name.to_owned(), json!(words))).collect::<Map<_, _>>().into()
    }

    /// Whether something may be done with a resource. Whoever asks about all objects has no name, which a rule for named
    /// ones does not allow.
    pub fn allows(
        &self,
        verb: &str,
        group: &str,
        resource: &str,
        subresource: &str,
        name: &str,
    ) -> bool {
        holds(&self.verbs, verb)
            && holds(&self.groups, group)
            && self.resources.iter().any(|one| is_resource(one, resource, subresource))
            && (self.names.is_empty() || self.names.iter().any(|one| one == name))
    }

    /// Whether something may be done with a path.
    pub fn allows_path(&self, verb: &str, path: &str) -> bool {
        holds(&self.verbs, verb) && self.urls.iter().any(|url| is_url(url, path))
    }
}

/// Whether one of these words is meant.
pub(super) fn holds(words: &[String], word: &str) -> bool {
    words.iter().any(|one| one == ALL || one == word)
}

/// Whether a rule's word for resources means this one.
fn is_resource(word: &str, resource: &str, subresource: &str) -> bool {
    if word == ALL {
        return true;
    }
    if subresource.is_empty() {
        return word == resource;
    }
    let Some(before) = word.strip_suffix(subresource).and_then(|rest| rest.strip_suffix('/'))
    else {
        return false;
    };
    before == ALL || before == resource
}

/// Whether a rule's word for paths means this one.
pub(super) fn is_url(word: &str, path: &str) -> bool {
    word == path || word.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

/// As Kubernetes shows it in refusals.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: [&str; 5] =
            ["APIGroups", "Resources", "NonResourceURLs", "ResourceNames", "Verbs"];
        f.write_str("{")?;
        let given = SHOWN.into_iter().zip(self.fields()).filter(|(_, words)| !words.is_empty());
        for (at, (name, words)) in given.enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            write!(f, "{comma}{name}:[{}]", quoted.join(" "))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let read = json!({
            "verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names,
        });
        PolicyRule::read(&read)
    }

    #[test]
    fn a_rule_means_what_kubernetes_means_by_it() {
        let pods = rule(&["get", "list"], &[""], &["pods"], &[]);
        let one = rule(&["get", "create"], &[""], &["pods"], &["a"]);
        let logs = rule(&["get"], &[""], &["pods/log"], &[]);
        let scales = rule(&["update"], &["*"], &["*/scale"], &[]);
        let everything = rule(&["*"], &["*"], &["*"], &[]);
        let rows = [
            (&pods, ["get", "", "pods", "", "a"], true),
            (&pods, ["watch", "", "pods", "", ""], false),
            (&pods, ["get", "apps", "pods", "", "a"], false),
            (&pods, ["get", "", "pods", "log", "a"], false),
            (&one, ["get", "", "pods", "", "a"], true),
            (&one, ["get", "", "pods", "", "b"], false),
            (&one, ["create", "", "pods", "", ""], false),
            (&logs, ["get", "", "pods", "log", "a"], true),
            (&logs, ["get", "", "pods", "", "a"], false),
            (&logs, ["get", "", "nodes", "log", "a"], false),
            (&scales, ["update", "apps", "deployments", "scale", "a"], true),
            (&scales, ["update", "apps", "deployments", "downscale", "a"], false),
            (&scales, ["update", "apps", "deployments", "", "a"], false),
            (&everything, ["escalate", "x", "y", "z", ""], true),
            (&everything, ["*", "*", "*", "", ""], true),
            (&pods, ["*", "", "pods", "", ""], false),
        ];
        for (rule, [verb, group, resource, subresource, name], may) in rows {
            let asked = (verb, group, resource, subresource, name);
            let allowed = rule.allows(verb, group, resource, subresource, name);
            assert_eq!(allowed, may, "{rule} {asked:?}");
        }
    }

    #[test]
    fn a_path_is_meant_whole_or_by_how_it_begins() {
        let read =
            |urls: &[&str]| PolicyRule::read(&json!({"verbs": ["get"], "nonResourceURLs": urls}));
        for (urls, path, may) in [
            (&["/apis"][..], "/apis", true),
            (&["/apis"], "/apis/batch", false),
            (&["/apis/*"], "/apis/batch/v1", true),
            (&["/apis/*"], "/apis", false),
            (&["*"], "/anything", true),
        ] {
            assert_eq!(read(urls).allows_path("get", path), may, "{urls:?} {path}");
        }
        assert!(!read(&["*"]).allows_path("post", "/x"));
        assert!(!read(&["*"]).allows("get", "", "pods", "", ""), "resources are no paths");
    }

    #[test]
    fn a_rule_is_shown_and_written_as_kubernetes_does_it() {
        let rule = rule(&["get", "list"], &[""], &["pods"], &["a"]);
        assert_eq!(
            rule.to_string(),
            r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["a"], Verbs:["get" "list"]}"#
        );
        assert_eq!(PolicyRule::read(&rule.write()), rule);
        assert_eq!(PolicyRule::default().write(), json!({"verbs": []}));
    }
}
