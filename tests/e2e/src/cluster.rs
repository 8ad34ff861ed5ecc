//! A cluster of real processes, started as a user starts it and gone with its owner.
//!
//! The janitor is a shell that waits for the end of its standard input, which this process holds:
//! however the test ends, by a panic or by SIGKILL, the janitor then takes the cluster down.

use crate::eventually;
use serde_json::Value;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// Waits for the end of its input, then ends the cluster and removes its folder.
const JANITOR: &str = r#"cat >/dev/null; [ -e "$1/cluster.json" ] || { rm -rf "$2"; exit 0; }; "$0" down --purge --data-dir "$1" >&2; status=$?; [ $status = 0 ] && rm -rf "$2"; exit $status"#;

/// The program under test: `IMP`, or the one that cargo built beside this test.
///
/// # Panics
/// When it is not there.
pub fn imp() -> PathBuf {
    if let Some(given) = std::env::var_os("IMP") {
        return given.into();
    }
    let test = std::env::current_exe().expect("this test has a path");
    // target/PROFILE/deps/TEST
    let built = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps").join("imp");
    assert!(
        built.exists(),
        "{} is not built: run `cargo build --workspace --bins` first, or name a binary in IMP",
        built.display()
    );
    built
}

/// What a cluster is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many nodes.
    pub nodes: u16,
    /// How many control members; the default of `imp up` without.
    pub control: Option<u16>,
    /// More arguments for `imp up`.
    pub arguments: Vec<String>,
    /// More environment for it.
    pub environment: Vec<(String, String)>,
    /// The user that it belongs to, where that is another than this test's: takes root.
    pub user: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { nodes: 3, control: None, arguments: Vec::new(), environment: Vec::new(), user: None }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    scratch: PathBuf,
    dir: PathBuf,
    settings: Settings,
    janitor: Option<(Child, ChildStdin)>,
}

impl Cluster {
    /// The cluster that the tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Settings::default()))
    }

    /// Starts a cluster of one's own.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(settings: Settings) -> Self {
        let scratch = TempDir::with_prefix("imp-e2e-").expect("a temporary folder").keep();
        let dir = scratch.join("cluster");
        if let Some(user) = settings.user {
            // Where that user may write, with the program where they may execute it.
            std::fs::copy(imp(), scratch.join("imp")).expect("room for a copy of the program");
            std::os::unix::fs::chown(&scratch, Some(user), Some(user)).expect("root");
        }
        let mut janitor = Command::new("/bin/sh");
        janitor.args(["-c", JANITOR]).arg(imp()).arg(&dir).arg(&scratch);
        // Not ended by the Ctrl-C that ends the test.
        janitor.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut janitor = janitor.spawn().expect("/bin/sh starts");
        let input = janitor.stdin.take().expect("its input is a pipe");
        let cluster = Self { scratch, dir, settings, janitor: Some((janitor, input)) };
        cluster.up();
        // Nodes are Ready before the last control member has its vote, and tests end one of three at once.
        if cluster.settings.nodes >= 3
            && cluster.settings.control.is_none_or(|control| control == 3)
        {
            cluster.await_voters(3);
        }
        cluster
    }

    /// Returns when so many control members have a vote.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_voters(&self, count: usize) {
        eventually("all control members have a vote", || {
            let status = self.status();
            let members = status["members"].as_array().into_iter().flatten();
            let answering = members.filter(|member| member["answers"] == true);
            let newest = answering.max_by_key(|member| member["revision"].as_u64());
            let voters = newest.and_then(|member| member["voters"].as_array());
            let voters = voters.map_or(0, Vec::len);
            if voters == count { Ok(()) } else { Err(format!("{voters} have one: {status}")) }
        });
    }

    /// `imp up` on the cluster's folder: what is not running is started.
    pub fn up(&self) {
        let mut up = self.imp(["up", "--detach", "--api-port", "0"]);
        up.arg("--nodes").arg(self.settings.nodes.to_string());
        if let Some(control) = self.settings.control {
            up.arg("--control").arg(control.to_string());
        }
        up.args(&self.settings.arguments).envs(self.settings.environment.iter().cloned());
        let output = up.output().expect("imp starts");
        assert!(
            output.status.success(),
            "imp up: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// `imp` with these arguments, about this cluster.
    pub fn imp<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(self.program());
        if let Some(user) = self.settings.user {
            command.uid(user).gid(user).env("HOME", &self.scratch).current_dir(&self.scratch);
        }
        command.args(arguments).env("IMPRESARIO_DATA_DIR", &self.dir).stdin(Stdio::null());
        command
    }

    /// The program that the cluster is made with.
    pub fn program(&self) -> PathBuf {
        if self.settings.user.is_some() { self.scratch.join("imp") } else { imp() }
    }

    /// `imp status -o json`, as soon as somebody can tell it: not while there is no leader.
    ///
    /// # Panics
    /// When nobody ever can.
    pub fn status(&self) -> Value {
        eventually("somebody tells the status", || {
            let output = self.imp(["status", "-o", "json"]).output().expect("imp starts");
            if output.status.success() {
                serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        })
    }

    /// The node that leads the registry.
    ///
    /// # Panics
    /// When none ever does.
    pub fn leader(&self) -> String {
        eventually("the registry has a leader", || {
            let status = self.status();
            status["leader"].as_str().map(str::to_owned).ok_or_else(|| status.to_string())
        })
    }

    /// The folder of the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A folder for a test's own files, gone with the cluster.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The file for kubectl.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The folder of a node.
    pub fn node(&self, name: &str) -> PathBuf {
        self.dir.join("nodes").join(name)
    }

    /// The process of a node.
    ///
    /// # Panics
    /// When its file is not there.
    pub fn pid(&self, node: &str) -> nix::unistd::Pid {
        let text = std::fs::read_to_string(self.node(node).join("pid")).expect("a pid file");
        nix::unistd::Pid::from_raw(text.trim().parse().expect("a pid"))
    }

    /// Ends the process of a node as a crash would.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill(&self, node: &str) {
        nix::sys::signal::kill(self.pid(node), nix::sys::signal::SIGKILL).expect("it was running");
    }

    /// Ends the cluster and says how that went.
    pub fn down(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some((mut janitor, input)) = self.janitor.take() else { return Ok(()) };
        drop(input);
        let status = janitor.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("imp down: {status}"))) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}
