//! `kubectl apply --server-side`: who owns which fields, by each kubectl that users have.

use crate::manifests::workload;
use impresario_e2e::{Site, with_every_kubectl};

with_every_kubectl!(
    managers_conflict_force_and_give_back,
    what_was_applied_by_the_client_goes_on_on_the_server,
);

const SHOWN: &str = "-o yaml --show-managed-fields";

fn web(replicas: u8, variable: &str) -> String {
    let container =
        format!("        env: [{{name: A, value: '1'}}, {{name: {variable}, value: '1'}}]");
    workload("Deployment", "web", &format!("  replicas: {replicas}"), &container)
}

fn managers_conflict_force_and_give_back(site: &Site) {
    let kubectl = &site.kubectl;
    let apply = |manifest: &str, words: &str| {
        kubectl.feed(&format!("apply --server-side {words} -f -"), manifest)
    };
    let made = apply(&web(1, "B"), "").ok();
    assert!(made.contains("deployment.apps/web serverside-applied"), "{made}");
    kubectl.run("rollout status deployment/web --timeout=60s").ok();

    // A dry run says the same as the apply would, and does nothing.
    apply(&web(2, "B"), "--dry-run=server").ok();
    assert_eq!(kubectl.field("get deployment web", "{.spec.replicas}"), "1");

    let refused = apply(&web(2, "B"), "--field-manager=other");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("Apply failed with 1 conflict"), "{refused:?}");
    assert!(refused.err.contains("conflict with \"kubectl\": .spec.replicas"), "{refused:?}");
    apply(&web(2, "C"), "--field-manager=other --force-conflicts").ok();
    assert_eq!(kubectl.field("get deployment web", "{.spec.replicas}"), "2");

    // Nobody sees entries who does not ask for them.
    let shown = kubectl.run("get deployment web -o yaml").ok();
    assert!(!shown.contains("managedFields"), "{shown}");
    let shown = kubectl.run(&format!("get deployment web {SHOWN}")).ok();
    for part in [
        "manager: kubectl",
        "manager: other",
        "operation: Apply",
        "f:replicas",
        "subresource: status",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    // What one no longer applies goes, unless the other applies it.
    apply(&web(2, "D"), "--field-manager=other").ok();
    let names = "{.spec.template.spec.containers[0].env[*].name}";
    assert_eq!(kubectl.field("get deployment web", names), "A B D");
    // The pods of it are of who made them.
    let pods = kubectl.run(&format!("get pods -l app=web {SHOWN}")).ok();
    let part = "manager: impresario-controller";
    assert!(pods.contains(part), "{part} is not in:\n{pods}");
    // Another way to write takes what it changes.
    kubectl.run("scale deployment web --replicas=1").ok();
    let refused = apply(&web(2, "D"), "--field-manager=other");
    assert!(refused.err.contains(".spec.replicas"), "{refused:?}");
}

fn what_was_applied_by_the_client_goes_on_on_the_server(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("apply -f -", &web(1, "B")).ok();
    let names = "{.spec.template.spec.containers[0].env[*].name}";
    assert_eq!(kubectl.field("get deployment web", names), "A B");
    kubectl.feed("apply --server-side -f -", &web(1, "C")).ok();
    assert_eq!(kubectl.field("get deployment web", names), "A C", "B was the client's, and goes");
    let shown = kubectl.run(&format!("get deployment web {SHOWN}")).ok();
    assert!(!shown.contains("kubectl-client-side-apply"), "{shown}");
    // And back again, by the annotation that the server has kept in step.
    kubectl.feed("apply -f -", &web(1, "D")).ok();
    assert_eq!(kubectl.field("get deployment web", names), "A D");
}
