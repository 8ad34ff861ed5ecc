//! The docker driver as a user meets it: `imp up --driver docker` on an engine of the test's own, in
//! a network namespace of its own. A pod of two containers with a shared volume runs, logs,
//! restarts, outlives its node's process, stops when it is asked, and leaves nothing behind.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a suite fails by panicking

use impresario_e2e::{Cluster, Kubectl, Settings, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const IMAGE: &str = "impresario-test/busybox:1";
const PROGRAMS: [&str; 7] = ["sh", "cat", "date", "hostname", "mkdir", "sleep", "touch"];
const LIMIT: Duration = Duration::from_secs(180);

/// An engine with its own socket, folders and bridge; gone when it is dropped.
struct Engine {
    folder: tempfile::TempDir,
    daemon: Child,
}

impl Engine {
    fn start() -> Self {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "the docker driver is tested with an engine of its own, which needs root: \
             run the tests as root"
        );
        // Sockets have short paths only.
        let folder = tempfile::Builder::new().prefix("imp-d").tempdir_in("/tmp").unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let log = fs::File::create(path("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; exec dockerd \"$@\"", "dockerd"])
            .arg(format!("--host=unix://{}", path("sock")))
            .arg(format!("--data-root={}", path("data")))
            .arg(format!("--exec-root={}", path("exec")))
            .arg(format!("--pidfile={}", path("pid")))
            .args(["--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("unshare is part of util-linux");
        let mut engine = Self { folder, daemon };
        let begin = Instant::now();
        while !engine.docker(&["version"]).status.success() {
            let ended = engine.daemon.try_wait().unwrap();
            let log = fs::read_to_string(engine.path("log")).unwrap_or_default();
            assert!(
                ended.is_none() && begin.elapsed() < LIMIT,
                "dockerd does not start (apt-get install docker.io iproute2):\n{log}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        engine.import();
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    fn docker(&self, args: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.args(["-H", &self.host()]).args(args);
        command.output().expect("docker is not installed: apt-get install docker.io")
    }

    /// An image of nothing but busybox.
    fn import(&self) {
        let root = self.path("rootfs");
        for folder in ["bin", "tmp", "proc"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let busybox = root.join("bin/busybox");
        fs::copy("/usr/bin/busybox", &busybox)
            .or_else(|_| fs::copy("/bin/busybox", &busybox))
            .expect("busybox is not installed: apt-get install busybox-static");
        for name in PROGRAMS {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let image = self.path("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(&image).arg(".");
        assert!(tar.status().unwrap().success());
        let imported = self.docker(&["import", image.to_str().unwrap(), IMAGE]);
        assert!(imported.status.success(), "{imported:?}");
    }

    /// The names of all containers, whatever their state.
    fn containers(&self) -> Vec<String> {
        let listed = self.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        assert!(listed.status.success(), "{listed:?}");
        String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.daemon.id()).unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let begin = Instant::now();
        while self.daemon.try_wait().is_ok_and(|ended| ended.is_none()) {
            if begin.elapsed() > LIMIT {
                let _ = self.daemon.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

const TWO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  terminationGracePeriodSeconds: 5
  volumes: [{name: shared, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
  containers:
  - name: writer
    image: impresario-test/busybox:1
    command: [sh, -c, "trap 'echo the end is near; exit 7' TERM; hostname > /shared/name; echo up; while true; do sleep 0.1; done"]
    volumeMounts: [{name: shared, mountPath: /shared}, {name: memory, mountPath: /memory}]
  - name: reader
    image: impresario-test/busybox:1
    command: [sh, -c, "until [ -s /shared/name ]; do sleep 0.1; done; cat /shared/name; echo $COLOUR; if [ -e /shared/again ]; then sleep 1000; fi; touch /shared/again; exit 3"]
    env: [{name: COLOUR, value: blue}]
    volumeMounts: [{name: shared, mountPath: /shared}]
"#;

const CODES: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: codes}
spec:
  restartPolicy: Never
  containers:
  - {name: fails, image: "impresario-test/busybox:1", command: [sh, -c, "exit 42"]}
  - {name: killed, image: "impresario-test/busybox:1", command: [sh, -c, "sleep 100 & kill -9 $!; wait $!"]}
  - {name: missing, image: "impresario-test/busybox:1", command: [/no/such/program]}
---
apiVersion: v1
kind: Pod
metadata: {name: without}
spec:
  containers:
  - {name: a, image: "impresario-test/absent:1", imagePullPolicy: Never}
"#;

fn state(container: &str, field: &str) -> String {
    format!("{{.status.containerStatuses[?(@.name==\"{container}\")].{field}}}")
}

#[test]
fn pods_run_in_docker_and_leave_no_container_behind() {
    let engine = Engine::start();
    let cluster = Cluster::start(Settings {
        nodes: 1,
        arguments: vec!["--driver".into(), "docker".into()],
        // Said once: what `imp` does later with this cluster is done with this engine.
        environment: vec![("DOCKER_HOST".into(), engine.host())],
        ..Settings::default()
    });
    let kubectl = Kubectl::new("1.30", &cluster, "default");
    kubectl.feed("apply -f -", TWO).ok();
    kubectl.feed("apply -f -", CODES).ok();

    // It fails once, and runs again beside the other, which is left alone.
    kubectl.until("get pod two", &state("reader", "restartCount"), "1");
    kubectl.until("get pod two", "{.status.phase}", "Running");
    kubectl.run("wait --for=condition=Ready pod/two --timeout=120s").ok();
    let last = state("reader", "lastState.terminated.exitCode");
    assert_eq!(kubectl.field("get pod two", &last), "3");
    assert_eq!(kubectl.field("get pod two", &state("writer", "restartCount")), "0");
    for earlier in ["", " --previous"] {
        let line = format!("logs two -c reader{earlier}");
        eventually(&line, || {
            let said = kubectl.run(&line);
            (said.out == "two\nblue\n").then_some(()).ok_or(format!("{said:?}"))
        });
    }
    the_pods_address_is_the_engines(&engine, &kubectl);
    exit_codes_are_told(&kubectl);
    containers_outlive_their_nodes_process(&cluster, &kubectl);

    // A container that is asked to stop may say its last words.
    let mut words = kubectl.lines("logs -f two -c writer");
    words.expect("up");
    kubectl.run("delete pod two --wait=false").ok();
    words.expect("the end is near");
    kubectl.run("wait --for=delete pod/two --timeout=120s").ok();
    let left = engine.containers();
    assert!(left.iter().all(|name| !name.contains("-writer-")), "{left:?}");

    // `imp down` ends what runs, and also what only has been prepared (the pod without an image).
    kubectl.feed("apply -f -", TWO).ok();
    kubectl.run("wait --for=condition=Ready pod/two --timeout=120s").ok();
    assert!(!engine.containers().is_empty());
    let folder = cluster.dir().display().to_string();
    let down = cluster.imp(["down"]).output().unwrap();
    assert!(down.status.success(), "{down:?}");
    assert_eq!(engine.containers(), Vec::<String>::new(), "containers are left");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&folder), "{mounts}");
    cluster.down().unwrap();
}

fn the_pods_address_is_the_engines(engine: &Engine, kubectl: &Kubectl) {
    let uid = kubectl.field("get pod two", "{.metadata.uid}");
    let names = engine.containers();
    let sandbox = names.iter().find(|name| name.contains(&uid) && name.ends_with("-sandbox"));
    let format = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
    let told = engine.docker(&["inspect", "--format", format, sandbox.expect("a sandbox")]);
    let told = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    assert!(!told.is_empty());
    assert_eq!(kubectl.field("get pod two", "{.status.podIP}"), told);
}

fn exit_codes_are_told(kubectl: &Kubectl) {
    kubectl.until("get pod codes", "{.status.phase}", "Failed");
    let code = |name| kubectl.field("get pod codes", &state(name, "state.terminated.exitCode"));
    assert_eq!((code("fails"), code("killed")), ("42".into(), "137".into()));
    let reason = kubectl.field("get pod codes", &state("missing", "state.terminated.reason"));
    assert_eq!((code("missing"), reason), ("127".into(), "StartError".into()));
    let waits = state("a", "state.waiting.reason");
    kubectl.until("get pod without", &waits, "ErrImageNeverPull");
}

/// The process is killed; the next one takes the container over as it is.
fn containers_outlive_their_nodes_process(cluster: &Cluster, kubectl: &Kubectl) {
    let since = state("writer", "state.running.startedAt");
    let id = state("writer", "containerID");
    let see = || (kubectl.field("get pod two", &since), kubectl.field("get pod two", &id));
    let before = see();
    cluster.kill("node-1");
    cluster.up();
    kubectl.run("wait --for=condition=Ready pod/two --timeout=120s").ok();
    assert_eq!(see(), before);
}
