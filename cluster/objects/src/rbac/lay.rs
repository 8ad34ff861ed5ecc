//! Makes sure that the default roles and bindings are there and complete.
//!
//! Every control member does it at start. What is missing is added, what somebody has added stays; an object whose
//! annotation `rbac.authorization.kubernetes.io/autoupdate` is `false` is left as it is.

use super::GROUP;
use super::cover::missing;
use super::defaults::{self, AUTOUPDATE};
use super::policy::PolicyRule;
use crate::{DeleteOptions, Objects, WriteOptions};
use impresario_api::admission::Door;
use impresario_api::catalog::find;
use impresario_api::resource::Row;
use impresario_api::status::{Reason, Status};
use impresario_client::objects::stored::text;
use impresario_registry_api::Consistency;
use serde_json::{Value, json};

impl Objects {
    /// Creates the default roles and bindings that are missing, and adds to the others what they lack.
    pub async fn lay_roles(&self) -> Result<(), Status> {
        for (plural, wanted) in
            [("clusterroles", defaults::roles()), ("clusterrolebindings", defaults::bindings())]
        {
            let row = find(GROUP, "v1", plural)
                .ok_or_else(|| Status::internal(format!("no {plural} are served")))?;
            for object in wanted {
                self.lay(&row, object).await?;
            }
        }
        Ok(())
    }

    /// Adds to the role of those who look what they may read since it was made.
    pub(super) async fn complete_looking(&self) -> Result<(), Status> {
        let row = find(GROUP, "v1", "clusterroles")
            .ok_or_else(|| Status::internal("no cluster roles are served"))?;
        let all = defaults::roles();
        match all.into_iter().find(|role| text(role, "/metadata/name") == defaults::LOOKS) {
            Some(role) if self.present(&row, &role).await?.is_some() => self.lay(&row, role).await,
            _ => Ok(()),
        }
    }

    async fn present(&self, row: &Row, object: &Value) -> Result<Option<Value>, Status> {
        let name = text(object, "/metadata/name");
        let found = self.find(row, "", name, Consistency::Linearizable).await?;
        Ok(found.map(|stored| stored.object))
    }

    async fn lay(&self, row: &Row, wanted: Value) -> Result<(), Status> {
        let write = WriteOptions::default();
        let name = text(&wanted, "/metadata/name").to_owned();
        let Some(present) = self.present(row, &wanted).await? else {
            return match self.create(row, "", wanted, &write).await {
                Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
                outcome => outcome.map(drop),
            };
        };
        if !is_kept(&present) {
            return Ok(());
        }
        if present["roleRef"] != wanted["roleRef"] {
            // The role of a binding cannot be changed.
            let uid = Some(text(&present, "/metadata/uid").to_owned());
            let options = DeleteOptions { uid, ..DeleteOptions::default() };
            self.delete(row, "", &name, &options, &write).await?;
            return self.create(row, "", wanted, &write).await.map(drop);
        }
        if completed(&present, &wanted) == present {
            return Ok(());
        }
        let change =
            |old: &Value| Ok(if is_kept(old) { completed(old, &wanted) } else { old.clone() });
        self.modify(row, Door::Main, "", &name, &write, change).await.map(drop)
    }
}

/// Whether what an object lacks is added to it.
fn is_kept(object: &Value) -> bool {
    object["metadata"]["annotations"][AUTOUPDATE] != "false"
}

/// What is there, with what is wanted and not there yet.
fn completed(present: &Value, wanted: &Value) -> Value {
    let mut whole = present.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            if whole["metadata"][field].get(key).is_none() {
                whole["metadata"][field][key] = value.clone();
            }
        }
    }
    let gathers = wanted["aggregationRule"].is_object();
    if wanted.get("rules").is_some() && !gathers {
        // However many there are: what has not been compared would be added again and again.
        let (present, wanted) = (PolicyRule::read_all(present), PolicyRule::read_all(wanted));
        let lacking = missing(&present, &wanted, usize::MAX);
        append(&mut whole["rules"], lacking.iter().map(PolicyRule::write));
    }
    if gathers {
        let selectors = |role: &Value| {
            let list = role.pointer("/aggregationRule/clusterRoleSelectors");
            list.and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let known = selectors(present);
        let new = selectors(wanted).into_iter().filter(|selector| !known.contains(selector));
        append(&mut whole["aggregationRule"]["clusterRoleSelectors"], new);
    }
    if let Some(subjects) = wanted["subjects"].as_array() {
        let known = present["subjects"].as_array().cloned().unwrap_or_default();
        let new = subjects.iter().filter(|subject| !known.contains(subject)).cloned();
        append(&mut whole["subjects"], new);
    }
    whole
}

fn append(list: &mut Value, new: impl Iterator<Item = Value>) {
    let new: Vec<Value> = new.collect();
    if new.is_empty() {
        return;
    }
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.extend(new);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_registry::MemoryRegistry;
    use std::sync::Arc;

    async fn read(objects: &Objects, plural: &str, name: &str) -> Value {
        objects.get(&find(GROUP, "v1", plural).unwrap(), "", name).await.unwrap()
    }

    async fn change(objects: &Objects, plural: &str, name: &str, change: fn(&mut Value)) {
        let row = find(GROUP, "v1", plural).unwrap();
        let write = WriteOptions::default();
        let changed = |old: &Value| {
            let mut new = old.clone();
            change(&mut new);
            Ok(new)
        };
        objects.modify(&row, Door::Main, "", name, &write, changed).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_missing_is_added_and_what_was_added_stays() {
        let objects = Objects::new(Arc::new(MemoryRegistry::new()));
        objects.lay_roles().await.unwrap();
        let before = read(&objects, "clusterroles", "system:aggregate-to-view").await;
        change(&objects, "clusterroles", "system:aggregate-to-view", |role| {
            role["rules"] = json!([{"verbs": ["get"], "apiGroups": ["x"], "resources": ["y"]}]);
        })
        .await;
        change(&objects, "clusterrolebindings", "system:discovery", |binding| {
            binding["subjects"] = json!([{"apiGroup": GROUP, "kind": "User", "name": "ann"}]);
        })
        .await;
        objects.lay_roles().await.unwrap();
        let after = read(&objects, "clusterroles", "system:aggregate-to-view").await;
        let (before, after) = (PolicyRule::read_all(&before), PolicyRule::read_all(&after));
        assert_eq!(missing(&after, &before, usize::MAX), []);
        assert!(after.iter().any(|rule| rule.groups == ["x"]));
        let binding = read(&objects, "clusterrolebindings", "system:discovery").await;
        let names: Vec<&str> =
            binding["subjects"].as_array().unwrap().iter().map(|it| text(it, "/name")).collect();
        assert_eq!(names, ["ann", "system:authenticated"]);
        // A third time there is nothing to do.
        objects.lay_roles().await.unwrap();
        let again = read(&objects, "clusterrolebindings", "system:discovery").await;
        assert_eq!(again["metadata"]["resourceVersion"], binding["metadata"]["resourceVersion"]);
    }

    #[tokio::test]
    async fn what_is_not_to_be_kept_complete_is_left_as_it_is() {
        let objects = Objects::new(Arc::new(MemoryRegistry::new()));
        objects.lay_roles().await.unwrap();
        change(&objects, "clusterroles", "system:discovery", |role| {
            role["metadata"]["annotations"][AUTOUPDATE] = "false".into();
            role["rules"] = json!(null);
        })
        .await;
        objects.lay_roles().await.unwrap();
        assert_eq!(read(&objects, "clusterroles", "system:discovery").await["rules"], json!(null));
    }

    #[tokio::test]
    async fn a_default_binding_of_another_role_is_made_anew() {
        let objects = Objects::new(Arc::new(MemoryRegistry::new()));
        let row = find(GROUP, "v1", "clusterrolebindings").unwrap();
        let other = json!({
            "metadata": {"name": "system:discovery"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        });
        objects.create(&row, "", other, &WriteOptions::default()).await.unwrap();
        objects.lay_roles().await.unwrap();
        let binding = read(&objects, "clusterrolebindings", "system:discovery").await;
        assert_eq!(binding["roleRef"]["name"], "system:discovery");
    }
}
