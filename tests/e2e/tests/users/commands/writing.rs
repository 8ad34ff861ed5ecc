//! Commands that make, change and delete.

use super::contains;
use crate::manifests::{replicas, waiting_pod};
use impresario_e2e::{Site, with_every_kubectl};

with_every_kubectl!(
    create_makes_what_is_not_there,
    run_and_expose_make_a_pod_and_a_service,
    apply_changes_what_the_manifest_changed,
    delete_waits_until_all_is_gone,
    delete_cascades_as_asked,
    scale_changes_the_number_of_replicas,
    label_and_annotate_change_metadata,
    patches_of_three_types_are_applied,
    replace_and_edit_write_whole_objects,
);

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
    kubectl.run("wait --for=condition=Ready pod/web --timeout=120s").ok();
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
    kubectl.run("wait --for=condition=Ready pod --all --timeout=120s").ok();
    assert_eq!(kubectl.run("delete pod one --timeout=120s").ok().lines().count(), 1);
    contains(&kubectl.run("get pod one").refused(), &["NotFound"]);
    kubectl.run("delete pods -l app=two --timeout=120s").ok();
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
    kubectl.run("delete pods --all --timeout=120s").ok();
    assert_eq!(kubectl.run("get pods -o name").ok(), "");
}

fn delete_cascades_as_asked(site: &Site) {
    let kubectl = &site.kubectl;
    for name in ["fore", "back", "orphan"] {
        kubectl.feed("create -f -", &replicas(name, 1)).ok();
        kubectl.until(&format!("get rc {name}"), "{.status.readyReplicas}", "1");
    }
    kubectl.run("delete rc fore --cascade=foreground --timeout=120s").ok();
    assert_eq!(kubectl.run("get pods -l app=fore -o name").ok(), "", "dependents go first");
    kubectl.run("delete rc back --cascade=background --timeout=120s").ok();
    kubectl.until("get pods -l app=back", "{.items[*].metadata.name}", "");
    kubectl.run("delete rc orphan --cascade=orphan --timeout=120s").ok();
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
    kubectl.until("get rc app", "{.status.replicas}", "0");
    contains(&kubectl.run("scale rc app --replicas=-1").refused(), &["replicas"]);
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
