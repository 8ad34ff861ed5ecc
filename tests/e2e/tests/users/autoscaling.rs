//! What is used is shown, and more pods are made of what is busy.

use impresario_e2e::{Site, with_a_kubectl};

with_a_kubectl!(a_busy_deployment_is_seen_and_gets_more_pods);

const BUSY: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: 1
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: busybox
        command: [sh, -c, 'while true; do i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; sleep 0.01; done']
        resources: {requests: {cpu: 20m}}
";

fn a_busy_deployment_is_seen_and_gets_more_pods(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", BUSY).ok();
    kubectl.run("rollout status deployment/busy --timeout=120s").ok();
    kubectl.run("autoscale deployment busy --cpu-percent=50 --min=1 --max=3").ok();
    kubectl.until("get hpa busy", "{.status.desiredReplicas}", "3");
    kubectl.until("get deployment busy", "{.status.readyReplicas}", "3");
    let reason = "{.status.conditions[?(@.type=='ScalingActive')].reason}";
    kubectl.until("get hpa busy", reason, "ValidMetricFound");
    let events = "get events --field-selector involvedObject.kind=HorizontalPodAutoscaler";
    let told = kubectl.field(events, "{.items[*].reason}");
    assert!(told.contains("SuccessfulRescale"), "{told}");

    let shown = kubectl.run("top pods --containers --no-headers -l app=busy").ok();
    let used = shown.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "main", "{shown}");
        words[2].trim_end_matches('m').parse::<u64>().unwrap()
    });
    assert!(used.max() > Some(10), "somebody is busy: {shown}");
    let nodes = kubectl.run("top nodes --no-headers").ok();
    assert!(nodes.lines().count() >= 1, "{nodes}");
    kubectl.run("delete deployment/busy hpa/busy").ok();
    kubectl.until("get pods", "{.items[*].metadata.name}", "");
}
