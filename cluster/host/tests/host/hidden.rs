//! What nodes of a machine hide from the containers of one another: before a container starts, and while it runs.

use crate::conformance::{LIMIT, output, shell, start, wait};
use crate::process::{driver, subject};
use std::path::Path;

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
async fn a_node_that_is_made_later_is_hidden_from_containers_that_run() {
    let (folder, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let subject = subject(folder.path());
    let started = start(&subject, shell(&subject, "old", "a", "exec sleep 600")).await;
    let key = later.path().join("data/keys/node.key");
    std::fs::create_dir_all(key.parent().unwrap()).unwrap();
    std::fs::write(&key, "secret-of-the-newcomer").unwrap();
    let read = async || {
        let command = vec!["cat".into(), key.display().to_string()];
        subject.driver.exec(&started.id, command, LIMIT).await.unwrap()
    };
    // Else it would show nothing.
    assert_eq!(read().await.output, "secret-of-the-newcomer");
    let newcomer = driver(later.path());
    let said = read().await;
    assert!(said.code != 0 && !said.output.contains("secret"), "{said:?}");
    // A restart of either covers nothing twice, and uncovers nothing.
    let again = [(subject.successor)(), driver(later.path())];
    let at = format!(" {} ", later.path().join("data").display());
    // Counted in there: of a long output only the beginning is kept.
    let command = ["grep", "-cF", &at, "/proc/self/mountinfo"].map(str::to_owned).to_vec();
    let over = again[0].exec(&started.id, command, LIMIT).await.unwrap();
    assert_eq!(over.output.trim(), "1", "{over:?}");
    assert!(read().await.code != 0);
    drop(newcomer);
    subject.driver.remove_pod("old").await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_made_again_in_its_folder_is_hidden_from_containers_that_run() {
    let (folder, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let subject = subject(folder.path());
    let started = start(&subject, shell(&subject, "old", "a", "exec sleep 600")).await;
    let key = again.path().join("data/keys/node.key");
    for secret in ["secret-of-the-first", "secret-of-the-second"] {
        // All of it goes, as `imp down --purge` does it; what had been mounted over it goes as well.
        let _ = std::fs::remove_dir_all(again.path().join("data"));
        std::fs::create_dir_all(key.parent().unwrap()).unwrap();
        std::fs::write(&key, secret).unwrap();
        let read = async || {
            let command = vec!["cat".into(), key.display().to_string()];
            subject.driver.exec(&started.id, command, LIMIT).await.unwrap()
        };
        // Else it would show nothing.
        assert_eq!(read().await.output, secret);
        drop(driver(again.path()));
        let said = read().await;
        assert!(said.code != 0 && !said.output.contains("secret"), "{said:?}");
    }
    subject.driver.remove_pod("old").await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_made_later_is_hidden_wherever_a_container_has_its_folder() {
    let (folder, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let subject = subject(folder.path());
    let outer = std::fs::canonicalize(host.path()).unwrap();
    std::fs::create_dir(folder.path().join("other")).unwrap();
    let mut spec = shell(&subject, "old", "a", "exec sleep 600");
    let volume = |source: &Path, target: &Path| impresario_host::container::Mount {
        volume: "v".into(),
        source: source.to_owned(),
        sub_path: None,
        target: target.to_owned(),
        read_only: false,
    };
    // The folder is in the container as a volume, and at its own path as it was when the container began: for the
    // second volume it was put together anew, entry by entry.
    spec.mounts = vec![
        volume(&outer, Path::new("/y")),
        volume(&folder.path().join("other"), &outer.join("x")),
    ];
    let started = start(&subject, spec).await;
    let key = Path::new("later/data/keys/node.key");
    std::fs::create_dir_all(outer.join(key).parent().unwrap()).unwrap();
    std::fs::write(outer.join(key), "secret-of-the-newcomer").unwrap();
    let read = async |at: &Path| {
        let command = vec!["cat".into(), at.join(key).display().to_string()];
        subject.driver.exec(&started.id, command, LIMIT).await.unwrap()
    };
    assert_eq!(read(Path::new("/y")).await.output, "secret-of-the-newcomer");
    assert!(read(&outer).await.code != 0, "else this shows what another test shows");
    let newcomer = driver(&outer.join("later"));
    for _ in 0..2 {
        let said = read(Path::new("/y")).await;
        assert!(said.code != 0 && !said.output.contains("secret"), "{said:?}");
        drop(driver(&outer.join("later")));
    }
    drop(newcomer);
    subject.driver.remove_pod("old").await.unwrap();
}
