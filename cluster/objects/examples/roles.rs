//! What one decision costs: `cargo run --release --example roles -p impresario-objects`.
//!
//! A thousand roles and five thousand bindings, of which the asker has few, then many.

use impresario_objects::rbac::{Asked, Asker, Index};
use impresario_runtime::clock;
use serde_json::json;
use std::hint::black_box;

const ROLES: usize = 1_000;
const BINDINGS: usize = 5_000;
const NAMESPACES: usize = 50;
const ROUNDS: u32 = 20_000;

/// Roles of four rules each, and bindings of one user and one group each.
fn filled(user: impl Fn(usize) -> String) -> Index {
    let mut index = Index::default();
    for number in 0..ROLES {
        let rules: Vec<_> = (0..4)
            .map(|rule| {
                json!({
                    "verbs": ["get", "list", "watch", "update"], "apiGroups": ["", "apps"],
                    "resources": [format!("things{number}-{rule}"), "others", "others/status"],
                })
            })
            .collect();
        index.put_role(&json!({"metadata": {"name": format!("role-{number}")}, "rules": rules}));
    }
    for number in 0..BINDINGS {
        index.put_binding(&json!({
            "metadata": {"namespace": format!("ns-{}", number % NAMESPACES), "name": format!("b-{number}")},
            "roleRef": {"kind": "ClusterRole", "name": format!("role-{}", number % ROLES)},
            "subjects": [{"kind": "User", "name": user(number)}, {"kind": "Group", "name": format!("g-{}", number % 100)}],
        }));
    }
    index
}

fn measure(what: &str, index: &Index) {
    let groups = ["g-7", "system:authenticated"].map(ToOwned::to_owned);
    let asker = Asker { name: "user-7", groups: &groups };
    // Nothing allows it: every rule that the asker has is looked at.
    let asked = Asked::Resource {
        verb: "delete",
        group: "apps",
        resource: "deployments",
        subresource: "",
        namespace: "ns-7",
        name: "web",
    };
    let began = clock::now();
    for _ in 0..ROUNDS {
        assert!(black_box(index).allows(black_box(asker), black_box(asked)).is_none());
    }
    println!("{what}: {:?} a decision", began.elapsed() / ROUNDS);
}

fn main() {
    measure("each user has a few bindings", &filled(|number| format!("user-{}", number % 500)));
    measure("one user has them all", &filled(|_| "user-7".to_owned()));
}
