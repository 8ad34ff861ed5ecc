//! What replication controllers, jobs, namespaces and the garbage collector keep true.

use crate::manifests::replicas;
use impresario_e2e::{Site, eventually, with_a_kubectl};
use std::collections::BTreeSet;

with_a_kubectl!(
    a_replication_controller_replaces_what_is_lost,
    a_replication_controller_adopts_and_releases_by_labels,
    the_pod_that_costs_least_to_delete_goes_first,
    a_replica_set_tells_its_pods_by_expressions_and_takes_over_what_another_left,
    a_job_counts_its_completions_exactly,
    an_indexed_job_gives_each_pod_its_index,
    a_job_gives_up_after_its_backoff_limit,
    a_job_can_be_suspended,
    a_deleted_namespace_is_empty_before_it_is_gone,
    what_nobody_owns_any_more_is_deleted,
);

fn names(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn a_replication_controller_replaces_what_is_lost(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &replicas("app", 3)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "3");
    let before = names(&kubectl.field("get pods", "{.items[*].metadata.name}"));
    let lost = before.first().unwrap();
    kubectl.run(&format!("delete pod {lost}")).ok();
    eventually("there are three again, one of them new", || {
        let ready = kubectl.field("get rc app", "{.status.replicas} {.status.readyReplicas}");
        let now = names(&kubectl.field("get pods", "{.items[*].metadata.name}"));
        let is_new = now.len() == 3 && now.intersection(&before).count() == 2;
        if ready == "3 3" && is_new { Ok(()) } else { Err(format!("{ready}: {now:?}")) }
    });
    // A container that is killed is started again in its pod: nothing is replaced.
    let pods = names(&kubectl.field("get pods", "{.items[*].metadata.name}"));
    let pod = pods.first().unwrap();
    assert_eq!(
        kubectl.field(&format!("get pod {pod}"), "{.metadata.ownerReferences[0].kind}"),
        "ReplicationController"
    );
    kill_containers(pod);
    let again = "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].ready}";
    kubectl.until(&format!("get pod {pod}"), again, "1 137 true");
    kubectl.until("get rc app", "{.status.replicas} {.status.readyReplicas}", "3 3");
    assert_eq!(names(&kubectl.field("get pods", "{.items[*].metadata.name}")), pods);
}

/// Ends the processes of a pod's containers, as the kernel does when memory runs out.
fn kill_containers(pod: &str) {
    let variable = format!("HOSTNAME={pod}");
    let mut killed = 0;
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile has no environment.
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            match nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL) {
                Ok(()) => killed += 1,
                // It has ended by itself.
                Err(error) => assert_eq!(error, nix::errno::Errno::ESRCH),
            }
        }
    }
    assert!(killed > 0, "no process of {pod} runs");
}

fn a_replication_controller_adopts_and_releases_by_labels(site: &Site) {
    let kubectl = &site.kubectl;
    let stray = "run stray --image=busybox --labels=app=app --command -- sleep 600";
    kubectl.run(stray).ok();
    kubectl.run("wait --for=condition=Ready pod/stray --timeout=120s").ok();
    kubectl.feed("create -f -", &replicas("app", 2)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "2");
    assert_eq!(
        kubectl.field("get pod stray", "{.metadata.ownerReferences[0].name}"),
        "app",
        "adopted"
    );
    assert_eq!(names(&kubectl.field("get pods -l app=app", "{.items[*].metadata.name}")).len(), 2);
    // Without the label it is on its own, and another takes its place.
    kubectl.run("label pod stray app=free --overwrite").ok();
    kubectl.until("get pod stray", "{.metadata.ownerReferences}", "");
    kubectl.until("get rc app", "{.status.readyReplicas}", "2");
    eventually("another takes its place", || {
        let now = names(&kubectl.field("get pods -l app=app", "{.items[*].metadata.name}"));
        if now.len() == 2 && !now.contains("stray") { Ok(()) } else { Err(format!("{now:?}")) }
    });
    kubectl.run("delete rc app --timeout=120s").ok();
    kubectl.until("get pods", "{.items[*].metadata.name}", "stray");
}

fn the_pod_that_costs_least_to_delete_goes_first(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &replicas("app", 3)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "3");
    let line = "get pods --sort-by=.metadata.creationTimestamp";
    let oldest = kubectl.field(line, "{.items[0].metadata.name}");
    let key = "controller.kubernetes.io/pod-deletion-cost";
    kubectl.run(&format!("annotate pods -l app=app {key}=100")).ok();
    kubectl.run(&format!("annotate --overwrite pod {oldest} {key}=-5")).ok();
    kubectl.run("scale rc app --replicas=2").ok();
    kubectl.run(&format!("wait --for=delete pod/{oldest} --timeout=120s")).ok();
    kubectl.until("get rc app", "{.status.replicas}", "2");
}

fn replica_set(name: &str, count: u32) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: {name}}}
spec:
  replicas: {count}
  selector: {{matchExpressions: [{{key: app, operator: In, values: [shop, till]}}]}}
  template:
    metadata: {{labels: {{app: shop}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: busybox, command: [sleep, "600"]}}
"#
    )
}

fn a_replica_set_tells_its_pods_by_expressions_and_takes_over_what_another_left(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &replica_set("one", 1)).ok();
    kubectl.until("get rs one", "{.status.readyReplicas}", "1");
    kubectl.run("scale rs one --replicas=2").ok();
    kubectl.until("get rs one", "{.status.replicas} {.status.readyReplicas}", "2 2");
    let pods = names(&kubectl.field("get pods", "{.items[*].metadata.name}"));
    kubectl.run("delete rs one --cascade=orphan --timeout=120s").ok();
    kubectl.until("get pods", "{.items[*].metadata.ownerReferences}", "");
    assert_eq!(names(&kubectl.field("get pods", "{.items[*].metadata.name}")), pods);

    kubectl.feed("create -f -", &replica_set("two", 2)).ok();
    kubectl.until("get rs two", "{.status.readyReplicas} {.status.availableReplicas}", "2 2");
    let owners = "{.items[*].metadata.ownerReferences[*].name}";
    kubectl.until("get pods", owners, "two two");
    assert_eq!(names(&kubectl.field("get pods", "{.items[*].metadata.name}")), pods);
    kubectl.run("delete rs two --timeout=120s").ok();
    kubectl.until("get pods", "{.items[*].metadata.name}", "");
}

fn job(name: &str, spec: &str, script: &str) -> String {
    format!(
        r#"
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  {spec}
  template:
    spec:
      restartPolicy: Never
      containers:
      - {{name: main, image: busybox, command: [sh, -c, "{script}"]}}
"#
    )
}

fn a_job_counts_its_completions_exactly(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &job("work", "completions: 6\n  parallelism: 2", "sleep 0.2")).ok();
    let mut most = 0;
    eventually("the job is complete", || {
        let object = kubectl.json("get job work");
        most = most.max(object["status"]["active"].as_u64().unwrap_or(0));
        let conditions = object["status"]["conditions"].to_string();
        if conditions.contains(r#""type":"Complete""#) {
            Ok(())
        } else {
            Err(object["status"].to_string())
        }
    });
    assert!(most <= 2, "{most} at a time");
    let status = kubectl.json("get job work")["status"].clone();
    assert_eq!(status["succeeded"], 6);
    assert!(status["completionTime"].is_string() && status["startTime"].is_string(), "{status}");
    assert!(status["failed"].is_null() || status["failed"] == 0, "{status}");
    let phases =
        kubectl.field("get pods -l batch.kubernetes.io/job-name=work", "{.items[*].status.phase}");
    assert_eq!(phases, ["Succeeded"; 6].join(" "));
    let table = kubectl.run("get job work").ok();
    assert!(table.contains("6/6"), "{table}");
}

fn an_indexed_job_gives_each_pod_its_index(site: &Site) {
    let kubectl = &site.kubectl;
    let spec = "completions: 3\n  parallelism: 3\n  completionMode: Indexed";
    kubectl.feed("create -f -", &job("parts", spec, "echo part $JOB_COMPLETION_INDEX")).ok();
    kubectl.run("wait --for=condition=Complete job/parts --timeout=120s").ok();
    assert_eq!(kubectl.field("get job parts", "{.status.completedIndexes}"), "0-2");
    let said: BTreeSet<_> = kubectl
        .run("logs -l batch.kubernetes.io/job-name=parts --tail=-1")
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(said, ["part 0", "part 1", "part 2"].map(str::to_owned).into());
    let pods = kubectl.json("get pods -l batch.kubernetes.io/job-name=parts");
    let spec = &pods["items"][0]["spec"];
    assert!(spec.get("initContainers").is_none(), "no field is there that nobody gave: {spec}");
}

fn a_job_gives_up_after_its_backoff_limit(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &job("fails", "backoffLimit: 0", "exit 1")).ok();
    kubectl.run("wait --for=condition=Failed job/fails --timeout=120s").ok();
    assert_eq!(
        kubectl.field("get job fails", "{.status.conditions[?(@.type=='Failed')].reason}"),
        "BackoffLimitExceeded"
    );
    assert_eq!(kubectl.field("get job fails", "{.status.failed}"), "1");
}

fn a_job_can_be_suspended(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &job("later", "suspend: true", "true")).ok();
    kubectl.until("get job later", "{.status.conditions[?(@.type=='Suspended')].status}", "True");
    assert_eq!(kubectl.run("get pods -o name").ok(), "");
    kubectl.run_with("patch job later -p", &[r#"{"spec":{"suspend":false}}"#]).ok();
    kubectl.run("wait --for=condition=Complete job/later --timeout=120s").ok();
}

fn a_deleted_namespace_is_empty_before_it_is_gone(site: &Site) {
    let other = format!("{}-x", site.kubectl.namespace);
    let mut kubectl = site.kubectl.clone();
    kubectl.run(&format!("create namespace {other}")).ok();
    kubectl.namespace.clone_from(&other);
    kubectl.feed("create -f -", &replicas("app", 2)).ok();
    kubectl.run("create configmap map --from-literal=a=b").ok();
    kubectl.run("expose rc app --port=80").ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "2");
    kubectl.run(&format!("delete namespace {other} --wait=false")).ok();
    let refused = kubectl.run("create configmap late --from-literal=a=b");
    assert!(
        refused.err.contains("because it is being terminated") || refused.err.contains("not found"),
        "{refused:?}"
    );
    kubectl.run(&format!("wait --for=delete namespace/{other} --timeout=120s")).ok();
    let left = site.kubectl.run("get pods,rc,svc,configmaps,endpoints -A --no-headers").ok();
    assert!(!left.contains(&other), "{left}");
}

fn what_nobody_owns_any_more_is_deleted(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.run("create configmap owner --from-literal=a=b").ok();
    let uid = kubectl.field("get configmap owner", "{.metadata.uid}");
    let owned = |name: &str, uid: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  ownerReferences: \
             [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]\n"
        )
    };
    kubectl.feed("create -f -", &owned("owned", &uid)).ok();
    // Its owner never was there: it goes.
    kubectl.feed("create -f -", &owned("orphan", "5f0e2c8a-0000-4000-8000-000000000000")).ok();
    kubectl.run("wait --for=delete configmap/orphan --timeout=120s").ok();
    assert_eq!(kubectl.field("get configmap owned", "{.metadata.name}"), "owned");
    kubectl.run("delete configmap owner").ok();
    kubectl.run("wait --for=delete configmap/owned --timeout=120s").ok();
}
