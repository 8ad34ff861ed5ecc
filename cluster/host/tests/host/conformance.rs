//! What every driver must do, as sentences over the trait alone.

use futures_util::StreamExt;
use impresario_host::container::{
    ContainerDriver, ContainerId, ContainerSpec, ContainerState, DriverError, LogLimit, LogOptions,
    Mount, PodSandbox, PullPolicy, Resources, Security, Started, Stream, User,
};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use tokio::time::timeout;

/// For a busy machine; a passing test does not spend it.
pub const LIMIT: Duration = Duration::from_mins(3);

/// A driver under test, and how to make another one over what it left.
pub struct Subject {
    pub driver: Arc<dyn ContainerDriver>,
    pub successor: Box<dyn Fn() -> Arc<dyn ContainerDriver> + Send + Sync>,
    pub image: String,
    /// A folder that containers may mount from.
    pub volumes: std::path::PathBuf,
}

pub fn sandbox(uid: &str) -> PodSandbox {
    PodSandbox {
        uid: uid.into(),
        namespace: "default".into(),
        name: format!("pod-{uid}"),
        hostname: format!("pod-{uid}"),
        address: None,
        host_network: false,
        cpu_request_milli: 0,
        annotations: BTreeMap::new(),
    }
}

pub fn shell(subject: &Subject, uid: &str, name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        pod: sandbox(uid),
        name: name.into(),
        attempt: 0,
        is_init: false,
        image: subject.image.clone(),
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

pub async fn start(subject: &Subject, spec: ContainerSpec) -> Started {
    subject.driver.prepare_pod(spec.pod.clone()).await.unwrap();
    timeout(LIMIT, subject.driver.start(spec)).await.expect("start").unwrap()
}

pub async fn wait(subject: &Subject, id: &ContainerId) -> impresario_host::Exit {
    timeout(LIMIT, subject.driver.wait(id)).await.expect("the container ends").unwrap()
}

pub async fn output(driver: &dyn ContainerDriver, id: &ContainerId) -> Vec<(Stream, String)> {
    let stream = driver.logs(id, LogOptions::default()).await.unwrap();
    let lines = timeout(LIMIT, stream.collect::<Vec<_>>()).await.expect("the log ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    lines.into_iter().map(|line| line.unwrap()).map(|l| (l.stream, text(&l.bytes))).collect()
}

/// Waits until the container has written a line that holds `text`.
pub async fn said(driver: &dyn ContainerDriver, id: &ContainerId, text: &str) {
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut stream = driver.logs(id, options).await.unwrap();
    let found = async {
        while let Some(line) = stream.next().await {
            if String::from_utf8_lossy(&line.unwrap().bytes).contains(text) {
                return true;
            }
        }
        false
    };
    assert!(timeout(LIMIT, found).await.expect("a line in time"), "the log ends without {text:?}");
}

/// All of it, one after the other: daemons are slow to start.
pub async fn check(subject: &Subject) {
    check_life(subject).await;
    exit_codes_and_both_outputs_are_kept(subject).await;
    a_command_that_is_not_there_is_told_apart_from_one_that_is_not_allowed(subject).await;
    the_last_lines_of_a_log_are_whole_ones(subject).await;
    the_environment_is_what_the_pod_asks_for(subject).await;
    a_stop_asks_first_and_ends_everything_when_the_grace_is_over(subject).await;
    a_container_that_heeds_the_term_signal_says_its_own_exit_code(subject).await;
    containers_of_a_pod_share_a_volume_at_its_mount_path(subject).await;
    a_read_only_mount_refuses_writes(subject).await;
    a_successor_finds_what_runs_and_what_ended_meanwhile(subject).await;
    a_follower_reads_on_until_the_container_ends(subject).await;
    a_memory_limit_is_kept_and_named_when_it_kills(subject).await;
    an_attempt_is_started_once(subject).await;
    a_further_command_runs_where_the_container_is(subject).await;
    what_runs_is_told_with_what_it_used(subject).await;
    a_removed_pod_leaves_nothing(subject).await;
}

/// What holds of every driver, also of one that starts nothing.
pub async fn check_life(subject: &Subject) {
    an_attempt_is_one_container(subject).await;
    a_stopped_container_is_over_for_everybody(subject).await;
    a_follower_is_let_go_when_the_container_ends(subject).await;
    of_a_removed_pod_nothing_is_known(subject).await;
}

async fn an_attempt_is_one_container(subject: &Subject) {
    let spec = shell(subject, "once", "a", "sleep 1000");
    let first = start(subject, spec.clone()).await;
    // It is said, or handed out once more.
    match subject.driver.start(spec.clone()).await {
        Ok(again) => assert_eq!((again.id, again.started_at), (first.id.clone(), first.started_at)),
        Err(impresario_host::StartError::Exists { id }) => assert_eq!(id, first.id),
        Err(error) => panic!("{error}"),
    }
    let second = start(subject, ContainerSpec { attempt: 1, ..spec }).await;
    assert_ne!(second.id, first.id);
    assert!(subject.driver.remove(&first.id).await.is_err(), "a running one is not removed");
    let found = subject.driver.list().await.unwrap();
    let mut attempts: Vec<_> = found
        .iter()
        .filter(|f| f.pod_uid == "once")
        .map(|f| (f.container.as_str(), f.attempt))
        .collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [("a", 0), ("a", 1)]);
    subject.driver.remove_pod("once").await.unwrap();
}

async fn a_stopped_container_is_over_for_everybody(subject: &Subject) {
    let driver = &subject.driver;
    let started = start(subject, shell(subject, "over", "a", "sleep 1000")).await;
    let id = started.id.clone();
    let state = driver.inspect(&id).await.unwrap();
    assert!(
        matches!(state, ContainerState::Running { started_at, .. } if started_at == started.started_at),
        "{state:?}"
    );
    let (waiting, waited) = (driver.clone(), id.clone());
    let waiting = tokio::spawn(async move { waiting.wait(&waited).await });
    let exit = timeout(LIMIT, driver.kill(&id)).await.expect("it ends").unwrap();
    assert_eq!(exit.code, 137);
    let heard = timeout(LIMIT, waiting).await.expect("who waits is told").unwrap().unwrap();
    assert_eq!((heard.code, heard.finished_at), (exit.code, exit.finished_at));
    assert_eq!(driver.stop(&id, Duration::ZERO).await.unwrap().code, 137, "said again");
    let state = driver.inspect(&id).await.unwrap();
    assert!(matches!(&state, ContainerState::Exited(ended) if ended.code == 137), "{state:?}");
    let late = driver.exec(&id, vec!["/bin/true".into()], LIMIT).await;
    assert!(matches!(late, Err(DriverError::NotRunning { .. })), "{late:?}");
    driver.remove(&id).await.unwrap();
    let gone = driver.wait(&id).await;
    assert!(matches!(gone, Err(DriverError::NoContainer { .. })), "{gone:?}");
    driver.remove_pod("over").await.unwrap();
}

async fn a_follower_is_let_go_when_the_container_ends(subject: &Subject) {
    // An engine says that a container has started when that may have said something.
    let asked = jiff::Timestamp::now();
    let started = start(subject, shell(subject, "told", "a", "echo hello; sleep 1000")).await;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut lines = subject.driver.logs(&started.id, options).await.unwrap();
    let first = timeout(LIMIT, lines.next()).await.expect("a line").unwrap().unwrap();
    assert!(!first.bytes.is_empty() && first.time >= asked, "{first:?}");
    subject.driver.kill(&started.id).await.unwrap();
    timeout(LIMIT, lines.count()).await.expect("the log ends");
    let options = LogOptions { tail: Some(0), ..LogOptions::default() };
    assert_eq!(subject.driver.logs(&started.id, options).await.unwrap().count().await, 0);
    subject.driver.remove_pod("told").await.unwrap();
}

async fn of_a_removed_pod_nothing_is_known(subject: &Subject) {
    let started = start(subject, shell(subject, "forgotten", "a", "sleep 1000")).await;
    assert!(subject.driver.pods().await.unwrap().contains("forgotten"));
    subject.driver.remove_pod("forgotten").await.unwrap();
    subject.driver.remove_pod("forgotten").await.unwrap();
    assert!(!subject.driver.pods().await.unwrap().contains("forgotten"));
    assert!(subject.driver.list().await.unwrap().iter().all(|f| f.pod_uid != "forgotten"));
    assert!(subject.driver.inspect(&started.id).await.is_err());
}

async fn exit_codes_and_both_outputs_are_kept(subject: &Subject) {
    let spec = shell(subject, "exits", "a", "echo out; echo err >&2; exit 3");
    let started = start(subject, spec).await;
    let exit = wait(subject, &started.id).await;
    assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (3, None, "Error"));
    assert!(exit.started_at.unwrap() <= exit.finished_at);
    let mut lines = output(&*subject.driver, &started.id).await;
    lines.sort_by_key(|(stream, _)| *stream as u8);
    let expected = [(Stream::Stdout, "out".into()), (Stream::Stderr, "err".into())];
    assert_eq!(lines, expected);
    subject.driver.remove(&started.id).await.unwrap();
    assert!(subject.driver.inspect(&started.id).await.is_err());
    subject.driver.remove_pod("exits").await.unwrap();
}

async fn a_command_that_is_not_there_is_told_apart_from_one_that_is_not_allowed(subject: &Subject) {
    for (command, code) in [("/no/such/command", 127), ("/etc", 126)] {
        let mut spec = shell(subject, "missing", "a", "");
        spec.command = vec![command.into()];
        subject.driver.prepare_pod(spec.pod.clone()).await.unwrap();
        let error = subject.driver.start(spec).await.unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert_eq!(error.reason(), "StartError");
    }
    let found = subject.driver.list().await.unwrap();
    assert!(found.iter().all(|found| found.pod_uid != "missing"), "{found:?}");
    subject.driver.remove_pod("missing").await.unwrap();
}

async fn the_last_lines_of_a_log_are_whole_ones(subject: &Subject) {
    let doubled = "s=xxxxxxxxxx; i=0; while [ $i -lt 12 ]; do s=$s$s; i=$((i+1)); done";
    let script = format!("{doubled}; echo first; echo $s; echo last");
    let started = start(subject, shell(subject, "tail", "a", &script)).await;
    wait(subject, &started.id).await;
    let long = "x".repeat(10 << 12);
    for (tail, expected) in [(1, "last".to_owned()), (2, format!("{long} last"))] {
        for follow in [false, true] {
            let options = LogOptions { tail: Some(tail), follow, ..LogOptions::default() };
            let stream = subject.driver.logs(&started.id, options).await.unwrap();
            let lines = timeout(LIMIT, stream.collect::<Vec<_>>()).await.expect("the log ends");
            let text = lines.into_iter().map(Result::unwrap).fold(String::new(), |text, line| {
                let end = if line.partial { "" } else { " " };
                text + &String::from_utf8_lossy(&line.bytes) + end
            });
            assert!(text.trim() == expected, "{tail} {follow}: {} bytes", text.len());
        }
    }
    subject.driver.remove_pod("tail").await.unwrap();
}

async fn the_environment_is_what_the_pod_asks_for(subject: &Subject) {
    let mut spec =
        shell(subject, "env", "a", "echo $A-$B; env | grep -c CARGO; ls -l /proc/$$/fd 2>&-; true");
    spec.env = vec![("A".into(), "1".into()), ("B".into(), "two words".into())];
    let started = start(subject, spec).await;
    wait(subject, &started.id).await;
    let lines = output(&*subject.driver, &started.id).await;
    assert_eq!(lines[0].1, "1-two words");
    assert_eq!(lines[1].1, "0", "the node's own environment is not handed on");
    let descriptors: Vec<_> = lines[2..].iter().filter(|(_, line)| line.contains("->")).collect();
    // Standard ones, and what a shell keeps on its script; nothing of the node.
    let foreign = descriptors.iter().filter(|(_, l)| !l.contains("pipe:") && !l.contains("/null"));
    assert_eq!(foreign.count(), 0, "{descriptors:?}");
    subject.driver.remove_pod("env").await.unwrap();
}

async fn a_stop_asks_first_and_ends_everything_when_the_grace_is_over(subject: &Subject) {
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done";
    let started = start(subject, shell(subject, "stubborn", "a", script)).await;
    said(&*subject.driver, &started.id, "ready").await;
    let stopped = subject.driver.stop(&started.id, Duration::from_secs(10));
    let exit = timeout(LIMIT, stopped).await.expect("it is stopped").unwrap();
    assert_eq!(exit.code, 137);
    let lines = output(&*subject.driver, &started.id).await;
    assert!(lines.iter().any(|(_, line)| line == "asked"), "{lines:?}");
    subject.driver.remove_pod("stubborn").await.unwrap();
}

async fn a_container_that_heeds_the_term_signal_says_its_own_exit_code(subject: &Subject) {
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let started = start(subject, shell(subject, "polite", "a", script)).await;
    said(&*subject.driver, &started.id, "ready").await;
    let exit = subject.driver.stop(&started.id, LIMIT).await.unwrap();
    assert_eq!(exit.code, 7);
    subject.driver.remove_pod("polite").await.unwrap();
}

fn mount(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        volume: "shared".into(),
        source: source.into(),
        sub_path: None,
        target: target.into(),
        read_only,
    }
}

async fn containers_of_a_pod_share_a_volume_at_its_mount_path(subject: &Subject) {
    let volume = subject.volumes.join("shared");
    std::fs::create_dir_all(&volume).unwrap();
    let host_had_it = Path::new("/data-of-a-test").exists();
    for target in ["/data-of-a-test", "/usr/share/data-of-a-test/deep"] {
        let mut writer =
            shell(subject, "volumes", "writer", &format!("echo hello > {target}/file"));
        writer.mounts = vec![mount(&volume, target, false)];
        let writer = start(subject, writer).await;
        let exit = wait(subject, &writer.id).await;
        assert_eq!(exit.code, 0, "{:?}", output(&*subject.driver, &writer.id).await);
        let mut reader = shell(subject, "volumes", "reader", &format!("cat {target}/file"));
        reader.mounts = vec![mount(&volume, target, false)];
        let reader = start(subject, reader).await;
        wait(subject, &reader.id).await;
        let expected = [(Stream::Stdout, "hello".into())];
        assert_eq!(output(&*subject.driver, &reader.id).await, expected);
        subject.driver.remove(&reader.id).await.unwrap();
        subject.driver.remove(&writer.id).await.unwrap();
    }
    assert_eq!(Path::new("/data-of-a-test").exists(), host_had_it, "nothing is left on the host");
    assert!(!Path::new("/usr/share/data-of-a-test").exists(), "nothing is left on the host");
    subject.driver.remove_pod("volumes").await.unwrap();
}

async fn a_read_only_mount_refuses_writes(subject: &Subject) {
    let volume = subject.volumes.join("read-only");
    std::fs::create_dir_all(&volume).unwrap();
    let mut spec = shell(subject, "readonly", "a", "echo x > /ro-of-a-test/file");
    spec.mounts = vec![mount(&volume, "/ro-of-a-test", true)];
    let started = start(subject, spec).await;
    assert_ne!(wait(subject, &started.id).await.code, 0);
    assert!(!volume.join("file").exists());
    subject.driver.remove_pod("readonly").await.unwrap();
}

async fn a_successor_finds_what_runs_and_what_ended_meanwhile(subject: &Subject) {
    let runs = start(subject, shell(subject, "left", "runs", "sleep 1000")).await;
    let ends = start(subject, shell(subject, "left", "ends", "exit 5")).await;
    let ContainerState::Running { started_at, pid } =
        subject.driver.inspect(&runs.id).await.unwrap()
    else {
        panic!("it runs")
    };
    wait(subject, &ends.id).await;
    let successor = (subject.successor)();
    let found = successor.list().await.unwrap();
    let of =
        |name: &str| found.iter().find(|f| f.pod_uid == "left" && f.container == name).unwrap();
    assert_eq!(of("runs").state, ContainerState::Running { started_at, pid });
    assert!(matches!(&of("ends").state, ContainerState::Exited(exit) if exit.code == 5));
    let exit = successor.kill(&runs.id).await.unwrap();
    assert_eq!(exit.code, 137);
    successor.remove_pod("left").await.unwrap();
    assert!(subject.driver.list().await.unwrap().iter().all(|f| f.pod_uid != "left"));
}

async fn a_follower_reads_on_until_the_container_ends(subject: &Subject) {
    let script = "echo one; sleep 1; echo two; sleep 0.3; echo three";
    let started = start(subject, shell(subject, "follow", "a", script)).await;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let stream = subject.driver.logs(&started.id, options).await.unwrap();
    let lines = timeout(LIMIT, stream.collect::<Vec<_>>()).await.expect("it ends by itself");
    let lines: Vec<_> = lines.into_iter().map(|line| line.unwrap()).collect();
    let text: Vec<_> = lines.iter().map(|line| line.bytes.clone()).collect();
    assert_eq!(text, ["one", "two", "three"]);
    let options = LogOptions { since: Some(lines[1].time), ..LogOptions::default() };
    let later = subject.driver.logs(&started.id, options).await.unwrap().count().await;
    // Lines that were read together, after a while without the processor, have one time.
    let since = lines.iter().filter(|line| line.time >= lines[1].time).count();
    assert_eq!(later, since);
    subject.driver.remove_pod("follow").await.unwrap();
}

async fn a_memory_limit_is_kept_and_named_when_it_kills(subject: &Subject) {
    // Grows a shell variable to many times the limit.
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let mut spec = shell(subject, "hungry", "a", script);
    spec.resources.memory_limit_bytes = Some(32 << 20);
    let started = start(subject, spec).await;
    let exit = wait(subject, &started.id).await;
    if started.warnings.is_empty() {
        assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"), "{exit:?}");
    } else {
        assert_ne!(exit.code, 0, "{exit:?}");
    }
    subject.driver.remove_pod("hungry").await.unwrap();
}

async fn an_attempt_is_started_once(subject: &Subject) {
    let volume = subject.volumes.join("twice");
    std::fs::create_dir_all(&volume).unwrap();
    let mut spec = shell(subject, "twice", "a", "echo one >> /twice-of-a-test/file; sleep 1000");
    spec.mounts = vec![mount(&volume, "/twice-of-a-test", false)];
    let first = start(subject, spec.clone()).await;
    // Said or handed out once more, as above.
    drop(subject.driver.start(spec.clone()).await);
    let lines = || std::fs::read_to_string(volume.join("file")).unwrap_or_default();
    let begun = timeout(LIMIT, async {
        while lines().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    begun.await.expect("it runs");
    let second = start(subject, ContainerSpec { attempt: 1, ..spec }).await;
    assert_ne!(second.id, first.id);
    let again = timeout(LIMIT, async {
        while lines().lines().count() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    again.await.expect("the second attempt runs");
    assert_eq!(lines(), "one\none\n", "each attempt ran once");
    assert!(subject.driver.remove(&first.id).await.is_err(), "a running one is not removed");
    subject.driver.remove_pod("twice").await.unwrap();
}

async fn a_further_command_runs_where_the_container_is(subject: &Subject) {
    let volume = subject.volumes.join("exec");
    std::fs::create_dir_all(&volume).unwrap();
    let script = "cat /proc/self/oom_score_adj > score; echo ready; sleep 600";
    let mut spec = shell(subject, "exec", "a", script);
    spec.env = vec![("GREETING".into(), "hello".into())];
    spec.mounts = vec![mount(&volume, "/shared", false)];
    spec.working_dir = Some("/shared".into());
    let started = start(subject, spec).await;
    said(&*subject.driver, &started.id, "ready").await;
    let exec = async |command: &[&str], limit| {
        let command = command.iter().map(|&word| word.into()).collect();
        subject.driver.exec(&started.id, command, limit).await
    };
    let script = "echo $GREETING from $PWD; echo oops >&2; touch seen; exit 3";
    let ended = exec(&["/bin/sh", "-c", script], LIMIT).await.unwrap();
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.output.contains("hello from /shared\n"), "{ended:?}");
    assert!(ended.output.contains("oops\n"), "{ended:?}");
    assert!(volume.join("seen").exists(), "it sees the container's mounts");
    let score = exec(&["/bin/cat", "score", "/proc/self/oom_score_adj"], LIMIT).await.unwrap();
    let scores: Vec<&str> = score.output.lines().collect();
    assert!(scores.len() == 2 && scores[0] == scores[1], "it goes no later than that: {score:?}");

    let missing = exec(&["/bin/no-such-command"], LIMIT).await.unwrap();
    assert_eq!(missing.code, 127, "{missing:?}");
    let slow = exec(&["/bin/sh", "-c", "sleep 500"], Duration::from_millis(300)).await;
    assert!(matches!(slow, Err(DriverError::TooLong { .. })), "{slow:?}");
    let still = subject.driver.inspect(&started.id).await.unwrap();
    assert!(matches!(still, ContainerState::Running { .. }), "{still:?}");

    subject.driver.kill(&started.id).await.unwrap();
    let late = exec(&["/bin/true"], LIMIT).await;
    assert!(matches!(late, Err(DriverError::NotRunning { .. })), "{late:?}");
    subject.driver.remove_pod("exec").await.unwrap();
}

async fn what_runs_is_told_with_what_it_used(subject: &Subject) {
    // A child computes and ends; what it used is the container's.
    let work = "(i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done); echo done; sleep 1000";
    let busy = start(subject, shell(subject, "usage", "busy", work)).await;
    let idle = start(subject, shell(subject, "usage", "idle", "echo done; sleep 1000")).await;
    let over = start(subject, shell(subject, "usage", "over", "true")).await;
    said(&*subject.driver, &busy.id, "done").await;
    said(&*subject.driver, &idle.id, "done").await;
    wait(subject, &over.id).await;
    // One of which nothing is told in time is left out, and told the next time.
    let all = async {
        loop {
            let used = subject.driver.usage().await.unwrap();
            let mut used: Vec<_> = used.into_iter().filter(|one| one.pod_uid == "usage").collect();
            used.sort_by(|a, b| a.container.cmp(&b.container));
            if used.len() >= 2 {
                return used;
            }
        }
    };
    let used = timeout(LIMIT, all).await.unwrap();
    let names: Vec<_> = used.iter().map(|one| one.container.as_str()).collect();
    assert_eq!(names, ["busy", "idle"], "what has ended uses nothing");
    assert_eq!(used[0].id, busy.id);
    assert!(used[0].stats.cpu >= Duration::from_millis(10), "{used:?}");
    assert!(used[0].stats.cpu > used[1].stats.cpu, "{used:?}");
    assert!(used.iter().all(|one| one.stats.memory_bytes > 0), "{used:?}");
    subject.driver.remove_pod("usage").await.unwrap();
}

async fn a_removed_pod_leaves_nothing(subject: &Subject) {
    // A number of this run's and this driver's own: others may run beside.
    let word = format!("{}{}", std::process::id(), 1000 + subject.image.len());
    let spec = shell(subject, "gone", "a", &format!("setsid sleep {word} & sleep {word}"));
    let started = start(subject, spec).await;
    let count = async || subject.driver.stats(&started.id).await.map_or(0, |s| s.processes);
    let seen = timeout(LIMIT, async {
        while count().await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    seen.await.expect("processes are counted");
    subject.driver.remove_pod("gone").await.unwrap();
    subject.driver.remove_pod("gone").await.unwrap();
    assert!(subject.driver.list().await.unwrap().iter().all(|f| f.pod_uid != "gone"));
    assert_eq!(processes_named(&word), 0);
}

/// How many processes of this machine have `word` among their arguments.
pub fn processes_named(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|b| *b == 0).any(|arg| arg == word.as_bytes())).count()
}
