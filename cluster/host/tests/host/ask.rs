//! Questions to servers that listen in containers.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response, body::Frame, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use impresario_host::ask::{AskError, HttpGet, check_health};
use std::{convert::Infallible, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls};

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn get(to: SocketAddr, tls: bool) -> HttpGet {
    let headers = vec![("X-From".to_owned(), "a test".to_owned())];
    HttpGet { to, tls, host: "shop.example:8443".into(), path: "/healthz?deep=1".into(), headers }
}

/// Answers one request and returns its head.
async fn answer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, status: &str) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
    }
    stream
        .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test]
async fn a_get_says_what_it_was_told_to_and_returns_the_status() {
    let (listener, address) = listen().await;
    let serve = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, "503 Busy").await
    });
    assert_eq!(get(address, false).send().await.unwrap(), 503);
    let head = serve.await.unwrap();
    assert!(head.starts_with("get /healthz?deep=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("host: shop.example:8443\r\n"), "{head}");
    assert!(head.contains("x-from: a test\r\n"), "{head}");

    // A port that is taken and listens to nobody: one that is free may be another test's by now.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = get(taken.local_addr().unwrap(), false).send().await.unwrap_err();
    assert!(matches!(refused, AskError::Connect(_)), "{refused}");
    let bad = HttpGet { path: "/a b".into(), ..get(address, false) };
    let (listener, to) = listen().await;
    let refused = HttpGet { to, ..bad }.send().await.unwrap_err();
    assert!(matches!(refused, AskError::Request(_)), "{refused}");
    drop(listener);
}

#[tokio::test]
async fn a_get_over_tls_believes_every_certificate_and_needs_tls() {
    let (listener, address) = listen().await;
    let key = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
    let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serve = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer(acceptor.accept(stream).await.unwrap(), "204 Fine").await;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert_eq!(get(address, true).send().await.unwrap(), 204);
    // The second one answers in plain text.
    let refused = get(address, true).send().await.unwrap_err();
    assert!(matches!(refused, AskError::Tls(_)), "{refused}");
    serve.await.unwrap();
}

/// A server of gRPC that gives this answer to each question, and the question's path and body in it.
async fn health_server(answer: &'static [u8], status: &'static str) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03ocr");
                let trailers = hyper::HeaderMap::from_iter([(
                    hyper::header::HeaderName::from_static("grpc-status"),
                    hyper::header::HeaderValue::from_static(status),
                )]);
                let frames = [Frame::data(Bytes::from_static(answer)), Frame::trailers(trailers)];
                let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
                Ok::<_, Infallible>(Response::new(body))
            });
            let io = TokioIo::new(stream);
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service));
        }
    });
    address
}

#[tokio::test]
async fn a_service_is_well_when_it_says_that_it_serves() {
    let serves = health_server(b"\0\0\0\0\x02\x08\x01", "0").await;
    check_health(serves, "ocr").await.unwrap();
    let ill = health_server(b"\0\0\0\0\x02\x08\x02", "0").await;
    let said = check_health(ill, "ocr").await.unwrap_err().to_string();
    assert_eq!(said, r#"service unhealthy (responded with "NOT_SERVING")"#);
    let other = health_server(b"", "12").await;
    let said = check_health(other, "ocr").await.unwrap_err().to_string();
    assert!(said.contains("does not implement"), "{said}");
}
