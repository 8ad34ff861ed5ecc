//! The manifests that several tests use.

use impresario_e2e::Site;
use std::path::{Path, PathBuf};

/// A pod that writes one line and waits.
pub fn waiting_pod(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}, kind: waiting}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: main, image: busybox, command: [sh, -c, "echo I am {name}; exec sleep 600"]}}
"#
    )
}

/// What keeps pods that wait, of this kind of `apps/v1`; `spec` and `container` are further fields of its own and of
/// its container.
pub fn workload(kind: &str, name: &str, spec: &str, container: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
{spec}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [sleep, "600"]
{container}
"#
    )
}

/// A folder of the test's own, which [`noting_pod`] sees at `/notes`.
pub fn notes(site: &Site) -> PathBuf {
    let folder = site.cluster.scratch().join(&site.kubectl.namespace);
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// A pod that sees the folder at `/notes` and runs this script; `more` are further fields of its container.
pub fn noting_pod(name: &str, folder: &Path, script: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 20
  volumes: [{{name: notes, hostPath: {{path: {}, type: Directory}}}}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "{script}"]
    volumeMounts: [{{name: notes, mountPath: /notes}}]
{more}
"#,
        folder.display()
    )
}

/// A pod of one command that is not started again.
pub fn one_shot(name: &str, restart: &str, script: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: {restart}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: [sh, -c]
    args:
    - |
      {script}
",
        script = script.trim().replace('\n', "\n      ")
    )
}

/// A replication controller whose pods wait.
pub fn replicas(name: &str, count: u32) -> String {
    format!(
        r#"
apiVersion: v1
kind: ReplicationController
metadata: {{name: {name}}}
spec:
  replicas: {count}
  selector: {{app: {name}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: busybox, command: [sleep, "600"]}}
"#
    )
}

/// A replication controller whose pods serve their names by HTTP at port 8080, ready once they do.
/// Asked to stop, they finish what is under way: the news that they leave takes a moment.
pub fn web(name: &str, count: u32) -> String {
    format!(
        r#"
apiVersion: v1
kind: ReplicationController
metadata: {{name: {name}}}
spec:
  replicas: {count}
  selector: {{app: {name}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 30
      volumes: [{{name: pages, emptyDir: {{}}}}]
      containers:
      - name: http
        image: busybox
        command: [sh, -c, "echo $HOSTNAME > $PAGES/index.html; trap 'sleep 5; exit 0' TERM; busybox httpd -f -p $POD_IP:8080 -h $PAGES & wait"]
        env:
        - {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
        - {{name: PAGES, value: /pages}}
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1, timeoutSeconds: 20}}
        volumeMounts: [{{name: pages, mountPath: /pages}}]
"#
    )
}
