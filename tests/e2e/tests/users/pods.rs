//! What becomes of a pod's containers, and what the pod says about it.

use crate::manifests::{notes, noting_pod, one_shot, waiting_pod};
use impresario_e2e::{Site, eventually, with_a_kubectl};
use std::fs;

with_a_kubectl!(
    exit_codes_decide_the_phase,
    a_failed_container_is_started_again_until_it_succeeds,
    a_container_that_fails_at_once_backs_off,
    a_container_is_asked_to_stop_before_it_is_ended,
    a_container_that_does_not_listen_is_ended_after_its_grace,
    containers_share_volumes_and_the_address,
    init_containers_run_one_after_the_other,
    a_config_map_is_seen_as_variables_and_files,
    a_pod_that_fits_nowhere_says_why,
    a_pod_goes_where_its_selector_says,
    a_deleted_pod_leaves_no_file,
    a_deadline_ends_a_pod,
    a_command_that_does_not_exist_is_told,
    what_a_node_does_not_do_is_said_and_never_silently_left_out,
);

/// The cell of a pod's STATUS column.
fn status(site: &Site, pod: &str) -> String {
    let row = site.kubectl.run(&format!("get pod {pod} --no-headers")).ok();
    row.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

fn until_status(site: &Site, pod: &str, wanted: &str) {
    eventually(&format!("{pod} is {wanted}"), || {
        let is = status(site, pod);
        if is == wanted { Ok(()) } else { Err(is) }
    });
}

fn exit_codes_decide_the_phase(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &one_shot("good", "Never", "exit 0")).ok();
    kubectl.feed("create -f -", &one_shot("bad", "Never", "exit 3")).ok();
    // In a command `$$` is a dollar sign.
    kubectl.feed("create -f -", &one_shot("killed", "Never", "kill -9 $$$$")).ok();
    kubectl.feed("create -f -", &one_shot("asked", "Never", "kill -15 $$$$")).ok();
    kubectl.until("get pod good", "{.status.phase}", "Succeeded");
    kubectl.until("get pod bad", "{.status.phase}", "Failed");
    let ended = "{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}";
    assert_eq!(kubectl.field("get pod good", ended), "0 Completed");
    assert_eq!(kubectl.field("get pod bad", ended), "3 Error");
    // A signal that ended it is told as a shell tells it: 128 and its number.
    for (pod, is) in [("killed", "137 Error"), ("asked", "143 Error")] {
        kubectl.until(&format!("get pod {pod}"), "{.status.phase}", "Failed");
        assert_eq!(kubectl.field(&format!("get pod {pod}"), ended), is);
        assert_eq!(status(site, pod), "Error");
    }
    assert_eq!(status(site, "good"), "Completed");
    assert_eq!(status(site, "bad"), "Error");
    assert_eq!(kubectl.field("get pod bad", "{.status.containerStatuses[0].restartCount}"), "0");
}

fn a_failed_container_is_started_again_until_it_succeeds(site: &Site) {
    let kubectl = &site.kubectl;
    let mark = site.cluster.scratch().join(format!("once-{}", kubectl.namespace));
    let script = format!(
        "if [ -e {0} ]; then echo second; exit 0; fi\ntouch {0}\necho first\nexit 7",
        mark.display()
    );
    kubectl.feed("create -f -", &one_shot("retry", "OnFailure", &script)).ok();
    kubectl.until("get pod retry", "{.status.phase}", "Succeeded");
    assert_eq!(kubectl.field("get pod retry", "{.status.containerStatuses[0].restartCount}"), "1");
    assert_eq!(
        kubectl
            .field("get pod retry", "{.status.containerStatuses[0].lastState.terminated.exitCode}"),
        "7"
    );
    assert_eq!(kubectl.run("logs retry").ok(), "second\n");
    assert_eq!(kubectl.run("logs retry --previous").ok(), "first\n");
}

fn a_container_that_fails_at_once_backs_off(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &one_shot("crash", "Always", "exit 1")).ok();
    until_status(site, "crash", "CrashLoopBackOff");
    // All of one look: the next try may be under way at the next.
    eventually("it waits, and says for what", || {
        let status = kubectl.json("get pod crash")["status"].take();
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        let conditions = status["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        let is_so = waiting["reason"] == "CrashLoopBackOff"
            && message.starts_with("back-off ")
            && message.contains("restarting failed container=main")
            && status["phase"] == "Running"
            && ready.is_some_and(|ready| ready["status"] == "False");
        if is_so { Ok(()) } else { Err(status.to_string()) }
    });
    eventually("an event tells of it", || {
        let events = kubectl.run("get events --field-selector involvedObject.name=crash").ok();
        if events.contains("BackOff") { Ok(()) } else { Err(events) }
    });
}

fn a_container_is_asked_to_stop_before_it_is_ended(site: &Site) {
    let kubectl = &site.kubectl;
    let folder = notes(site);
    let script = "trap 'echo goodbye > /notes/end; exit 0' TERM; echo ready > /notes/begin; while :; do sleep 0.1; done";
    let pod = noting_pod("polite", &folder, script, "");
    kubectl.feed("create -f -", &pod).ok();
    eventually("the container runs", || {
        fs::read_to_string(folder.join("begin")).map_err(|e| e.to_string())
    });
    kubectl.run("delete pod polite --timeout=120s").ok();
    assert_eq!(fs::read_to_string(folder.join("end")).unwrap(), "goodbye\n");
}

/// A container that goes on when it is asked to stop.
const DEAF: &str = "trap 'echo no' TERM; echo on; while :; do sleep 0.1; done";

fn a_container_that_does_not_listen_is_ended_after_its_grace(site: &Site) {
    let kubectl = &site.kubectl;
    // Held, so that what became of its container can be read before it is gone.
    let held = one_shot("deaf", "Never", DEAF)
        .replace("name: deaf,", "name: deaf, finalizers: [example.org/hold],")
        // Long enough for a shell that waits for its turn to say that it was asked.
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 10");
    kubectl.feed("create -f -", &held).ok();
    kubectl.run("wait --for=condition=Ready pod/deaf --timeout=120s").ok();
    let mut said = kubectl.lines("logs -f deaf");
    said.expect("on");
    kubectl.run("delete pod deaf --wait=false").ok();
    said.expect("no");
    let code = "{.status.containerStatuses[0].state.terminated.exitCode}";
    kubectl.until("get pod deaf", code, "137");
    kubectl.until("get pod deaf", "{.status.phase}", "Failed");
    let free = r#"{"metadata":{"finalizers":null}}"#;
    kubectl.run_with("patch pod deaf --type=merge -p", &[free]).ok();
    kubectl.run("wait --for=delete pod/deaf --timeout=120s").ok();
}

fn containers_share_volumes_and_the_address(site: &Site) {
    let kubectl = &site.kubectl;
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - name: server
    image: busybox
    command: [sh, -c, "echo $POD_IP > /shared/address; exec busybox httpd -f -p $POD_IP:8080 -h /shared"]
    env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: client
    image: busybox
    command: [sh, -c, "until busybox wget -q -O - http://$POD_IP:8080/address; do sleep 0.1; done; cat /data/address; exec sleep 600"]
    env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    volumeMounts: [{name: shared, mountPath: /data, readOnly: true}]
"#;
    kubectl.feed("create -f -", pod).ok();
    kubectl.run("wait --for=condition=Ready pod/pair --timeout=120s").ok();
    let address = kubectl.field("get pod pair", "{.status.podIP}");
    eventually("the client has read it twice", || {
        let said = kubectl.run("logs pair -c client").ok();
        if said == format!("{address}\n{address}\n") { Ok(()) } else { Err(said) }
    });
}

fn init_containers_run_one_after_the_other(site: &Site) {
    let kubectl = &site.kubectl;
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: steps}
spec:
  restartPolicy: Never
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - {name: one, image: busybox, command: [sh, -c, "echo one >> /shared/steps"], volumeMounts: [{name: shared, mountPath: /shared}]}
  - {name: two, image: busybox, command: [sh, -c, "echo two >> /shared/steps"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - {name: main, image: busybox, command: [sh, -c, "cat /shared/steps; echo main"], volumeMounts: [{name: shared, mountPath: /shared}]}
"#;
    kubectl.feed("create -f -", pod).ok();
    kubectl.until("get pod steps", "{.status.phase}", "Succeeded");
    assert_eq!(kubectl.run("logs steps").ok(), "one\ntwo\nmain\n");
    let fails =
        pod.replace("name: steps", "name: stops").replace("echo two >> /shared/steps", "exit 4");
    kubectl.feed("create -f -", &fails).ok();
    until_status(site, "stops", "Init:Error");
    assert_eq!(kubectl.field("get pod stops", "{.status.phase}"), "Failed");
}

fn a_config_map_is_seen_as_variables_and_files(site: &Site) {
    let kubectl = &site.kubectl;
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: reads, labels: {tier: front}}
spec:
  restartPolicy: Never
  volumes:
  - {name: files, configMap: {name: settings}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "echo $COLOUR $SHAPE $(NODE); cat /files/colour; echo; cat /about/labels"]
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    envFrom: [{configMapRef: {name: more}}]
    volumeMounts: [{name: files, mountPath: /files}, {name: about, mountPath: /about}]
"#;
    kubectl.feed("create -f -", pod).ok();
    // It waits for what it needs, and says so.
    eventually("the pod says what it waits for", || {
        let events = kubectl.run("get events --field-selector involvedObject.name=reads").ok();
        if events.contains("configmap \"settings\" not found") { Ok(()) } else { Err(events) }
    });
    kubectl.run("create configmap settings --from-literal=colour=green").ok();
    kubectl.run("create configmap more --from-literal=SHAPE=round").ok();
    kubectl.until("get pod reads", "{.status.phase}", "Succeeded");
    let node = kubectl.field("get pod reads", "{.spec.nodeName}");
    assert_eq!(
        kubectl.run("logs reads").ok(),
        format!("green round {node}\ngreen\ntier=\"front\"\n")
    );
}

fn a_pod_that_fits_nowhere_says_why(site: &Site) {
    let kubectl = &site.kubectl;
    let greedy = waiting_pod("greedy")
        .replace("image: busybox,", "image: busybox, resources: {requests: {cpu: 1k}},");
    let picky = waiting_pod("picky").replace("spec:\n", "spec:\n  nodeSelector: {colour: green}\n");
    kubectl.feed("create -f -", &greedy).ok();
    kubectl.feed("create -f -", &picky).ok();
    for (pod, why) in [
        ("greedy", "0/3 nodes are available: 3 Insufficient cpu"),
        ("picky", "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector"),
    ] {
        let events = format!(
            "get events --field-selector involvedObject.name={pod},reason=FailedScheduling"
        );
        eventually(&format!("{pod} says why"), || {
            let text = kubectl.field(&events, "{.items[*].message}");
            if text.contains(why) { Ok(()) } else { Err(text) }
        });
        assert_eq!(status(site, pod), "Pending");
        let reason = "{.status.conditions[?(@.type=='PodScheduled')].reason}";
        kubectl.until(&format!("get pod {pod}"), reason, "Unschedulable");
    }
}

fn a_pod_goes_where_its_selector_says(site: &Site) {
    let kubectl = &site.kubectl;
    for node in ["node-1", "node-2", "node-3"] {
        let selector = format!("spec:\n  nodeSelector: {{kubernetes.io/hostname: {node}}}\n");
        let pod = waiting_pod(&format!("on-{node}")).replace("spec:\n", &selector);
        kubectl.feed("create -f -", &pod).ok();
    }
    kubectl.run("wait --for=condition=Ready pod --all --timeout=120s").ok();
    assert_eq!(kubectl.field("get pods", "{.items[*].spec.nodeName}"), "node-1 node-2 node-3");
    assert_eq!(
        kubectl.run("get pods --field-selector spec.nodeName=node-2 -o name").ok(),
        "pod/on-node-2\n"
    );
}

fn a_deleted_pod_leaves_no_file(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &waiting_pod("brief")).ok();
    kubectl.run("wait --for=condition=Ready pod/brief --timeout=120s").ok();
    let (uid, node) = (
        kubectl.field("get pod brief", "{.metadata.uid}"),
        kubectl.field("get pod brief", "{.spec.nodeName}"),
    );
    let folder = site.cluster.node(&node).join("pods").join(&uid);
    assert!(folder.is_dir(), "{} is where a pod's files are", folder.display());
    kubectl.run("delete pod brief").ok();
    assert!(!folder.exists(), "{} is left", folder.display());
}

fn a_deadline_ends_a_pod(site: &Site) {
    let kubectl = &site.kubectl;
    let pod =
        one_shot("late", "Never", DEAF).replace("spec:\n", "spec:\n  activeDeadlineSeconds: 1\n");
    kubectl.feed("create -f -", &pod).ok();
    kubectl.until("get pod late", "{.status.phase} {.status.reason}", "Failed DeadlineExceeded");
    let code = "{.status.containerStatuses[0].state.terminated.exitCode}";
    kubectl.until("get pod late", code, "137");
}

fn a_command_that_does_not_exist_is_told(site: &Site) {
    let kubectl = &site.kubectl;
    let pod = waiting_pod("typo").replace("command: [sh,", "command: [no-such-command,");
    kubectl.feed("create -f -", &pod).ok();
    let path = "{.status.containerStatuses[0].state.*.message}{.status.containerStatuses[0].lastState.*.message}";
    eventually("the reason is in the status", || {
        let text = kubectl.field("get pod typo", path);
        if text.contains("no-such-command") { Ok(()) } else { Err(text) }
    });
}

fn what_a_node_does_not_do_is_said_and_never_silently_left_out(site: &Site) {
    let kubectl = &site.kubectl;
    let plain = one_shot("sees-all", "Never", "echo ran");
    let refused = plain.replace("  restartPolicy:", "  hostPID: true\n  restartPolicy:");
    kubectl.feed("create -f -", &refused).ok();
    kubectl.until("get pod sees-all", "{.status.phase}", "Failed");
    assert_eq!(kubectl.field("get pod sees-all", "{.status.reason}"), "NotSupported");
    let message = kubectl.field("get pod sees-all", "{.status.message}");
    assert!(message.contains("does not do hostPID"), "{message}");

    let plain = one_shot("typed-at", "Never", "echo ran");
    let warned = plain.replace("    image: busybox", "    image: busybox\n    tty: true");
    kubectl.feed("create -f -", &warned).ok();
    kubectl.until("get pod typed-at", "{.status.phase}", "Succeeded");
    eventually("an event says what has no effect", || {
        let events = kubectl.run("get events --field-selector involvedObject.name=typed-at").ok();
        if events.contains("no effect here") && events.contains("tty") {
            Ok(())
        } else {
            Err(events)
        }
    });
}
