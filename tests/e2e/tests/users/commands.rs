//! The commands of kubectl, in the versions that users have.

use crate::manifests::{one_shot, replicas, waiting_pod, web};
use impresario_e2e::{Site, eventually, with_every_kubectl};

with_every_kubectl!(
    get_prints_tables_objects_and_names,
    get_watches_what_comes_and_goes,
    describe_tells_of_every_kind,
    create_makes_what_is_not_there,
    run_and_expose_make_a_pod_and_a_service,
    apply_changes_what_the_manifest_changed,
    delete_waits_until_all_is_gone,
    delete_cascades_as_asked,
    scale_changes_the_number_of_replicas,
    logs_are_the_lines_that_were_asked_for,
    label_and_annotate_change_metadata,
    wait_returns_when_the_condition_holds,
    discovery_tells_what_there_is,
    patches_of_three_types_are_applied,
    replace_and_edit_write_whole_objects,
);

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

fn get_prints_tables_objects_and_names(site: &Site) {
    let kubectl = &site.kubectl;
    let none = kubectl.run("get pods");
    contains(&none.err, &["No resources found in ", &kubectl.namespace]);
    kubectl.feed("create -f -", &waiting_pod("one")).ok();
    kubectl.feed("create -f -", &waiting_pod("two")).ok();
    kubectl.run("wait --for=condition=Ready pod --all --timeout=30s").ok();

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
    let mut table = kubectl.lines("get pods --watch");
    let mut events = kubectl.lines("get pods --watch --output-watch-events");
    kubectl.feed("create -f -", &waiting_pod("seen")).ok();
    table.expect("Pending");
    table.expect("Running");
    events.expect("ADDED");
    kubectl.run("delete pod seen").ok();
    table.expect("seen");
    events.expect("DELETED");
}

fn describe_tells_of_every_kind(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &web("web", 1)).ok();
    kubectl.run("expose rc web --port=80 --target-port=8080").ok();
    kubectl.run("create job once --image=busybox -- echo done").ok();
    kubectl.run("create configmap settings --from-literal=colour=green").ok();
    kubectl.run("wait --for=condition=Ready pod -l app=web --timeout=30s").ok();
    kubectl.run("wait --for=condition=Complete job/once --timeout=30s").ok();
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
            "Readiness:      http-get http://:8080/ delay=0s timeout=1s period=1s #success=1 #failure=3",
            "Ready:          True",
            "ContainersReady             True",
            "Type:       EmptyDir",
            "QoS Class:                   BestEffort",
        ],
    );
    let rc = kubectl.run("describe rc web").ok();
    contains(
        &rc,
        &["Replicas:     1 current / 1 desired", "Pods Status:  1 Running", "SuccessfulCreate"],
    );
    let service = kubectl.run("describe svc web").ok();
    contains(&service, &["Selector:", "app=web", "TargetPort:", "8080/TCP", "Endpoints:", ":8080"]);
    let job = kubectl.run("describe job once").ok();
    contains(&job, &["1 Succeeded", "SuccessfulCreate", "Completed"]);
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

fn create_makes_what_is_not_there(site: &Site) {
    let kubectl = &site.kubectl;
    let both = format!("{}---\n{}", waiting_pod("first"), replicas("second", 0));
    assert_eq!(
        kubectl.feed("create -f -", &both).ok(),
        "pod/first created\nreplicationcontroller/second created\n"
    );
    let again = kubectl.feed("create -f -", &waiting_pod("first")).refused();
    contains(&again, &["AlreadyExists", "pods \"first\" already exists"]);
    kubectl.run("create configmap settings --from-literal=a=1 --from-literal=b=2").ok();
    assert_eq!(kubectl.field("get configmap settings", "{.data.a}{.data.b}"), "12");
    kubectl.run("create job once --image=busybox -- sh -c true").ok();
    let other = format!("{}-other", kubectl.namespace);
    contains(&kubectl.run(&format!("create namespace {other}")).ok(), &["created"]);
    kubectl.run(&format!("delete namespace {other}")).ok();
    contains(&kubectl.run(&format!("get namespace {other}")).refused(), &["NotFound"]);
    // A dry run answers with what would be, and makes nothing.
    let dry = kubectl.feed("create --dry-run=server -o yaml -f -", &waiting_pod("dry")).ok();
    contains(&dry, &["uid:", "creationTimestamp:", "restartPolicy: Always"]);
    contains(&kubectl.run("get pod dry").refused(), &["NotFound"]);
    let named = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: some-}\n";
    let made = kubectl.feed("create -f - -o name", named).ok();
    assert!(
        made.starts_with("configmap/some-") && made.trim().len() > "configmap/some-".len(),
        "{made}"
    );
}

fn run_and_expose_make_a_pod_and_a_service(site: &Site) {
    let kubectl = &site.kubectl;
    let ran = kubectl.run_with(
        "run web --image=busybox --port=8080 --labels=app=web,tier=front --command --",
        &["sh", "-c", "exec sleep 600"],
    );
    assert_eq!(ran.ok(), "pod/web created\n");
    assert_eq!(
        kubectl.run("expose pod web --port=80 --target-port=8080 --name=front").ok(),
        "service/front exposed\n"
    );
    kubectl.run("wait --for=condition=Ready pod/web --timeout=30s").ok();
    kubectl.until("get endpoints front", "{.subsets[0].ports[0].port}", "8080");
    let address = kubectl.field("get pod web", "{.status.podIP}");
    kubectl.until("get endpoints front", "{.subsets[0].addresses[*].ip}", &address);
    let service = kubectl.json("get service front");
    assert_eq!(service["spec"]["type"], "ClusterIP");
    assert_eq!(service["spec"]["selector"]["tier"], "front");
    assert!(service["spec"]["clusterIP"].as_str().unwrap().starts_with("127."));
}

fn apply_changes_what_the_manifest_changed(site: &Site) {
    let kubectl = &site.kubectl;
    let manifest = |labels: &str, containers: &str| {
        format!(
            "apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: app, labels: {{{labels}}}}}\n\
             spec:\n  replicas: 0\n  selector: {{app: app}}\n  template:\n    metadata: {{labels: {{app: app}}}}\n\
             \x20   spec:\n      containers: [{containers}]\n"
        )
    };
    let one = "{name: one, image: busybox, env: [{name: A, value: '1'}, {name: B, value: '2'}]}";
    let two = "{name: two, image: busybox}";
    let both = manifest("a: red, b: blue", &format!("{one}, {two}"));
    assert_eq!(kubectl.feed("apply -f -", &both).ok(), "replicationcontroller/app created\n");
    assert_eq!(kubectl.feed("apply -f -", &both).ok(), "replicationcontroller/app unchanged\n");
    let generation = kubectl.field("get rc app", "{.metadata.generation}");
    assert_eq!(kubectl.feed("apply -f -", &both).ok(), "replicationcontroller/app unchanged\n");
    assert_eq!(kubectl.field("get rc app", "{.metadata.generation}"), generation);

    // What somebody else has set and the manifest never named stays.
    kubectl.run("label rc app other=kept").ok();
    let fewer = manifest("a: green", "{name: one, image: busybox, env: [{name: B, value: '3'}]}");
    assert_eq!(kubectl.feed("apply -f -", &fewer).ok(), "replicationcontroller/app configured\n");
    assert_eq!(kubectl.field("get rc app", "{.spec.template.spec.containers[*].name}"), "one");
    assert_eq!(kubectl.field("get rc app", "{.spec.template.spec.containers[0].env[*].name}"), "B");
    assert_eq!(
        kubectl.field("get rc app", "{.spec.template.spec.containers[0].env[0].value}"),
        "3"
    );
    let labels = kubectl.json("get rc app")["metadata"]["labels"].clone();
    assert_eq!(labels, serde_json::json!({"a": "green", "other": "kept"}));

    // A configmap's key that left the manifest leaves the object.
    let map = |data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map}}\ndata: {{{data}}}\n")
    };
    kubectl.feed("apply -f -", &map("a: '1', b: '2'")).ok();
    contains(&kubectl.feed("diff -f -", &map("a: '1'")).out, &["-  b: \"2\""]);
    kubectl.feed("apply -f -", &map("a: '1'")).ok();
    assert_eq!(kubectl.json("get configmap map")["data"], serde_json::json!({"a": "1"}));
    contains(&kubectl.run("apply view-last-applied configmap map").ok(), &["a: \"1\""]);
}

fn delete_waits_until_all_is_gone(site: &Site) {
    let kubectl = &site.kubectl;
    for name in ["one", "two", "three", "four"] {
        kubectl.feed("create -f -", &waiting_pod(name)).ok();
    }
    kubectl.run("wait --for=condition=Ready pod --all --timeout=30s").ok();
    assert_eq!(kubectl.run("delete pod one --timeout=20s").ok().lines().count(), 1);
    contains(&kubectl.run("get pod one").refused(), &["NotFound"]);
    kubectl.run("delete pods -l app=two --timeout=20s").ok();
    contains(&kubectl.run("get pod two").refused(), &["NotFound"]);
    kubectl.feed("delete -f -", &waiting_pod("three")).ok();
    contains(&kubectl.run("get pod three").refused(), &["NotFound"]);
    // By force the object is gone at once.
    kubectl.run("delete pod four --grace-period=0 --force").ok();
    contains(&kubectl.run("get pod four").refused(), &["NotFound"]);
    contains(&kubectl.run("delete pod one").refused(), &["pods \"one\" not found"]);
    assert_eq!(kubectl.run("delete pod one --ignore-not-found").ok(), "");
    kubectl.feed("create -f -", &waiting_pod("five")).ok();
    contains(&kubectl.run("delete pod five --dry-run=server").ok(), &["(server dry run)"]);
    kubectl.run("delete pods --all --timeout=20s").ok();
    assert_eq!(kubectl.run("get pods -o name").ok(), "");
}

fn delete_cascades_as_asked(site: &Site) {
    let kubectl = &site.kubectl;
    for name in ["fore", "back", "orphan"] {
        kubectl.feed("create -f -", &replicas(name, 1)).ok();
        kubectl.until(&format!("get rc {name}"), "{.status.readyReplicas}", "1");
    }
    kubectl.run("delete rc fore --cascade=foreground --timeout=30s").ok();
    assert_eq!(kubectl.run("get pods -l app=fore -o name").ok(), "", "dependents go first");
    kubectl.run("delete rc back --cascade=background --timeout=30s").ok();
    kubectl.until("get pods -l app=back", "{.items[*].metadata.name}", "");
    kubectl.run("delete rc orphan --cascade=orphan --timeout=30s").ok();
    let pod = kubectl.json("get pods -l app=orphan");
    assert_eq!(pod["items"].as_array().map(Vec::len), Some(1), "{pod}");
    kubectl.until("get pods -l app=orphan", "{.items[0].metadata.ownerReferences}", "");
    // One of the same selector takes it in, and makes no other.
    kubectl.feed("create -f -", &replicas("orphan", 1)).ok();
    kubectl.until(
        "get pods -l app=orphan",
        "{.items[*].metadata.ownerReferences[0].name}",
        "orphan",
    );
}

fn scale_changes_the_number_of_replicas(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &replicas("app", 1)).ok();
    assert_eq!(kubectl.run("scale rc app --replicas=3").ok(), "replicationcontroller/app scaled\n");
    kubectl.until("get rc app", "{.status.readyReplicas}", "3");
    contains(
        &kubectl.run("get rc").ok(),
        &["DESIRED   CURRENT   READY", "app    3         3         3"],
    );
    let wrong = kubectl.run("scale rc app --current-replicas=7 --replicas=1").refused();
    contains(&wrong, &["Expected replicas to be 7, was 3"]);
    kubectl.run("scale rc/app --current-replicas=3 --replicas=0").ok();
    kubectl.until("get pods", "{.items[*].metadata.name}", "");
    assert_eq!(kubectl.field("get rc app", "{.status.replicas}"), "0");
    contains(&kubectl.run("scale rc app --replicas=-1").refused(), &["replicas"]);
}

fn logs_are_the_lines_that_were_asked_for(site: &Site) {
    let kubectl = &site.kubectl;
    let script = "for i in 1 2 3 4 5; do echo line $i; done; echo to stderr >&2; until [ -e $GO ]; do sleep 0.1; done; echo the end";
    let go = site.cluster.scratch().join(format!("go-{}", kubectl.namespace));
    let script = script.replace("$GO", &go.display().to_string());
    kubectl.feed("create -f -", &one_shot("talks", "Never", &script)).ok();
    kubectl.run("wait --for=condition=Ready pod/talks --timeout=30s").ok();
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
    assert_eq!(kubectl.run("logs two -c a").ok(), "from a\n");
    let (last, previous) =
        (kubectl.run("logs two -c b").ok(), kubectl.run("logs two -c b --previous").ok());
    assert!(last.starts_with("run ") && previous.starts_with("run "), "{last}{previous}");
    contains(
        &kubectl.run("logs two --all-containers --prefix").ok(),
        &["[pod/two/a] from a", "[pod/two/b] run"],
    );
    contains(&kubectl.run("logs two -c c").refused(), &["container c is not valid for pod two"]);
    contains(&kubectl.run("logs nosuch").refused(), &["pods \"nosuch\" not found"]);
    contains(
        &kubectl.run("logs two -c a --previous").refused(),
        &["previous terminated container"],
    );
}

fn label_and_annotate_change_metadata(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.run("create configmap map --from-literal=a=b").ok();
    contains(&kubectl.run("label configmap map colour=green").ok(), &["labeled"]);
    contains(&kubectl.run("label configmap map colour=red").refused(), &["--overwrite"]);
    kubectl.run("label configmap map colour=red --overwrite").ok();
    assert_eq!(kubectl.field("get configmap map", "{.metadata.labels.colour}"), "red");
    contains(&kubectl.run("label configmap map colour-").ok(), &["unlabeled"]);
    assert_eq!(kubectl.field("get configmap map", "{.metadata.labels}"), "");
    kubectl.run_with("annotate configmap map", &["note=two words"]).ok();
    assert_eq!(kubectl.field("get configmap map", "{.metadata.annotations.note}"), "two words");
    kubectl.run("annotate configmap map note-").ok();
    assert_eq!(kubectl.field("get configmap map", "{.metadata.annotations}"), "");
    contains(
        &kubectl.run_with("label configmap map", &["a=not a value"]).refused(),
        &["a valid label"],
    );
}

fn wait_returns_when_the_condition_holds(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &waiting_pod("one")).ok();
    contains(
        &kubectl.run("wait --for=condition=Ready pod/one --timeout=30s").ok(),
        &["condition met"],
    );
    kubectl
        .run_with("wait pod/one --timeout=30s", &["--for=jsonpath={.status.phase}=Running"])
        .ok();
    kubectl.run("create job once --image=busybox -- sh -c true").ok();
    kubectl.run("wait --for=condition=Complete job/once --timeout=30s").ok();
    let mut waits = kubectl.lines("wait --for=delete pod/one --timeout=30s");
    kubectl.run("delete pod one --wait=false").ok();
    waits.expect("condition met");
    assert_eq!(waits.end(), 0);
    kubectl.feed("create -f -", &waiting_pod("two")).ok();
    contains(
        &kubectl.run("wait --for=condition=Nonsense pod/two --timeout=1s").refused(),
        &["timed out"],
    );
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
        &["v1\n", "batch/v1\n", "training.impresario.dev/v1\n"],
    );
    contains(&kubectl.run("version -o json").ok(), &["serverVersion", "gitVersion"]);
    contains(&kubectl.run("cluster-info").ok(), &["https://127.0.0.1:"]);
    contains(
        &kubectl.run("explain pod.spec.containers").ok(),
        &["Container", "image", "<string>", "FIELD"],
    );
    contains(&kubectl.run("explain rc --recursive").ok(), &["replicas", "selector", "template"]);
    contains(&kubectl.run("explain job.spec.backoffLimit").ok(), &["backoffLimit", "integer"]);
    contains(&kubectl.run("explain trainingjob.spec").ok(), &["trainer"]);
    contains(&kubectl.run("explain pod.nosuch").refused(), &["nosuch"]);
}

fn patches_of_three_types_are_applied(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &replicas("app", 0)).ok();
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox"}]}}}}"#;
    contains(&kubectl.run_with("patch rc app -p", &[strategic]).ok(), &["patched"]);
    let mut names: Vec<String> = kubectl
        .field("get rc app", "{.spec.template.spec.containers[*].name}")
        .split(' ')
        .map(str::to_owned)
        .collect();
    names.sort();
    assert_eq!(names, ["main", "side"], "a strategic merge goes by names");
    contains(&kubectl.run_with("patch rc app -p", &[strategic]).ok(), &["patched (no change)"]);
    let merge =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"only","image":"busybox"}]}}}}"#;
    kubectl.run_with("patch rc app --type=merge -p", &[merge]).ok();
    assert_eq!(kubectl.field("get rc app", "{.spec.template.spec.containers[*].name}"), "only");
    let json = r#"[{"op":"test","path":"/spec/replicas","value":0},{"op":"replace","path":"/spec/replicas","value":1}]"#;
    kubectl.run_with("patch rc app --type=json -p", &[json]).ok();
    assert_eq!(kubectl.field("get rc app", "{.spec.replicas}"), "1");
    let failed = kubectl.run_with("patch rc app --type=json -p", &[json]).refused();
    contains(&failed, &["/spec/replicas"]);
    kubectl
        .run_with(
            "patch rc app --subresource=status --type=merge -p",
            &[r#"{"status":{"observedGeneration":0}}"#],
        )
        .ok();
    contains(
        &kubectl.run_with("patch rc app -p", &[r#"{"spec":{"replicas":-1}}"#]).refused(),
        &["Invalid"],
    );
}

fn replace_and_edit_write_whole_objects(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.run("create configmap map --from-literal=a=1").ok();
    let object = kubectl.run("get configmap map -o yaml").ok();
    kubectl.feed("replace -f -", &object.replace("a: \"1\"", "a: \"2\"")).ok();
    assert_eq!(kubectl.field("get configmap map", "{.data.a}"), "2");
    let conflict = kubectl.feed("replace -f -", &object).refused();
    contains(&conflict, &["Conflict", "the object has been modified"]);
    let mut edit = kubectl.command("edit configmap map");
    let edited = edit.env("KUBE_EDITOR", r#"sed -i s/\"2\"/\"3\"/"#).output().unwrap();
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    assert_eq!(kubectl.field("get configmap map", "{.data.a}"), "3");
}
