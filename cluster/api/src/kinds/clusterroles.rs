//! ClusterRole: what may be done anywhere, or in the namespaces in which it is bound; some are put together of others.

use crate::cause::Cause;
use crate::field::{Causes, Path, get, has, list};
use crate::resource::{Effect, Resource, Rules};
use crate::rules::access::{self, Scope};
use crate::rules::pod::label_selector;
use serde_json::Value;
use std::sync::Arc;

/// The row.
pub fn resource() -> Resource {
    Resource {
        namespaced: false,
        columns: access::role_columns(),
        cells: Arc::new(|role, _| access::role_cells(role)),
        effect: Effect::by("every request and message, by bindings"),
        rules: Rules {
            default: Arc::new(access::default_role),
            validate: Arc::new(validate),
            validate_update: Arc::new(|new, _| validate(new)),
            ..Rules::plain()
        },
        ..access::row("ClusterRole", "clusterroles", "clusterrole", "api.rbac.v1.ClusterRole")
    }
}

fn validate(role: &Value) -> Vec<Cause> {
    let mut causes = Causes::default();
    access::validate_rules(role, Scope::Cluster, &mut causes);
    if !has(role, "aggregationRule") {
        return causes.into_vec();
    }
    let path = Path::new("aggregationRule").child("clusterRoleSelectors");
    let selectors = list(get(role, "aggregationRule"), "clusterRoleSelectors");
    if selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        causes.required(&path, why);
    }
    for (index, selector) in selectors.iter().enumerate() {
        if causes.is_full() {
            break;
        }
        label_selector(selector, &path.index(index), &mut causes);
    }
    causes.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_role_that_is_put_together_selects_those_it_is_made_of() {
        let fields = |rule: Value| -> Vec<String> {
            let role = json!({"rules": null, "aggregationRule": rule});
            validate(&role).into_iter().map(|cause| cause.field).collect()
        };
        let selectors = "aggregationRule.clusterRoleSelectors";
        assert_eq!(fields(json!({})), [selectors]);
        let good = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        assert_eq!(fields(good), [""; 0]);
        let bad = json!({"clusterRoleSelectors": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]});
        assert_eq!(fields(bad), [format!("{selectors}[0].matchExpressions[0].operator")]);
    }
}
