//! What a client cannot do to the server.

use crate::harness::{Harness, Shows};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use impresario_gateway::Limits;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For a busy machine: a passing test never spends it.
const LIMIT: Duration = Duration::from_secs(60);

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
    // The handshakes of the other two have their usual time.
    let handshake = Duration::from_millis(200);
    let server = Harness::start_with(Limits { handshake, ..Limits::default() }).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut nothing = [0; 1];
    let read =
        tokio::time::timeout(LIMIT, silent.read(&mut nothing)).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)));

    let short = Duration::from_secs(1);
    let limits = Limits { idle: short, header: short, ..Limits::default() };
    let server = Harness::start_with(limits).await;
    let mut greeted = server.connect(Shows::Nothing).await;
    let read =
        tokio::time::timeout(LIMIT, greeted.read(&mut nothing)).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)));

    let mut slow = server.connect(Shows::Nothing).await;
    // On a slow machine it may be cut off before it has said this.
    slow.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n").await.ok();
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
async fn who_finds_each_place_with_another_that_runs_the_cluster_is_counted_as_refused() {
    let server = Harness::start_with(Limits { connections: 1, ..Limits::default() }).await;
    let _first = server.open(Shows::Admin, "GET", "/api/v1/namespaces?watch=1", &[], "").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    let mut nothing = [0; 1];
    let read =
        tokio::time::timeout(LIMIT, second.read(&mut nothing)).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)));
    assert_eq!(server.refused("connection", "Places"), 1);
}

/// Everything that the server says until it closes.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut said = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut said)).await;
    read.expect("closed in time").ok();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_body_that_is_packed_or_has_two_lengths_is_refused() {
    let server = Harness::start().await;
    let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let path = "/api/v1/namespaces/default/configmaps";
    let answer = server.send(Shows::Admin, "POST", path, &packed, vec![0x1f, 0x8b, 8, 0]).await;
    assert_eq!((answer.code, &answer.json()["reason"]), (415, &json!("UnsupportedMediaType")));

    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ncontent-length: 5",
        "transfer-encoding: gzip",
    ] {
        let mut stream = server.connect(Shows::Admin).await;
        let inner = "POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                     content-length: 29\r\n\r\n{\"metadata\":{\"name\":\"smuggled\"}}";
        let outer = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lengths}\r\n\r\n0\r\n\r\n{inner}"
        );
        stream.write_all(outer.as_bytes()).await.unwrap();
        let said = rest(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{lengths}: {said}");
        assert_eq!(said.matches("HTTP/1.1").count(), 1, "{lengths}: {said}");
    }
    let smuggled = server.ask("GET", "/api/v1/namespaces/smuggled", &json!(null)).await;
    assert_eq!(smuggled.code, 404);
}

#[tokio::test]
async fn after_an_upgrade_that_failed_the_connection_still_speaks_http() {
    let server = Harness::start().await;
    let mut stream = server.connect(Shows::Nothing).await;
    let upgrade = "POST /api/v1/namespaces/default/pods/p/exec HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n\
                   upgrade: SPDY/3.1\r\ncontent-length: 0\r\n\r\n";
    let next = "GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("{upgrade}{next}").as_bytes()).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(!said.contains("HTTP/1.1 101"), "{said}");
    assert_eq!(said.matches("HTTP/1.1 403").count(), 2, "each is asked who it is: {said}");
}

#[tokio::test]
async fn control_characters_in_names_are_refused_and_never_sent_back_raw() {
    let server = Harness::start().await;
    for name in ["a\u{7}b", "a\nb", "a\u{1b}[2Jb"] {
        let body = json!({"metadata": {"name": name}});
        let answer = server.ask("POST", "/api/v1/namespaces/default/configmaps", &body).await;
        assert_eq!(answer.code, 422);
        assert!(
            answer.body.iter().all(|byte| *byte >= b' ' || *byte == b'\n'),
            "{answer:?}",
            answer = answer.body
        );
    }
    let answer =
        server.ask("GET", "/api/v1/namespaces/default/configmaps/a%1b%0d%0ab", &json!(null)).await;
    assert_eq!(answer.code, 404);
    assert!(answer.body.iter().all(|byte| *byte >= b' ' || *byte == b'\n'));
}

#[tokio::test]
async fn deep_or_blown_up_bodies_are_refused_and_others_are_answered() {
    let server = Harness::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let deep = format!("{{\"data\":{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bomb = format!(
        "kind: ConfigMap\napiVersion: v1\nmetadata: {{name: x}}\nx: &a {}\ny: [{}]\n",
        "x".repeat(1_000_000),
        vec!["*a"; 2_000].join(", ")
    );
    for (kind, body) in [("application/json", deep), ("application/yaml", bomb)] {
        let answer = server.send(Shows::Admin, "POST", path, &[("content-type", kind)], body).await;
        assert_eq!(answer.code, 400, "{kind}");
        assert!(answer.body.len() < 16 * 1024, "{kind}: a refusal is short");
    }
    let finalizers: Vec<String> = (0..200_000).map(|number| format!("f{number}")).collect();
    let body = json!({"metadata": {"name": "x", "finalizers": finalizers}});
    let answer = server.ask("POST", path, &body).await;
    assert_eq!(answer.code, 422);
    assert!(answer.body.len() < 1024 * 1024, "a refusal names so many causes and no more");
    assert_eq!(server.ask("GET", "/healthz", &json!(null)).await.code, 200);
}

#[tokio::test]
async fn bodies_of_all_requests_together_have_a_budget() {
    let server = Harness::start_with(Limits { bodies: 128 * 1024, ..Limits::default() }).await;
    let post = |length: usize| {
        format!(
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    // One that does not end holds what has come of it.
    let mut holds = server.connect(Shows::Admin).await;
    holds.write_all(post(60_000).as_bytes()).await.unwrap();
    holds.write_all(" ".repeat(50_000).as_bytes()).await.unwrap();
    holds.flush().await.unwrap();
    let big = json!({"metadata": {"name": "big"}, "data": {"a": "x".repeat(40_000)}});
    let path = "/api/v1/namespaces/default/configmaps";
    let refused = loop {
        // The first may still be on its way.
        let answer = server.ask("POST", path, &big).await;
        if answer.code != 201 {
            break answer;
        }
        server.ask("DELETE", &format!("{path}/big"), &json!(null)).await;
    };
    assert_eq!((refused.code, refused.header("retry-after")), (429, "1"));
    let small = json!({"metadata": {"name": "small"}});
    assert_eq!(server.ask("POST", path, &small).await.code, 201, "small ones go on");
    drop(holds);
    let taken = async {
        while server.ask("POST", path, &big).await.code != 201 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, taken).await.expect("what is given back is there again");
}

#[tokio::test]
async fn idle_strangers_make_room_and_keep_nobody_out() {
    let server = Harness::start_with(Limits { strangers: 8, ..Limits::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(server.connect(Shows::Nothing).await);
    }
    assert_eq!(server.ask("GET", "/api/v1/namespaces", &json!(null)).await.code, 200);
    assert_eq!(server.send(Shows::Nothing, "GET", "/healthz", &[], "").await.code, 200);
    let mut nothing = [0; 1];
    let read = tokio::time::timeout(LIMIT, idle[0].read(&mut nothing)).await;
    assert!(matches!(read.expect("the first made room"), Ok(0) | Err(_)));
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_cut_off() {
    // The answers to those who read must come within it too, on a machine that stands still for a moment.
    let limits = Limits { write: Duration::from_secs(3), ..Limits::default() };
    let server = Harness::start_with(limits).await;
    let path = "/api/v1/namespaces/default/configmaps";
    for number in 0..8 {
        let body = json!({"metadata": {"name": format!("c{number}")}, "data": {"a": "x".repeat(1_000_000)}});
        assert_eq!(server.ask("POST", path, &body).await.code, 201);
    }
    let stream = server.connect_http2(Shows::Admin).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let running = tokio::spawn(connection);
    let url = format!("https://localhost{path}");
    let request = hyper::Request::get(url).body(Empty::<bytes::Bytes>::new()).unwrap();
    let unread = sender.send_request(request).await.unwrap();
    assert_eq!(unread.status(), 200);
    let _ended = tokio::time::timeout(LIMIT, running).await.expect("closed in time");
    assert_eq!(server.ask("GET", "/healthz", &json!(null)).await.code, 200);
}

#[tokio::test]
async fn who_takes_back_request_after_request_is_cut_off() {
    let server = Harness::start_with(Limits { cancelled: 20, ..Limits::default() }).await;
    let stream = server.connect_http2(Shows::Admin).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let running = tokio::spawn(connection);
    let watch = "https://localhost/api/v1/namespaces?watch=1";
    let taking_back = async {
        while sender.ready().await.is_ok() {
            let request = hyper::Request::get(watch).body(Empty::<bytes::Bytes>::new()).unwrap();
            let Ok(answer) = sender.send_request(request).await else { break };
            drop(answer); // a watch that is not wanted any more
        }
    };
    tokio::time::timeout(LIMIT, taking_back).await.expect("closed in time");
    running.abort();
    assert_eq!(server.ask("GET", "/healthz", &json!(null)).await.code, 200);
}

#[tokio::test]
async fn a_certificate_that_is_revoked_or_ends_takes_its_connections_along() {
    let server = Harness::start().await;
    let leaver = server.issue("leaver", Duration::from_hours(1));
    let mut stream = server.connect(Shows::Certificate(&leaver)).await;
    let ask = b"GET /api/v1/namespaces HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut answer = vec![0; 16];
    stream.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    server.revoke(&leaver).await;
    rest(&mut stream).await; // it ends although nobody asked anything
    let again = server.send(Shows::Certificate(&leaver), "GET", "/version", &[], "").await;
    assert_eq!(again.code, 401);
    assert_eq!(server.ask("GET", "/version", &json!(null)).await.code, 200, "others stay");

    let brief = server.issue("brief", Duration::from_secs(8));
    let watch =
        server.open(Shows::Certificate(&brief), "GET", "/api/v1/namespaces?watch=1", &[], "").await;
    assert_eq!(watch.status(), 200);
    let ends = http_body_util::BodyExt::collect(watch.into_body());
    let _ = tokio::time::timeout(LIMIT, ends).await.expect("the watch ends with its certificate");
}

#[tokio::test]
async fn a_control_member_rules_nothing_over_rest() {
    use impresario_runtime::PeerRole;
    let server = Harness::start().await;
    let control = server.issue_as("control-1", PeerRole::Control, Duration::from_hours(1));
    let answer = server.send(Shows::Certificate(&control), "GET", "/api/v1/secrets", &[], "").await;
    assert_eq!(answer.code, 403);
}

#[tokio::test]
async fn a_body_that_nobody_needs_is_not_waited_for() {
    let limits = Limits { strangers: 4, bodies: 1024, ..Limits::default() };
    let server = Harness::start_with(limits).await;
    let mut busy = Vec::new();
    for path in ["healthz", "readyz", "version", "livez", "healthz", "version"] {
        let mut stream = server.connect(Shows::Nothing).await;
        let head = format!("GET /{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::time::timeout(LIMIT, stream.read_exact(&mut answer)).await;
        read.expect("an answer in time").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200", "{path}");
        busy.push(stream);
    }
    assert_eq!(server.ask("GET", "/api/v1/namespaces", &json!(null)).await.code, 200);
}

#[tokio::test]
async fn watches_of_one_user_leave_some_for_others() {
    let limits = Limits { watches: 16, watches_per_user: 2, ..Limits::default() };
    let server = Harness::start_with(limits).await;
    let path = "/api/v1/namespaces?watch=1";
    let viewer = Shows::Token(crate::harness::TOKEN);
    let mut open = Vec::new();
    for _ in 0..2 {
        let watch = server.open(viewer, "GET", path, &[], "").await;
        assert_eq!(watch.status(), 200);
        open.push(watch);
    }
    let refused = server.send(viewer, "GET", path, &[], "").await;
    assert_eq!((refused.code, refused.header("retry-after")), (429, "1"));
    assert_eq!(server.open(Shows::Admin, "GET", path, &[], "").await.status(), 200);
    drop(open);
    let again = async {
        while server.open(viewer, "GET", path, &[], "").await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, again).await.expect("what is given back is there again");
}

#[tokio::test]
async fn a_watch_that_asks_for_thousands_of_values_takes_the_places_of_many() {
    let limits = Limits { watches: 512, watches_per_user: 160, ..Limits::default() };
    let server = Harness::start_with(limits).await;
    let viewer = Shows::Token(crate::harness::TOKEN);
    let values: Vec<String> = (0..4_000).map(|number| format!("v{number:04}")).collect();
    let path = |demand: &str| {
        let values = values.join(",");
        format!("/api/v1/namespaces?watch=1&labelSelector=app%20{demand}%20({values})")
    };
    let first = server.open(viewer, "GET", &path("in"), &[], "").await;
    assert_eq!(first.status(), 200);
    let second = server.send(viewer, "GET", &path("notin"), &[], "").await;
    assert_eq!((second.code, second.header("retry-after")), (429, "1"));
    let few = "/api/v1/namespaces?watch=1&labelSelector=app%20in%20(a,b,c)";
    assert_eq!(server.open(viewer, "GET", few, &[], "").await.status(), 200);
}

#[tokio::test]
async fn a_list_larger_than_what_may_wait_to_be_read_is_had_in_every_form() {
    let server = Harness::start_with(Limits { answers: 1024 * 1024, ..Limits::default() }).await;
    let path = "/api/v1/namespaces/default/configmaps";
    for number in 0..8 {
        let body =
            json!({"metadata": {"name": format!("c{number}")}, "data": {"a": "x".repeat(200_000)}});
        assert_eq!(server.ask("POST", path, &body).await.code, 201);
    }
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (accept, query, field) in [
        ("application/json", "", "items"),
        ("application/json", "?pretty=true", "items"),
        ("application/json", "?fieldSelector=metadata.name!%3Dother", "items"),
        (table, "?includeObject=Object", "rows"),
    ] {
        let path = format!("{path}{query}");
        let whole = server.send(Shows::Admin, "GET", &path, &[("accept", accept)], "").await;
        assert_eq!((whole.code, whole.header("content-type")), (200, "application/json"));
        let list = whole.json();
        assert!(list["metadata"]["resourceVersion"].is_string(), "{query}");
        // The root certificates are there as well.
        assert_eq!(list[field].as_array().unwrap().len(), 9, "{query}");
    }
    let page = server.ask("GET", &format!("{path}?limit=1"), &json!(null)).await;
    assert_eq!(page.json()["metadata"]["remainingItemCount"], 8);
}

#[tokio::test]
async fn a_panic_is_an_answer_and_ends_no_connection() {
    let server = Harness::start().await;
    let pod = json!({"metadata": {"name": crate::harness::PANICS}, "spec": {"nodeName": "n", "containers": [
        {"name": "a", "image": "b"}
    ]}});
    let path = "/api/v1/namespaces/default/pods";
    assert_eq!(server.ask("POST", path, &pod).await.code, 201);
    let stream = server.connect(Shows::Admin).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (ask, code) in [(format!("{path}/{}/log", crate::harness::PANICS), 500), (path.into(), 200)]
    {
        let request = hyper::Request::get(ask).header("host", "x");
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), code);
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    }
}

#[tokio::test]
async fn yaml_and_large_bodies_are_worked_on_beside_and_come_out_the_same() {
    let server = Harness::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let yaml = "metadata: {name: aliased}\ndata: &d {a: b}\nbinaryData: {}\n";
    let answer = server
        .send(Shows::Admin, "POST", path, &[("content-type", "application/yaml")], yaml)
        .await;
    assert_eq!((answer.code, &answer.json()["data"]["a"]), (201, &json!("b")));
    let large = json!({"metadata": {"name": "l"}, "data": {"a": "x".repeat(900_000)}});
    assert_eq!(server.ask("POST", path, &large).await.code, 201);
    let change = json!({"data": {"b": "y".repeat(100_000)}});
    let answer = server.ask("PATCH", &format!("{path}/l"), &change).await;
    assert_eq!(answer.json()["data"]["b"].as_str().map(str::len), Some(100_000));
}

#[tokio::test]
async fn what_is_bound_or_evicted_is_what_the_address_names() {
    let server = Harness::start().await;
    let path = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    assert_eq!(server.ask("POST", path, &pod).await.code, 201);
    for (door, body) in [
        (
            "eviction",
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}}),
        ),
        (
            "eviction",
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "x"}}),
        ),
        ("binding", json!({"metadata": {"name": "q"}, "target": {"name": "n"}})),
    ] {
        let answer = server.ask("POST", &format!("{path}/p/{door}"), &body).await;
        assert_eq!(answer.code, 400, "{door}");
    }
    let still = server.ask("GET", &format!("{path}/p"), &json!(null)).await.json();
    assert!(
        still["spec"].get("nodeName").is_none()
            && still["metadata"].get("deletionTimestamp").is_none()
    );
}

#[tokio::test]
async fn users_without_any_right_lock_nobody_out() {
    use impresario_runtime::PeerRole;
    let limits = Limits { connections: 16, per_user: 8, ..Limits::default() };
    let server = Harness::start_with(limits).await;
    let hour = Duration::from_hours(1);
    let guests = ["one", "two"]
        .map(|name| server.issue_as(name, PeerRole::Guest { scope: name.into() }, hour));
    let mut open = Vec::new();
    for guest in guests.iter().cycle().take(16) {
        let mut stream = server.connect(Shows::Certificate(guest)).await;
        let ask = b"GET /api/v1/secrets HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::time::timeout(LIMIT, stream.read_exact(&mut answer)).await;
        read.expect("an answer in time").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 403");
        open.push(stream);
    }
    assert_eq!(server.ask("GET", "/api/v1/namespaces", &json!(null)).await.code, 200);
    assert_eq!(server.send(Shows::Nothing, "GET", "/healthz", &[], "").await.code, 200);
    let late = server.issue_as("late", PeerRole::Client, hour);
    let answer = server.send(Shows::Certificate(&late), "GET", "/version", &[], "").await;
    assert_eq!(answer.code, 200);
}
