//! The process driver: the conformance suite, and what it alone promises.

use crate::conformance::{self, LIMIT, Subject, output, said, shell, start, wait};
use impresario_host::{
    ContainerDriver, ContainerState, Program,
    container::{Qos, Resources},
    process::{ProcessConfig, ProcessDriver, identity::ProcessKey},
};
use nix::fcntl::{Flock, FlockArg};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::timeout;

pub fn driver(data: &Path) -> Arc<dyn ContainerDriver> {
    let config = ProcessConfig {
        data: data.join("data"),
        shim: Program::new([env!("CARGO_BIN_EXE_impresario-shim")]),
        hidden: vec![data.join("data/keys")],
    };
    Arc::new(ProcessDriver::new(config).unwrap())
}

pub fn subject(folder: &Path) -> Subject {
    let again = folder.to_owned();
    Subject {
        driver: driver(folder),
        successor: Box::new(move || driver(&again)),
        image: "ignored".into(),
        volumes: folder.join("volumes"),
    }
}

#[tokio::test]
async fn the_process_driver_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    conformance::check(&subject).await;
    let left = std::fs::read_dir(folder.path().join("data/pods")).unwrap();
    let left: Vec<_> =
        left.map(|entry| entry.unwrap().file_name()).filter(|n| n != ".covered").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_is_no_folder_without_containers() {
    let folder = tempfile::tempdir().unwrap();
    let driver = driver(folder.path());
    let pod = folder.path().join("data/pods/uid");
    std::fs::create_dir_all(&pod).unwrap();
    std::fs::write(folder.path().join("data/pods/file"), "").unwrap();
    assert!(driver.list().await.unwrap().is_empty());
    assert!(driver.pods().await.unwrap().contains("uid"));
    // Links in a circle: nobody can tell what is there, root neither.
    std::os::unix::fs::symlink(pod.join("containers"), pod.join("containers")).unwrap();
    let error = driver.list().await.unwrap_err().to_string();
    assert!(error.contains("looking for containers"), "{error}");
}

#[tokio::test]
async fn a_container_outlives_its_driver_and_dies_with_its_keeper() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let word = format!("{}876", std::process::id());
    let script = format!("sleep {word} & sleep {word}");
    let started = start(&subject, shell(&subject, "kept", "a", &script)).await;
    let path = folder.path().join("data/pods/kept/containers/a/0/keeper.json");
    let keeper: ProcessKey = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(keeper.is_running());
    keeper.signal(rustix::process::Signal::KILL).unwrap();
    let exit = wait(&subject, &started.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "ContainerStatusUnknown"));
    let gone = timeout(LIMIT, async {
        while conformance::processes_named(&word) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    gone.await.expect("all its processes are ended");
    subject.driver.remove_pod("kept").await.unwrap();
}

#[tokio::test]
async fn a_sub_path_that_leaves_its_volume_through_a_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let volume = folder.path().join("volumes/v");
    std::fs::create_dir_all(volume.join("fine")).unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("planted")).unwrap();
    for (part, refused) in [("fine", false), ("planted", true), ("../x", true)] {
        let mut spec =
            shell(&subject, "subpath", part.trim_matches(['.', '/']), "ls /mounted-here");
        spec.mounts = vec![impresario_host::container::Mount {
            volume: "v".into(),
            source: volume.clone(),
            sub_path: Some(part.into()),
            target: "/mounted-here".into(),
            read_only: false,
        }];
        subject.driver.prepare_pod(spec.pod.clone()).await.unwrap();
        let outcome = subject.driver.start(spec).await;
        assert_eq!(outcome.is_err(), refused, "{part}: {outcome:?}");
    }
    subject.driver.remove_pod("subpath").await.unwrap();
}

#[tokio::test]
async fn a_sub_path_that_is_exchanged_for_a_link_all_the_time_never_leads_out_of_its_volume() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let (volume, outside) = (folder.path().join("volumes/v"), folder.path().join("outside"));
    for (at, name) in [(volume.join("part"), "inside"), (outside.clone(), "of-another")] {
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join(name), "").unwrap();
    }
    std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
    let (part, link) = (volume.join("part"), volume.join("link"));
    let go_on = Arc::new(AtomicBool::new(true));
    let swaps = {
        let go_on = go_on.clone();
        std::thread::spawn(move || {
            let mut swaps = 0_u64;
            while go_on.load(Relaxed) {
                renameat_with(CWD, &part, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        })
    };
    let (mut refused, mut seen) = (0, 0);
    for attempt in 0..40 {
        let mut spec = shell(&subject, "swap", "a", "ls /mounted-here");
        spec.attempt = attempt;
        spec.mounts = vec![impresario_host::container::Mount {
            volume: "v".into(),
            source: volume.clone(),
            sub_path: Some("part".into()),
            target: "/mounted-here".into(),
            read_only: false,
        }];
        subject.driver.prepare_pod(spec.pod.clone()).await.unwrap();
        let Ok(started) = subject.driver.start(spec).await else {
            refused += 1;
            continue;
        };
        wait(&subject, &started.id).await;
        let lines = output(&*subject.driver, &started.id).await;
        let lines: Vec<_> = lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, ["inside"], "after {refused} refusals");
        seen += 1;
    }
    go_on.store(false, Relaxed);
    let swaps = swaps.join().unwrap();
    println!("{swaps} swaps, {refused} refused, {seen} seen");
    assert!(swaps > 0);
    assert!(seen > 0, "a part that is none of the link's is mounted");
    subject.driver.remove_pod("swap").await.unwrap();
}

/// What the kernel was told of a process's group: of a controller, so many folders above, in this file.
fn setting(pid: u32, controller: &str, above: usize, file: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = |name: &str| {
        groups.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            names.split(',').any(|one| one == name).then(|| path.to_owned())
        })
    };
    let (tree, path) = match group(controller) {
        Some(path) => (format!("/sys/fs/cgroup/{controller}"), path),
        None => ("/sys/fs/cgroup".to_owned(), group("").expect("a group")),
    };
    let folder = Path::new(&tree).join(path.trim_start_matches('/'));
    let path = folder.ancestors().nth(above).unwrap().join(file);
    let text = std::fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[tokio::test]
async fn what_a_container_asks_for_is_what_the_kernel_holds_it_to() {
    if !nix::unistd::Uid::effective().is_root() {
        return crate::isolation::leave_out("only root makes control groups");
    }
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let mut spec = shell(&subject, "groups", "a", "exec sleep 600");
    spec.pod.cpu_request_milli = 750;
    spec.resources = Resources {
        cpu_request_milli: 500,
        cpu_limit_milli: Some(1500),
        memory_limit_bytes: Some(64 << 20),
        qos: Qos::Burstable,
        ..Resources::default()
    };
    let started = start(&subject, spec).await;
    if let Some(lacking) = started.warnings.iter().find(|warning| warning.contains("group")) {
        return crate::isolation::leave_out(lacking);
    }
    let state = subject.driver.inspect(&started.id).await.unwrap();
    let ContainerState::Running { pid, .. } = state else { panic!("{state:?}") };
    let expected: &[(&str, usize, &str, &str)] =
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            &[
                ("cpu", 0, "cpu.weight", "20"),
                ("cpu", 1, "cpu.weight", "30"),
                ("cpu", 0, "cpu.max", "150000 100000"),
                ("memory", 0, "memory.max", "67108864"),
                ("memory", 0, "memory.oom.group", "1"),
            ]
        } else {
            &[
                ("cpu", 0, "cpu.shares", "512"),
                ("cpu", 1, "cpu.shares", "768"),
                ("cpu", 0, "cpu.cfs_quota_us", "150000"),
                ("memory", 0, "memory.limit_in_bytes", "67108864"),
            ]
        };
    for (controller, above, file, value) in expected {
        assert_eq!(setting(pid, controller, *above, file), *value, "{file}, {above} above");
    }
    // Of the pod: a number, where the kernel's own word is `max`.
    setting(pid, "pids", 1, "pids.max").parse::<u64>().unwrap();
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "999");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains("/impresario/"), "{groups}");
    subject.driver.remove_pod("groups").await.unwrap();
}

/// A file system of its own, small and soon full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = nix::mount::MsFlags::empty();
        let kind = Some("tmpfs");
        nix::mount::mount(kind, folder.path(), kind, flags, Some("size=1m")).unwrap();
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn how_a_container_ends_on_a_full_disk_is_known() {
    if !nix::unistd::Uid::effective().is_root() {
        return crate::isolation::leave_out("only root mounts a small disk");
    }
    let (disk, folder) = (SmallDisk::new(), tempfile::tempdir().unwrap());
    let subject = Subject { volumes: folder.path().into(), ..subject(disk.0.path()) };
    for (name, code) in [("well", 0), ("ill", 3)] {
        let mut spec = shell(
            &subject,
            name,
            "a",
            &format!("while ! [ -e /flag/{name} ]; do sleep 0.05; done; echo goes; exit {code}"),
        );
        spec.mounts = vec![impresario_host::container::Mount {
            volume: "flag".into(),
            source: folder.path().into(),
            sub_path: None,
            target: "/flag".into(),
            read_only: true,
        }];
        let started = start(&subject, spec).await;
        let filler = disk.0.path().join("filler");
        let full = std::fs::write(&filler, vec![1; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        std::fs::write(folder.path().join(name), "").unwrap();
        let exit = wait(&subject, &started.id).await;
        assert_eq!((exit.code, exit.signal), (code, None), "{exit:?}");
        // For whoever asks after a restart, too.
        let state = (subject.successor)().inspect(&started.id).await.unwrap();
        assert!(matches!(&state, ContainerState::Exited(exit) if exit.code == code), "{state:?}");
        std::fs::remove_file(filler).unwrap();
        subject.driver.remove_pod(name).await.unwrap();
    }
}

#[tokio::test]
async fn a_volume_is_mounted_in_a_folder_of_thousands() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let (crowd, volume) = (folder.path().join("crowd"), folder.path().join("volumes/v"));
    for at in [&crowd, &volume] {
        std::fs::create_dir_all(at).unwrap();
    }
    for number in 0..2_500 {
        std::fs::write(crowd.join(number.to_string()), "").unwrap();
    }
    let target = crowd.join("volume");
    let script = format!("touch {}/mine; ls {} | wc -l", target.display(), crowd.display());
    let mut spec = shell(&subject, "crowd", "a", &script);
    spec.mounts = vec![impresario_host::container::Mount {
        volume: "v".into(),
        source: volume.clone(),
        sub_path: None,
        target,
        read_only: false,
    }];
    let started = start(&subject, spec).await;
    assert_eq!(wait(&subject, &started.id).await.code, 0);
    let lines = output(&*subject.driver, &started.id).await;
    assert_eq!(lines[0].1.trim(), "2501");
    assert!(volume.join("mine").exists() && !crowd.join("volume").exists());
    subject.driver.remove_pod("crowd").await.unwrap();
}

#[tokio::test]
async fn an_order_that_no_keeper_took_is_called_off_by_the_successor() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let left = folder.path().join("data/pods/half/containers/a/0");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("order.json"), "{}").unwrap();
    let found = subject.driver.list().await.unwrap();
    assert!(matches!(found[0].state, ContainerState::Exited(_)), "{found:?}");
    assert!(!left.join("order.json").exists(), "a late keeper finds nothing to do");
    subject.driver.remove_pod("half").await.unwrap();
}

#[tokio::test]
async fn output_beyond_the_limit_is_rotated_away() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done";
    let mut spec = shell(&subject, "chatty", "a", script);
    spec.log = impresario_host::container::LogLimit { file_bytes: 10_000, files: 2 };
    let started = start(&subject, spec).await;
    wait(&subject, &started.id).await;
    let lines = output(&*subject.driver, &started.id).await;
    assert_eq!(lines.last().unwrap().1, "line 2999");
    assert!(lines.len() < 1000, "{} lines", lines.len());
    said(&*subject.driver, &started.id, "line 2999").await;
    subject.driver.remove_pod("chatty").await.unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_concerns_its_container_alone() {
    for record in ["born.json", "exit.json"] {
        let folder = tempfile::tempdir().unwrap();
        let subject = subject(folder.path());
        let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
        let sick = start(&subject, shell(&subject, "pod", "sick", script)).await;
        let well = start(&subject, shell(&subject, "pod", "well", script)).await;
        let path = folder.path().join("data/pods/pod/containers/sick/0").join(record);
        std::fs::write(&path, "{\"half of a rec").unwrap();
        // As at the start of a node: what cannot be read must not keep it from the others.
        let driver = (subject.successor)();
        let found = driver.list().await.unwrap();
        let ids: Vec<_> = found.iter().map(|found| &found.id).collect();
        assert_eq!(ids, [&sick.id, &well.id], "{record}");
        let state = &found[1].state;
        assert!(matches!(state, ContainerState::Running { .. }), "{record}: {state:?}");
        assert!(path.with_extension("json.damaged").exists(), "{record} is put aside");
        let next = shell(&subject, "pod", "next", "exit 3");
        let next = timeout(LIMIT, driver.start(next)).await.expect("start").unwrap();
        let exit = timeout(LIMIT, driver.wait(&next.id)).await.expect("its end").unwrap();
        assert_eq!(exit.code, 3, "{record}");
        timeout(LIMIT, driver.remove_pod("pod")).await.expect("its end").unwrap();
        let left = std::fs::read_dir(folder.path().join("data/pods")).unwrap();
        let left: Vec<_> =
            left.map(|entry| entry.unwrap().file_name()).filter(|n| n != ".covered").collect();
        assert!(left.is_empty(), "{record}: {left:?}");
    }
}

#[tokio::test]
async fn a_gpu_is_nobody_else_s_on_this_machine_while_its_container_runs() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let gpu = format!("GPU-of-a-test-{}", std::process::id());
    let mut spec = shell(&subject, "gpu", "a", "sleep 600");
    spec.gpus = vec![gpu.clone()];
    start(&subject, spec).await;
    let path = format!("/dev/shm/impresario-{gpu}");
    let is_free = || {
        let file = std::fs::File::open(&path).unwrap();
        Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
    };
    assert!(!is_free());
    subject.driver.remove_pod("gpu").await.unwrap();
    let let_go = timeout(LIMIT, async {
        while !is_free() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let_go.await.expect("it is let go with its container");
    std::fs::remove_file(&path).unwrap();
}
