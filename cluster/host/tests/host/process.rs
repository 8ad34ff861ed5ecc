//! The process driver: the conformance suite, and what it alone promises.

use crate::conformance::{self, LIMIT, Subject, output, said, shell, start, wait};
use impresario_host::{
    ContainerDriver, ContainerState,
    process::{ProcessConfig, ProcessDriver, identity::ProcessKey},
};
use nix::fcntl::{Flock, FlockArg};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::time::timeout;

fn driver(data: &Path) -> Arc<dyn ContainerDriver> {
    let config = ProcessConfig {
        data: data.join("data"),
        shim: vec![env!("CARGO_BIN_EXE_impresario-shim").into()],
        hidden: vec![data.join("data/keys")],
    };
    Arc::new(ProcessDriver::new(config).unwrap())
}

fn subject(folder: &Path) -> Subject {
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
    let left: Vec<_> = std::fs::read_dir(folder.path().join("data/pods")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
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
async fn a_container_sees_no_key_of_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("data/keys");
    std::fs::create_dir_all(&keys).unwrap();
    std::fs::write(keys.join("node.key"), "secret-of-the-node").unwrap();
    let subject = subject(folder.path());
    let script = format!(
        "cat {}/node.key; ls -A {} | wc -l",
        keys.display(),
        folder.path().join("data").display()
    );
    let started = start(&subject, shell(&subject, "curious", "a", &script)).await;
    wait(&subject, &started.id).await;
    let lines = output(&*subject.driver, &started.id).await;
    assert!(lines.iter().all(|(_, line)| !line.contains("secret-of-the-node")), "{lines:?}");
    assert!(lines.iter().any(|(_, line)| line == "0"), "{lines:?}");
    subject.driver.remove_pod("curious").await.unwrap();
}

#[tokio::test]
async fn the_files_of_another_node_of_this_machine_are_hidden_too() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let subjects = folders.each_ref().map(|folder| subject(folder.path()));
    let key = folders[1].path().join("data/keys/node.key");
    std::fs::create_dir_all(key.parent().unwrap()).unwrap();
    std::fs::write(&key, "secret-of-the-other").unwrap();
    let script =
        format!("cat {}; ls -A {} | wc -l", key.display(), key.parent().unwrap().display());
    let started = start(&subjects[0], shell(&subjects[0], "curious", "a", &script)).await;
    wait(&subjects[0], &started.id).await;
    let lines = output(&*subjects[0].driver, &started.id).await;
    assert!(lines.iter().all(|(_, line)| !line.contains("secret-of-the-other")), "{lines:?}");
    subjects[0].driver.remove_pod("curious").await.unwrap();
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
        let left: Vec<_> = std::fs::read_dir(folder.path().join("data/pods")).unwrap().collect();
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
