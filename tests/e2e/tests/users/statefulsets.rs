//! Stateful sets: pods with names and an order, from one template to the next and back.

use crate::manifests::workload;
use impresario_e2e::{Site, eventually, with_a_kubectl, with_every_kubectl};

with_every_kubectl!(a_stateful_set_comes_in_order_is_rolled_over_in_part_and_goes_back);
with_a_kubectl!(what_never_works_is_left_behind_by_the_next_template);

const NAMES: &str = "{.items[*].metadata.name}";
const COLOURS: &str = "{.items[*].spec.containers[0].env[0].value}";
const STATUS: &str = "rollout status sts/db --timeout=180s";

fn stateful_set(spec: &str) -> String {
    workload("StatefulSet", "db", spec, "")
}

/// The names of its pods in the order in which they were made.
fn made(site: &Site) -> Vec<String> {
    let line = "get pods -l app=db --sort-by=.metadata.creationTimestamp";
    site.kubectl.field(line, NAMES).split_whitespace().map(str::to_owned).collect()
}

fn a_stateful_set_comes_in_order_is_rolled_over_in_part_and_goes_back(site: &Site) {
    let kubectl = &site.kubectl;
    let spec = "  replicas: 3\n  serviceName: peers\n  minReadySeconds: 1";
    kubectl.feed("apply -f -", &stateful_set(spec)).ok();
    kubectl.run(STATUS).ok();
    assert_eq!(made(site), ["db-0", "db-1", "db-2"]);
    let shown = kubectl.run("get sts db --no-headers").ok();
    assert_eq!(shown.split_whitespace().take(2).collect::<Vec<_>>(), ["db", "3/3"]);
    let of_pod =
        "{.spec.hostname} {.spec.subdomain} {.metadata.labels.apps\\.kubernetes\\.io/pod-index}";
    assert_eq!(kubectl.field("get pod db-1", of_pod), "db-1 peers 1");

    kubectl.run("delete pod db-1 --timeout=120s").ok();
    kubectl.until("get sts db", "{.status.availableReplicas}", "3");
    kubectl.run("scale sts db --replicas=1").ok();
    kubectl.until("get pods -l app=db", NAMES, "db-0");
    kubectl.run("scale sts db --replicas=3").ok();
    kubectl.until("get sts db", "{.status.availableReplicas}", "3");

    let part = r#"{"spec":{"updateStrategy":{"rollingUpdate":{"partition":2}}}}"#;
    kubectl.run_with("patch sts db --patch", &[part]).ok();
    kubectl.run("set env sts/db COLOUR=blue").ok();
    let told = kubectl.run(STATUS).ok();
    assert!(told.contains("partitioned roll out complete"), "{told}");
    let of =
        |pod: &str| kubectl.field(&format!("get pod {pod}"), "{.spec.containers[0].env[0].value}");
    assert_eq!([of("db-0"), of("db-1"), of("db-2")], ["", "", "blue"]);
    let all = r#"{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}"#;
    kubectl.run_with("patch sts db --patch", &[all]).ok();
    kubectl.run(STATUS).ok();
    kubectl.until("get pods -l app=db", COLOURS, "blue blue blue");

    let history = kubectl.run("rollout history sts/db").ok();
    assert_eq!(history.lines().filter(|line| line.contains("<none>")).count(), 2, "{history}");
    kubectl.run("rollout undo sts/db").ok();
    kubectl.run(STATUS).ok();
    kubectl.until("get pods -l app=db", COLOURS, "");
    let described = kubectl.run("describe sts db").ok();
    for word in ["SuccessfulCreate", "SuccessfulDelete", "3 desired"] {
        assert!(described.contains(word), "{word}: {described}");
    }
    kubectl.run("delete sts db --timeout=120s").ok();
    kubectl.until("get pods,controllerrevisions", NAMES, "");
}

fn what_never_works_is_left_behind_by_the_next_template(site: &Site) {
    let kubectl = &site.kubectl;
    let broken = stateful_set("  replicas: 2\n  serviceName: peers")
        .replace("[sleep, \"600\"]", "[sh, -c, \"exit 3\"]");
    kubectl.feed("apply -f -", &broken).ok();
    let restarts = "{.status.containerStatuses[0].restartCount}";
    eventually("the first pod has failed", || {
        let restarts = kubectl.run_with("get pod db-0 -o", &[&format!("jsonpath={restarts}")]);
        let count = restarts.out.trim().parse::<u32>().unwrap_or(0);
        if count > 0 { Ok(()) } else { Err(format!("{restarts:?}")) }
    });
    kubectl.feed("apply -f -", &stateful_set("  replicas: 2\n  serviceName: peers")).ok();
    kubectl.run(STATUS).ok();
    assert_eq!(made(site), ["db-0", "db-1"]);
    let parallel = stateful_set("  replicas: 4\n  podManagementPolicy: Parallel");
    let refused = kubectl.feed("apply -f -", &parallel).refused();
    assert!(refused.contains("updates to statefulset spec"), "{refused}");
}
