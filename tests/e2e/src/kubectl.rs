//! kubectl in the versions that users have, and a place for a test to use it in.

use crate::{Cluster, eventually};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};

/// The oldest, a middle and the newest version that must work.
pub const VERSIONS: [&str; 3] = ["1.27", "1.30", "1.33"];
/// Where versions are besides `PATH`.
const FOLDERS: [&str; 2] = ["/usr/lib/google-cloud-sdk/bin", "/root/google-cloud-sdk/bin"];

/// A kubectl for one cluster and one namespace.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    /// Its version, such as `1.30`.
    pub version: String,
    kubeconfig: PathBuf,
    cache: PathBuf,
    /// The namespace of its commands.
    pub namespace: String,
}

/// What a command has printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// The output of a command that had to succeed.
    ///
    /// # Panics
    /// When it did not.
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{} → {}\n{}{}", self.command, self.code, self.out, self.err);
        self.out
    }

    /// The complaint of a command that had to fail.
    ///
    /// # Panics
    /// When it succeeded.
    pub fn refused(self) -> String {
        assert!(self.code != 0, "{} → 0\n{}{}", self.command, self.out, self.err);
        self.err
    }
}

fn version_of(program: &PathBuf) -> Option<String> {
    let output = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let value: Value = serde_json::from_slice(&output.stdout).ok()?;
    let version = &value["clientVersion"];
    let minor = version["minor"].as_str()?.trim_end_matches('+');
    Some(format!("{}.{minor}", version["major"].as_str()?))
}

fn find(version: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(FOLDERS.iter().map(PathBuf::from)).collect();
    let names = [format!("kubectl.{version}"), format!("kubectl-{version}"), "kubectl".to_owned()];
    for folder in &folders {
        for name in &names {
            let program = folder.join(name);
            if program.exists() && version_of(&program).as_deref() == Some(version) {
                return program;
            }
        }
    }
    panic!(
        "kubectl {version} is not installed: put it into PATH as kubectl.{version} \
         (https://dl.k8s.io/release/v{version}.0/bin/linux/amd64/kubectl); looked into {folders:?}"
    );
}

impl Kubectl {
    /// kubectl of this version, such as `1.30`, for a cluster.
    ///
    /// # Panics
    /// When the version is not installed.
    pub fn new(version: &str, cluster: &Cluster, namespace: &str) -> Self {
        Self {
            program: find(version),
            version: version.to_owned(),
            kubeconfig: cluster.kubeconfig(),
            cache: cluster.scratch().join(format!("cache-{version}")),
            namespace: namespace.to_owned(),
        }
    }

    /// Where this version is.
    ///
    /// # Panics
    /// When it is not installed.
    pub fn program(version: &str) -> PathBuf {
        find(version)
    }

    /// A command that is not started yet. Arguments are separated by blanks; what holds blanks
    /// itself goes to [`Command::arg`].
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(line.split_whitespace())
            .env("KUBECACHEDIR", &self.cache)
            .stdin(Stdio::null());
        command
    }

    /// Runs `kubectl LINE`.
    pub fn run(&self, line: &str) -> Output {
        self.finish(line, self.command(line), None)
    }

    /// Runs `kubectl LINE ARGUMENT...`, where arguments may hold anything.
    pub fn run_with(&self, line: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(line);
        command.args(arguments);
        self.finish(&format!("{line} {}", arguments.join(" ")), command, None)
    }

    /// Runs `kubectl LINE` with `input` as its standard input.
    pub fn feed(&self, line: &str, input: &str) -> Output {
        self.finish(line, self.command(line), Some(input))
    }

    /// `kubectl LINE -o json`, parsed.
    pub fn json(&self, line: &str) -> Value {
        let text = self.run(&format!("{line} -o json")).ok();
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// `kubectl LINE -o jsonpath=PATH`.
    pub fn field(&self, line: &str, path: &str) -> String {
        self.run_with(line, &["-o", &format!("jsonpath={path}")]).ok()
    }

    /// Waits until `kubectl LINE -o jsonpath=PATH` prints `wanted`.
    pub fn until(&self, line: &str, path: &str, wanted: &str) {
        eventually(&format!("{line} {path} is {wanted:?}"), || {
            let output = self.run_with(line, &["-o", &format!("jsonpath={path}")]);
            let is_wanted = output.code == 0 && output.out == wanted;
            is_wanted.then_some(()).ok_or_else(|| format!("{}{}", output.out, output.err))
        });
    }

    /// Starts `kubectl LINE` and hands out its lines as they come.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn lines(&self, line: &str) -> Lines {
        let mut command = self.command(line);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let out = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Lines { child, coming, seen: Vec::new() }
    }

    fn finish(&self, line: &str, mut command: Command, input: Option<&str>) -> Output {
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
            // It may have refused its arguments already.
            let _ = pipe.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().expect("kubectl ends");
        Output {
            command: format!("kubectl({}) {line}", self.version),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A command that goes on printing. Ended when dropped.
#[derive(Debug)]
pub struct Lines {
    child: Child,
    coming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    /// Waits for a line that holds `text`.
    ///
    /// # Panics
    /// When none comes.
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.coming.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {text:?} ({error}); seen: {:#?}", self.seen),
            }
        }
    }

    /// Waits for the command's end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self) -> i32 {
        eventually("the command ends", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A namespace of the shared cluster for one test. Deleted when dropped.
#[derive(Debug)]
pub struct Site {
    /// kubectl, in this namespace.
    pub kubectl: Kubectl,
    /// The cluster.
    pub cluster: &'static Cluster,
}

impl Site {
    /// Makes a namespace for `test`, to be used with a version of kubectl.
    pub fn new(version: &str, test: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let cluster = Cluster::shared();
        let short: String = test.chars().map(|c| if c == '_' { '-' } else { c }).take(40).collect();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{}-{number}", short.trim_end_matches('-'));
        let kubectl = Kubectl::new(version, cluster, &namespace);
        kubectl.run(&format!("create namespace {namespace}")).ok();
        Self { kubectl, cluster }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let namespace = &self.kubectl.namespace;
        if std::thread::panicking() {
            let state = self.kubectl.run("get pods,rc,deploy,rs,svc,jobs,events -o wide");
            eprintln!("what was in {namespace}:\n{}{}", state.out, state.err);
        }
        self.kubectl.run(&format!("delete namespace {namespace} --wait=false"));
    }
}
