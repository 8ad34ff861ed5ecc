//! Commands, containers and ports over SPDY, and within a WebSocket as newer kubectl has it.

use crate::harness::{Harness, Kubectl, Shows};
use crate::streams::{LIMIT, PODS, server, until_none_is_open};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use impresario_spdy::{Headers, Limits, OpenError, Session, Stream};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::ChildStderr;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// By which kubectl, and whether it is told to use WebSockets: what it does by itself where it is not told.
const EXEC: [(&str, &str); 2] = [("1.27", "false"), ("1.33", "false")];
const PORTS: [(&str, &str); 3] = [("1.27", "false"), ("1.33", "false"), ("1.33", "true")];

/// The client's side of a SPDY session.
struct Client(Session);

async fn ask(
    server: &Harness,
    shows: Shows<'_>,
    path: &str,
    versions: &[&str],
) -> Response<hyper::body::Incoming> {
    let stream = server.connect(shows).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::post(format!("{PODS}/{path}"))
        .header("host", "x")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1");
    for version in versions {
        request = request.header("x-stream-protocol-version", *version);
    }
    sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
}

impl Client {
    async fn open(server: &Harness, shows: Shows<'_>, path: &str, versions: &[&str]) -> Self {
        let response = ask(server, shows, path, versions).await;
        assert_eq!(response.status(), 101, "{path}");
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
        assert_eq!(response.headers()["x-stream-protocol-version"], versions[0]);
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        let (session, driver) = Session::client(TokioIo::new(upgraded), Limits::default());
        tokio::spawn(driver);
        Self(session)
    }

    async fn stream(&self, said: &[(&str, &str)]) -> Result<Stream, OpenError> {
        let headers = said
            .iter()
            .fold(Headers::new(), |headers, (name, value)| headers.with(name, value).unwrap());
        timeout(LIMIT, self.0.open(headers)).await.expect("a reply in time")
    }

    async fn named(&self, name: &str) -> Stream {
        self.stream(&[("streamtype", name)]).await.unwrap()
    }

    async fn of_port(&self, id: &str, kind: &str, port: &str) -> Result<Stream, OpenError> {
        self.stream(&[("streamtype", kind), ("requestid", id), ("port", port)]).await
    }
}

async fn rest(stream: &mut Stream) -> String {
    let mut text = String::new();
    timeout(LIMIT, stream.read_to_string(&mut text)).await.expect("its end in time").unwrap();
    text
}

async fn exactly(stream: &mut Stream, text: &str) {
    let mut heard = vec![0; text.len()];
    timeout(LIMIT, stream.read_exact(&mut heard)).await.expect("bytes in time").unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

const V4: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];
const OF_PORTS: &[&str] = &["portforward.k8s.io"];

#[tokio::test]
async fn a_session_has_a_stream_for_each_of_its_files_and_ends_with_a_status() {
    let server = server().await;
    let path = "p/exec?command=sh&stdin=true&stdout=true&stderr=true&tty=true";
    let client = Client::open(&server, Shows::Admin, path, V4).await;
    let mut error = client.named("error").await;
    error.finish();
    let mut stdin = client.named("stdin").await;
    let mut stdout = client.named("stdout").await;
    stdout.finish();
    for not_wanted in ["stderr", "stdout", "other"] {
        let refused = client.stream(&[("streamtype", not_wanted)]).await;
        assert!(matches!(refused, Err(OpenError::Refused { .. })), "{not_wanted}: {refused:?}");
    }
    let mut resize = client.named("resize").await;
    exactly(&mut stdout, "p/a sh true true\n").await;
    let long = "x".repeat(300_000);
    let (mut from, mut to) = tokio::io::split(stdout);
    let heard = async {
        let mut heard = vec![0; long.len()];
        from.read_exact(&mut heard).await.unwrap();
        heard
    };
    let sent = stdin.write_all(long.as_bytes());
    let (sent, heard) = timeout(LIMIT, async { tokio::join!(sent, heard) }).await.unwrap();
    sent.unwrap();
    assert!(heard == long.as_bytes());
    resize.write_all(b"{\"Width\":80,\"Height\":25}\n").await.unwrap();
    let mut size = [0; 5];
    timeout(LIMIT, from.read_exact(&mut size)).await.unwrap().unwrap();
    assert_eq!(&size, b"80x25");
    // The session goes on after one that cannot be read, and what follows it is read all the same.
    resize.write_all(&vec![b'n'; 200_000]).await.unwrap();
    stdin.write_all(b"end").await.unwrap();
    let mut last = [0; 3];
    timeout(LIMIT, from.read_exact(&mut last)).await.unwrap().unwrap();
    assert_eq!(&last, b"end");
    stdin.finish();
    let status: Value = serde_json::from_str(&rest(&mut error).await).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
    assert_eq!(timeout(LIMIT, from.read(&mut last)).await.unwrap().unwrap(), 0);
    assert_eq!(rest(&mut stdin).await, "");
    to.shutdown().await.unwrap();
    until_none_is_open(&server).await;
}

#[tokio::test]
async fn a_session_is_cut_with_its_client_or_with_the_trust_in_it() {
    let server = server().await;
    let credential = server.issue("leaver", Duration::from_hours(1));
    for leaves in [true, false] {
        let path = "p/attach?stdin=true&stdout=true";
        let client = Client::open(&server, Shows::Certificate(&credential), path, V4).await;
        let error = client.named("error").await;
        let stdin = client.named("stdin").await;
        let mut stdout = client.named("stdout").await;
        exactly(&mut stdout, "p/a\n").await;
        assert_eq!(*server.sessions.borrow(), 1);
        if leaves {
            drop((error, stdin, stdout, client));
        } else {
            server.revoke(&credential).await;
            let heard = timeout(LIMIT, stdout.read(&mut [0])).await.expect("its end in time");
            assert!(heard.is_err(), "it was cut, and has not ended: {heard:?}");
        }
        until_none_is_open(&server).await;
    }
}

#[tokio::test]
async fn ports_are_connected_to_as_often_as_is_asked_for_and_a_connection_is_two_streams() {
    let server = server().await;
    let client = Client::open(&server, Shows::Admin, "p/portforward", OF_PORTS).await;
    for (id, kind, port) in [("1", "other", "80"), ("1", "data", "0"), ("1", "data", "http")] {
        let refused = client.of_port(id, kind, port).await;
        assert!(matches!(refused, Err(OpenError::Refused { .. })), "{kind} {port}: {refused:?}");
    }
    let nameless = client.stream(&[("streamtype", "data"), ("port", "80")]).await;
    assert!(matches!(nameless, Err(OpenError::Refused { .. })));
    // In whichever order they come.
    let mut open = Vec::new();
    for (id, first, second) in [("1", "error", "data"), ("2", "data", "error")] {
        let one = client.of_port(id, first, "80").await.unwrap();
        for (again, port) in [(first, "80"), (second, "82")] {
            let refused = client.of_port(id, again, port).await;
            assert!(matches!(refused, Err(OpenError::Refused { .. })), "{again} {port}");
        }
        let other = client.of_port(id, second, "80").await.unwrap();
        let (error, mut data) = if first == "error" { (one, other) } else { (other, one) };
        exactly(&mut data, "port 80\n").await;
        open.push((error, data));
    }
    assert_eq!(*server.sessions.borrow(), 2);
    for (mut error, mut data) in open {
        error.finish();
        data.write_all(b"hello").await.unwrap();
        data.finish();
        assert_eq!(rest(&mut data).await, "hello");
        assert_eq!(rest(&mut error).await, "");
    }
    until_none_is_open(&server).await;
    let mut error = client.of_port("3", "error", "81").await.unwrap();
    let mut data = client.of_port("3", "data", "81").await.unwrap();
    assert_eq!(rest(&mut error).await, "takes no connection");
    assert_eq!(rest(&mut data).await, "");
}

#[tokio::test]
async fn connections_of_one_client_have_a_bound_and_one_that_ends_makes_room() {
    let server = server().await;
    let client = Client::open(&server, Shows::Admin, "p/portforward", OF_PORTS).await;
    let mut open = Vec::new();
    for id in 0..32 {
        let error = client.of_port(&id.to_string(), "error", "80").await.unwrap();
        let mut data = client.of_port(&id.to_string(), "data", "80").await.unwrap();
        exactly(&mut data, "port 80\n").await;
        open.push((error, data));
    }
    let refused = client.of_port("more", "error", "80").await;
    assert!(matches!(refused, Err(OpenError::Refused { .. })), "{refused:?}");
    let (mut error, mut data) = open.pop().unwrap();
    error.finish();
    data.finish();
    assert_eq!(rest(&mut error).await + &rest(&mut data).await, "");
    drop((error, data));
    let more = async {
        loop {
            // Its place is free a moment after its end is heard.
            if let Ok(stream) = client.of_port("more", "error", "80").await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, more).await.expect("room for one more");
    drop((open, client));
    until_none_is_open(&server).await;
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_refused_and_told_what_is() {
    let server = server().await;
    for (path, version) in [
        ("p/exec?command=sh&stdout=true", "v4.channel.k8s.io"),
        ("p/portforward", "portforward.k8s.io"),
    ] {
        let response = ask(&server, Shows::Admin, path, &["v1.channel.k8s.io"]).await;
        assert_eq!(response.status(), 400);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&body).unwrap();
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(version), "{message}");
    }
    assert_eq!(*server.sessions.borrow(), 0);
}

fn command(kubectl: &Kubectl, websockets: &str, words: &[&str]) -> tokio::process::Command {
    let mut command = kubectl.command(words);
    command
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
    command
}

#[tokio::test]
async fn kubectl_runs_commands_over_spdy_types_to_them_and_ends_with_their_exit_code() {
    let server = server().await;
    for (version, websockets) in EXEC {
        let kubectl = server.kubectl(version);
        let mut exec = command(&kubectl, websockets, &["exec", "-i", "p", "--", "say", "it"]);
        let mut child = exec.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"typed\n").await.unwrap();
        drop(input);
        let output = timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(out, "p/a say it true false\ntyped\n", "{version}: {err}");
        assert_eq!(output.status.code(), Some(7), "{version}: {err}");
        let mut exec = command(&kubectl, websockets, &["exec", "p", "--", "ls"]);
        let output = timeout(LIMIT, exec.output()).await.unwrap().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{version}: {err}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "p/a ls false false\n");
    }
    until_none_is_open(&server).await;
}

/// Says something to a port that kubectl forwards, and gives the answer.
async fn said_to(port: u16, text: &str) -> String {
    let mut near = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    near.write_all(text.as_bytes()).await.unwrap();
    near.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, near.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
    answer
}

/// What it prints, read at once: it would wait for its reader.
fn lines_of(from: ChildStderr) -> mpsc::UnboundedReceiver<String> {
    let (to, lines) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut from = BufReader::new(from).lines();
        while let Some(line) = from.next_line().await.unwrap() {
            let _ = to.send(line);
        }
    });
    lines
}

#[tokio::test]
async fn kubectl_forwards_ports_over_spdy_and_within_a_websocket() {
    let server = server().await;
    let running = json!({"status": {"phase": "Running"}});
    assert_eq!(server.ask("PATCH", &format!("{PODS}/p/status"), &running).await.code, 200);
    for (version, websockets) in PORTS {
        let kubectl = server.kubectl(version);
        let words = ["port-forward", "pod/p", "0:80", "0:81", "-v=6"];
        let mut child = command(&kubectl, websockets, &words).spawn().unwrap();
        let mut errors = lines_of(child.stderr.take().unwrap());
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ports = Vec::new();
        while ports.len() < 2 {
            let line = timeout(LIMIT, said.next_line()).await.unwrap().unwrap();
            let Some(line) = line else {
                while let Some(line) = errors.recv().await {
                    eprintln!("{line}");
                }
                panic!("kubectl {version} does not forward");
            };
            if let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") {
                ports.push(rest.split(' ').next().unwrap().parse::<u16>().unwrap());
            }
        }
        let long = "y".repeat(200_000);
        for text in ["first", "second", &long] {
            assert!(said_to(ports[0], text).await == format!("port 80\n{text}"), "{version}");
        }
        let mut near = TcpStream::connect(("127.0.0.1", ports[1])).await.unwrap();
        let mut nothing = Vec::new();
        // Closed or reset, as it likes.
        let _ = timeout(LIMIT, near.read_to_end(&mut nothing)).await.expect("its end in time");
        assert!(nothing.is_empty(), "{version}");
        let mut log = String::new();
        while !log.contains("takes no connection") {
            let line = timeout(LIMIT, errors.recv()).await.unwrap();
            log += &line.unwrap_or_else(|| panic!("it tells of the error: {log}"));
            log.push('\n');
        }
        // It would fall back to POST where its WebSocket is not taken.
        let posts = log.lines().any(|line| line.contains("POST") && line.contains("/portforward"));
        assert_eq!(posts, websockets == "false", "{version}: {log}");
        child.kill().await.unwrap();
        until_none_is_open(&server).await;
    }
}
