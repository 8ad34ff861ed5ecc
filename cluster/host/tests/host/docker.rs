//! The docker driver against an engine of its own: started here, in a folder that goes with it.

use crate::conformance::{self, LIMIT, Subject, output, said, shell, start, wait};
use impresario_host::{
    ContainerDriver, ContainerState, StartError,
    container::{Mount, PullPolicy},
    docker::{DockerConfig, DockerDriver},
    volumes,
};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// An engine with its own socket and folders; gone when it is dropped.
struct Engine {
    folder: tempfile::TempDir,
    daemon: Child,
}

const IMAGE: &str = "impresario-test/busybox:1";

impl Engine {
    fn start() -> Self {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "the docker driver is tested with an engine of its own, which needs root: \
             run the tests as root"
        );
        // Its sockets have short paths only.
        let folder = tempfile::Builder::new().prefix("imp-d").tempdir_in("/tmp").unwrap();
        let path = |name: &str| folder.path().join(name);
        let log = fs::File::create(path("log")).unwrap();
        let daemon = Command::new("dockerd")
            .arg(format!("--host=unix://{}", path("sock").display()))
            .arg(format!("--data-root={}", path("data").display()))
            .arg(format!("--exec-root={}", path("exec").display()))
            .arg(format!("--pidfile={}", path("pid").display()))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd is not installed: apt-get install docker.io");
        let mut engine = Self { folder, daemon };
        let begin = Instant::now();
        while !engine.docker(&["version"]).status.success() {
            let ended = engine.daemon.try_wait().unwrap();
            let log = fs::read_to_string(engine.path("log")).unwrap_or_default();
            assert!(ended.is_none() && begin.elapsed() < LIMIT, "dockerd does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        engine.import();
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn docker(&self, args: &[&str]) -> std::process::Output {
        let host = format!("unix://{}", self.path("sock").display());
        Command::new("docker").args(["-H", &host]).args(args).output().expect("docker.io's client")
    }

    /// An image of nothing but busybox.
    fn import(&self) {
        let bin = self.path("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for folder in ["etc", "tmp", "proc", "usr/share"] {
            fs::create_dir_all(self.path("rootfs").join(folder)).unwrap();
        }
        fs::copy("/usr/bin/busybox", bin.join("busybox"))
            .or_else(|_| fs::copy("/bin/busybox", bin.join("busybox")))
            .expect("busybox is not installed: apt-get install busybox-static");
        for name in
            ["sh", "env", "grep", "ls", "sleep", "setsid", "cat", "echo", "true", "hostname"]
        {
            symlink("busybox", bin.join(name)).unwrap();
        }
        let image = self.path("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(self.path("rootfs")).arg("-cf").arg(&image).arg(".");
        assert!(tar.status().unwrap().success());
        let imported = self.docker(&["import", image.to_str().unwrap(), IMAGE]);
        assert!(imported.status.success(), "{imported:?}");
    }

    async fn driver(&self) -> Arc<dyn ContainerDriver> {
        connect(&self.path("sock")).await
    }
}

async fn connect(socket: &Path) -> Arc<dyn ContainerDriver> {
    let config = DockerConfig {
        socket: socket.to_owned(),
        cluster: "test".into(),
        node: "node-1".into(),
        network: "none".into(),
        pods: socket.with_file_name("volumes"),
        hidden: vec![socket.with_file_name("keys")],
    };
    Arc::new(DockerDriver::connect(config).await.unwrap())
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let begin = Instant::now();
        while self.daemon.try_wait().is_ok_and(|ended| ended.is_none()) {
            if begin.elapsed() > Duration::from_secs(20) {
                let _ = self.daemon.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = volumes::unmount_below(self.folder.path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docker_driver_conforms_and_keeps_its_own_promises() {
    let engine = Engine::start();
    let driver = engine.driver().await;
    let socket = engine.path("sock");
    let subject = Subject {
        driver,
        successor: Box::new(move || {
            let socket = socket.clone();
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(connect(&socket))
            })
        }),
        image: IMAGE.into(),
        volumes: engine.path("volumes"),
    };
    conformance::check(&subject).await;
    images_are_fetched_as_the_policy_says(&subject).await;
    containers_of_a_pod_share_its_network_and_outlive_each_other(&subject).await;
    folders_of_the_host_are_mounted_but_for_the_keys_of_the_node(&subject, &engine).await;
    what_is_made_later_below_a_volume_is_hidden_from_a_container_that_runs(&subject, &engine).await;
    a_container_that_is_taken_away_behind_our_back_is_missed(&subject, &engine).await;
    a_start_whose_answer_is_lost_is_not_made_a_second_time(&subject, &engine).await;
    what_a_pod_that_ends_did_not_hear_of_ends_with_it(&subject, &engine).await;
    what_was_made_and_never_started_is_made_as_its_pod_is_now(&subject, &engine).await;
    let left = engine.docker(&["ps", "-aq"]);
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "containers are left");
}

async fn images_are_fetched_as_the_policy_says(subject: &Subject) {
    let mut spec = shell(subject, "images", "a", "true");
    spec.image = "impresario-test/absent:1".into();
    let error = subject.driver.start(spec.clone()).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImageNeverPull");
    spec.pull = PullPolicy::IfNotPresent;
    spec.image = "127.0.0.1:1/absent:1".into(); // a registry that refuses at once
    let error = subject.driver.start(spec.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::ImagePull { .. }), "{error}");
    assert_eq!(error.reason(), "ErrImagePull");
    spec.image = IMAGE.into();
    let started = start(subject, spec).await;
    assert_eq!(wait(subject, &started.id).await.code, 0);
    subject.driver.remove_pod("images").await.unwrap();
}

async fn containers_of_a_pod_share_its_network_and_outlive_each_other(subject: &Subject) {
    let script = "ls -l /proc/self/ns/net; hostname; sleep 1000";
    let first = start(subject, shell(subject, "net", "first", script)).await;
    let second = start(subject, shell(subject, "net", "second", script)).await;
    let network = async |id| {
        said(&*subject.driver, id, "pod-net").await;
        let lines = output(&*subject.driver, id).await;
        lines[0].1.rsplit(' ').next().unwrap().to_owned()
    };
    let before = network(&first.id).await;
    assert_eq!(network(&second.id).await, before);
    subject.driver.kill(&first.id).await.unwrap();
    let mut again = shell(subject, "net", "first", script);
    again.attempt = 1;
    let again = start(subject, again).await;
    assert_eq!(network(&again.id).await, before);
    let state = subject.driver.inspect(&second.id).await.unwrap();
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    subject.driver.remove_pod("net").await.unwrap();
}

async fn folders_of_the_host_are_mounted_but_for_the_keys_of_the_node(
    subject: &Subject,
    engine: &Engine,
) {
    for name in ["keys", "files"] {
        fs::create_dir(engine.path(name)).unwrap();
        fs::write(engine.path(name).join("file"), name).unwrap();
    }
    let seen = async |name: &str, part: Option<&str>| {
        let mut spec = shell(subject, "host", name, "cat /host/file || cat /host");
        spec.mounts = vec![Mount {
            volume: "host".into(),
            source: engine.path(name),
            sub_path: part.map(PathBuf::from),
            target: "/host".into(),
            read_only: true,
        }];
        subject.driver.start(spec).await
    };
    let refused = seen("keys", None).await.unwrap_err();
    assert!(refused.to_string().contains("may not be mounted"), "{refused}");
    for part in [None, Some("file")] {
        let started = seen("files", part).await.unwrap();
        assert_eq!(wait(subject, &started.id).await.code, 0);
        let lines = output(&*subject.driver, &started.id).await;
        assert_eq!(lines.last().unwrap().1, "files");
        subject.driver.remove_pod("host").await.unwrap();
    }
}

async fn what_is_made_later_below_a_volume_is_hidden_from_a_container_that_runs(
    subject: &Subject,
    engine: &Engine,
) {
    let (shared, made) = (engine.path("shared"), engine.path("shared/home/cluster"));
    fs::create_dir(&shared).unwrap();
    let mut spec = shell(subject, "later", "a", "sleep 1000");
    spec.mounts = vec![Mount {
        volume: "host".into(),
        source: shared,
        sub_path: None,
        target: "/host".into(),
        read_only: true,
    }];
    let started = start(subject, spec).await;
    fs::create_dir_all(&made).unwrap();
    fs::write(made.join("key"), "secret").unwrap();
    let read = async || {
        let command = ["cat", "/host/home/cluster/key"].map(str::to_owned).to_vec();
        subject.driver.exec(&started.id, command, LIMIT).await.unwrap()
    };
    assert_eq!(read().await.output, "secret", "else it would show nothing");
    let shim = impresario_host::Program::new([env!("CARGO_BIN_EXE_impresario-shim")]);
    impresario_host::hide(shim, made, &[engine.path("sock")]).await.unwrap();
    let said = read().await;
    assert!(said.code != 0 && !said.output.contains("secret"), "{said:?}");
    subject.driver.remove_pod("later").await.unwrap();
}

async fn a_container_that_is_taken_away_behind_our_back_is_missed(
    subject: &Subject,
    engine: &Engine,
) {
    let started = start(subject, shell(subject, "taken", "a", "sleep 1000")).await;
    let waiting = subject.driver.wait(&started.id);
    let taken = async { engine.docker(&["rm", "-f", &started.id.0]) };
    let (outcome, removed) = tokio::join!(tokio::time::timeout(LIMIT, waiting), taken);
    assert!(removed.status.success());
    let outcome = outcome.expect("the wait ends");
    assert!(outcome.is_err() || outcome.as_ref().is_ok_and(|exit| exit.code == 137), "{outcome:?}");
    assert!(subject.driver.list().await.unwrap().is_empty());
    subject.driver.remove_pod("taken").await.unwrap();
}

/// A task that ends with its owner.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands on what is said to the engine and what it answers, but for one start of a container when it is told to (a sandbox is
/// started by its name): that is handed on, and its caller hears nothing any more.
async fn forgetful(engine: PathBuf, listener: UnixListener, forgets: Arc<AtomicBool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let (engine, forgets) = (engine.clone(), forgets.clone());
        tokio::spawn(async move {
            let mut server = UnixStream::connect(engine).await?;
            let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
            loop {
                tokio::select! {
                    read = client.read(&mut asked) => {
                        let said = &asked[..read?];
                        if said.is_empty() {
                            break;
                        }
                        server.write_all(said).await?;
                        let said = String::from_utf8_lossy(said);
                        let is_start = said.contains("/start HTTP") && !said.contains("-sandbox/");
                        if is_start && forgets.swap(false, Ordering::SeqCst) {
                            // It is done by then.
                            let _answer = server.read(&mut answered).await?;
                            break;
                        }
                    }
                    read = server.read(&mut answered) => {
                        let said = &answered[..read?];
                        if said.is_empty() {
                            break;
                        }
                        client.write_all(said).await?;
                    }
                }
            }
            Ok::<_, std::io::Error>(())
        });
    }
}

async fn a_start_whose_answer_is_lost_is_not_made_a_second_time(
    subject: &Subject,
    engine: &Engine,
) {
    let socket = engine.path("forgetful");
    let listener = UnixListener::bind(&socket).unwrap();
    let forgets = Arc::new(AtomicBool::new(false));
    let _proxy = Aborted(tokio::spawn(forgetful(engine.path("sock"), listener, forgets.clone())));
    let driver = connect(&socket).await;
    let folder = engine.path("counted");
    fs::create_dir(&folder).unwrap();
    for (name, script, code) in [("runs", "sleep 1000", 137), ("ends", "exit 3", 3)] {
        let mut spec = shell(subject, "lost", name, &format!("echo {name} >> /c/{name}; {script}"));
        spec.mounts = vec![Mount {
            volume: "counted".into(),
            source: folder.clone(),
            sub_path: None,
            target: "/c".into(),
            read_only: false,
        }];
        forgets.store(true, Ordering::SeqCst);
        let begun = driver.start(spec.clone()).await;
        assert!(matches!(begun, Err(StartError::Driver(_))), "{begun:?}");
        let started = driver.start(spec.clone()).await.unwrap();
        if name == "runs" {
            assert_eq!(driver.start(spec).await.unwrap().id, started.id);
            driver.kill(&started.id).await.unwrap();
        }
        assert_eq!(wait(subject, &started.id).await.code, code);
        let written = fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(written, format!("{name}\n"), "it ran once, with its volume");
    }
    let sources = engine.path("volumes").join("lost/sources");
    assert_eq!(fs::read_dir(sources).unwrap().count(), 0, "nothing is held for what is known");
    subject.driver.remove_pod("lost").await.unwrap();
}

async fn what_a_pod_that_ends_did_not_hear_of_ends_with_it(subject: &Subject, engine: &Engine) {
    let socket = engine.path("forgetful-2");
    let listener = UnixListener::bind(&socket).unwrap();
    let forgets = Arc::new(AtomicBool::new(true));
    let _proxy = Aborted(tokio::spawn(forgetful(engine.path("sock"), listener, forgets)));
    let driver = connect(&socket).await;
    let other = start(subject, shell(subject, "doubt", "other", "sleep 1000")).await;
    let mut spec = shell(subject, "doubt", "a", "sleep 1000");
    spec.mounts = vec![Mount {
        volume: "v".into(),
        source: engine.path("files"),
        sub_path: None,
        target: "/v".into(),
        read_only: true,
    }];
    let begun = driver.start(spec).await;
    assert!(matches!(begun, Err(StartError::Driver(_))), "{begun:?}");
    let runs = || {
        let list = engine.docker(&[
            "ps",
            "-q",
            "--no-trunc",
            "--filter",
            "label=impresario.dev/container",
        ]);
        String::from_utf8(list.stdout).unwrap()
    };
    assert_eq!(runs().lines().count(), 2, "it was started");
    driver.settle("doubt").await.unwrap();
    assert_eq!(runs().trim(), other.id.0, "nobody knew of it; the other one was heard of");
    let sources = engine.path("volumes").join("doubt/sources");
    assert_eq!(fs::read_dir(sources).unwrap().count(), 0, "nothing is held for it");
    driver.settle("doubt").await.unwrap();
    subject.driver.remove_pod("doubt").await.unwrap();
}

async fn what_was_made_and_never_started_is_made_as_its_pod_is_now(
    subject: &Subject,
    engine: &Engine,
) {
    let spec = shell(subject, "made", "a", "echo new");
    let name = "impresario-node-1-made-a-0";
    let create = |labels: &[&str]| {
        let command = [IMAGE, "/bin/sh", "-c", "echo old"];
        let made = engine.docker(&[&["create", "--name", name][..], labels, &command].concat());
        assert!(made.status.success(), "{made:?}");
    };
    // Somebody else's is left alone.
    create(&[]);
    let error = subject.driver.start(spec.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::Exists { .. }), "{error}");
    assert!(engine.docker(&["rm", name]).status.success());
    create(&[
        "--label=impresario.dev/cluster=test",
        "--label=impresario.dev/node=node-1",
        "--label=impresario.dev/pod-uid=made",
    ]);
    let started = start(subject, spec).await;
    wait(subject, &started.id).await;
    assert_eq!(output(&*subject.driver, &started.id).await[0].1, "new");
    subject.driver.remove_pod("made").await.unwrap();
}
