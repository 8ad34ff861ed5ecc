//! The ports that are served.

use super::{balance::Backends, rule::Protocol};
use parking_lot::Mutex;
use std::{collections::HashMap, net::SocketAddr, os::fd::OwnedFd, sync::Arc};
use tokio::task::JoinHandle;

/// The ports that are served.
pub(super) type Ports = Arc<Mutex<HashMap<(SocketAddr, Protocol), Port>>>;

/// One of them; what it serves ends with it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) backends: Arc<Backends>,
    pub(super) task: JoinHandle<()>,
    /// The socket again, to hand it on.
    pub(super) socket: Option<OwnedFd>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort(); // and with it the sessions that it owns
    }
}

impl Port {
    /// Returns when its socket is closed, so that the address may be listened on again.
    pub(super) async fn close(mut self) {
        self.socket = None;
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}
