//! Nodes that only pretend: a cluster of its own, since a process of many nodes is killed in it.

#![allow(clippy::unwrap_used)] // what is shared by tests fails as tests do

use impresario_e2e::{Cluster, Kubectl, Settings, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Output, Stdio};

const VERSION: &str = "1.33";
const NODES: &str = "get nodes -l impresario.dev/hollow=true";

/// What makes a pod one for hollow nodes, and nothing else.
const FOR_HOLLOW: &str = r#"
      nodeSelector: {impresario.dev/hollow: "true"}
      tolerations:
      - {key: impresario.dev/hollow, operator: Exists}
      terminationGracePeriodSeconds: 1"#;

/// With everything that a real node would have to do something for.
fn replicas(count: u32) -> String {
    format!(
        r#"
apiVersion: v1
kind: ReplicationController
metadata: {{name: app}}
spec:
  replicas: {count}
  selector: {{app: app}}
  template:
    metadata: {{labels: {{app: app}}}}
    spec:{FOR_HOLLOW}
      volumes:
      - {{name: scratch, emptyDir: {{}}}}
      initContainers:
      - {{name: first, image: none/such, command: [exit, "1"]}}
      containers:
      - name: main
        image: none/such
        volumeMounts:
        - {{name: scratch, mountPath: /scratch}}
        readinessProbe:
          httpGet: {{path: /, port: 80}}
        livenessProbe:
          exec: {{command: [no-such-command]}}
"#
    )
}

fn job(name: &str, annotations: &str) -> String {
    format!(
        r"
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  completions: 3
  parallelism: 3
  backoffLimit: 0
  template:
    metadata: {{annotations: {{{annotations}}}}}
    spec:{FOR_HOLLOW}
      restartPolicy: Never
      containers:
      - {{name: main, image: none/such}}
"
    )
}

fn groups(cluster: &Cluster) -> Vec<(u64, u64, bool)> {
    let status = cluster.status();
    let number = |group: &Value, field: &str| group[field].as_u64().unwrap();
    let of =
        |group: &Value| (number(group, "nodes"), number(group, "ready"), group["running"] == true);
    status["hollow"].as_array().unwrap().iter().map(of).collect()
}

fn group_pid(cluster: &Cluster, group: &str) -> Pid {
    let file = cluster.dir().join("hollow").join(group).join("pid");
    Pid::from_raw(std::fs::read_to_string(file).unwrap().trim().parse().unwrap())
}

fn up_with(cluster: &Cluster, more: &[&str]) -> Output {
    cluster.imp([&["up", "--detach"], more].concat()).output().unwrap()
}

/// Whether a process runs; one that only waits for its parent to take notice does not.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn uids(kubectl: &Kubectl) -> BTreeSet<String> {
    let pods = kubectl.json("get pods -l app=app");
    let pods = pods["items"].as_array().unwrap().iter();
    pods.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn hollow_nodes_take_pods_and_pretend_to_run_them_until_the_cluster_is_gone() {
    let words =
        ["--hollow", "12", "--hollow-cpu", "4", "--hollow-memory", "8Gi", "--hollow-pods", "20"];
    let arguments = words.map(str::to_owned).to_vec();
    let cluster = Cluster::start(Settings { nodes: 1, arguments, ..Settings::default() });
    let kubectl = Kubectl::new(VERSION, &cluster, "default");

    // They say what they have, and that they are hollow.
    let nodes = kubectl.json(NODES);
    let nodes = nodes["items"].as_array().unwrap();
    assert_eq!(nodes.len(), 12);
    for node in nodes {
        let capacity = &node["status"]["capacity"];
        assert_eq!((&capacity["cpu"], &capacity["memory"]), (&"4".into(), &"8Gi".into()), "{node}");
        assert_eq!(capacity["pods"], "20");
        assert_eq!(node["spec"]["taints"][0]["key"], "impresario.dev/hollow", "{node}");
    }
    assert_eq!(groups(&cluster), [(12, 12, true)]);

    // Pods that do not ask for it never come to one.
    kubectl.feed("create -f -", &job("real", "").replace(FOR_HOLLOW, "")).ok();
    eventually("the other node has all of them", || {
        let pods = kubectl.json("get pods -l job-name=real");
        let nodes: Vec<_> = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned())
            .collect();
        if nodes.len() == 3 && nodes.iter().all(|node| node == "node-1") {
            return Ok(());
        }
        Err(format!("{nodes:?}"))
    });

    // Probes pass, init containers end, volumes and images need not be there.
    kubectl.feed("create -f -", &replicas(30)).ok();
    kubectl.until("get rc app", "{.status.readyReplicas}", "30");
    let pods = kubectl.json("get pods -l app=app");
    let pods = pods["items"].as_array().unwrap();
    let is_hollow = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap().starts_with("hollow-");
    assert!(pods.iter().all(is_hollow), "{pods:?}");
    let addresses: BTreeSet<_> = pods.iter().map(|pod| pod["status"]["podIP"].as_str()).collect();
    assert_eq!(addresses.len(), 30, "each has an address of its own");
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    let log = kubectl.run(&format!("logs {name}")).ok();
    assert!(log.contains("only pretends"), "{log}");

    // They end as they are told to; what cannot be understood is said.
    kubectl.feed("create -f -", &job("good", r#"impresario.dev/hollow-run-for: "500ms""#)).ok();
    let bad = r#"impresario.dev/hollow-run-for: "0s", impresario.dev/hollow-exit-code: "3""#;
    kubectl.feed("create -f -", &job("bad", bad)).ok();
    kubectl.feed("create -f -", &job("odd", r#"impresario.dev/hollow-run-for: "soon""#)).ok();
    let condition = |kind: &str| format!("{{.status.conditions[?(@.type==\"{kind}\")].status}}");
    kubectl.until("get job good", &condition("Complete"), "True");
    kubectl.until("get job bad", &condition("Failed"), "True");
    let reason = "{.items[0].status.containerStatuses[0].state.waiting.reason}";
    kubectl.until("get pods -l job-name=odd", reason, "CreateContainerConfigError");
    kubectl.run("delete job good bad odd real").ok();

    // More of them come as a process of their own, and fewer not at all.
    let before = uids(&kubectl);
    let up = |hollow: &str| up_with(&cluster, &["--hollow", hollow]);
    let more = up("15");
    assert!(more.status.success(), "{more:?}");
    assert_eq!(groups(&cluster), [(12, 12, true), (3, 3, true)]);
    let fewer = up("5");
    let complaint = String::from_utf8_lossy(&fewer.stderr).into_owned();
    assert!(!fewer.status.success() && complaint.contains("15 hollow nodes, not 5"), "{complaint}");
    assert!(complaint.contains("--hollow 0"), "{complaint}");
    assert_eq!(uids(&kubectl), before, "pods of those that were there go on");
    // The same command once more changes nothing; what is said of their size is said of those that come.
    let resized = || up_with(&cluster, &["--hollow", "18", "--hollow-cpu", "9"]);
    assert!(resized().status.success() && resized().status.success());
    assert_eq!(groups(&cluster), [(12, 12, true), (3, 3, true), (3, 3, true)]);

    // A label makes no node hollow, and none real.
    kubectl.run("label node node-1 impresario.dev/hollow=true").ok();
    kubectl.run("label node hollow-3 impresario.dev/hollow-").ok();
    let again = up_with(&cluster, &[]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(groups(&cluster)[0], (12, 12, true));
    kubectl.run("label node node-1 impresario.dev/hollow-").ok();
    kubectl.run("label node hollow-3 impresario.dev/hollow=true").ok();

    // The end of a process is a restart of its machines.
    let killed = group_pid(&cluster, "group-1");
    kill(killed, Signal::SIGKILL).unwrap();
    eventually("its end is seen", || {
        let groups = groups(&cluster);
        if groups[0].2 { Err(format!("{groups:?}")) } else { Ok(()) }
    });
    let again = cluster.imp(["up", "--detach"]).output().unwrap();
    assert!(again.status.success(), "{again:?}");
    assert_ne!(group_pid(&cluster, "group-1"), killed);
    kubectl.until("get rc app", "{.status.readyReplicas}", "30");
    assert_eq!(uids(&kubectl), before, "the same pods");
    eventually("their containers were started anew", || {
        let pods = kubectl.json("get pods -l app=app");
        let count = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        let anew = pods["items"].as_array().unwrap().iter().filter(|p| count(p) > Some(0)).count();
        if anew > 0 { Ok(()) } else { Err(pods.to_string()) }
    });
    kubectl.run("scale rc app --replicas=0").ok();
    kubectl.until("get pods -l app=app", "{.items}", "[]");

    // Who is interrupted while more are made takes those away again, and no others.
    let mut interrupted = cluster.imp(["up", "--detach", "--hollow", "218"]);
    let interrupted = interrupted.stderr(Stdio::piped()).spawn().unwrap();
    eventually("they are written down", || {
        let file = cluster.dir().join("hollow/group-4/hollow.json");
        if file.exists() { Ok(()) } else { Err("not yet".to_owned()) }
    });
    kill(Pid::from_raw(interrupted.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let interrupted = interrupted.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&interrupted.stderr).into_owned();
    assert!(!interrupted.status.success() && said.contains("had made are gone"), "{said}");
    assert_eq!(groups(&cluster), [(12, 12, true), (3, 3, true), (3, 3, true)]);
    assert_eq!(kubectl.json(NODES)["items"].as_array().unwrap().len(), 18);

    // All can be had away, and come anew.
    let left = ["group-1", "group-2", "group-3"].map(|group| group_pid(&cluster, group));
    let senseless = up_with(&cluster, &["--hollow", "0", "--hollow-cpu", "4"]);
    assert!(!senseless.status.success(), "{senseless:?}");
    let none = up("0");
    let said = String::from_utf8_lossy(&none.stdout).into_owned();
    assert!(none.status.success() && said.contains("18 nodes"), "{none:?}");
    assert_eq!(groups(&cluster), []);
    assert_eq!(kubectl.json(NODES)["items"], serde_json::json!([]));
    for pid in left {
        eventually("its process is gone", || if runs(pid) { Err(pid.to_string()) } else { Ok(()) });
    }
    assert!(up("0").status.success(), "there are none to take away");
    assert!(up("2").status.success());
    assert_eq!(groups(&cluster), [(2, 2, true)]);

    // With the cluster all is gone.
    let left = group_pid(&cluster, "group-1");
    let folder = cluster.dir().to_owned();
    cluster.down().unwrap();
    assert!(!folder.exists());
    eventually("its process is gone", || if runs(left) { Err(left.to_string()) } else { Ok(()) });
}
