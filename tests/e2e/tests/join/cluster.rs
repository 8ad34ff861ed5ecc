//! A cluster of real processes for one test, gone with all it started when dropped.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No passing test spends it.
const LIMIT: Duration = Duration::from_secs(180);

fn binary(name: &str) -> PathBuf {
    // target/debug/deps/join-… -> target/debug/NAME
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

/// The program.
pub fn imp() -> PathBuf {
    binary("imp")
}

/// The SDK's example.
pub fn example() -> PathBuf {
    binary("impresario-sdk-example")
}

/// Looks until there is an answer.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process of a test; killed when dropped, and what a node has left with it.
pub struct Process {
    child: Child,
    node: Option<PathBuf>,
}

impl Process {
    /// Starts it.
    pub fn spawn(mut command: Command) -> Self {
        Self { child: command.stdin(Stdio::null()).spawn().unwrap(), node: None }
    }

    /// Starts the node of this folder.
    pub fn node(command: Command, folder: &Path) -> Self {
        let mut process = Self::spawn(command);
        process.node = Some(folder.to_owned());
        process
    }

    /// Fails when it has ended.
    pub fn must_run(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {ended:?}");
    }

    /// What it prints, when that was asked for.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(folder) = &self.node {
            down(folder, &[]);
        }
    }
}

/// What `imp token create` says.
pub struct Token {
    /// The token.
    pub secret: String,
    /// Where to join.
    pub address: String,
    /// When it ends.
    pub expires: u64,
}

/// The cluster of one test.
pub struct Cluster {
    folder: tempfile::TempDir,
    nodes: u16,
    arguments: Vec<&'static str>,
    environment: Vec<(String, String)>,
}

impl Cluster {
    /// Brings it up.
    pub fn up(nodes: u16, environment: &[(&str, &Path)]) -> Self {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.display().to_string()))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let cluster = Self { folder, nodes, arguments: Vec::new(), environment };
        let said = cluster.start();
        assert!(!said.contains("Other machines"), "nobody reaches it: {said}");
        cluster
    }

    /// Brings one up that lets other machines in, and says 127.0.0.1 of itself.
    pub fn open(nodes: u16) -> Self {
        let arguments = vec!["--listen", "0.0.0.0", "--address", "127.0.0.1"];
        let folder = tempfile::tempdir().unwrap();
        let cluster = Self { folder, nodes, arguments, environment: Vec::new() };
        let said = cluster.start();
        assert!(said.contains("Other machines reach it: it listens on 0.0.0.0."), "{said}");
        cluster
    }

    /// Starts what does not run of it; what that says.
    pub fn start(&self) -> String {
        let nodes = self.nodes.to_string();
        let output = Command::new(imp())
            .args(["up", "--detach", "--api-port", "0", "--nodes", &nodes, "--data-dir"])
            .arg(self.dir())
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        assert!(output.status.success(), "imp up: {}", String::from_utf8_lossy(&output.stderr));
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// Kills the process of a node of it, as a power cut would.
    pub fn kill(&self, node: &str) {
        let pid = std::fs::read_to_string(self.dir().join("nodes").join(node).join("pid")).unwrap();
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// A new token.
    pub fn token(&self, role: &str, ttl: &str) -> Token {
        let output = Command::new(imp())
            .args(["token", "create", "--role", role, "--ttl", ttl, "-o", "json", "--data-dir"])
            .arg(self.dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        Token {
            secret: made["token"].as_str().unwrap().to_owned(),
            address: made["address"].as_str().unwrap().to_owned(),
            expires: made["expiresUnixSeconds"].as_u64().unwrap(),
        }
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(self.dir().join("kubeconfig"))
            .args(arguments)
            .env("HOME", self.folder.path()) // its cache
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl: tests/run installs it");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What kubectl prints; it must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_with(arguments, "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Applies manifests.
    pub fn apply(&self, manifest: &str) {
        let output = self.kubectl_with(&["apply", "-f", "-"], manifest);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl apply: {error}\n{manifest}");
    }

    /// Waits until the pod runs; what is known of it when it does not.
    pub fn running(&self, pod: &str) {
        let wait =
            ["wait", "pod", pod, "--for", "jsonpath={.status.phase}=Running", "--timeout", "120s"];
        let output = self.kubectl_with(&wait, "");
        assert!(
            output.status.success(),
            "{pod} does not run:\n{}",
            self.kubectl(&["describe", "pod", pod])
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        down(&self.dir(), &["--purge"]);
    }
}

/// The command lines of the processes that work in a folder, but for those that are being reaped.
pub fn processes_of(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&folder.display().to_string())).collect()
}

/// `imp down`.
pub fn down(folder: &Path, flags: &[&str]) {
    let output = Command::new(imp()).arg("down").args(flags).arg("--data-dir").arg(folder).output();
    if let Ok(output) = output
        && !output.status.success()
    {
        eprintln!("imp down: {}", String::from_utf8_lossy(&output.stderr));
    }
}
