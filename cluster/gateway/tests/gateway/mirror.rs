//! Sessions with pods that there are not: they say what they hear.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use impresario_api::status::Status;
use impresario_gateway::sessions::{
    Output, SessionInput, SessionOutput, SessionSource, Typed, With,
};
use serde_json::Value;
use tokio::sync::watch;

/// The port that takes no connection.
pub const CLOSED: u16 = 81;

/// Says first what it is with, then what is typed, and ends with 7 when no more is; without an input at once, with 0, as a
/// port does.
#[derive(Clone)]
pub struct Mirror(pub watch::Sender<usize>);

impl Mirror {
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }
}

/// Counts a session for as long as somebody reads it.
struct Open(watch::Sender<usize>);

impl Open {
    fn of(mirror: &Mirror) -> Self {
        mirror.0.send_modify(|open| *open += 1);
        Self(mirror.0.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl SessionSource for Mirror {
    fn open<'a>(
        &'a self,
        pod: &'a Value,
        with: With,
        input: Option<SessionInput>,
    ) -> BoxFuture<'a, Result<SessionOutput, Status>> {
        Box::pin(async move {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let code = if matches!(with, With::Port(_)) { 0 } else { 7 };
            let tty = matches!(with, With::Command { tty: true, .. });
            let first = match with {
                With::Port(CLOSED) => return Err(Status::bad_request("takes no connection")),
                With::Port(port) => format!("port {port}\n"),
                With::Command { container, command, stdin, tty } => {
                    format!("{name}/{container} {} {stdin} {tty}\n", command.join(" "))
                }
                With::Container { container, .. } => format!("{name}/{container}\n"),
            };
            let first = stream::iter([Ok(Output::Stdout(first.into_bytes()))]);
            let open = Open::of(self);
            let rest = stream::unfold(Some((input, open, code, tty)), async |state| {
                let (mut input, open, code, tty) = state?;
                let typed = match &mut input {
                    None => return Some((Ok(Output::Ended(0)), None)),
                    Some(input) => input.recv().await,
                };
                match typed {
                    Some(Typed::Bytes(bytes)) => {
                        Some((Ok(Output::Stdout(bytes)), Some((input, open, code, tty))))
                    }
                    Some(Typed::Resize { width, height }) => {
                        let size = format!("{width}x{height}").into_bytes();
                        let said = if tty { Output::Stdout(size) } else { Output::Stderr(size) };
                        Some((Ok(said), Some((input, open, code, tty))))
                    }
                    Some(Typed::End) => Some((Ok(Output::Ended(code)), None)),
                    None => Some((Err("whoever wrote to it is gone".to_owned()), None)),
                }
            });
            Ok(first.chain(rest).boxed())
        })
    }
}
