//! Commands that somebody writes to and reads from, in containers of the process driver.

use crate::conformance::{self, LIMIT, Subject, said, shell, start};
use crate::process::subject;
use impresario_host::ContainerId;
use impresario_host::container::{Attached, DriverError, Size, Typed, Wanted, Written};
use std::time::Duration;
use tokio::time::timeout;

/// A container that waits.
async fn waiting(subject: &Subject) -> ContainerId {
    let started = start(subject, shell(subject, "open", "a", "echo ready; sleep 600")).await;
    said(&*subject.driver, &started.id, "ready").await;
    started.id
}

async fn run(subject: &Subject, id: &ContainerId, tty: bool, script: &str) -> Attached {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    subject.driver.run(id, Wanted { command, stdin: true, tty }).await.unwrap()
}

async fn types(attached: &Attached, text: &'static str) {
    let input = attached.input.as_ref().unwrap();
    timeout(LIMIT, input.send(Typed::Bytes(text.into()))).await.unwrap().unwrap();
}

/// What both outputs say, and the exit code.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    out: String,
    err: String,
    code: Option<i32>,
}

/// Listens until the standard output holds `text`, or to the end.
async fn listen(attached: &mut Attached, until: Option<&str>) -> Heard {
    let mut heard = Heard::default();
    while until.is_none_or(|text| !heard.out.contains(text)) {
        match timeout(LIMIT, attached.output.recv()).await.expect("it says more in time") {
            Some(Written::Stdout(bytes)) => heard.out += &String::from_utf8_lossy(&bytes),
            Some(Written::Stderr(bytes)) => heard.err += &String::from_utf8_lossy(&bytes),
            Some(Written::Ended(code)) => heard.code = Some(code),
            None => break,
        }
    }
    heard
}

#[tokio::test]
async fn a_command_hears_what_is_typed_until_its_end_and_says_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let id = waiting(&subject).await;
    let script = "read first; echo got $first; echo oops >&2; cat; exit 7";
    let mut attached = run(&subject, &id, false, script).await;
    types(&attached, "one\ntwo\n").await;
    assert_eq!(listen(&mut attached, Some("two\n")).await.out, "got one\ntwo\n");
    types(&attached, "three").await;
    attached.input = None;
    let rest = listen(&mut attached, None).await;
    assert_eq!((rest.out.as_str(), rest.code), ("three", Some(7)));

    let command = ["/bin/sh", "-c", "cat; echo nothing"].map(str::to_owned).to_vec();
    let wanted = Wanted { command, stdin: false, tty: false };
    let mut deaf = subject.driver.run(&id, wanted).await.unwrap();
    assert!(deaf.input.is_none());
    let heard = listen(&mut deaf, None).await;
    assert_eq!((heard.out.as_str(), heard.code), ("nothing\n", Some(0)));

    let command = vec!["/bin/no-such-command".to_owned()];
    let wanted = Wanted { command, stdin: false, tty: false };
    let heard = listen(&mut subject.driver.run(&id, wanted).await.unwrap(), None).await;
    assert_eq!(heard.code, Some(127), "{heard:?}");
    assert!(heard.err.contains("not found"), "{heard:?}");

    subject.driver.kill(&id).await.unwrap();
    let wanted = Wanted { command: vec!["true".into()], stdin: false, tty: false };
    let late = subject.driver.run(&id, wanted).await;
    assert!(matches!(late, Err(DriverError::NotRunning { .. })), "{late:?}");
    subject.driver.remove_pod("open").await.unwrap();
}

#[tokio::test]
async fn nothing_of_a_large_output_is_lost_however_slowly_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let id = waiting(&subject).await;
    let mut attached = run(&subject, &id, false, "head -c 3000000 /dev/zero").await;
    let (mut bytes, mut code) = (0, None);
    while let Some(written) = timeout(LIMIT, attached.output.recv()).await.unwrap() {
        match written {
            Written::Stdout(piece) => bytes += piece.len(),
            Written::Stderr(piece) => panic!("{piece:?}"),
            Written::Ended(with) => code = Some(with),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((bytes, code), (3_000_000, Some(0)));
    subject.driver.remove_pod("open").await.unwrap();
}

#[tokio::test]
async fn a_terminal_has_a_size_echoes_what_is_typed_and_interrupts() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let id = waiting(&subject).await;
    let script = "trap 'echo stopped; exit 3' INT; read go; stty size; [ -t 0 ] && [ -t 2 ] && echo $TERM; \
                  echo ready; while :; do sleep 0.1; done";
    let mut attached = run(&subject, &id, true, script).await;
    let size = Typed::Resize(Size { width: 91, height: 37 });
    attached.input.as_ref().unwrap().send(size).await.unwrap();
    types(&attached, "go\n").await;
    let heard = listen(&mut attached, Some("ready\r\n")).await;
    assert_eq!(heard.out, "go\r\n37 91\r\nxterm\r\nready\r\n");
    types(&attached, "\u{3}").await;
    let rest = listen(&mut attached, None).await;
    assert!(rest.out.ends_with("stopped\r\n"), "{rest:?}");
    assert_eq!(rest.code, Some(3), "{rest:?}");
    subject.driver.remove_pod("open").await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_cut_ends_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let id = waiting(&subject).await;
    for (number, tty) in [(1, false), (2, true)] {
        // A number of this run's own: others may run beside.
        let word = format!("{}{number}77", std::process::id());
        // With a terminal each job has a group of its own.
        let jobs = if tty { "set -m;" } else { "" };
        let script = format!("{jobs} sleep {word} & echo ready; sleep {word}");
        let mut attached = run(&subject, &id, tty, &script).await;
        listen(&mut attached, Some("ready")).await;
        assert!(conformance::processes_named(&word) > 0);
        drop(attached);
        let gone = timeout(LIMIT, async {
            while conformance::processes_named(&word) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        gone.await.unwrap_or_else(|_| panic!("all of it is ended, with a terminal: {tty}"));
    }
    subject.driver.remove_pod("open").await.unwrap();
}

#[tokio::test]
async fn a_container_is_followed_from_now_on_and_takes_no_input() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path());
    let script = "echo before; while [ ! -e go ]; do sleep 0.05; done; echo after; exit 5";
    let mut spec = shell(&subject, "open", "a", script);
    let volume = folder.path().join("volumes/shared");
    std::fs::create_dir_all(&volume).unwrap();
    spec.mounts = vec![impresario_host::container::Mount {
        volume: "v".into(),
        source: volume.clone(),
        sub_path: None,
        target: "/shared-here".into(),
        read_only: false,
    }];
    spec.working_dir = Some("/shared-here".into());
    let id = start(&subject, spec).await.id;
    said(&*subject.driver, &id, "before").await;
    let refused = subject.driver.attach(&id, true).await.unwrap_err().to_string();
    assert!(refused.contains("process driver gives a container no standard input"), "{refused}");
    let mut attached = subject.driver.attach(&id, false).await.unwrap();
    std::fs::write(volume.join("go"), "").unwrap();
    let heard = listen(&mut attached, None).await;
    assert_eq!((heard.out.as_str(), heard.code), ("after\n", Some(0)));
    subject.driver.remove_pod("open").await.unwrap();
}
