//! Who may do what: one question, one answer, one place.
//!
//! The roles of the cluster decide ([`Roles`]); whether the server lives anybody may ask, before they are read and
//! whatever they say. The words of a refusal are Kubernetes's, because clients and people search for them.

use crate::authenticate::User;
use impresario_objects::rbac::{Asked, Asker, Roles, Verdict};

pub use impresario_objects::may::{MASTERS, VIEWERS};

/// What is always answered.
const HEALTH: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// The user as bindings name them.
pub fn asker(user: &User) -> Asker<'_> {
    Asker { name: &user.name, groups: &user.groups }
}

/// Whether a user may do it.
pub fn decide(roles: &Roles, user: &User, asked: Asked<'_>) -> Verdict {
    if is_health(asked) {
        return Verdict::Allowed(String::new());
    }
    roles.may(asker(user), asked)
}

/// The same, and why they may.
pub fn explain(roles: &Roles, asker: Asker<'_>, asked: Asked<'_>) -> Verdict {
    if is_health(asked) {
        return Verdict::Allowed(String::new());
    }
    roles.explain(asker, asked)
}

fn is_health(asked: Asked<'_>) -> bool {
    matches!(asked, Asked::Path { verb: "get" | "head", path } if HEALTH.contains(&path))
}

/// The message of a refusal, without the part that names the object.
pub fn refusal(user: &User, asked: Asked<'_>) -> String {
    match asked {
        Asked::Path { verb, path } => {
            format!("User {:?} cannot {verb} path {path:?}", user.name)
        }
        Asked::Resource { verb, group, resource, subresource, namespace, .. } => {
            let below = if subresource.is_empty() { "" } else { "/" };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            format!(
                "User {:?} cannot {verb} resource \"{resource}{below}{subresource}\" in API group {group:?} {place}",
                user.name
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use impresario_objects::Reader;
    use impresario_registry::MemoryRegistry;
    use std::sync::Arc;

    #[tokio::test]
    async fn before_the_roles_are_read_masters_act_and_anybody_asks_whether_we_live() {
        // Nothing has run yet that could have read them.
        let roles = Roles::follow(&Reader::new(Arc::new(MemoryRegistry::new())));
        let pods = Asked::Resource {
            verb: "list",
            group: "",
            resource: "pods",
            subresource: "",
            namespace: "",
            name: "",
        };
        let path = |path| Asked::Path { verb: "get", path };
        let (master, viewer) = (User::new("root", [MASTERS]), User::new("eve", [VIEWERS]));
        assert_eq!(decide(&roles, &viewer, pods), Verdict::Unread);
        assert_eq!(decide(&roles, &viewer, path("/version")), Verdict::Unread);
        for asked in [pods, path("/version")] {
            assert_eq!(decide(&roles, &master, asked), Verdict::Allowed(String::new()));
        }
        for open in HEALTH {
            let verdict = decide(&roles, &User::anonymous(), path(open));
            assert_eq!(verdict, Verdict::Allowed(String::new()), "{open}");
        }
    }

    #[test]
    fn a_refusal_reads_as_in_kubernetes() {
        let asked = Asked::Resource {
            verb: "get",
            group: "apps",
            resource: "deployments",
            subresource: "scale",
            namespace: "default",
            name: "web",
        };
        assert_eq!(
            refusal(&User::anonymous(), asked),
            "User \"system:anonymous\" cannot get resource \"deployments/scale\" in API group \"apps\" in the namespace \
             \"default\""
        );
    }
}
