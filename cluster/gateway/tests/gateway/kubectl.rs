//! kubectl of three generations against the gateway.

use crate::harness::{Harness, Kubectl};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

const VERSIONS: [&str; 3] = ["1.27", "1.30", "1.33"];

const CONTROLLER: &str = "
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 2
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: 'busybox:1', command: [sleep, '1']}
      - {name: side, image: 'busybox:1', env: [{name: A, value: '1'}, {name: B, value: '2'}]}
";

async fn each(test: impl AsyncFn(&Harness, &Kubectl)) {
    for version in VERSIONS {
        let server = Harness::start().await;
        test(&server, &server.kubectl(version)).await;
    }
}

#[tokio::test]
async fn it_finds_out_what_is_served() {
    each(async |_, kubectl| {
        let version: Value =
            serde_json::from_str(&kubectl.good(&["version", "-o", "json"]).await).unwrap();
        assert_eq!(version["serverVersion"]["gitVersion"], impresario_gateway::GIT_VERSION);
        let resources = kubectl.good(&["api-resources"]).await;
        for word in ["pods", "replicationcontrollers", "batch/v1", "trainingjobs", "configmaps"] {
            assert!(resources.contains(word), "{word} in {resources}");
        }
        assert!(kubectl.good(&["api-versions"]).await.contains("training.impresario.dev/v1"));
        let explained = kubectl.good(&["explain", "pods.spec.containers"]).await;
        assert!(explained.contains("image") && explained.contains("volumeMounts"), "{explained}");
        assert!(kubectl.good(&["explain", "trainingjobs.spec"]).await.contains("trainer"));
        kubectl.good(&["cluster-info"]).await;
    })
    .await;
}

#[tokio::test]
async fn it_creates_changes_and_deletes_objects() {
    each(async |_, kubectl| {
        kubectl.good(&["create", "namespace", "work"]).await;
        kubectl.good(&["create", "configmap", "c", "--from-literal=a=b", "-n", "work"]).await;
        kubectl.good(&["create", "job", "j", "--image=busybox", "-n", "work", "--", "true"]).await;
        kubectl.good(&["run", "p", "--image=busybox", "-n", "work"]).await;
        kubectl.good(&["expose", "pod", "p", "--port=80", "-n", "work"]).await;
        assert!(kubectl.good(&["get", "svc", "p", "-n", "work"]).await.contains("127.96."));
        let pods = kubectl.good(&["get", "pods", "-A", "-o", "wide"]).await;
        assert!(pods.contains("Pending") && pods.contains("NODE"), "{pods}");
        assert_eq!(
            kubectl.good(&["get", "cm", "c", "-n", "work", "-o", "jsonpath={.data.a}"]).await,
            "b"
        );
        kubectl.good(&["label", "cm", "c", "tier=web", "-n", "work"]).await;
        kubectl.good(&["annotate", "cm", "c", "note=x", "-n", "work"]).await;
        assert!(
            kubectl
                .good(&["get", "cm", "-l", "tier=web", "-A", "-o", "name"])
                .await
                .contains("configmap/c")
        );
        kubectl
            .good(&["wait", "--for=jsonpath={.data.a}=b", "cm/c", "-n", "work", "--timeout=20s"])
            .await;
        let described = kubectl.good(&["describe", "pod", "p", "-n", "work"]).await;
        assert!(described.contains("Image:") && described.contains("busybox"), "{described}");
        kubectl.good(&["describe", "job", "j", "-n", "work"]).await;
        kubectl.good(&["describe", "svc", "p", "-n", "work"]).await;
        kubectl.good(&["patch", "cm", "c", "-n", "work", "-p", r#"{"data":{"z":"1"}}"#]).await;
        kubectl
            .good(&[
                "patch",
                "cm",
                "c",
                "-n",
                "work",
                "--type=json",
                "-p",
                r#"[{"op":"remove","path":"/data/z"}]"#,
            ])
            .await;
        kubectl
            .good(&["delete", "pod/p", "svc/p", "cm/c", "job/j", "-n", "work", "--timeout=20s"])
            .await;
        let missing = kubectl.run(&["get", "cm", "c", "-n", "work"]).await;
        assert_eq!(missing.err.trim(), "Error from server (NotFound): configmaps \"c\" not found");
    })
    .await;
}

#[tokio::test]
async fn it_applies_edits_of_lists_and_scales() {
    each(async |_, kubectl| {
        let file = kubectl.manifest("rc.yaml", CONTROLLER);
        assert!(kubectl.good(&["apply", "-f", &file]).await.contains("created"));
        assert!(kubectl.good(&["apply", "-f", &file]).await.contains("unchanged"));
        let shorter = CONTROLLER.lines().filter(|line| !line.contains("side")).collect::<Vec<_>>().join("\n");
        let file = kubectl.manifest("rc.yaml", &shorter.replace("'1'", "'9'"));
        assert!(kubectl.good(&["apply", "-f", &file]).await.contains("configured"));
        let names = "jsonpath={.spec.template.spec.containers[*].name} {.spec.template.spec.containers[0].command}";
        assert_eq!(kubectl.good(&["get", "rc", "web", "-o", names]).await, r#"main ["sleep","9"]"#);
        assert!(kubectl.good(&["scale", "rc", "web", "--replicas=5"]).await.contains("scaled"));
        kubectl.good(&["scale", "rc", "web", "--current-replicas=5", "--replicas=3"]).await;
        assert_eq!(kubectl.good(&["get", "rc", "web", "-o", "jsonpath={.spec.replicas}"]).await, "3");
        kubectl.good(&["set", "image", "rc/web", "main=busybox:2"]).await;
        let said = kubectl.run(&["diff", "-f", &file]).await;
        assert!(!said.ok && said.out.contains("-        image: busybox:2"), "{said:?}");
        kubectl.good(&["delete", "-f", &file]).await;
    })
    .await;
}

#[tokio::test]
async fn it_is_told_what_is_wrong_with_a_manifest() {
    each(async |_, kubectl| {
        let misspelt = CONTROLLER.replace("replicas: 2", "replicsa: 2");
        let file = kubectl.manifest("bad.yaml", &misspelt);
        for verb in ["create", "apply"] {
            let said = kubectl.run(&[verb, "-f", &file]).await;
            assert!(!said.ok && said.err.contains("unknown field \"spec.replicsa\""), "{said:?}");
        }
        let warned = kubectl.run(&["create", "-f", &file, "--validate=warn"]).await;
        assert!(
            warned.ok && warned.err.contains("Warning: unknown field \"spec.replicsa\""),
            "{warned:?}"
        );
        let file = kubectl.manifest(
            "bad.yaml",
            &CONTROLLER
                .replace("selector: {app: web}", "selector: {app: x}")
                .replace("name: web}", "name: w2}"),
        );
        let said = kubectl.run(&["create", "-f", &file]).await;
        assert!(
            said.err.contains("is invalid") && said.err.contains("spec.template.metadata.labels"),
            "{said:?}"
        );
        let file =
            kubectl.manifest("bad.yaml", "apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n");
        let said = kubectl.run(&["create", "-f", &file]).await;
        assert!(said.err.contains("no matches for kind \"Nothing\""), "{said:?}");
        let dry = kubectl.manifest("rc.yaml", &CONTROLLER.replace("name: web}", "name: dry}"));
        kubectl.good(&["create", "-f", &dry, "--dry-run=server"]).await;
    })
    .await;
}

#[tokio::test]
async fn it_follows_changes_as_they_happen() {
    each(async |server, kubectl| {
        let mut child = kubectl.command(&["get", "cm", "-w", "-o", "name"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = async || {
            let line = tokio::time::timeout(Duration::from_secs(120), lines.next_line()).await;
            line.expect("a line in time").unwrap().expect("one more line")
        };
        // What every namespace has.
        assert_eq!(next().await, "configmap/kube-root-ca.crt");
        let path = "/api/v1/namespaces/default/configmaps";
        server.ask("POST", path, &json!({"metadata": {"name": "late"}})).await;
        assert_eq!(next().await, "configmap/late");
        server.ask("DELETE", &format!("{path}/late"), &json!(null)).await;
        assert_eq!(next().await, "configmap/late");
        child.kill().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn it_waits_until_a_pod_is_deleted_or_a_condition_holds() {
    each(async |server, kubectl| {
        kubectl.good(&["run", "p", "--image=busybox"]).await;
        let waiting = kubectl
            .command(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"])
            .spawn()
            .unwrap();
        let path = "/api/v1/namespaces/default/pods/p";
        let status = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let reported = server.ask("PATCH", &format!("{path}/status"), &status).await;
        assert_eq!(reported.code, 200, "{}", reported.json());
        let output = waiting.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(kubectl.good(&["get", "pods"]).await.contains("Running"));
        kubectl.good(&["delete", "pod", "p", "--timeout=30s"]).await;
        kubectl.good(&["wait", "--for=delete", "pod/p", "--timeout=30s"]).await;
    })
    .await;
}

#[tokio::test]
async fn it_applies_on_the_server() {
    each(async |_, kubectl| {
        let apply = async |manifest: &str, words: &[&str]| {
            let file = kubectl.manifest("rc.yaml", manifest);
            let mut all = vec!["apply", "--server-side", "-f", &file];
            all.extend(words);
            kubectl.run(&all).await
        };
        let image = |image: &str| {
            CONTROLLER.replace("'busybox:1', command", &format!("'{image}', command"))
        };
        let said = apply(CONTROLLER, &[]).await;
        assert!(said.ok && said.out.contains("serverside-applied"), "{said:?}");
        let said = apply(&image("busybox:2"), &["--field-manager=other"]).await;
        assert!(!said.ok && said.err.contains("conflict with \"kubectl\""), "{said:?}");
        let said =
            apply(&image("busybox:2"), &["--field-manager=other", "--force-conflicts"]).await;
        assert!(said.ok, "{said:?}");
        let shown = kubectl.good(&["get", "rc", "web", "-o", "yaml"]).await;
        assert!(shown.contains("busybox:2") && !shown.contains("managedFields"), "{shown}");
        let shown =
            kubectl.good(&["get", "rc", "web", "-o", "yaml", "--show-managed-fields"]).await;
        assert!(shown.contains("manager: other") && shown.contains("f:containers"), "{shown}");
        kubectl.good(&["delete", "rc", "web"]).await;

        // From what the client applied to what the server applies: what goes from the manifest goes from the object.
        let file = kubectl.manifest("rc.yaml", CONTROLLER);
        kubectl.good(&["apply", "-f", &file]).await;
        let shorter =
            CONTROLLER.lines().filter(|line| !line.contains("side")).collect::<Vec<_>>().join("\n");
        let said = apply(&shorter, &[]).await;
        assert!(said.ok, "{said:?}");
        let names = "jsonpath={.spec.template.spec.containers[*].name}";
        assert_eq!(kubectl.good(&["get", "rc", "web", "-o", names]).await, "main");
    })
    .await;
}
