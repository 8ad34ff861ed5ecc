//! Commands that tell: get, describe, logs, wait, and what the server has.

use super::contains;
use crate::manifests::{one_shot, waiting_pod, web};
use impresario_e2e::{Site, eventually, with_every_kubectl};

with_every_kubectl!(
    get_prints_tables_objects_and_names,
    get_watches_what_comes_and_goes,
    describe_tells_of_every_kind,
    logs_are_the_lines_that_were_asked_for,
    wait_returns_when_the_condition_holds,
    discovery_tells_what_there_is,
);

fn get_prints_tables_objects_and_names(site: &Site) {
    let kubectl = &site.kubectl;
    let none = kubectl.run("get pods");
    contains(&none.err, &["No resources found in ", &kubectl.namespace]);
    kubectl.feed("create -f -", &waiting_pod("one")).ok();
    kubectl.feed("create -f -", &waiting_pod("two")).ok();
    kubectl.run("wait --for=condition=Ready pod --all --timeout=120s").ok();

    let table = kubectl.run("get pods").ok();
    contains(&table, &["NAME   READY   STATUS    RESTARTS   AGE", "one    1/1     Running   0"]);
    let wide = kubectl.run("get po -o wide").ok();
    contains(&wide, &["IP", "NODE", "NOMINATED NODE", "READINESS GATES", "node-", "127."]);
    assert_eq!(kubectl.run("get pods -o name").ok(), "pod/one\npod/two\n");
    let list = kubectl.json("get pods");
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
    let yaml = kubectl.run("get pod one -o yaml").ok();
    contains(&yaml, &["apiVersion: v1", "kind: Pod", "  name: one", "  phase: Running"]);
    assert_eq!(kubectl.run("get pods -l app=two -o name").ok(), "pod/two\n");
    assert_eq!(kubectl.run("get pods -l app!=two,kind -o name").ok(), "pod/one\n");
    assert_eq!(kubectl.run_with("get pods -o name -l", &["app in (one,three)"]).ok(), "pod/one\n");
    assert_eq!(
        kubectl.run("get pods --field-selector metadata.name=two -o name").ok(),
        "pod/two\n"
    );
    contains(
        &kubectl.run("get pods -L app --show-labels").ok(),
        &["APP", "LABELS", "kind=waiting"],
    );
    let everywhere = kubectl.run("get pods -A").ok();
    contains(&everywhere, &["NAMESPACE", &kubectl.namespace]);
    assert_eq!(
        kubectl
            .run_with(
                "get pods --sort-by",
                &["{.metadata.name}", "-o", "custom-columns=N:.metadata.name"]
            )
            .ok(),
        "N\none\ntwo\n"
    );
    contains(&kubectl.run("get all").ok(), &["pod/one", "pod/two"]);
    contains(
        &kubectl.run("get nodes").ok(),
        &["node-1", "node-2", "node-3", "Ready", "control-plane"],
    );
    contains(&kubectl.run("get nodes,ns -o wide").ok(), &["node/node-1", "namespace/default"]);
    contains(&kubectl.run("get cs,nosuch").refused(), &["the server doesn't have a resource type"]);
    let missing = kubectl.run("get pod three").refused();
    contains(&missing, &["Error from server (NotFound): pods \"three\" not found"]);
    contains(&kubectl.run("get --raw /readyz").ok(), &["ok"]);
    // Pages of two are put together again.
    let keys: Vec<String> = (0..5).map(|n| format!("page-{n}")).collect();
    for key in &keys {
        kubectl.run(&format!("create configmap {key} --from-literal=a=b")).ok();
    }
    let paged = kubectl.run("get configmaps --chunk-size=2 -o name").ok();
    assert_eq!(paged.lines().filter(|line| line.contains("page-")).count(), 5, "{paged}");
}

fn get_watches_what_comes_and_goes(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &waiting_pod("before")).ok();
    let mut table = kubectl.lines("get pods --watch");
    let mut events = kubectl.lines("get pods --watch --output-watch-events");
    // Both have listed what is there, so that they watch whatever comes after it.
    table.expect("before");
    events.expect("before");
    kubectl.feed("create -f -", &waiting_pod("seen")).ok();
    while !table.expect("Pending").starts_with("seen") {}
    while !table.expect("Running").starts_with("seen") {}
    while !events.expect("seen").starts_with("ADDED") {}
    kubectl.run("delete pod seen").ok();
    table.expect("seen");
    while !events.expect("seen").starts_with("DELETED") {}
}

fn describe_tells_of_every_kind(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &web("web", 1)).ok();
    kubectl.run("expose rc web --port=80 --target-port=8080").ok();
    kubectl.run("create job once --image=busybox -- echo done").ok();
    kubectl.run("create configmap settings --from-literal=colour=green").ok();
    kubectl.run("wait --for=condition=Ready pod -l app=web --timeout=120s").ok();
    kubectl.run("wait --for=condition=Complete job/once --timeout=120s").ok();
    // Events are written a moment after what they tell of.
    eventually("the pod's events are there", || {
        let pod = kubectl.run("describe pod -l app=web").ok();
        let wanted = [
            "Scheduled",
            "Successfully assigned",
            "Created",
            "Started",
            "default-scheduler",
            "kubelet",
        ];
        let missing: Vec<_> = wanted.iter().filter(|word| !pod.contains(*word)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not in\n{pod}")) }
    });
    let pod = kubectl.run("describe pod -l app=web").ok();
    contains(
        &pod,
        &[
            "Status:           Running",
            "Controlled By:  ReplicationController/web",
            "Readiness:      http-get http://:8080/ delay=0s timeout=20s period=1s #success=1 #failure=3",
            "Ready:          True",
            "ContainersReady             True",
            "Type:       EmptyDir",
            "QoS Class:                   BestEffort",
        ],
    );
    // So are endpoints.
    let described: [(&str, &[&str]); 3] = [
        (
            "rc web",
            &["Replicas:     1 current / 1 desired", "Pods Status:  1 Running", "SuccessfulCreate"],
        ),
        ("svc web", &["Selector:", "app=web", "TargetPort:", "8080/TCP", "Endpoints:", ":8080"]),
        ("job once", &["1 Succeeded", "SuccessfulCreate", "Completed"]),
    ];
    for (what, wanted) in described {
        eventually(&format!("{what} is described"), || {
            let text = kubectl.run(&format!("describe {what}")).ok();
            let missing: Vec<_> = wanted.iter().filter(|word| !text.contains(**word)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not in\n{text}")) }
        });
    }
    let node = kubectl.run("describe node node-1").ok();
    contains(
        &node,
        &[
            "Conditions:",
            "Ready            True",
            "Capacity:",
            "Allocated resources:",
            "Non-terminated Pods",
        ],
    );
    let namespace = kubectl.run(&format!("describe namespace {}", kubectl.namespace)).ok();
    contains(&namespace, &["Status:       Active"]);
    contains(&kubectl.run("describe configmap settings").ok(), &["colour:", "green"]);
    contains(&kubectl.run("describe endpoints web").ok(), &["Addresses:"]);
    contains(&kubectl.run("describe pod nosuch").refused(), &["NotFound"]);
    contains(&kubectl.run("get events").ok(), &["LAST SEEN", "SuccessfulCreate"]);
    contains(&kubectl.run("events").ok(), &["SuccessfulCreate"]);
}

fn logs_are_the_lines_that_were_asked_for(site: &Site) {
    let kubectl = &site.kubectl;
    let script = "for i in 1 2 3 4 5; do echo line $i; done; echo to stderr >&2; until [ -e $GO ]; do sleep 0.1; done; echo the end";
    let go = site.cluster.scratch().join(format!("go-{}", kubectl.namespace));
    let script = script.replace("$GO", &go.display().to_string());
    kubectl.feed("create -f -", &one_shot("talks", "Never", &script)).ok();
    kubectl.run("wait --for=condition=Ready pod/talks --timeout=120s").ok();
    eventually("all lines are there", || {
        let all = kubectl.run("logs talks").ok();
        let wanted = "line 1\nline 2\nline 3\nline 4\nline 5\nto stderr\n";
        if all == wanted { Ok(()) } else { Err(all) }
    });
    assert_eq!(kubectl.run("logs talks --tail=2").ok(), "line 5\nto stderr\n");
    assert_eq!(kubectl.run("logs talks --limit-bytes=6").ok(), "line 1");
    assert_eq!(kubectl.run("logs talks --since=1h --tail=1").ok(), "to stderr\n");
    let stamped = kubectl.run("logs talks --timestamps --tail=1").ok();
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(time.contains('T') && time.ends_with('Z') && text == "to stderr\n", "{stamped}");
    let mut followed = kubectl.lines("logs -f talks");
    followed.expect("to stderr");
    std::fs::write(&go, "").unwrap();
    followed.expect("the end");
    assert_eq!(followed.end(), 0, "a followed log ends with its container");

    let two = r#"
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 1
  containers:
  - {name: a, image: busybox, command: [sh, -c, "echo from a; exec sleep 600"]}
  - {name: b, image: busybox, command: [sh, -c, "echo run $$; exit 1"]}
"#;
    kubectl.feed("create -f -", two).ok();
    let path = "{.status.containerStatuses[?(@.name=='b')].lastState.terminated.exitCode}";
    kubectl.until("get pod two", path, "1");
    // A container that is started again and again has said nothing yet for a moment.
    let said = |line: &str, is_so: &dyn Fn(&str) -> bool| {
        eventually(line, || {
            let output = kubectl.run(line);
            if output.code == 0 && is_so(&output.out) { Ok(()) } else { Err(format!("{output:?}")) }
        });
    };
    said("logs two -c a", &|text| text == "from a\n");
    said("logs two -c b", &|text| text.starts_with("run "));
    said("logs two -c b --previous", &|text| text.starts_with("run "));
    said("logs two --all-containers --prefix", &|text| {
        text.contains("[pod/two/a] from a") && text.contains("[pod/two/b] run")
    });
    contains(&kubectl.run("logs two -c c").refused(), &["container c is not valid for pod two"]);
    contains(&kubectl.run("logs nosuch").refused(), &["pods \"nosuch\" not found"]);
    contains(
        &kubectl.run("logs two -c a --previous").refused(),
        &["previous terminated container"],
    );
}

fn wait_returns_when_the_condition_holds(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &waiting_pod("one")).ok();
    contains(
        &kubectl.run("wait --for=condition=Ready pod/one --timeout=120s").ok(),
        &["condition met"],
    );
    kubectl
        .run_with("wait pod/one --timeout=120s", &["--for=jsonpath={.status.phase}=Running"])
        .ok();
    kubectl.run("create job once --image=busybox -- sh -c true").ok();
    kubectl.run("wait --for=condition=Complete job/once --timeout=120s").ok();
    // On a slow machine the time is up before the first answer, and kubectl says it in other words.
    let timed_out = |line: &str| {
        let said = kubectl.run(line).refused();
        let words = ["timed out", "deadline exceeded", "rate limiter Wait"];
        assert!(words.iter().any(|word| said.contains(word)), "{said}");
    };
    // A finalizer holds the pod until somebody waits for its end.
    let finalizers = |json: &str| {
        let patch = format!("--patch={{\"metadata\":{{\"finalizers\":{json}}}}}");
        kubectl.run_with("patch pod one --type=merge", &[&patch]).ok();
    };
    finalizers("[\"example.org/hold\"]");
    let mut waits = kubectl.lines("wait --for=delete pod/one --timeout=120s");
    kubectl.run("delete pod one --wait=false").ok();
    timed_out("wait --for=delete pod/one --timeout=5s");
    finalizers("null");
    waits.expect("condition met");
    assert_eq!(waits.end(), 0);
    kubectl.feed("create -f -", &waiting_pod("two")).ok();
    timed_out("wait --for=condition=Nonsense pod/two --timeout=5s");
}

fn discovery_tells_what_there_is(site: &Site) {
    let kubectl = &site.kubectl;
    let resources = kubectl.run("api-resources").ok();
    contains(
        &resources,
        &[
            "pods",
            "po ",
            "replicationcontrollers",
            "rc ",
            "deployments",
            "deploy ",
            "replicasets",
            "rs ",
            "apps/v1",
            "services",
            "jobs",
            "batch/v1",
            "namespaces",
            "nodes",
            "events",
            "configmaps",
            "endpoints",
            "trainingjobs",
            "training.impresario.dev/v1",
        ],
    );
    contains(
        &kubectl.run("api-resources --namespaced=false -o name").ok(),
        &["nodes", "namespaces"],
    );
    contains(
        &kubectl.run("api-versions").ok(),
        &["v1\n", "apps/v1\n", "batch/v1\n", "training.impresario.dev/v1\n"],
    );
    contains(&kubectl.run("version -o json").ok(), &["serverVersion", "gitVersion"]);
    contains(&kubectl.run("cluster-info").ok(), &["https://127.0.0.1:"]);
    contains(
        &kubectl.run("explain pod.spec.containers").ok(),
        &["Container", "image", "<string>", "FIELD"],
    );
    contains(&kubectl.run("explain rc --recursive").ok(), &["replicas", "selector", "template"]);
    contains(&kubectl.run("explain deploy.spec.strategy").ok(), &["rollingUpdate", "Recreate"]);
    contains(&kubectl.run("explain job.spec.backoffLimit").ok(), &["backoffLimit", "integer"]);
    contains(&kubectl.run("explain trainingjob.spec").ok(), &["trainer"]);
    contains(&kubectl.run("explain pod.nosuch").refused(), &["nosuch"]);
}
