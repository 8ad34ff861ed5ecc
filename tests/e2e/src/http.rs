//! Plain HTTP: to what pods serve, and to the API through `kubectl proxy`, where a test wants to see
//! an answer as it is on the wire.

use crate::{Kubectl, eventually};
use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The header lines.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request on a connection of its own.
pub fn fetch(
    server: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> io::Result<Answer> {
    exchange(server, method, path, &[("Content-Type", content_type)], body)
}

/// HTTP/1.0, so that the answer is not in chunks.
fn exchange(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let length = body.len();
    let mut head =
        format!("{method} {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // A server may answer before it has read a body that it will not take.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes)
        && bytes.is_empty()
    {
        return Err(error);
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut lines = head.lines().map(str::to_owned);
    let status = lines.next().unwrap_or_default();
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| io::Error::other(format!("no status in {status:?}")))?;
    Ok(Answer { code, headers: lines.collect(), body: body.to_owned() })
}

/// `kubectl proxy`: the API without TLS, for this machine alone.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    _command: crate::kubectl::Lines,
}

impl Proxy {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(kubectl: &Kubectl) -> Self {
        let mut command = kubectl.lines("proxy --port 0");
        let line = command.expect("Starting to serve on ");
        let address = line.rsplit(' ').next().and_then(|word| word.parse().ok());
        Self { address: address.expect("an address"), _command: command }
    }

    /// One request to the API.
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        eventually(&format!("{method} {path} is answered"), || {
            fetch(self.address, method, path, content_type, body).map_err(|e| e.to_string())
        })
    }

    /// One request whose answer is to be a table.
    pub fn table(&self, method: &str, path: &str, object: Option<&Value>) -> Answer {
        let accept = ("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        let headers = [("Content-Type", "application/json"), accept];
        let body = object.map(Value::to_string).unwrap_or_default();
        eventually(&format!("{method} {path} is answered"), || {
            exchange(self.address, method, path, &headers, body.as_bytes())
                .map_err(|e| e.to_string())
        })
    }

    /// POST of a JSON object.
    pub fn post(&self, path: &str, object: &Value) -> Answer {
        self.send("POST", path, "application/json", object.to_string().as_bytes())
    }

    /// GET, as JSON.
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", b"")
    }
}
