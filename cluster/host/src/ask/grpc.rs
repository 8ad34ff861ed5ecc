//! The health check of gRPC, `grpc.health.v1.Health/Check`, by hand: one message of one field each way.
//!
//! (gRPC over HTTP2, "Requests" and "Responses"; gRPC health checking protocol.)

use super::{AskError, Pump};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request,
    client::conn::http2,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// More than any answer needs.
const ANSWER_BYTES: usize = 4096;
/// Statuses by their numbers.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Asks the server how `service` is; the empty name asks for the server as a whole.
pub async fn check_health(to: SocketAddr, service: &str) -> Result<(), AskError> {
    let stream = TcpStream::connect(to).await.map_err(AskError::Connect)?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let _pump = Pump::start(connection);
    let request = Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, concat!("impresario-probe/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(question(service)))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let collected = Limited::new(body, ANSWER_BYTES).collect().await;
    let collected = collected.map_err(|error| AskError::Health(error.to_string()))?;
    // An answer without a message has its status in the head.
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = code(&trailers).or_else(|| code(&head.headers));
    match status.as_deref() {
        Some("0") => judge(&collected.to_bytes()),
        Some("5") => Err(AskError::Unhealthy("NOT_FOUND")),
        Some("12") => Err(AskError::Health("the server does not implement it".to_owned())),
        Some(code) => Err(AskError::Health(format!("gRPC status {code}"))),
        None => Err(AskError::Health(format!("HTTP status {}, and none of gRPC", head.status))),
    }
}

fn code(headers: &HeaderMap) -> Option<String> {
    headers.get("grpc-status")?.to_str().ok().map(str::to_owned)
}

/// `HealthCheckRequest { string service = 1; }` in its frame: not compressed, with its length.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`; a field that is left out is 0.
fn judge(frame: &[u8]) -> Result<(), AskError> {
    let status = match frame {
        [0, 0, 0, 0, 0] => 0,
        [0, 0, 0, 0, 2, 0x08, status] => *status,
        _ => return Err(AskError::Health(format!("{} bytes that are no status", frame.len()))),
    };
    match STATUSES.get(usize::from(status)) {
        Some(&"SERVING") => Ok(()),
        Some(status) => Err(AskError::Unhealthy(status)),
        None => Err(AskError::Health(format!("status {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_asked_for_by_its_name_and_the_server_by_none() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(question(&"s".repeat(300))[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn only_serving_is_good() {
        assert!(judge(&[0, 0, 0, 0, 2, 8, 1]).is_ok());
        for (bad, said) in [
            (&[0, 0, 0, 0, 2, 8, 2][..], "NOT_SERVING"),
            (&[0, 0, 0, 0, 0], "UNKNOWN"),
            (&[0, 0, 0, 0, 2, 8, 9], "status 9"),
            (&[1, 2, 3], "3 bytes"),
        ] {
            let error = judge(bad).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
