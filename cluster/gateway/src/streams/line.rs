//! What a transport carries, and over what: sessions, of which each takes what is typed and gives what is said, last how
//! it ended.

use crate::sessions::{Output, SessionOutput, Typed};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;

/// Bytes of one piece that is typed, at most.
pub const PIECE: usize = 32 * 1024;
/// Pieces that wait to be taken by the session.
pub const PIECES: usize = 4;

/// How long a client may say nothing, and read nothing of what there is to be read.
pub const IDLE_LIMIT: Duration = Duration::from_hours(4);

/// What is held for one connection, in bytes: a message that comes, and what waits of its first line.
pub const HELD_BYTES: usize = 512 * 1024;

/// The connection, when it is HTTP no more.
pub type Wire = TokioIo<Upgraded>;

/// What is carried.
pub enum Load {
    /// One session: a command in a container, or the container itself.
    Session(Line),
    /// Ports of a pod, in the order that they were asked for in; with a word why not where one takes no connection.
    Ports(Vec<(u16, Result<Line, String>)>),
    /// Ports of a pod, as often as the client asks for one.
    Dial(Dial),
}

/// Connects to a port; with a word why not where it takes no connection.
pub type Dial = Box<dyn Fn(u16) -> BoxFuture<'static, Result<Line, String>> + Send + Sync>;

/// What comes out.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Bytes of the standard output, of the terminal, or from a port.
    Stdout(Bytes),
    /// Bytes of the standard error.
    Stderr(Bytes),
    /// A Status that says how it ended; nothing follows.
    Over(Value),
}

/// One session.
pub struct Line {
    /// What is typed. Dropping it without [`Typed::End`] cuts the session.
    pub typed: mpsc::Sender<Typed>,
    /// What it says.
    pub said: BoxStream<'static, Said>,
    /// Which of its outputs are wanted: the standard output, the standard error.
    pub outputs: [bool; 2],
    /// Which of its inputs there are: the standard input, the size of a terminal.
    pub inputs: [bool; 2],
}

/// The size of a terminal, as clients tell it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl Line {
    /// Of what a session gives.
    pub fn new(
        typed: mpsc::Sender<Typed>,
        output: SessionOutput,
        command: &[String],
        outputs: [bool; 2],
    ) -> Self {
        let command = command.join(" ");
        let [stdout, stderr] = outputs;
        let said = stream::unfold(Some(output), move |output| {
            let command = command.clone();
            async move {
                let mut output = output?;
                loop {
                    let over = match output.next().await {
                        Some(Ok(Output::Stdout(bytes))) if stdout => {
                            return Some((Said::Stdout(bytes.into()), Some(output)));
                        }
                        Some(Ok(Output::Stderr(bytes))) if stderr => {
                            return Some((Said::Stderr(bytes.into()), Some(output)));
                        }
                        Some(Ok(Output::Stdout(_) | Output::Stderr(_))) => continue,
                        Some(Ok(Output::Ended(code))) => ended(&command, code),
                        Some(Err(why)) => cut(&why),
                        None => cut("the pod's node is gone"),
                    };
                    return Some((Said::Over(over), None));
                }
            }
        });
        Self { typed, said: said.boxed(), outputs, inputs: [false; 2] }
    }

    /// With these inputs.
    pub fn with_inputs(mut self, inputs: [bool; 2]) -> Self {
        self.inputs = inputs;
        self
    }

    /// Holds this for as long as somebody may hear it.
    pub fn holding(mut self, share: impl Send + 'static) -> Self {
        self.said = self
            .said
            .map(move |said| {
                let _ = &share;
                said
            })
            .boxed();
        self
    }
}

/// How a command ended, as Kubernetes tells it (`k8s.io/apimachinery/pkg/util/remotecommand`).
fn ended(command: &str, code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    let message = format!(
        "command terminated with non-zero exit code: error executing command [{command}], exit code {code}"
    );
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// It did not end: something between it and its reader did.
fn cut(why: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("the session was cut: {why}"),
        "reason": "InternalError",
        "code": 500,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    async fn said(output: Vec<Result<Output, String>>, outputs: [bool; 2]) -> Vec<Said> {
        let (typed, _comes) = mpsc::channel(1);
        let command = ["sh".to_owned(), "-c".to_owned()];
        Line::new(typed, stream::iter(output).boxed(), &command, outputs).said.collect().await
    }

    #[tokio::test]
    async fn a_line_says_what_is_wanted_and_last_how_it_ended() {
        let output =
            |last| vec![Ok(Output::Stdout(b"a".to_vec())), Ok(Output::Stderr(b"b".to_vec())), last];
        let all = said(output(Ok(Output::Ended(0))), [true, true]).await;
        let success = Said::Over(json!({"metadata": {}, "status": "Success"}));
        assert_eq!(all, [Said::Stdout("a".into()), Said::Stderr("b".into()), success]);
        let few = said(output(Ok(Output::Ended(7))), [false, true]).await;
        assert_eq!(few[0], Said::Stderr("b".into()));
        let Said::Over(status) = &few[1] else { panic!("{few:?}") };
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        let lost = said(output(Err("lost".into())), [false, false]).await;
        let Said::Over(status) = &lost[0] else { panic!("{lost:?}") };
        assert_eq!(status["message"], "the session was cut: lost");
        assert_eq!(lost.len(), 1);
    }
}
