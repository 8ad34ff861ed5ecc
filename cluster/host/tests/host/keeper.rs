//! What becomes of a container whose keeper, or whose first process, is not what it should be.

use crate::conformance::{LIMIT, Subject, output, processes_named, said, shell, start, wait};
use crate::isolation::leave_out;
use impresario_host::{
    ContainerState, Program, StartError,
    container::{DriverError, Resources},
    process::{
        ProcessConfig, ProcessDriver,
        cgroup::Cgroup,
        identity::ProcessKey,
        record::{self, Order},
    },
};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::Command,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::time::timeout;

const SHIM: &str = env!("CARGO_BIN_EXE_impresario-shim");

/// A driver whose processes of the kinds that `cases` (of a shell) names do that instead of their work.
fn subject(folder: &Path, cases: &str) -> Subject {
    let script = format!("PATH=/usr/bin:/bin; case $1 in {cases} esac; exec {SHIM} \"$@\"");
    let config = ProcessConfig {
        data: folder.join("data"),
        shim: Program {
            env: vec![("HEEDED".into(), "by-the-program".into())],
            ..Program::new(["/bin/sh", "-c", &script, "sh"])
        },
        hidden: vec![],
    };
    let driver = ProcessDriver::new(config).unwrap();
    Subject {
        driver: Arc::new(driver),
        successor: Box::new(|| unreachable!("nothing is left to a successor here")),
        image: "ignored".into(),
        volumes: folder.join("volumes"),
    }
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[tokio::test]
async fn what_the_program_heeds_reaches_all_its_kinds_and_no_container() {
    let folder = tempfile::tempdir().unwrap();
    let heard = folder.path().join("heard");
    let subject = subject(folder.path(), &format!("*) echo $1 $HEEDED >> {};;", heard.display()));
    let started = start(&subject, shell(&subject, "heeds", "a", "env; exec sleep 600")).await;
    said(&*subject.driver, &started.id, "HOSTNAME=").await;
    let exec = subject.driver.exec(&started.id, vec!["env".into()], LIMIT).await.unwrap();
    subject.driver.stop(&started.id, Duration::ZERO).await.unwrap();
    let lines = output(&*subject.driver, &started.id).await;
    let seen = lines.into_iter().map(|(_, line)| line + "\n").collect::<String>() + &exec.output;
    assert!(exec.output.contains("HOSTNAME=") && !seen.contains("HEEDED"), "{seen}");
    let heard = fs::read_to_string(heard).unwrap();
    for kind in ["trial", "keep", "init", "exec"] {
        let is_told = heard.lines().any(|line| line == format!("{kind} by-the-program"));
        assert!(is_told, "{kind}: {heard}");
    }
    subject.driver.remove_pod("heeds").await.unwrap();
}

#[tokio::test]
async fn what_the_first_process_says_before_it_is_lost_is_why_the_container_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    // Loaded in vain, and lost when it has its order. The second is told from a command that ends by namespaces alone.
    let cases =
        ["echo cannot load it >&2; exit 127", "cat >/dev/null; echo cannot go on >&2; exit 9"];
    for (case, said) in cases.iter().zip(["cannot load it", "cannot go on"]) {
        if said == "cannot go on" && !is_root() {
            leave_out("an ordinary user may have no namespaces");
            continue;
        }
        let subject = subject(folder.path(), &format!("init) {case};;"));
        let spec = shell(&subject, "lost", "a", "echo runs");
        subject.driver.prepare_pod(spec.pod.clone()).await.unwrap();
        let started = timeout(LIMIT, subject.driver.start(spec)).await.expect("an answer");
        let error = started.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(subject.driver.list().await.unwrap().is_empty());
        subject.driver.remove_pod("lost").await.unwrap();
    }
}

fn order(folder: &Path, script: &str) -> Order {
    let subject = subject(folder, "");
    Order {
        spec: shell(&subject, "uid", "a", script),
        folder: folder.to_owned(),
        program: Program::new([SHIM]),
        cgroup: None,
        hidden: vec![],
        namespaces: false,
    }
}

#[test]
fn a_first_process_whose_keeper_was_killed_meanwhile_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let order = order(folder.path(), &format!("touch {}", mark.display()));
    let order = serde_json::to_vec(&order).unwrap();
    for is_kept in [false, true] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut first = Command::new(SHIM);
        first.arg("init").env_clear().stdin(OwnedFd::from(theirs));
        let mut child = first.spawn().unwrap();
        drop(first);
        ours.write_all(&order).unwrap();
        if is_kept {
            ours.shutdown(Shutdown::Write).unwrap();
            ours.read_to_end(&mut Vec::new()).unwrap();
        } else {
            drop(ours);
        }
        let status = child.wait().unwrap();
        assert_eq!((status.success(), mark.exists()), (is_kept, is_kept), "{status}");
    }
}

#[tokio::test]
async fn what_a_keeper_started_that_was_killed_before_its_birth_is_ended_before_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let word = format!("{}877", std::process::id());
    // Where there are groups all of it is found by them, and else what the keeper knows of.
    let group = Cgroup::plan(Path::new("test-of-killed-keepers")).filter(|_| is_root());
    let has_groups = group.is_some_and(|group| {
        let made = group.create(&Resources::default(), 0).is_ok();
        group.remove();
        made
    });
    let beside = if has_groups { format!("sleep {word} &") } else { String::new() };
    let killed = format!("cat >/dev/null; kill -9 $PPID; {beside} exec sleep {word}");
    let subject = subject(folder.path(), &format!("trial) exit 1;; init) {killed};;"));
    let spec = shell(&subject, "early", "a", "echo runs");
    subject.driver.prepare_pod(spec.pod.clone()).await.unwrap();
    let started = timeout(LIMIT, subject.driver.start(spec)).await.expect("an answer");
    let error = started.unwrap_err().to_string();
    assert!(error.contains("gave no answer"), "{error}");
    assert_eq!(processes_named(&word), 0);
    assert!(subject.driver.list().await.unwrap().is_empty());
    subject.driver.remove_pod("early").await.unwrap();
}

#[tokio::test]
async fn what_a_keeper_started_that_was_killed_before_its_birth_is_ended_by_the_next_node() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path(), "");
    let left = folder.path().join("data/pods/early/containers/a/0");
    fs::create_dir_all(&left).unwrap();
    let mut keeper = Command::new("sleep").arg("600").spawn().unwrap();
    let key = ProcessKey::of(keeper.id()).unwrap();
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    let mut first = Command::new("sleep").arg("600").spawn().unwrap();
    record::write(&left, "taken.json", &order(folder.path(), "echo runs")).unwrap();
    record::write(&left, "keeper.json", &key).unwrap();
    record::write(&left, "first.json", &ProcessKey::of(first.id()).unwrap()).unwrap();
    let found = subject.driver.list().await.unwrap();
    assert!(matches!(found[0].state, ContainerState::Exited(_)), "{found:?}");
    let ended = first.try_wait().unwrap();
    first.kill().unwrap();
    assert!(ended.is_some(), "it runs still");
    subject.driver.remove_pod("early").await.unwrap();
}

/// A file system that keeps whoever asks it in the kernel, SIGKILL or not, until it is dropped.
struct Silent(tempfile::TempDir);

impl Silent {
    /// `None` where that cannot be had. Who asks it is told of.
    fn new() -> Option<(Self, mpsc::Receiver<()>)> {
        let folder = tempfile::tempdir().unwrap();
        let mut server = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let kind = Some("fuse");
        mount(Some("silent"), folder.path(), kind, MsFlags::empty(), Some(&*options)).ok()?;
        let (asked, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut request = vec![0; 256 << 10];
            // Ends with the file system.
            while let Ok(size @ 1..) = server.read(&mut request) {
                assert!(size >= 40, "a request has a header");
                if request[4..8] == 26_u32.to_ne_bytes() {
                    server.write_all(&welcome(&request[8..16])).unwrap();
                } else {
                    let _ = asked.send(());
                }
            }
        });
        Some((Self(folder), told))
    }
}

/// The answer to FUSE_INIT, of version 7.31, with nothing but what must be.
fn welcome(unique: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 64];
    for (at, word) in [(0, 7_u32), (4, 31), (8, 4096), (20, 4096)] {
        body[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    let mut answer = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    answer.extend(0_u32.to_ne_bytes());
    answer.extend(unique);
    answer.extend(body);
    answer
}

impl Drop for Silent {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_of_which_something_hangs_in_the_kernel_has_not_ended_and_has_its_gpu() {
    let Some((silent, asked)) = Silent::new() else {
        return leave_out("only root mounts FUSE");
    };
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path(), "");
    let gpu = format!("GPU-of-a-hanging-test-{}", std::process::id());
    let lock = format!("/dev/shm/impresario-{gpu}");
    let is_free = || {
        let file = File::open(&lock).unwrap();
        Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
    };
    let script = format!("cat {}/file", silent.0.path().display());
    let mut spec = shell(&subject, "hangs", "a", &script);
    spec.gpus = vec![gpu.clone()];
    let started = start(&subject, spec.clone()).await;
    let (id, driver) = (&started.id, &subject.driver);
    let asked = tokio::task::spawn_blocking(move || asked.recv_timeout(LIMIT));
    asked.await.unwrap().expect("it asks");

    let stopped = timeout(LIMIT, driver.stop(id, Duration::ZERO)).await.expect("an answer");
    assert!(matches!(stopped, Err(DriverError::Unkillable { .. })), "{stopped:?}");
    let state = driver.inspect(id).await.unwrap();
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    assert!(!is_free());

    // Nor when its keeper is killed.
    let keeper = folder.path().join("data/pods/hangs/containers/a/0");
    let keeper: ProcessKey = record::read(&keeper, "keeper.json").unwrap().unwrap();
    assert!(keeper.is_running(), "it keeps what is left");
    keeper.signal(rustix::process::Signal::KILL).unwrap();
    let gone = timeout(LIMIT, async {
        while keeper.is_running() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    gone.await.expect("the keeper ends");
    let state = driver.inspect(id).await.unwrap();
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    assert!(!is_free());
    spec.attempt = 1;
    let again = driver.start(spec).await;
    let is_refused = matches!(again, Err(StartError::Driver(DriverError::Unkillable { id: ref of, .. })) if of == id);
    assert!(is_refused, "{again:?}");

    drop(silent);
    assert_eq!(wait(&subject, id).await.code, 137);
    assert!(is_free());
    driver.remove_pod("hangs").await.unwrap();
    fs::remove_file(&lock).unwrap();
}
