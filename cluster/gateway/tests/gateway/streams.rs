//! Commands, containers and ports over WebSockets.

use crate::harness::{Answer, Harness, Shows, TOKEN};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// For a busy machine; a passing test does not spend it.
pub const LIMIT: Duration = Duration::from_mins(1);
pub const PODS: &str = "/api/v1/namespaces/default/pods";
const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

/// A server with a pod `p` that has a node, and a pod `nowhere` that has none.
pub async fn server() -> Harness {
    let server = Harness::start().await;
    for (name, node) in [("p", "n"), ("nowhere", "")] {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        assert_eq!(server.ask("POST", PODS, &pod).await.code, 201);
    }
    server
}

/// The client's side of a WebSocket.
struct Client(WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>);

impl Client {
    async fn open(server: &Harness, shows: Shows<'_>, path: &str, protocol: &str) -> Self {
        let stream = server.connect(shows).await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = Request::get(format!("{PODS}/{path}"))
            .header("host", "x")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 101, "{path}");
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        Self(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
    }

    async fn say(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }

    /// The next message: its channel, and what it says. `None` when it was closed.
    async fn next(&mut self) -> Option<(u8, String)> {
        loop {
            match timeout(LIMIT, self.0.next()).await.expect("a message in time") {
                Some(Ok(Message::Binary(bytes))) => {
                    return Some((bytes[0], String::from_utf8_lossy(&bytes[1..]).into_owned()));
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    assert_eq!(u16::from(frame.code), 1000);
                    return None;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

pub async fn until_none_is_open(server: &Harness) {
    let mut open = server.sessions.subscribe();
    timeout(LIMIT, open.wait_for(|open| *open == 0)).await.expect("all are cut").unwrap();
}

#[tokio::test]
async fn a_command_hears_what_is_typed_and_its_exit_code_is_told_in_a_status() {
    let server = server().await;
    let path = "p/exec?command=sh&command=-c&command=a+b&stdin=true&stdout=true&stderr=true";
    let mut client = Client::open(&server, Shows::Admin, path, V5).await;
    assert_eq!(client.next().await.unwrap(), (1, String::new()), "it is open");
    assert_eq!(client.next().await.unwrap(), (1, "p/a sh -c a b true false\n".into()));
    let long = "x".repeat(100_000);
    client.say(0, long.as_bytes()).await;
    let mut heard = String::new();
    while heard.len() < long.len() {
        let (channel, piece) = client.next().await.unwrap();
        assert_eq!(channel, 1);
        heard += &piece;
    }
    assert_eq!(heard, long);
    client.say(4, br#"{"Width":80,"Height":25}"#).await;
    assert_eq!(client.next().await.unwrap(), (2, "80x25".into()));
    client.say(255, &[0]).await;
    let (channel, status) = client.next().await.unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(channel, 3);
    assert_eq!(
        (&status["status"], &status["reason"]),
        (&json!("Failure"), &json!("NonZeroExitCode"))
    );
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
    assert_eq!(client.next().await, None);
    until_none_is_open(&server).await;
}

#[tokio::test]
async fn a_client_that_leaves_cuts_its_session() {
    let server = server().await;
    for protocol in [V4, V5] {
        let path = "p/exec?command=sh&stdin=true&stdout=true&container=a";
        let mut client = Client::open(&server, Shows::Admin, path, protocol).await;
        client.next().await.unwrap();
        assert_eq!(client.next().await.unwrap().1, "p/a sh true false\n");
        assert_eq!(*server.sessions.borrow(), 1);
        drop(client);
        until_none_is_open(&server).await;
    }
}

#[tokio::test]
async fn a_session_ends_with_the_trust_in_who_opened_it() {
    let server = server().await;
    let credential = server.issue("leaver", Duration::from_hours(1));
    let path = "p/attach?stdin=true&stdout=true";
    let mut client = Client::open(&server, Shows::Certificate(&credential), path, V5).await;
    client.next().await.unwrap();
    assert_eq!(client.next().await.unwrap().1, "p/a\n");
    server.revoke(&credential).await;
    assert_eq!(client.next().await, None);
    until_none_is_open(&server).await;
}

#[tokio::test]
async fn ports_have_two_channels_each_and_one_that_takes_no_connection_says_so_on_its_own() {
    let server = server().await;
    let mut client =
        Client::open(&server, Shows::Admin, "p/portforward?ports=80&ports=81&ports=443", V4).await;
    let mut heard = vec![Vec::new(); 6];
    for _ in 0..9 {
        let (channel, text) = client.next().await.unwrap();
        heard[usize::from(channel)].push(text);
    }
    let port = |port: u16| String::from_utf8_lossy(&port.to_le_bytes()).into_owned();
    assert_eq!(heard[0], [port(80), "port 80\n".into()]);
    assert_eq!(heard[2], [port(81)]);
    assert_eq!(heard[3], [port(81), "takes no connection".into()]);
    assert_eq!(heard[4], [port(443), "port 443\n".into()]);
    assert_eq!((&heard[1], &heard[5]), (&vec![port(80)], &vec![port(443)]));
    client.say(4, b"hello").await;
    assert_eq!(client.next().await.unwrap(), (4, "hello".into()));
    client.say(0, b"you").await;
    assert_eq!(client.next().await.unwrap(), (0, "you".into()));
    drop(client);
    until_none_is_open(&server).await;
}

async fn refused(server: &Harness, shows: Shows<'_>, method: &str, path: &str) -> Answer {
    server.send(shows, method, &format!("{PODS}/{path}"), &[], Bytes::new()).await
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_the_connection_becomes_another() {
    let server = server().await;
    let table = [
        ("p/exec?stdout=true", "at least one command"),
        ("p/exec?command=sh", "at least 1 of stdin, stdout, stderr"),
        ("p/exec?command=sh&stdout=true&container=z", "container z is not valid for pod p"),
        ("p/exec?command=sh&stdout=true", "v5.channel.k8s.io or v4.channel.k8s.io"),
        ("nowhere/exec?command=sh&stdout=true", "does not have a host assigned"),
        ("p/portforward", "portforward.k8s.io or v4.channel.k8s.io"),
        ("p/portforward?ports=80", "v4.channel.k8s.io"),
    ];
    for (path, why) in table {
        for method in ["GET", "POST"] {
            let answer = refused(&server, Shows::Admin, method, path).await;
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert_eq!(answer.code, 400, "{path}: {message}");
            assert!(message.contains(why), "{path}: {message}");
        }
    }
    let missing = refused(&server, Shows::Admin, "GET", "q/exec?command=sh&stdout=true").await;
    assert_eq!(missing.code, 404);
    assert_eq!(*server.sessions.borrow(), 0);
}

#[tokio::test]
async fn who_may_read_pods_runs_nothing_in_them() {
    let server = server().await;
    assert_eq!(refused(&server, Shows::Token(TOKEN), "GET", "p").await.code, 200);
    for subresource in ["exec", "attach", "portforward"] {
        for method in ["GET", "POST"] {
            let path = format!("p/{subresource}?command=sh&stdout=true&ports=80");
            let answer = refused(&server, Shows::Token(TOKEN), method, &path).await;
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert_eq!(answer.code, 403, "{message}");
            let what = format!("cannot create resource \"pods/{subresource}\"");
            assert!(message.contains(&what), "{message}");
        }
    }
}

#[tokio::test]
async fn kubectl_runs_a_command_types_to_it_and_ends_with_its_exit_code() {
    let server = server().await;
    let kubectl = server.kubectl("1.33");
    let mut command = kubectl.command(&["exec", "-i", "p", "--", "say", "it"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"typed\n").await.unwrap();
    drop(input);
    let output = timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "p/a say it true false\ntyped\n", "{err}");
    assert_eq!(output.status.code(), Some(7), "{err}");
    assert!(err.contains("command terminated with exit code 7"), "{err}");
    assert_eq!(kubectl.good(&["exec", "p", "--", "ls"]).await, "p/a ls false false\n");
}
