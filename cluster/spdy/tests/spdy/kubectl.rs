//! kubectl itself, against as little of an API server as it needs to get to its upgrade.

use super::{driven, soon};
use impresario_spdy::{Headers, Incoming, Limits, Session, Stream, UPGRADE};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// The oldest and the newest one that is spoken to.
const VERSIONS: [&str; 2] = ["1.27", "1.33"];

const DOCUMENTS: [(&str, &str); 4] = [
    ("/api", r#"{"kind":"APIVersions","versions":["v1"]}"#),
    ("/apis", r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#),
    (
        "/api/v1",
        r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","singularName":"pod",
            "namespaced":true,"kind":"Pod","verbs":["get"]}]}"#,
    ),
    (
        "/api/v1/namespaces/default/pods/web",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"default"},
            "spec":{"containers":[{"name":"web"}]},"status":{"phase":"Running"}}"#,
    ),
];

const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;
const EXIT_7: &str = r#"{"metadata":{},"status":"Failure","message":"exit code 7","reason":"NonZeroExitCode",
    "details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;

/// Serves until it is dropped with its runtime; gives its port.
async fn api_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(connection));
        }
    });
    port
}

/// One request for each connection.
async fn serve(mut connection: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = connection.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let protocol = match path.rsplit('/').next() {
        Some("exec") => "v4.channel.k8s.io",
        Some("portforward") => "portforward.k8s.io",
        _ => {
            let document = DOCUMENTS.iter().find(|(one, _)| *one == path);
            let (status, body) =
                document.map_or(("404 Not Found", ""), |(_, body)| ("200 OK", body));
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{body}"
            );
            connection.write_all(answer.as_bytes()).await.unwrap();
            return;
        }
    };
    assert!(head.contains("Upgrade: SPDY/3.1\r\n"), "{head}");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\n\
         X-Stream-Protocol-Version: {protocol}\r\n\r\n"
    );
    connection.write_all(answer.as_bytes()).await.unwrap();
    let (session, driver, incoming) = Session::server(connection, Limits::default());
    let driver = driven(driver);
    if protocol == "portforward.k8s.io" {
        shout(incoming).await;
    } else {
        cat(incoming, if query.contains("command=fail") { EXIT_7 } else { SUCCESS }).await;
        session.close();
        driver.await.unwrap().unwrap();
    }
}

/// Takes the streams of `exec` and does as `cat` does.
async fn cat(mut incoming: Incoming, status: &str) {
    let [mut error, mut stdin, mut stdout, mut stderr]: [Option<Stream>; 4] = Default::default();
    for _ in 0..4 {
        let request = incoming.next().await.unwrap();
        let place = match request.headers().get("streamtype") {
            Some("error") => &mut error,
            Some("stdin") => &mut stdin,
            Some("stdout") => &mut stdout,
            Some("stderr") => &mut stderr,
            other => panic!("{other:?}"),
        };
        *place = Some(request.accept(Headers::new()).unwrap());
    }
    let [mut error, mut stdin, mut stdout, mut stderr] =
        [error, stdin, stdout, stderr].map(Option::unwrap);
    copy(&mut stdin, &mut stdout).await.unwrap();
    stdout.shutdown().await.unwrap();
    stderr.write_all(b"that was all\n").await.unwrap();
    stderr.shutdown().await.unwrap();
    error.write_all(status.as_bytes()).await.unwrap();
    error.shutdown().await.unwrap();
}

/// Answers each connection to a port with what it says, in capitals; port 81 takes none.
async fn shout(mut incoming: Incoming) {
    while let Some(request) = incoming.next().await {
        let said = request.headers().clone();
        let mut errors = request.accept(Headers::new()).unwrap();
        assert_eq!(said.get("streamtype"), Some("error"));
        let request = incoming.next().await.unwrap();
        assert_eq!(request.headers().get("requestid"), said.get("requestid"));
        let mut data = request.accept(Headers::new()).unwrap();
        if said.get("port") == Some("81") {
            errors.write_all(b"nobody listens on 81").await.unwrap();
            errors.shutdown().await.unwrap();
            continue;
        }
        errors.shutdown().await.unwrap();
        let mut text = String::new();
        data.read_to_string(&mut text).await.unwrap();
        data.write_all(text.to_uppercase().as_bytes()).await.unwrap();
        data.shutdown().await.unwrap();
    }
}

/// Of a version, with a home of its own; a test that needs it fails without it.
fn kubectl(version: &str, port: u16, home: &tempfile::TempDir) -> Command {
    let name = format!("kubectl.{version}");
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .chain(["/root/google-cloud-sdk/bin", "/usr/lib/google-cloud-sdk/bin"].map(PathBuf::from));
    let program = folders.map(|folder| folder.join(&name)).find(|program| program.is_file());
    let program = program.unwrap_or_else(|| {
        panic!("{name} is not installed: tests/run installs it, or put it on the PATH")
    });
    let mut command = Command::new(program);
    command
        .args(["--server", &format!("http://127.0.0.1:{port}")])
        .env("KUBECONFIG", "/dev/null")
        .env("HOME", home.path())
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn exec(version: &str, port: u16, command: &str, input: Vec<u8>) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut kubectl = kubectl(version, port, &home);
    let mut child = kubectl.args(["exec", "-i", "web", "--", command]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::spawn(async move {
        let _ = stdin.write_all(&input).await;
    });
    soon(child.wait_with_output()).await.unwrap()
}

#[tokio::test]
async fn kubectl_exec_sends_its_input_and_gets_output_errors_and_exit_code() {
    let port = api_server().await;
    for version in VERSIONS {
        let input: Vec<u8> = (0..500_000_u32).map(|one| (one % 253) as u8).collect();
        let said = exec(version, port, "cat", input.clone()).await;
        let errors = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{version}: {errors}");
        assert!(said.stdout == input, "{version}: {} bytes of output", said.stdout.len());
        assert_eq!(errors, "that was all\n", "{version}");

        let said = exec(version, port, "fail", Vec::new()).await;
        let errors = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(7), "{version}: {errors}");
    }
}

#[tokio::test]
async fn kubectl_port_forward_carries_connections_and_tells_of_one_that_is_not_taken() {
    let port = api_server().await;
    for version in VERSIONS {
        let home = tempfile::tempdir().unwrap();
        let mut kubectl = kubectl(version, port, &home);
        let mut child = kubectl.args(["port-forward", "pod/web", "0:80", "0:81"]).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ports = Vec::new();
        while ports.len() < 2 {
            let line = soon(said.next_line()).await.unwrap().expect("it says where it listens");
            if let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") {
                ports.push(rest.split(' ').next().unwrap().parse::<u16>().unwrap());
            }
        }
        for text in ["first", "second", "third"] {
            let mut near = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
            soon(near.write_all(text.as_bytes())).await.unwrap();
            soon(near.shutdown()).await.unwrap();
            let mut answer = String::new();
            soon(near.read_to_string(&mut answer)).await.unwrap();
            assert_eq!(answer, text.to_uppercase(), "{version}");
        }
        let mut near = TcpStream::connect(("127.0.0.1", ports[1])).await.unwrap();
        let mut nothing = Vec::new();
        let _ = soon(near.read_to_end(&mut nothing)).await; // closed or reset, as it likes
        assert!(nothing.is_empty(), "{version}");
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        loop {
            let line = soon(errors.next_line()).await.unwrap().expect("it tells of the error");
            if line.contains("nobody listens on 81") {
                break;
            }
        }
    }
}
