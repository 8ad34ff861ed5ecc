//! Answers: JSON, text, streams and refusals, with the headers that clients rely on.
//!
//! Every refusal is a Status object. Nothing of a client's text reaches a header unescaped.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, SizeHint};
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, RETRY_AFTER, VARY, WARNING,
};
use hyper::{HeaderMap, Response, StatusCode};
use impresario_api::openapi::digest;
use impresario_api::status::Status;
use serde_json::Value;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Bytes that are given out a piece at a time, so that it shows whether they are read: nothing holds
/// more of them than a piece.
struct Pieces(Bytes);

/// Bytes of a piece.
pub const PIECE: usize = 64 * 1024;

/// Moves what fits into a piece from what is ready to be sent.
pub fn fill(piece: &mut Vec<u8>, ready: &mut VecDeque<Bytes>) {
    while let Some(front) = ready.front_mut() {
        let length = front.len().min(PIECE.saturating_sub(piece.len()));
        piece.extend_from_slice(&front.split_to(length));
        if !front.is_empty() {
            return;
        }
        ready.pop_front();
    }
}

/// Says of an answer that is sent as it is made that all of it is there to be read: who reads it must be as fast as
/// for one that was made before.
#[derive(Debug, Clone, Copy)]
pub struct Paced;

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.0.len().min(PIECE);
        let piece = self.0.split_to(length);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Pieces(bytes.into()).boxed_unsync()
}

fn answer(code: u16, kind: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A JSON value.
pub fn json(code: u16, value: &Value, pretty: bool) -> Response<Body> {
    let bytes = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
    match bytes {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            answer(code, JSON, whole(bytes))
        }
        Err(error) => status(&Status::internal(error), pretty),
    }
}

/// Bytes of some other type.
pub fn bytes(code: u16, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    answer(code, HeaderValue::from_static(kind), whole(bytes))
}

/// Plain text.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    answer(code, TEXT, whole(text.into()))
}

/// A refusal.
pub fn status(status: &Status, pretty: bool) -> Response<Body> {
    refusal(status, &status.to_value(), pretty)
}

/// A refusal whose object says more than its Status does.
pub fn refusal(status: &Status, value: &Value, pretty: bool) -> Response<Body> {
    let bytes = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
    let mut response = answer(status.code(), JSON, whole(bytes.unwrap_or_default()));
    if let Some(seconds) = status.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A stream of pieces, each sent as it comes.
pub fn stream(
    kind: &'static str,
    pieces: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
) -> Response<Body> {
    let body = StreamBody::new(pieces.map_ok(Frame::data).fuse());
    answer(200, HeaderValue::from_static(kind), BodyExt::boxed_unsync(body))
}

/// Most bytes of one warning, and of all in one answer, as Kubernetes has it: clients and proxies
/// refuse answers whose header is large.
const WARNING_BYTES: usize = 256;
const WARNINGS_BYTES: usize = 4096;

/// Adds what the client should be told besides the answer.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let told = response.headers().get_all(WARNING).iter();
    let mut left = WARNINGS_BYTES.saturating_sub(told.map(HeaderValue::len).sum());
    for warning in warnings {
        let warning = &warning[..warning.floor_char_boundary(WARNING_BYTES)];
        let mut quoted = String::with_capacity(warning.len() + 12);
        for character in warning.chars() {
            match character {
                '"' | '\\' => quoted.extend(['\\', character]),
                control if control.is_control() => quoted.push(' '),
                plain => quoted.push(plain),
            }
        }
        let text = format!("299 - \"{quoted}\"");
        let Some(rest) = left.checked_sub(text.len()) else { return };
        left = rest;
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// An answer that a client may keep: with an ETag, and 304 when it has it already.
pub fn cacheable(
    asked: &HeaderMap,
    kind: &'static str,
    body: impl Into<Bytes>,
    forever: bool,
) -> Response<Body> {
    let body: Bytes = body.into();
    let tag = format!("\"{}\"", digest(&body));
    let known = asked.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let fresh = known
        .is_some_and(|known| known.split(',').any(|one| one.trim() == tag || one.trim() == "*"));
    let mut response = if fresh {
        answer(304, HeaderValue::from_static(kind), whole(Bytes::new()))
    } else {
        answer(200, HeaderValue::from_static(kind), whole(body))
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    let keep = if forever { "public, max-age=31536000, immutable" } else { "no-cache, private" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_cannot_break_out_of_its_header() {
        let mut response = text(200, "ok");
        warn(&mut response, &["unknown field \"spec.foo\"\r\nSet-Cookie: x".to_owned()]);
        let header = response.headers()[WARNING].to_str().unwrap();
        assert_eq!(header, "299 - \"unknown field \\\"spec.foo\\\"  Set-Cookie: x\"");
    }

    #[test]
    fn warnings_stay_within_what_a_header_may_be() {
        let mut response = text(200, "ok");
        let long = "ä".repeat(100_000);
        warn(&mut response, &vec![long; 100]);
        warn(&mut response, &["one more".to_owned()]);
        let told: Vec<_> = response.headers().get_all(WARNING).iter().collect();
        assert!(told.len() > 10 && told.iter().all(|one| one.len() <= 256 + 10));
        assert!(told.iter().map(|one| one.len()).sum::<usize>() <= 4096);
    }

    #[test]
    fn what_the_client_has_already_is_not_sent_again() {
        let first = cacheable(&HeaderMap::new(), "application/json", "{}", false);
        let mut asked = HeaderMap::new();
        asked.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(cacheable(&asked, "application/json", "{}", false).status(), 304);
        assert_eq!(cacheable(&asked, "application/json", "{ }", false).status(), 200);
    }
}
