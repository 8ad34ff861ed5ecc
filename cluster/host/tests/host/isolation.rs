//! What a container of the process driver cannot reach, whoever its node runs as.

use crate::conformance::{LIMIT, sandbox};
use impresario_host::Program;
use impresario_host::container::{
    ContainerSpec, Exit, LogLimit, Mount, PullPolicy, Qos, Resources, Security, User,
};
use impresario_host::process::record::{self, Failed, Order};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const NOBODY: u32 = 65534;

/// Leaves out what this machine cannot show; not where everything must be shown.
pub fn leave_out(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "left out with CI=true: {why}");
    println!("left out: {why}");
}

/// A node's folder, and the shim where every user can execute it.
struct Place {
    folder: tempfile::TempDir,
    uid: Option<u32>,
    namespaces: bool,
}

/// Each place that can be had: as the user of the test, and as an ordinary one where that is root.
fn places() -> Vec<Place> {
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        leave_out("only root can be root, and become an ordinary user");
    }
    let users: &[Option<u32>] = if is_root { &[None, Some(NOBODY)] } else { &[None] };
    users.iter().map(|uid| Place::new(*uid)).collect()
}

impl Place {
    fn new(uid: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // By a process of its own: what this one has open for writing another test's child may hold, and a program that is
        // open for writing is not started.
        let mut install = Command::new("install");
        install.args(["-m", "755", env!("CARGO_BIN_EXE_impresario-shim")]);
        assert!(install.arg(folder.path().join("shim")).status().unwrap().success());
        let place = Self { folder, uid, namespaces: true };
        for name in ["data", "data/keys", "data/pods", "volume"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        fs::write(place.path("data/keys/node.key"), "secret-of-the-node").unwrap();
        fs::set_permissions(place.path("data/keys/node.key"), fs::Permissions::from_mode(0o600))
            .unwrap();
        place.hand_over();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What is below the folder belongs to who runs the node.
    fn hand_over(&self) {
        let Some(uid) = self.uid else { return };
        let owner = format!("{uid}:{uid}");
        let status = Command::new("chown").arg("-R").arg(owner).arg(self.folder.path()).status();
        assert!(status.unwrap().success());
    }

    fn spec(script: &str) -> ContainerSpec {
        ContainerSpec {
            pod: sandbox("uid"),
            name: "a".into(),
            attempt: 0,
            is_init: false,
            image: String::new(),
            pull: PullPolicy::Never,
            command: vec!["/bin/sh".into(), "-c".into()],
            args: vec![script.into()],
            working_dir: None,
            env: vec![],
            mounts: vec![],
            resources: Resources::default(),
            user: User::default(),
            security: Security::default(),
            gpus: vec![],
            log: LogLimit::default(),
        }
    }

    /// Runs a keeper to its end: what was written, and how it ended.
    fn run(&self, spec: ContainerSpec) -> Result<(String, Exit), Failed> {
        let folder = self.path("data/pods/uid/containers/a/0");
        let _ = fs::remove_dir_all(self.path("data/pods/uid/containers"));
        fs::create_dir_all(&folder).unwrap();
        let order = Order {
            spec,
            folder: folder.clone(),
            program: Program::new([self.path("shim")]),
            cgroup: None,
            hidden: vec![self.path("data")],
            namespaces: self.namespaces,
        };
        record::write(&folder, "order.json", &order).unwrap();
        self.hand_over();
        let mut keeper = Command::new(self.path("shim"));
        keeper.arg("keep").arg(&folder).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(uid) = self.uid {
            keeper.uid(uid).gid(uid);
        }
        let mut keeper = keeper.spawn().unwrap();
        let begin = std::time::Instant::now();
        while keeper.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < LIMIT, "the keeper does not end");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        if let Some(failed) = record::read(&folder, "failed.json").unwrap() {
            return Err(failed);
        }
        let exit = record::read(&folder, "exit.json").unwrap().expect("it has ended");
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        let text = lines.fold(String::new(), |text, line| text + line + "\n");
        Ok((text, exit))
    }
}

#[test]
fn the_folders_of_the_node_are_empty_for_a_container_by_every_path() {
    for place in places() {
        let data = place.path("data");
        let script = format!(
            "cat {0}/keys/node.key; ls -A {0} | wc -l; ls -A /proc/1/root/ /proc/1/cwd/ 2>&-; \
             find / -xdev -name node.key 2>&-; find {1} -name node.key; cat {0}/../data/keys/node.key",
            data.display(),
            place.folder.path().display()
        );
        let (said, _) = place.run(Place::spec(&script)).unwrap();
        assert!(!said.contains("secret-of-the-node"), "{:?}: {said}", place.uid);
        assert!(!said.contains("data/keys\n"), "{:?}: {said}", place.uid);
        assert!(said.lines().any(|line| line == "0"), "{:?}: {said}", place.uid);
        assert!(said.lines().all(|line| !line.ends_with("node.key")), "{:?}: {said}", place.uid);
    }
}

#[test]
fn the_folders_of_the_node_are_empty_where_their_file_system_is_mounted_again_too() {
    if !nix::unistd::Uid::effective().is_root() {
        leave_out("it takes root");
        return;
    }
    for place in places() {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let [again, part] = ["again", "part"].map(|name| elsewhere.path().join(name));
        for (from, to) in [(place.folder.path(), &again), (&place.path("data/keys"), &part)] {
            fs::create_dir(to).unwrap();
            let flags = nix::mount::MsFlags::MS_BIND;
            nix::mount::mount(Some(from), to, None::<&str>, flags, None::<&str>).unwrap();
        }
        let script = format!(
            "ls {0}; cat {0}/data/keys/node.key; ls -A {1}",
            again.display(),
            part.display()
        );
        let said = std::panic::catch_unwind(|| place.run(Place::spec(&script)).unwrap().0);
        for at in [&again, &part] {
            nix::mount::umount(at).unwrap();
        }
        let said = said.unwrap();
        assert!(said.contains("volume\n"), "{:?}: {said}", place.uid);
        assert!(!said.contains("secret-of-the-node"), "{:?}: {said}", place.uid);
        assert!(!said.lines().any(|line| line == "node.key"), "{:?}: {said}", place.uid);
    }
}

#[test]
fn a_volume_of_the_host_does_not_lead_to_the_folders_of_the_node() {
    for place in places() {
        let mount = |source: PathBuf| Mount {
            volume: "host".into(),
            source,
            sub_path: None,
            target: "/seen-by-a-test".into(),
            read_only: true,
        };
        let above = ContainerSpec {
            mounts: vec![mount(place.folder.path().to_owned())],
            ..Place::spec("ls /seen-by-a-test; cat /seen-by-a-test/data/keys/node.key")
        };
        let (said, exit) = place.run(above).unwrap();
        assert!(said.contains("volume\n") && exit.code != 0, "{:?}: {said}", place.uid);
        assert!(!said.contains("secret-of-the-node"), "{:?}: {said}", place.uid);
        let straight =
            ContainerSpec { mounts: vec![mount(place.path("data/keys"))], ..Place::spec("true") };
        let refused = place.run(straight);
        assert!(matches!(refused, Err(Failed::Mount { .. })), "{:?}: {refused:?}", place.uid);
    }
}

#[test]
fn a_container_can_neither_see_nor_signal_what_else_the_machine_runs() {
    for place in places() {
        let this = std::process::id();
        let script = format!(
            "kill -0 {this} 2>&- && echo signalled; ls -d /proc/[0-9]* | wc -l; \
             kill -KILL -1; echo still here"
        );
        let (said, exit) = place.run(Place::spec(&script)).unwrap();
        assert!(!said.contains("signalled"), "{:?}: {said}", place.uid);
        let seen: usize = said.lines().next().unwrap().trim().parse().unwrap();
        assert!(seen < 8, "{:?}: {said}", place.uid);
        assert_eq!(exit.code, 0, "{:?}: {said}", place.uid);
    }
}

#[test]
fn a_container_has_no_right_that_reaches_beyond_it() {
    for place in places() {
        let script = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Groups)' /proc/self/status; ls /dev; \
                      echo 1 > /proc/sys/vm/drop_caches; echo b > /proc/sysrq-trigger; \
                      mkdir /sys/fs/cgroup/memory/of-a-test /sys/fs/cgroup/of-a-test; \
                      mount -t tmpfs none /mnt && echo mounted; umount /proc && echo unmounted; \
                      mknod /tmp/disk-of-a-test b 8 0 && echo made; true";
        let (said, _) = place.run(Place::spec(script)).unwrap();
        let bits = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
        };
        // CAP_DAC_READ_SEARCH, SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, MKNOD (capability.h)
        for number in [2, 16, 17, 19, 21, 27] {
            assert_eq!(bits("CapEff") & (1 << number), 0, "{number} {:?}: {said}", place.uid);
            assert_eq!(bits("CapBnd") & (1 << number), 0, "{number} {:?}: {said}", place.uid);
        }
        assert_eq!(bits("NoNewPrivs"), 1, "{:?}: {said}", place.uid);
        assert!(said.contains("null\n") && !said.contains("kmsg\n"), "{:?}: {said}", place.uid);
        for word in ["mounted\n", "unmounted\n", "made\n"] {
            assert!(!said.lines().any(|line| line == word.trim()), "{:?}: {said}", place.uid);
        }
        assert!(!Path::new("/sys/fs/cgroup/memory/of-a-test").exists());
    }
}

#[test]
fn a_signal_ends_a_command_as_it_would_on_the_machine_and_orphans_are_reaped() {
    for place in places() {
        for (script, code, signal) in [
            ("kill -TERM $$", 143, Some(15)),
            ("kill -KILL $$", 137, Some(9)),
            ("kill -SEGV $$", 139, Some(11)),
            (
                "(sleep 0.01 &); i=0; sleep 0.2; \
                 while [ $i -lt 300 ] && ps -eo stat= | grep -q Z; do sleep 0.1; i=$((i+1)); done; \
                 ps -eo stat= | grep -c Z; exit 3",
                3,
                None,
            ),
        ] {
            let (said, exit) = place.run(Place::spec(script)).unwrap();
            assert_eq!((exit.code, exit.signal), (code, signal), "{:?}: {script}", place.uid);
            assert!(said.is_empty() || said == "0\n", "{:?}: {said}", place.uid);
        }
    }
}

#[test]
fn who_must_not_be_root_is_not_started_as_root() {
    for place in places() {
        let user = |uid| User { uid, must_not_be_root: true, ..User::default() };
        let run = |uid| place.run(ContainerSpec { user: user(uid), ..Place::spec("id -u") });
        let is_root = place.uid.is_none() && nix::unistd::Uid::effective().is_root();
        match run(None) {
            Err(Failed::Config { what }) => {
                assert!(is_root && what.contains("runAsNonRoot"), "{what}");
            }
            Ok((said, _)) => assert!(!is_root && said != "0\n", "{said}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(run(Some(0)), Err(Failed::Config { .. })));
        if is_root {
            assert_eq!(run(Some(1000)).unwrap().0, "1000\n");
        }
    }
}

#[test]
fn a_read_only_volume_can_be_had_where_the_file_system_forbids_devices_and_set_user_id() {
    for place in places() {
        // `/dev/shm` and the like: whoever is not root must leave these flags on.
        let Some(source) = ["/dev/shm", "/run", "/tmp"].into_iter().map(Path::new).find(|path| {
            let flags = nix::sys::statvfs::statvfs(*path).unwrap().flags();
            flags.contains(nix::sys::statvfs::FsFlags::ST_NODEV)
        }) else {
            // None of this machine's: one of our own, which takes root.
            let source = place.path("volume");
            if !nix::unistd::Uid::effective().is_root() {
                return leave_out(
                    "no file system here forbids devices, and to mount one takes root",
                );
            }
            let flags = nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOSUID;
            nix::mount::mount(Some("t"), &source, Some("tmpfs"), flags, None::<&str>).unwrap();
            let outcome = std::panic::catch_unwind(|| read_only(&place, &source));
            nix::mount::umount(&source).unwrap();
            outcome.unwrap();
            continue;
        };
        read_only(&place, source);
    }
}

fn read_only(place: &Place, source: &Path) {
    let mount = Mount {
        volume: "v".into(),
        source: source.to_owned(),
        sub_path: None,
        target: "/read-only-in-a-test".into(),
        read_only: true,
    };
    let script = "touch /read-only-in-a-test/x 2>&1; grep read-only-in-a-test /proc/self/mountinfo";
    let (said, _) =
        place.run(ContainerSpec { mounts: vec![mount], ..Place::spec(script) }).unwrap();
    assert!(said.contains("Read-only file system"), "{:?}: {said}", place.uid);
    assert!(said.contains("nodev"), "{:?}: {said}", place.uid);
}

#[test]
fn a_container_writes_nothing_of_the_machine_s_and_finds_none_of_its_sockets() {
    for place in places() {
        // What root may write everywhere, and an ordinary user nowhere.
        let script = "for f in /etc /usr /usr/bin /var /var/lib /root /home; do \
                        touch $f/of-a-test 2>&- && echo wrote $f; done; \
                      find /run -type s; ls -A /run | grep -v -e lock -e systemd; \
                      touch /run/own /tmp/of-a-test-$$ /volume-of-a-test/own && rm /tmp/of-a-test-$$ && echo done";
        let volume = Mount {
            volume: "v".into(),
            source: place.path("volume"),
            sub_path: None,
            target: "/volume-of-a-test".into(),
            read_only: false,
        };
        let spec = ContainerSpec { mounts: vec![volume], ..Place::spec(script) };
        let (said, exit) = place.run(spec).unwrap();
        assert_eq!((said.as_str(), exit.code), ("done\n", 0), "{:?}", place.uid);
        assert!(place.path("volume/own").exists());
        for folder in ["/etc", "/usr", "/var/lib", "/root"] {
            assert!(!Path::new(folder).join("of-a-test").exists(), "{folder}");
        }
    }
}

#[test]
fn a_privileged_container_of_root_s_has_the_machine_as_it_is() {
    if !nix::unistd::Uid::effective().is_root() {
        leave_out("it takes root");
        return;
    }
    let place = Place::new(None);
    let folder = tempfile::tempdir_in("/run").unwrap();
    let script = format!("touch {}/from-inside && echo done", folder.path().display());
    let security = Security { privileged: true, ..Security::default() };
    let (said, _) = place.run(ContainerSpec { security, ..Place::spec(&script) }).unwrap();
    assert_eq!(said, "done\n");
    assert!(folder.path().join("from-inside").exists());
}

#[test]
fn a_folder_on_the_way_to_a_volume_stays_its_owner_s() {
    if !nix::unistd::Uid::effective().is_root() {
        leave_out("it takes root");
        return;
    }
    let place = Place::new(None);
    let home = place.path("home-of-a-test");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(place.path("volume"), fs::Permissions::from_mode(0o777)).unwrap();
    let volume = Mount {
        volume: "v".into(),
        source: place.path("volume"),
        sub_path: None,
        target: home.join("data"),
        read_only: false,
    };
    let user = User { uid: Some(1000), gid: Some(1000), ..User::default() };
    let script = format!("touch {}/file && echo done", home.join("data").display());
    let spec = ContainerSpec { mounts: vec![volume], user, ..Place::spec(&script) };
    assert_eq!(place.run(spec).unwrap().0, "done\n");
}

#[test]
fn who_may_make_a_user_namespace_and_not_say_who_is_who_in_it_has_containers_without() {
    if !nix::unistd::Uid::effective().is_root() {
        leave_out("it takes root");
        return;
    }
    let mut place = Place::new(Some(NOBODY));
    let trial = |before: &str| {
        let shim = place.path("shim");
        let user = format!("--reuid={NOBODY} --regid={NOBODY} --clear-groups");
        let script = format!("{before} exec setpriv {user} {} trial", shim.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).status().unwrap().success()
    };
    assert!(trial(""), "this machine permits user namespaces");
    // Neither /proc/self/setgroups nor /proc/self/uid_map can be written.
    assert!(!trial("mount -o remount,bind,ro /proc &&"));
    place.namespaces = false;
    let (said, exit) = place.run(Place::spec("id -u; ls -d /proc/self/fd")).unwrap();
    assert_eq!((said.as_str(), exit.code), ("65534\n/proc/self/fd\n", 0));
}

#[test]
fn who_asked_for_nothing_goes_first_when_memory_runs_out() {
    for place in places() {
        let score = |qos| {
            let resources = Resources { qos, ..Resources::default() };
            let spec = Place::spec("cat /proc/self/oom_score_adj");
            place.run(ContainerSpec { resources, ..spec }).unwrap().0
        };
        assert_eq!(score(Qos::BestEffort), "1000\n", "{:?}", place.uid);
        assert_eq!(score(Qos::Burstable), "999\n", "{:?}", place.uid);
        // Lower than what one was started with takes root with all of its capabilities.
        let mut lower = Command::new("sh");
        lower.args(["-c", "echo -997 >/proc/self/oom_score_adj"]).stderr(Stdio::null());
        if place.uid.is_none() && lower.status().unwrap().success() {
            assert_eq!(score(Qos::Guaranteed), "-997\n");
        }
    }
}
