//! Who has objects read for a policy must be able to read them.
//!
//! The parameters of a policy are read by the member, and what its expressions say goes to whoever writes. As
//! Kubernetes does it, who writes the policy must be able to get every object of its `paramKind`, and who writes a
//! binding those that its `paramRef` means.

use super::follow::{Roles, Verdict, unread};
use super::index::{Asked, Asker};
use crate::{Objects, WriteOptions};
use impresario_api::catalog::{find, find_kind, find_object};
use impresario_api::status::Status;
use impresario_client::objects::stored::text;
use impresario_registry_api::Consistency;
use serde_json::Value;

const GROUP: &str = "admissionregistration.k8s.io";
const POLICIES: &str = "validatingadmissionpolicies";

impl Objects {
    /// Refuses a policy, or a binding of one, by which somebody would have read what they may not read themselves.
    /// Other objects are not looked at, and neither is what was there before.
    pub(crate) async fn may_read_params(
        &self,
        roles: &Roles,
        options: &WriteOptions,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<(), Status> {
        let is_of_policies = text(new, "/apiVersion").split_once('/').map(|(group, _)| group);
        if is_of_policies != Some(GROUP) {
            return Ok(());
        }
        let is_new = |pointer: &str| {
            let of = |object: &Value| object.pointer(pointer).cloned().unwrap_or_default();
            old.is_none_or(|old| of(old) != of(new))
        };
        let (params, reference) = (&new["spec"]["paramKind"], &new["spec"]["paramRef"]);
        let (kind, namespace, name, verb, why) = if params.is_object() && is_new("/spec/paramKind")
        {
            let kind = (text(params, "/apiVersion"), text(params, "/kind"));
            let why = format!(
                "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
                options.user, kind.1, kind.0
            );
            (plural(params), "", "", "get", why)
        } else if reference.is_object() && (is_new("/spec/paramRef") || is_new("/spec/policyName"))
        {
            let verb = if reference["selector"].is_object() { "list" } else { "get" };
            let why = format!(
                "user {} does not have \"{verb}\" permission on the object referenced by paramRef",
                options.user
            );
            let kind = self.kind_of_params(text(new, "/spec/policyName")).await?;
            (kind, text(reference, "/namespace"), text(reference, "/name"), verb, why)
        } else {
            return Ok(());
        };
        // Where nobody can say of which kind they are: of any.
        let (group, resource) = kind.unwrap_or_else(|| ("*".to_owned(), "*".to_owned()));
        let asked = Asked::Resource {
            verb,
            group: &group,
            resource: &resource,
            subresource: "",
            namespace,
            name,
        };
        match roles.may(Asker { name: &options.user, groups: &options.groups }, asked) {
            Verdict::Allowed(_) => Ok(()),
            Verdict::Unread => Err(unread()),
            Verdict::Denied => {
                let row = find_object(new).ok_or_else(|| Status::internal("no such kind"))?;
                Err(Status::forbidden(&row, text(new, "/metadata/name"), why))
            }
        }
    }

    /// The group and the plural of the kind of a policy's parameters.
    async fn kind_of_params(&self, policy: &str) -> Result<Option<(String, String)>, Status> {
        let Some(row) = find(GROUP, "v1", POLICIES) else { return Ok(None) };
        let found = self.find(&row, "", policy, Consistency::Linearizable).await?;
        Ok(found.and_then(|found| plural(&found.object["spec"]["paramKind"])))
    }
}

fn plural(params: &Value) -> Option<(String, String)> {
    let version = text(params, "/apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let row = find_kind(group, version, text(params, "/kind"))?;
    Some((row.group.to_string(), row.plural.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use impresario_registry::MemoryRegistry;
    use serde_json::json;
    use std::sync::Arc;

    /// Objects that `eve` may write policies to, and in which she reads config maps, and one secret.
    async fn sample() -> Objects {
        let objects = Objects::new(Arc::new(MemoryRegistry::new()));
        objects.lay_foundation("authority", 6443).await.unwrap();
        let rules = json!([
            {"verbs": ["*"], "apiGroups": [GROUP], "resources": ["*"]},
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]},
        ]);
        let one = json!([
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["own"]},
        ]);
        let write = WriteOptions::default();
        for (namespace, role, binding, kind, rules) in [
            ("", "clusterroles", "clusterrolebindings", "ClusterRole", rules),
            ("default", "roles", "rolebindings", "Role", one),
        ] {
            let role_row = find(super::super::GROUP, "v1", role).unwrap();
            let role = json!({"metadata": {"name": "r"}, "rules": rules});
            objects.create(&role_row, namespace, role, &write).await.unwrap();
            let binding_row = find(super::super::GROUP, "v1", binding).unwrap();
            let binding = json!({
                "metadata": {"name": "r"}, "roleRef": {"kind": kind, "name": "r"},
                "subjects": [{"kind": "User", "name": "eve"}],
            });
            objects.create(&binding_row, namespace, binding, &write).await.unwrap();
        }
        objects
    }

    fn policy(name: &str, kind: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {
                "paramKind": {"apiVersion": "v1", "kind": kind},
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["configmaps"],
                }]},
                "validations": [{"expression": "false", "messageExpression": "string(params)"}],
            },
        })
    }

    fn binding(name: &str, policy: &str, reference: Value) -> Value {
        let mut reference = reference;
        reference["parameterNotFoundAction"] = "Deny".into();
        json!({
            "metadata": {"name": name},
            "spec": {"policyName": policy, "paramRef": reference, "validationActions": ["Deny"]},
        })
    }

    #[tokio::test]
    async fn who_writes_a_policy_must_be_able_to_read_what_it_would_be_given() {
        let objects = sample().await;
        let roles = Roles::follow(objects.reader());
        let mut changes = roles.changes();
        while !roles.is_read() {
            changes.next().await;
        }
        let guarded = objects.guarded(roles);
        let (policies, bindings) = (
            find(GROUP, "v1", POLICIES).unwrap(),
            find(GROUP, "v1", "validatingadmissionpolicybindings").unwrap(),
        );
        let eve = WriteOptions { user: "eve".into(), ..WriteOptions::default() };
        let root = WriteOptions {
            user: "root".into(),
            groups: vec![crate::may::MASTERS.to_owned()],
            ..WriteOptions::default()
        };
        let code = |outcome: Result<Value, Status>| outcome.map_or_else(|no| no.code(), |_| 200);

        let (maps, secrets) = (policy("maps", "ConfigMap"), policy("secrets", "Secret"));
        assert_eq!(code(guarded.create(&policies, "", maps, &eve).await), 200);
        assert_eq!(code(guarded.create(&policies, "", secrets.clone(), &eve).await), 403);
        assert_eq!(code(guarded.create(&policies, "", secrets, &root).await), 200);
        // Nor may she change the kind of one that she wrote; what stays as it was is nobody's doing.
        let turned = |old: &Value| {
            let mut new = old.clone();
            new["spec"]["paramKind"]["kind"] = "Secret".into();
            Ok(new)
        };
        let labelled = |old: &Value| {
            let mut new = old.clone();
            new["metadata"]["labels"] = json!({"a": "b"});
            Ok(new)
        };
        let modify = async |name: &str, options: &WriteOptions, turns: bool| {
            let change = |old: &Value| if turns { turned(old) } else { labelled(old) };
            code(guarded.modify(&policies, crate::Door::Main, "", name, options, change).await)
        };
        assert_eq!(modify("maps", &eve, true).await, 403);
        assert_eq!(modify("secrets", &eve, false).await, 200);

        let labels = json!({"selector": {"matchLabels": {"a": "b"}}, "namespace": "default"});
        for (number, (policy, reference, expected)) in [
            ("maps", json!({"name": "any", "namespace": "default"}), 200),
            ("maps", labels.clone(), 200),
            ("secrets", json!({"name": "own", "namespace": "default"}), 200),
            ("secrets", json!({"name": "other", "namespace": "default"}), 403),
            ("secrets", json!({"name": "own"}), 403),
            ("secrets", labels, 403),
            ("unknown", json!({"name": "any", "namespace": "default"}), 403),
        ]
        .into_iter()
        .enumerate()
        {
            let binding = binding(&format!("b{number}"), policy, reference);
            let shown = binding.to_string();
            let made = guarded.create(&bindings, "", binding, &eve).await;
            assert_eq!(code(made), expected, "{shown}");
        }
    }
}
