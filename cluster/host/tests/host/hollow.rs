//! The hollow driver: what of the conformance suite needs no commands, and what its annotations promise.

use crate::conformance::{self, LIMIT, Subject, output, sandbox, shell, start};
use impresario_host::{
    ContainerSpec, ContainerState, StartError,
    container::DriverError,
    hollow::{EXIT_CODE, HollowDriver, RUN_FOR, USAGE},
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::timeout;

fn subject() -> Subject {
    Subject {
        driver: Arc::new(HollowDriver::new()),
        successor: Box::new(|| Arc::new(HollowDriver::new())),
        image: "none".into(),
        volumes: PathBuf::from("/nowhere"),
    }
}

fn annotated(subject: &Subject, annotations: &[(&str, &str)]) -> ContainerSpec {
    let mut spec = shell(subject, "p", "a", "no such command is looked for");
    let words = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    spec.pod.annotations = words.collect();
    spec
}

#[tokio::test]
async fn the_hollow_driver_conforms_where_nothing_is_run() {
    conformance::check_life(&subject()).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_ends_when_and_how_its_pod_s_annotations_say() {
    let subject = subject();
    let spec = annotated(&subject, &[(RUN_FOR, "30s"), (EXIT_CODE, "3")]);
    let started = start(&subject, spec).await;
    let driver = &subject.driver;
    let is_running = async || {
        matches!(driver.inspect(&started.id).await.unwrap(), ContainerState::Running { .. })
    };
    tokio::time::advance(Duration::from_secs(29)).await;
    assert!(is_running().await);
    let exit = timeout(LIMIT, driver.wait(&started.id)).await.expect("it ends").unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (3, "Error"));
    let lasted = exit.finished_at.duration_since(exit.started_at.unwrap());
    assert_eq!(lasted.as_secs(), 30);
    assert!(!is_running().await);
    assert_eq!(driver.stop(&started.id, LIMIT).await.unwrap().code, 3, "as it ended by itself");
}

#[tokio::test]
async fn what_a_container_asks_for_says_what_it_pretends_to_use() {
    for (annotations, percent) in [(&[][..], 50), (&[(USAGE, "120%")], 120)] {
        let subject = subject();
        let mut spec = annotated(&subject, annotations);
        spec.resources.cpu_request_milli = 1_000_000;
        spec.resources.memory_request_bytes = 1 << 20;
        let started = start(&subject, spec).await;
        let used = subject.driver.usage().await.unwrap();
        let [one] = used.as_slice() else { panic!("{used:?}") };
        assert_eq!(one.id, started.id);
        assert_eq!(one.stats.memory_bytes, (1 << 20) * percent / 100);
        // Time goes on between two looks; what is used of it does so in proportion.
        let later = subject.driver.stats(&started.id).await.unwrap();
        assert!(later.cpu >= one.stats.cpu);
        subject.driver.kill(&started.id).await.unwrap();
        assert!(subject.driver.usage().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_annotation_that_cannot_be_read_is_named_and_nothing_starts() {
    let subject = subject();
    for (name, value) in
        [(RUN_FOR, "soon"), (RUN_FOR, "5"), (EXIT_CODE, "256"), (EXIT_CODE, "-1"), (USAGE, "half")]
    {
        let error = subject.driver.start(annotated(&subject, &[(name, value)])).await.unwrap_err();
        assert!(matches!(error, StartError::Config { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(value), "{text}");
    }
    assert!(subject.driver.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_init_container_ends_at_once_and_the_others_run_on() {
    let subject = subject();
    let init = ContainerSpec { is_init: true, ..shell(&subject, "p", "init", "exit 1") };
    let init = start(&subject, init).await;
    let exit = timeout(LIMIT, subject.driver.wait(&init.id)).await.expect("it ends").unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"));
    let main = start(&subject, shell(&subject, "p", "main", "")).await;
    let ran = subject.driver.exec(&main.id, vec!["cat".into()], LIMIT).await.unwrap();
    assert_eq!((ran.code, ran.output.as_str()), (0, ""));
    let lines = output(&*subject.driver, &main.id).await;
    assert!(lines.len() == 1 && lines[0].1.contains("pretends"), "{lines:?}");
}

#[tokio::test]
async fn who_waits_for_a_container_of_a_pod_that_is_removed_is_told() {
    let subject = subject();
    let started = start(&subject, shell(&subject, "p", "a", "")).await;
    let (driver, id) = (subject.driver.clone(), started.id.clone());
    let waiting = tokio::spawn(async move { driver.wait(&id).await });
    tokio::task::yield_now().await;
    subject.driver.remove_pod("p").await.unwrap();
    let told = timeout(LIMIT, waiting).await.expect("told").unwrap();
    // By when it asked: the end, or that there is none.
    assert!(
        matches!(&told, Ok(exit) if exit.code == 137)
            || matches!(told, Err(DriverError::NoContainer { .. })),
        "{told:?}"
    );
    subject.driver.prepare_pod(sandbox("q")).await.unwrap();
    assert_eq!(subject.driver.pods().await.unwrap().into_iter().collect::<Vec<_>>(), ["q"]);
}
