//! The signals that ask a program to end.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the program is asked to end: by Ctrl-C, by a service manager (SIGTERM), or by a
/// terminal that goes away (SIGHUP). What it started must not outlive it then.
pub async fn asked_to_end() {
    let one = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(error) => {
                tracing::warn!(%error, "a signal cannot be listened for; it ends the program at once");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = one(SignalKind::interrupt()) => {}
        () = one(SignalKind::terminate()) => {}
        () = one(SignalKind::hangup()) => {}
    }
}
