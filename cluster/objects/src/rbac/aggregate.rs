//! Roles that are put together of others.
//!
//! Their rules are written into them, as Kubernetes does it, by one member (`actors`): whoever reads such a role sees
//! what it allows, and who decides needs to know nothing of how it came to be. They could be put together by each
//! member as it follows them, but then no client would see their rules, and to give one away could not be judged by them.

use super::GROUP;
use super::policy::PolicyRule;
use crate::{ListQuery, Objects, WriteOptions};
use impresario_api::admission::Door;
use impresario_api::catalog::find;
use impresario_api::selector::LabelSelector;
use impresario_api::status::Status;
use impresario_client::objects::stored::text;
use serde_json::Value;

/// Writes into each gathering role the rules of those that it selects, and into the role of those who look the kinds
/// that are served. One at a time: a role that gathers may be gathered itself, which the next look sees.
pub async fn settle(objects: &Objects) -> Result<(), Status> {
    // What cannot be written of one role keeps no other from being put together.
    let looking = objects.complete_looking().await;
    if let Err(status) = &looking
        && status.is_fenced()
    {
        return looking;
    }
    let row = find(GROUP, "v1", "clusterroles")
        .ok_or_else(|| Status::internal("no cluster roles are served"))?;
    let listed = objects.list(&row, &ListQuery::default()).await?;
    let (mut first, write) = (looking.err(), WriteOptions::default());
    for role in &listed.items {
        let Some(rules) = gathered(role, &listed.items) else { continue };
        if is_same(&rules, &PolicyRule::read_all(role)) {
            continue;
        }
        let name = text(role, "/metadata/name");
        let change = |old: &Value| {
            let mut new = old.clone();
            // It may have been changed to be one with rules of its own.
            if let Some(rules) = gathered(old, &listed.items) {
                new["rules"] = rules.iter().map(PolicyRule::write).collect();
            }
            Ok(new)
        };
        match objects.modify(&row, Door::Main, "", name, &write, change).await {
            Err(status) if status.is_fenced() => return Err(status),
            // One that went meanwhile needs nothing.
            Err(status) if status.code() != 404 => first = first.or(Some(status)),
            _ => {}
        }
    }
    first.map_or(Ok(()), Err)
}

/// Whether these are the same rules in whatever order. Roles that gather each other would never agree on one.
fn is_same(one: &[PolicyRule], other: &[PolicyRule]) -> bool {
    let sorted = |rules: &[PolicyRule]| {
        let mut rules = rules.to_vec();
        rules.sort();
        rules
    };
    sorted(one) == sorted(other)
}

/// The rules of a gathering role: those of all others that it selects, each once; none where it has its own.
fn gathered(role: &Value, all: &[Value]) -> Option<Vec<PolicyRule>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let selectors: Vec<LabelSelector> =
        selectors.iter().filter_map(|one| LabelSelector::from_object(one).ok()).collect();
    let name = text(role, "/metadata/name");
    let mut rules: Vec<PolicyRule> = Vec::new();
    let mut parts: Vec<&Value> = all
        .iter()
        .filter(|part| text(part, "/metadata/name") != name)
        .filter(|part| selectors.iter().any(|selector| selector.matches_object(part)))
        .collect();
    parts.sort_by_key(|part| text(part, "/metadata/name"));
    let mut known = std::collections::BTreeSet::new();
    for rule in parts.into_iter().flat_map(PolicyRule::read_all) {
        if known.insert(rule.clone()) {
            rules.push(rule);
        }
    }
    Some(rules)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_registry::MemoryRegistry;
    use serde_json::json;
    use std::sync::Arc;

    /// Looks until nothing is written any more.
    async fn settled(objects: &Objects) {
        let row = find(GROUP, "v1", "clusterroles").unwrap();
        let mut before = None;
        for _ in 0..5 {
            settle(objects).await.unwrap();
            let now = objects.list(&row, &ListQuery::default()).await.unwrap().items;
            if before.as_ref() == Some(&now) {
                return;
            }
            before = Some(now);
        }
        panic!("the roles never settle");
    }

    #[tokio::test]
    async fn roles_that_gather_each_other_are_written_until_both_have_all_rules() {
        let objects = Objects::new(Arc::new(MemoryRegistry::new()));
        let row = find(GROUP, "v1", "clusterroles").unwrap();
        let write = WriteOptions::default();
        for (name, label, gathers) in
            [("a", "b", "a"), ("b", "a", "b"), ("x", "a", ""), ("y", "b", "")]
        {
            let mut role = json!({"metadata": {"name": name, "labels": {"part-of": label}}});
            if gathers.is_empty() {
                role["rules"] =
                    json!([{"verbs": ["get"], "apiGroups": ["example.com"], "resources": [name]}]);
            } else {
                let labels = json!({"part-of": gathers});
                role["aggregationRule"] =
                    json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            }
            objects.create(&row, "", role, &write).await.unwrap();
        }
        settled(&objects).await;
        for name in ["a", "b"] {
            let rules = PolicyRule::read_all(&objects.get(&row, "", name).await.unwrap());
            assert_eq!(rules.len(), 2, "{name}: {rules:?}");
        }
    }

    #[tokio::test]
    async fn roles_are_put_together_though_the_one_of_those_who_look_cannot_be_written() {
        let objects = Objects::new(Arc::new(MemoryRegistry::new()));
        objects.lay_roles().await.unwrap();
        let row = find(GROUP, "v1", "clusterroles").unwrap();
        let write = WriteOptions::default();
        let looks = super::super::defaults::LOOKS;
        let empty = |old: &Value| {
            let mut new = old.clone();
            new["rules"] = json!([]);
            Ok(new)
        };
        objects.modify(&row, Door::Main, "", looks, &write, empty).await.unwrap();
        let refusing = objects.judged(Arc::new(move |_, verb, _, new| {
            let is_looking = new.is_some_and(|new| text(new, "/metadata/name") == looks);
            if is_looking && verb == crate::may::Verb::Update {
                return Err(Status::bad_request("no"));
            }
            Ok(())
        }));
        assert_eq!(settle(&refusing).await.unwrap_err().message, "no");
        let view = objects.get(&row, "", "view").await.unwrap();
        assert!(!PolicyRule::read_all(&view).is_empty());
    }

    #[tokio::test]
    async fn a_role_has_the_rules_of_those_with_its_label_whoever_adds_or_takes_them() {
        let objects = Objects::new(Arc::new(MemoryRegistry::new()));
        objects.lay_roles().await.unwrap();
        settled(&objects).await;
        let row = find(GROUP, "v1", "clusterroles").unwrap();
        let may = async |name: &str, verb: &str, group: &str, resource: &str| {
            let role = objects.get(&row, "", name).await.unwrap();
            let rules = PolicyRule::read_all(&role);
            rules.iter().any(|rule| rule.allows(verb, group, resource, "", "a"))
        };
        // What may be viewed may be edited and administered, and no more than that the other way round.
        for (name, views, edits, administers) in
            [("view", true, false, false), ("edit", true, true, false), ("admin", true, true, true)]
        {
            assert_eq!(may(name, "get", "", "pods").await, views, "{name}");
            assert_eq!(may(name, "create", "", "pods").await, edits, "{name}");
            assert_eq!(may(name, "create", GROUP, "roles").await, administers, "{name}");
        }
        let own = json!({
            "metadata": {"name": "things", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}],
        });
        let write = WriteOptions::default();
        objects.create(&row, "", own, &write).await.unwrap();
        settled(&objects).await;
        assert!(may("admin", "get", "example.com", "things").await);
        objects.delete(&row, "", "things", &crate::DeleteOptions::default(), &write).await.unwrap();
        settled(&objects).await;
        assert!(!may("admin", "get", "example.com", "things").await);
    }
}
