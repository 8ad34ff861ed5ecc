//! Lines over a WebSocket, in the subprotocols of Kubernetes: the first byte of a message is its channel.
//!
//! | subprotocol | of a session | of ports |
//! |---|---|---|
//! | `v5.channel.k8s.io` | 0 what is typed, 1 standard output, 2 standard error, 3 a Status at the end, 4 the terminal's size; `255 0` ends what is typed | |
//! | `v4.channel.k8s.io` | the same without an end of what is typed | of the i-th port 2i its bytes, 2i+1 what went wrong; each begins with the port, two bytes, the lower one first |
//! | `SPDY/3.1+portforward.k8s.io` | | what would be said over SPDY, without channels: see [`spdy`] |
//!
//! A message is not larger than [`MESSAGE_BYTES`]. A client whose bytes the session does not take yet is not read.

use super::line::{IDLE_LIMIT, Line, Load, PIECE, Said, Size, Wire};
use super::offered;
use super::spdy;
use super::tunnel::Tunnel;
use crate::sessions::Typed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::SinkExt as _;
use futures_util::stream::{self, BoxStream, SplitSink, SplitStream, StreamExt};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use impresario_api::status::Status;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

/// Most bytes of a message, and of a frame.
pub const MESSAGE_BYTES: usize = 256 * 1024;
/// Bytes that are kept to be written: a message of ours, and the answers to pings.
const WRITE_BYTES: usize = 256 * 1024;
/// How long a client may take to close its side.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// What is appended to the client's key (RFC 6455, 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

type Socket = WebSocketStream<Wire>;

/// What client and server have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    protocol: &'static str,
    accept: String,
}

impl Agreed {
    /// Says it in the answer.
    pub fn answer(&self, headers: &mut HeaderMap) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }

    /// Whether connections are asked for while it lasts.
    pub fn dials(&self) -> bool {
        self.protocol == TUNNEL
    }
}

/// What can be agreed on of what is asked for.
pub fn wanted(headers: &HeaderMap, ports: bool) -> Result<Agreed, Status> {
    let known: &[&str] = if ports { &[TUNNEL, V4] } else { &[V5, V4] };
    let refused = |why: &str| {
        Err(Status::bad_request(format!(
            "{why}: this is spoken over a WebSocket here, with the subprotocol {}, or over SPDY/3.1 with \
             {}",
            known.join(" or "),
            if ports { spdy::OF_PORTS } else { spdy::OF_A_SESSION },
        )))
    };
    let has = |name: HeaderName, word: &str| offered::has(headers, name, word);
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        return refused("the request does not ask for a WebSocket");
    }
    if !has(SEC_WEBSOCKET_VERSION, "13") {
        return refused("the version of the WebSocket is not 13");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let Some(key) = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16)) else {
        return refused("the request has no key of 16 bytes");
    };
    let protocol = known.iter().find(|known| has(SEC_WEBSOCKET_PROTOCOL, known));
    let Some(protocol) = protocol else { return refused("no subprotocol is known to both sides") };
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{KEY_SUFFIX}").as_bytes());
    Ok(Agreed { protocol, accept: STANDARD.encode(hash) })
}

/// Carries the load until it is over, or the client is gone.
pub async fn carry(agreed: Agreed, wire: Wire, load: Load) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES))
        .write_buffer_size(PIECE)
        .max_write_buffer_size(WRITE_BYTES);
    let socket = WebSocketStream::from_raw_socket(wire, Role::Server, Some(config)).await;
    if agreed.protocol == TUNNEL {
        return spdy::carry(Tunnel::new(socket), load).await;
    }
    let (to, from) = socket.split();
    let (said, ears) = match load {
        Load::Session(line) => of_session(line, agreed.protocol == V5),
        Load::Ports(ports) => of_ports(ports),
        Load::Dial(_) => return tracing::error!("ports are dialled through the tunnel alone"),
    };
    let (speaking, hearing) = (speak(to, said), hear(from, ears));
    tokio::pin!(speaking, hearing);
    tokio::select! {
        () = &mut hearing => {}
        is_over = &mut speaking => {
            if is_over {
                // Who does not close its side is not waited for.
                let _ = timeout(CLOSE_LIMIT, hearing).await;
            }
        }
    }
}

/// What becomes of what is heard.
enum Ears {
    Session { typed: mpsc::Sender<Typed>, closes: bool },
    Ports(Vec<Option<mpsc::Sender<Typed>>>),
}

fn message(channel: u8, bytes: &[u8]) -> Bytes {
    [&[channel], bytes].concat().into()
}

fn of_session(line: Line, closes: bool) -> (BoxStream<'static, Bytes>, Ears) {
    let Line { typed, said, outputs, .. } = line;
    // As Kubernetes does it: an empty piece says that the session is open.
    let first = match outputs {
        [true, _] => STDOUT,
        [false, true] => STDERR,
        [false, false] => STATUS,
    };
    let said = said.map(|said| match said {
        Said::Stdout(bytes) => message(STDOUT, &bytes),
        Said::Stderr(bytes) => message(STDERR, &bytes),
        Said::Over(status) => message(STATUS, status.to_string().as_bytes()),
    });
    let first = stream::iter([message(first, &[])]);
    (first.chain(said).boxed(), Ears::Session { typed, closes })
}

/// There are at most 128 of them: two channels each.
fn of_ports(ports: Vec<(u16, Result<Line, String>)>) -> (BoxStream<'static, Bytes>, Ears) {
    let (mut begins, mut said, mut ears) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (port, line)) in ports.into_iter().enumerate() {
        let Ok(data) = u8::try_from(2 * index) else { break };
        let error = data + 1;
        begins.extend([data, error].map(|channel| message(channel, &port.to_le_bytes())));
        let line = match line {
            Ok(line) => line,
            Err(why) => {
                said.push(stream::iter([message(error, why.as_bytes())]).boxed());
                ears.push(None);
                continue;
            }
        };
        ears.push(Some(line.typed));
        let of_port = line.said.filter_map(move |said| {
            let message = match said {
                Said::Stdout(bytes) | Said::Stderr(bytes) => Some(message(data, &bytes)),
                Said::Over(status) if status["status"] == "Success" => None,
                Said::Over(status) => {
                    let why = status["message"].as_str().unwrap_or_default();
                    Some(message(error, why.as_bytes()))
                }
            };
            std::future::ready(message)
        });
        said.push(of_port.boxed());
    }
    (stream::iter(begins).chain(stream::select_all(said)).boxed(), Ears::Ports(ears))
}

/// Says all that there is to say, and then that it is over; whether that reached the connection.
async fn speak(mut to: SplitSink<Socket, Message>, mut said: BoxStream<'static, Bytes>) -> bool {
    while let Some(bytes) = said.next().await {
        if !send(&mut to, Message::Binary(bytes)).await {
            return false;
        }
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    send(&mut to, Message::Close(Some(close))).await
}

async fn send(to: &mut SplitSink<Socket, Message>, message: Message) -> bool {
    match timeout(IDLE_LIMIT, to.send(message)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a WebSocket cannot be written to any more");
            false
        }
        Err(_) => false,
    }
}

/// Hears what the client says until it closes, is gone, or breaks the protocol.
async fn hear(mut from: SplitStream<Socket>, mut ears: Ears) {
    loop {
        let bytes = match timeout(IDLE_LIMIT, from.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => bytes,
            // Pings are answered by the library.
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => continue,
            Ok(Some(Ok(Message::Close(_))) | None) => return,
            Ok(Some(Ok(Message::Text(_)))) => {
                return tracing::debug!("a WebSocket ends: text came where bytes are spoken");
            }
            Ok(Some(Err(error))) => return tracing::debug!(%error, "a WebSocket broke"),
            Err(_) => return tracing::info!("a WebSocket ends: nothing was heard on it"),
        };
        let Some(&channel) = bytes.first() else { continue };
        ears.hear(channel, bytes.slice(1..)).await;
    }
}

impl Ears {
    async fn hear(&mut self, channel: u8, bytes: Bytes) {
        match self {
            Self::Session { typed, closes } => match channel {
                STDIN => {
                    // One that reads no more may have more to say.
                    let _ = type_in(typed, &bytes).await;
                }
                RESIZE => match serde_json::from_slice::<Size>(&bytes) {
                    Ok(Size { width, height }) => {
                        // A session that is over has no size.
                        let _ = typed.send(Typed::Resize { width, height }).await;
                    }
                    Err(error) => tracing::debug!(%error, "a terminal's size cannot be read"),
                },
                CLOSE if *closes && bytes.first() == Some(&STDIN) => {
                    let _ = typed.send(Typed::End).await;
                }
                // A channel of ours that the client closes, or one that there is not.
                _ => {}
            },
            Self::Ports(ports) if channel.is_multiple_of(2) => {
                let Some(port) = ports.get_mut(usize::from(channel / 2)) else { return };
                if let Some(typed) = port
                    && type_in(typed, &bytes).await.is_err()
                {
                    *port = None;
                }
            }
            Self::Ports(_) => {}
        }
    }
}

/// Types it in pieces; `Err` where the session takes no more.
async fn type_in(typed: &mpsc::Sender<Typed>, bytes: &[u8]) -> Result<(), ()> {
    for piece in bytes.chunks(PIECE) {
        typed.send(Typed::Bytes(piece.to_vec())).await.map_err(|_| ())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    const PLAIN: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_key_is_answered_as_the_example_of_the_rfc_has_it() {
        let mut asked = PLAIN.to_vec();
        asked.push(("sec-websocket-protocol", "v1, v4.channel.k8s.io,v5.channel.k8s.io"));
        let agreed = wanted(&headers(&asked), false).unwrap();
        assert_eq!(agreed.protocol, V5);
        let mut answer = HeaderMap::new();
        agreed.answer(&mut answer);
        assert_eq!(answer[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(wanted(&headers(&asked), true).unwrap().protocol, V4);
        asked.push(("sec-websocket-protocol", TUNNEL));
        assert!(wanted(&headers(&asked), true).unwrap().dials());
    }

    #[test]
    fn what_is_no_websocket_or_of_no_known_subprotocol_is_refused_and_told_what_is() {
        let other = [("connection", "Upgrade"), ("upgrade", "h2c")];
        for (asked, why) in
            [(&other[..], "does not ask for a WebSocket"), (&PLAIN[..], "no subprotocol")]
        {
            let status = wanted(&headers(asked), false).unwrap_err();
            assert_eq!(status.code(), 400);
            assert!(status.message.contains(why), "{status}");
            assert!(status.message.contains("v5.channel.k8s.io or v4.channel.k8s.io"), "{status}");
            assert!(status.message.contains("or over SPDY/3.1 with v4.channel"), "{status}");
        }
    }

    #[tokio::test]
    async fn each_channel_of_a_session_goes_where_it_belongs() {
        let (typed, mut comes) = mpsc::channel(8);
        let mut ears = Ears::Session { typed, closes: true };
        ears.hear(STDIN, "abc".into()).await;
        ears.hear(RESIZE, r#"{"Width":80,"Height":25}"#.into()).await;
        ears.hear(RESIZE, "no size".into()).await;
        ears.hear(CLOSE, vec![STDOUT].into()).await;
        ears.hear(9, "nowhere".into()).await;
        ears.hear(CLOSE, vec![STDIN].into()).await;
        drop(ears);
        let mut all = Vec::new();
        while let Some(typed) = comes.recv().await {
            all.push(typed);
        }
        let size = Typed::Resize { width: 80, height: 25 };
        assert_eq!(all, [Typed::Bytes(b"abc".to_vec()), size, Typed::End]);
    }
}
