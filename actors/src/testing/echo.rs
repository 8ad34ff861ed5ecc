//! A command that says what it hears.

use impresario_host::container::{Attached, Typed, Wanted, Written};
use impresario_runtime::tasks;
use tokio::sync::mpsc;

/// Gives what goes in back until its end, and then ends as `exit N` says; anything else goes on until it is cut.
pub(super) fn echo(wanted: Wanted) -> Attached {
    let (typed, mut comes) = mpsc::channel(1);
    let (written, output) = mpsc::channel(1);
    tasks::spawn(async move {
        while let Some(typed) = comes.recv().await {
            let piece = match typed {
                Typed::Bytes(bytes) => Written::Stdout(bytes),
                Typed::Resize(size) => {
                    Written::Stderr(format!("{}x{}", size.width, size.height).into())
                }
            };
            if written.send(piece).await.is_err() {
                return;
            }
        }
        match wanted.command.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["exit", code] => {
                let _ = written.send(Written::Ended(code.parse().unwrap())).await;
            }
            _ => written.closed().await,
        }
    });
    Attached { input: wanted.stdin.then_some(typed), output }
}
