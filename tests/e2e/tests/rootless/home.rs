//! A machine as an ordinary user has it: a home on a file system that takes neither devices nor set-user-id,
//! a network and processes that nobody else uses, so that a guide can be followed word for word.
//!
//! It is made of namespaces, which a test may make as root, and as whoever may have user namespaces. All of it goes
//! with its first process, which waits for the end of its input; this process holds that.

use impresario_e2e::{Kubectl, imp};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use tempfile::TempDir;

/// Nobody's number on any machine that we know.
const USER: u32 = 60_123;

/// The first process: makes the machine, says so, and waits.
const MAKE: &str = r#"set -e; cd /
ip link set lo up
mount -t tmpfs -o nosuid,nodev,mode=755,size=1g home "$1/home"
[ -z "$2" ] || chown "$2:$2" "$1/home"
[ -z "$3" ] || echo 0 > /proc/sys/user/max_user_namespaces
echo made
exec cat >/dev/null"#;

/// Whether the user may make user namespaces, as on most machines, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// They may.
    Permitted,
    /// They may not; such a machine only root can make.
    Refused,
}

/// The machine. Gone with all its processes when dropped.
pub struct Home {
    scratch: TempDir,
    /// `unshare`, and the first process in it.
    keeper: Child,
    first: String,
    _input: ChildStdin,
    is_root: bool,
    namespaces: Namespaces,
}

impl Home {
    pub fn new(namespaces: Namespaces) -> Self {
        let is_root = nix::unistd::Uid::effective().is_root();
        assert!(is_root || namespaces == Namespaces::Permitted, "takes root");
        let scratch = TempDir::with_prefix("imp-rootless-").unwrap();
        let path = scratch.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        // What a checkout has after its build, and the tools that the guide counts on.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for folder in ["home", "tools", "checkout/target/release", "checkout/examples"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        install(&imp(), &path.join("checkout/target/release/imp"));
        install(&Kubectl::program("1.33"), &path.join("tools/kubectl"));
        fs::write(path.join("tools/cargo"), "#!/bin/sh\n[ \"$*\" = \"build --release\" ]\n")
            .unwrap();
        fs::set_permissions(path.join("tools/cargo"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut copied = Command::new("cp");
        copied.arg("-r").arg(root.join("examples/web")).arg(path.join("checkout/examples"));
        assert!(copied.status().unwrap().success());

        let user = if is_root { USER.to_string() } else { String::new() };
        let mut keeper = Command::new("unshare");
        match (is_root, namespaces) {
            (true, Namespaces::Permitted) => {}
            // Outside of the namespace is who says which users are in it.
            (true, Namespaces::Refused) => {
                keeper.args([
                    "--user",
                    "sh",
                    "-c",
                    "echo there; read go; exec unshare \"$@\"",
                    "sh",
                ]);
            }
            (false, _) => {
                keeper.args(["--user", "--map-current-user", "--keep-caps"]);
            }
        }
        keeper.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        keeper.args(["sh", "-c", MAKE, "sh"]).arg(path).arg(user);
        keeper.arg(if namespaces == Namespaces::Refused { "refused" } else { "" });
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = keeper.stdin.take().unwrap();
        let mut output = BufReader::new(keeper.stdout.take().unwrap());
        let mut line = String::new();
        if namespaces == Namespaces::Refused {
            output.read_line(&mut line).unwrap();
            for map in ["uid_map", "gid_map"] {
                fs::write(format!("/proc/{}/{map}", keeper.id()), "0 0 4294967295").unwrap();
            }
            input.write_all(b"go\n").unwrap();
            line.clear();
        }
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "made\n", "the machine cannot be made (see above)");
        let children = format!("/proc/{0}/task/{0}/children", keeper.id());
        let first = fs::read_to_string(children).unwrap().trim().to_owned();
        Self { scratch, keeper, first, _input: input, is_root, namespaces }
    }

    /// The user's home.
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join("home")
    }

    /// The number of the user.
    pub fn user(&self) -> u32 {
        if self.is_root { USER } else { nix::unistd::Uid::effective().as_raw() }
    }

    /// A script, as the user runs it in their checkout.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first, "--mount", "--net", "--pid"]);
        match (self.is_root, self.namespaces) {
            (true, Namespaces::Permitted) => {}
            (true, Namespaces::Refused) => {
                command.arg("--user");
            }
            (false, _) => {
                command.args(["--user", "--preserve-credentials"]);
            }
        }
        command.arg("--");
        if self.is_root {
            let user = USER.to_string();
            command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
            command.args(["--inh-caps", "-all"]);
        }
        let tools = self.scratch.path().join("tools");
        command.args(["env", "-i"]);
        command.arg(format!("HOME={}", self.path().display()));
        command
            .arg(format!("PATH={}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", tools.display()));
        command.args(["sh", "-ec", "cd \"$0\" && eval \"$1\""]);
        command.arg(self.scratch.path().join("checkout")).arg(script).stdin(Stdio::null());
        command
    }

    /// Runs a script that must succeed; what it has printed.
    pub fn run(&self, script: &str) -> String {
        let Output { status, stdout, stderr } = self.command(script).output().unwrap();
        let [out, err] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(status.success(), "{script}: {status}\n{out}{err}");
        out
    }

    /// Starts a script that goes on, and returns when `is_enough` of the lines so far.
    pub fn watch(&self, script: &str, is_enough: impl Fn(&[String]) -> bool) {
        // `nsenter` has a child between us and the script: that is ended by the end of its input.
        let quoted = script.replace('\'', "'\\''");
        let script = format!("setsid sh -ec '{quoted}' & read end || kill -- -$!");
        let mut command = self.command(&script);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            lines.push(line.unwrap());
            if is_enough(&lines) {
                break;
            }
        }
        let enough = is_enough(&lines);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(enough, "{script}: {lines:#?}");
    }

    /// The processes of the machine but those of this test, by name.
    pub fn processes(&self) -> Vec<String> {
        let mut stats = Command::new("nsenter");
        stats.args(["--target", &self.first, "--mount", "--pid"]);
        stats.args(["sh", "-c", "cat /proc/[0-9]*/stat"]);
        let found = stats.output().unwrap().stdout;
        let found = String::from_utf8_lossy(&found).into_owned();
        let one = |line: &str| {
            let (name, rest) = line.split_once('(')?.1.rsplit_once(") ")?;
            // Nobody waits for those that have ended: the first process only waits for us.
            let is_own = matches!(name, "sh" | "cat" | "nsenter");
            (!is_own && !rest.starts_with('Z')).then(|| name.to_owned())
        };
        found.lines().filter_map(one).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // With it goes the first process, and with that everything.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn install(program: &Path, at: &Path) {
    fs::copy(program, at).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `kubectl ... -o json` or `imp ... -o json`, parsed.
pub fn json(home: &Home, command: &str) -> Value {
    serde_json::from_str(&home.run(&format!("{command} -o json"))).unwrap()
}
