//! What a client cannot do to the server.

use crate::harness::{Harness, Shows};
use impresario_gateway::Limits;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_body_over_three_mebibytes_is_refused_and_nothing_changes() {
    let server = Harness::start().await;
    let value = "x".repeat(3 * 1024 * 1024);
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "big"}, "data": {"a": value}});
    let answer = server.ask("POST", "/api/v1/namespaces/default/configmaps", &body).await;
    assert_eq!(answer.code, 413);
    assert_eq!(answer.json()["reason"], "RequestEntityTooLarge");
    assert_eq!(
        server.ask("GET", "/api/v1/namespaces/default/configmaps/big", &json!(null)).await.code,
        404
    );
}

#[tokio::test]
async fn who_says_nothing_is_cut_off_before_and_after_the_handshake() {
    let short = Duration::from_millis(200);
    let server = Harness::start_with(Limits {
        handshake: short,
        idle: short,
        header: short,
        ..Limits::default()
    })
    .await;

    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut nothing = [0; 1];
    let read =
        tokio::time::timeout(LIMIT, silent.read(&mut nothing)).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)));

    let mut greeted = server.connect(Shows::Nothing).await;
    let read =
        tokio::time::timeout(LIMIT, greeted.read(&mut nothing)).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)));

    let mut slow = server.connect(Shows::Nothing).await;
    slow.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(LIMIT, slow.read_to_end(&mut rest)).await.expect("closed in time").ok();
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server =
        Harness::start_with(Limits { body: Duration::from_millis(200), ..Limits::default() }).await;
    let mut stream = server.connect(Shows::Admin).await;
    stream
        .write_all(b"POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    let mut answer = vec![0; 64];
    let count = tokio::time::timeout(LIMIT, stream.read(&mut answer))
        .await
        .expect("an answer in time")
        .unwrap();
    assert!(String::from_utf8_lossy(&answer[..count]).starts_with("HTTP/1.1 504"));
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let server = Harness::start_with(Limits { connections: 1, ..Limits::default() }).await;
    let _first = server.connect(Shows::Nothing).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    let mut nothing = [0; 1];
    let read =
        tokio::time::timeout(LIMIT, second.read(&mut nothing)).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn several_servers_share_one_address_and_any_of_them_may_die() {
    use impresario_gateway::{Gateway, Server, Tls, TlsSettings};
    use impresario_runtime::{ClusterAuthority, PeerRole};
    let server = Harness::start().await;
    let authority = ClusterAuthority::create("second").unwrap();
    let own = authority
        .issue("b", PeerRole::Control, &["127.0.0.1".into()], Duration::from_hours(1))
        .unwrap();
    let gateway = Gateway::new(server.objects.clone(), crate::harness::logs());
    let tls = Tls::new(TlsSettings::of(&own).unwrap()).unwrap();
    let second = Server::start(server.address, tls, std::sync::Arc::new(gateway)).unwrap();
    assert_eq!(second.address(), server.address);
    second.stop(Duration::from_secs(2)).await;
    assert_eq!(server.send(Shows::Nothing, "GET", "/healthz", &[], "").await.code, 200);
}
