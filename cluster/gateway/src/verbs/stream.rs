//! What goes both ways: a command in a container (`exec`), a container itself (`attach`), ports (`portforward`).
//!
//! The pod's object says which container is meant and where; the session comes from a [`SessionSource`], and is carried by a
//! [`Transport`]. What can be refused is refused before the connection becomes something else, but for a port that takes no
//! connection: of that its own channel tells.
//!
//! [`SessionSource`]: crate::sessions::SessionSource

use super::log::choose;
use crate::answer::Body;
use crate::call::ResourceCall;
use crate::gateway::Gateway;
use crate::query::Query;
use crate::sessions::{SessionSource, With};
use crate::streams::{self, Dial, HELD_BYTES, Line, Load, PIECE, PIECES, Terms, Transport};
use crate::takeover::Takeover;
use futures_util::future::join_all;
use hyper::Response;
use hyper::upgrade::OnUpgrade;
use impresario_api::status::Status;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Ports of one connection at most.
const MOST_PORTS: usize = 32;
/// Bytes of a command with its arguments at most: it is sent to the pod's node in one message.
const COMMAND_BYTES: usize = 128 * 1024;

/// Which of a session's files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Files {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// Runs a command in a container.
pub async fn exec(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let query = &call.call.query;
    let files = files(query)?;
    let command: Vec<String> = query.all("command").map(ToOwned::to_owned).collect();
    if command.first().is_none_or(String::is_empty) {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    if command.iter().map(|word| word.len() + 1).sum::<usize>() > COMMAND_BYTES {
        let why =
            format!("the command is over the limit of {COMMAND_BYTES} bytes: send it as input");
        return Err(Status::bad_request(why));
    }
    let pod = pod(gateway, call).await?;
    let container = choose(&pod, &call.path.name, query.get("container"))?;
    let said = command.clone();
    let with = With::Command { container, command, stdin: files.stdin, tty: files.tty };
    session(gateway, call, &pod, with, files, &said).await
}

/// Listens to a container from now on.
pub async fn attach(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let query = &call.call.query;
    let files = files(query)?;
    let pod = pod(gateway, call).await?;
    let container = choose(&pod, &call.path.name, query.get("container"))?;
    let with = With::Container { container, stdin: files.stdin };
    session(gateway, call, &pod, with, files, &[]).await
}

/// Connects to ports of a pod.
pub async fn port_forward(
    gateway: &Gateway,
    call: &ResourceCall,
) -> Result<Response<Body>, Status> {
    let transport = Transport::wanted(&call.call.parts.headers, true)?;
    if transport.dials() {
        let pod = pod(gateway, call).await?;
        let dial = dial(gateway, call, pod)?;
        return Ok(Opening::of(gateway, call, transport, 1)?.begin(Load::Dial(dial)));
    }
    let ports = ports(&call.call.query)?;
    let pod = pod(gateway, call).await?;
    let opening = Opening::of(gateway, call, transport, ports.len())?;
    let source = gateway.sessions()?;
    let pod = &pod;
    let connect = |port| async move { (port, connect(&**source, pod, port).await) };
    let lines = join_all(ports.into_iter().map(connect)).await;
    Ok(opening.begin(Load::Ports(lines)))
}

async fn connect(source: &dyn SessionSource, pod: &Value, port: u16) -> Result<Line, String> {
    let (typed, comes) = mpsc::channel(PIECES);
    let opened = source.open(pod, With::Port(port), Some(comes)).await;
    let line = opened.map(|output| Line::new(typed, output, &[], [true, false]));
    line.map_err(|status| status.message)
}

/// Connects to ports of this pod from now on; each connection counts as one more that this user has.
fn dial(gateway: &Gateway, call: &ResourceCall, pod: Value) -> Result<Dial, Status> {
    let (source, pod) = (gateway.sessions()?.clone(), Arc::new(pod));
    let shares = gateway.streams(&call.call);
    Ok(Box::new(move |port| {
        let (source, pod, share) = (source.clone(), pod.clone(), shares(PIECES * PIECE));
        Box::pin(async move {
            let share = share.map_err(|status| status.message)?;
            Ok(connect(&*source, &pod, port).await?.holding(share))
        })
    }))
}

async fn session(
    gateway: &Gateway,
    call: &ResourceCall,
    pod: &Value,
    with: With,
    files: Files,
    command: &[String],
) -> Result<Response<Body>, Status> {
    let source = gateway.sessions()?;
    let transport = Transport::wanted(&call.call.parts.headers, false)?;
    let opening = Opening::of(gateway, call, transport, 1)?;
    let (typed, comes) = mpsc::channel(PIECES);
    // The size of a terminal goes the way of what is typed.
    let input = (files.stdin || files.tty).then_some(comes);
    let output = source.open(pod, with, input).await?;
    let line = Line::new(typed, output, command, [files.stdout, files.stderr])
        .with_inputs([files.stdin, files.tty]);
    Ok(opening.begin(Load::Session(line)))
}

/// What is needed for a connection to become something else.
struct Opening {
    transport: Transport,
    upgrade: OnUpgrade,
    terms: Terms,
}

impl Opening {
    /// For so many lines.
    fn of(
        gateway: &Gateway,
        call: &ResourceCall,
        transport: Transport,
        lines: usize,
    ) -> Result<Self, Status> {
        let parts = &call.call.parts;
        let more = lines.saturating_sub(1) * PIECES * PIECE;
        let share = Box::new(gateway.stream(&call.call, HELD_BYTES + more)?);
        let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
        let takeover = parts.extensions.get::<Takeover>();
        let (Some(upgrade), Some(takeover)) = (upgrade, takeover) else {
            let why = "this connection cannot become another: open one of HTTP/1.1 for it alone";
            return Err(Status::bad_request(why));
        };
        let distrusts = Box::pin(gateway.distrusts(&call.call));
        let terms = Terms { taken: takeover.take(), distrusts, share };
        Ok(Self { transport, upgrade, terms })
    }

    fn begin(self, load: Load) -> Response<Body> {
        streams::begin(self.transport, self.upgrade, load, self.terms)
    }
}

/// The pod, if it is somewhere.
async fn pod(gateway: &Gateway, call: &ResourceCall) -> Result<Value, Status> {
    let path = &call.path;
    let pod = gateway.objects().get(&call.resource, &path.namespace, &path.name).await?;
    if pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            path.name
        )));
    }
    Ok(pod)
}

fn files(query: &Query) -> Result<Files, Status> {
    let tty = query.flag("tty");
    // On a terminal both outputs are one.
    let stderr = query.flag("stderr") && !tty;
    let files = Files { stdin: query.flag("stdin"), stdout: query.flag("stdout"), stderr, tty };
    if !files.stdin && !files.stdout && !files.stderr {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(files)
}

/// The ports, each parameter one or several with commas between them.
fn ports(query: &Query) -> Result<Vec<u16>, Status> {
    let words = query.all("ports").flat_map(|word| word.split(','));
    let ports = words.map(|word| {
        let port = word.trim().parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| Status::bad_request(format!("{word:?} is no port from 1 to 65535")))
    });
    let ports: Vec<u16> = ports.collect::<Result<_, _>>()?;
    match ports.len() {
        0 => Err(Status::bad_request("you must specify at least one port: ports=PORT")),
        1..=MOST_PORTS => Ok(ports),
        _ => Err(Status::bad_request(format!(
            "a connection has at most {MOST_PORTS} ports: open another one"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_with_commas_or_without() {
        let of = |query: &str| ports(&Query::parse(query)).map_err(|status| status.message);
        assert_eq!(of("ports=80&ports=443").unwrap(), [80, 443]);
        assert_eq!(of("ports=80,443").unwrap(), [80, 443]);
        assert_eq!(of("").unwrap_err(), "you must specify at least one port: ports=PORT");
        for bad in ["0", "http", "65536", "80,"] {
            assert!(of(&format!("ports={bad}")).unwrap_err().contains("is no port"), "{bad}");
        }
        assert!(of(&"ports=1&".repeat(33)).unwrap_err().contains("at most 32"));
    }

    #[test]
    fn a_terminal_has_one_output_and_a_session_at_least_one_file() {
        let of = |query: &str| files(&Query::parse(query));
        let all = of("stdin=true&stdout=True&stderr=1&tty=true").unwrap();
        assert_eq!(all, Files { stdin: true, stdout: true, stderr: false, tty: true });
        assert!(of("stdout=false").unwrap_err().message.contains("at least 1 of stdin"));
    }
}
