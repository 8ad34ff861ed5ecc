//! What a namespace lets its pods ask for: quotas, limits, priorities and security levels.

use crate::manifests::{waiting_pod, workload};
use impresario_e2e::{Site, eventually, with_a_kubectl, with_every_kubectl};

with_every_kubectl!(
    a_quota_is_described_refuses_what_is_over_it_and_frees_what_goes,
    a_level_of_pod_security_refuses_pods_and_warns_of_templates,
);
with_a_kubectl!(
    a_limit_range_gives_what_a_pod_does_not_say_and_refuses_what_is_over_it,
    a_pod_has_the_priority_of_its_class,
);

fn a_quota_is_described_refuses_what_is_over_it_and_frees_what_goes(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.run("create quota few --hard=pods=2,secrets=10").ok();
    kubectl.until("get quota few", "{.status.used.pods}", "0");
    for name in ["a", "b"] {
        kubectl.feed("create -f -", &waiting_pod(name)).ok();
    }
    let told = kubectl.feed("create -f -", &waiting_pod("c")).refused();
    let why = "exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2";
    assert!(told.contains("(Forbidden)") && told.contains(why), "{told}");
    let described = kubectl.run("describe quota few").ok();
    let row = described.lines().find(|line| line.trim_start().starts_with("pods")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["pods", "2", "2"], "{described}");
    let shown = kubectl.run("get quota few --no-headers").ok();
    assert!(shown.contains("pods: 2/2"), "{shown}");
    kubectl.run("delete pod a --timeout=60s").ok();
    kubectl.until("get quota few", "{.status.used.pods}", "1");
    kubectl.feed("create -f -", &waiting_pod("c")).ok();

    // What is over it comes when there is room.
    kubectl.feed("create -f -", &workload("Deployment", "many", "  replicas: 2", "")).ok();
    eventually("it is told why there are no pods", || {
        let told = kubectl.run("get events --field-selector reason=FailedCreate").ok();
        if told.contains("exceeded quota: few") { Ok(()) } else { Err(told) }
    });
    kubectl.run_with("patch quota few --patch", &[r#"{"spec":{"hard":{"pods":"4"}}}"#]).ok();
    kubectl.until("get deploy many", "{.status.readyReplicas}", "2");
    kubectl.until("get quota few", "{.status.used.pods}/{.status.hard.pods}", "4/4");
}

fn a_limit_range_gives_what_a_pod_does_not_say_and_refuses_what_is_over_it(site: &Site) {
    let kubectl = &site.kubectl;
    let range = "
apiVersion: v1
kind: LimitRange
metadata: {name: usual}
spec:
  limits:
  - {type: Container, default: {cpu: 200m}, defaultRequest: {cpu: 100m}, max: {cpu: 500m}}
";
    kubectl.feed("create -f -", range).ok();
    let described = kubectl.run("describe limits usual").ok();
    assert!(described.contains("Container") && described.contains("500m"), "{described}");
    kubectl.feed("create -f -", &waiting_pod("a")).ok();
    let resources =
        "{.spec.containers[0].resources.requests.cpu}/{.spec.containers[0].resources.limits.cpu}";
    assert_eq!(kubectl.field("get pod a", resources), "100m/200m");
    let noted = kubectl.field("get pod a", r"{.metadata.annotations.kubernetes\.io/limit-ranger}");
    assert!(noted.contains("LimitRanger plugin set: cpu request for container main"), "{noted}");
    let large = waiting_pod("b")
        .replace("image: busybox", "image: busybox, resources: {limits: {cpu: '1'}}");
    let told = kubectl.feed("create -f -", &large).refused();
    assert!(told.contains("maximum cpu usage per Container is 500m, but limit is 1"), "{told}");
}

fn a_pod_has_the_priority_of_its_class(site: &Site) {
    let kubectl = &site.kubectl;
    // Classes are the cluster's: this one has a name of its own.
    let class = format!("urgent-{}", kubectl.namespace);
    kubectl.run(&format!("create priorityclass {class} --value=1000")).ok();
    let pod =
        waiting_pod("a").replace("spec:\n", &format!("spec:\n  priorityClassName: {class}\n"));
    kubectl.feed("create -f -", &pod).ok();
    assert_eq!(kubectl.field("get pod a", "{.spec.priority}"), "1000");
    let unknown = waiting_pod("b").replace("spec:\n", "spec:\n  priorityClassName: no-such\n");
    let told = kubectl.feed("create -f -", &unknown).refused();
    assert!(told.contains("no PriorityClass with name no-such was found"), "{told}");
    let classes = kubectl.run("get priorityclasses").ok();
    for name in ["system-cluster-critical", "system-node-critical", class.as_str()] {
        assert!(classes.contains(name), "{classes}");
    }
    kubectl.run(&format!("delete priorityclass {class}")).ok();
}

fn a_level_of_pod_security_refuses_pods_and_warns_of_templates(site: &Site) {
    let kubectl = &site.kubectl;
    let namespace = &kubectl.namespace;
    let label = |mode: &str, level: &str| {
        let label = format!("pod-security.kubernetes.io/{mode}={level}");
        kubectl.run(&format!("label --overwrite namespace {namespace} {label}"))
    };
    let pod = waiting_pod("a").replace("spec:\n", "spec:\n  hostPID: true\n");
    kubectl.feed("create -f -", &pod).ok();
    let labelled = label("enforce", "baseline");
    let warned = "violate the new PodSecurity enforce level";
    assert!(labelled.code == 0 && labelled.err.contains(warned), "{labelled:?}");
    let told = kubectl.feed("create -f -", &pod.replace("name: a", "name: b")).refused();
    let why = "violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
    assert!(told.contains(why), "{told}");
    kubectl.feed("create -f -", &waiting_pod("c")).ok();

    label("warn", "restricted").ok();
    let made = kubectl.feed("create -f -", &workload("Deployment", "app", "  replicas: 0", ""));
    let warned =
        "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false";
    assert!(made.code == 0 && made.err.contains(warned), "{made:?}");
    let wrong = label("enforce", "strict").refused();
    assert!(wrong.contains("must be one of privileged, baseline, restricted"), "{wrong}");
}
