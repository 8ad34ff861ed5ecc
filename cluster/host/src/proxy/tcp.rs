//! Connections: accepted at the virtual address, carried to an endpoint, both ways until both end.

use super::{balance::Backends, balance::Session, rule::ProxyLimits};
use impresario_ambient::clock;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

/// Connections that the kernel keeps for us.
const BACKLOG: u32 = 1024;

/// Listens where nobody does. The port is not for sharing (`SO_REUSEPORT`): the kernel would share it with
/// whatever program of the same user asks, every pod among them.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Runs until it is aborted, and its sessions with it.
pub(super) async fn serve(listener: TcpListener, backends: Arc<Backends>, limits: ProxyLimits) {
    let room = Arc::new(Semaphore::new(limits.sessions));
    let mut sessions = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while sessions.try_join_next().is_some() {}
        let (client, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: some session must end first.
                tracing::warn!(%error, "a service's connection is not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let backends = Arc::clone(&backends);
        sessions.spawn(async move {
            let _permit = permit;
            carry(client, from, &backends, limits.connect).await;
        });
    }
}

async fn carry(mut client: TcpStream, from: SocketAddr, backends: &Backends, limit: Duration) {
    let Some((mut endpoint, _session)) = connect(from, backends, limit).await else {
        backends.failed.fetch_add(1, Ordering::Relaxed);
        let _ = client.set_zero_linger(); // a reset, as from a port where nobody listens
        return;
    };
    backends.carried.fetch_add(1, Ordering::Relaxed);
    let _ = client.set_nodelay(true);
    let _ = endpoint.set_nodelay(true);
    // How a session ends is between its two sides.
    let _ = copy_bidirectional(&mut client, &mut endpoint).await;
}

async fn connect(
    from: SocketAddr,
    backends: &Backends,
    limit: Duration,
) -> Option<(TcpStream, Session)> {
    let mut tried = Vec::new();
    loop {
        let session = backends.pick(from.ip(), &tried, clock::now())?;
        match timeout(limit, TcpStream::connect(session.endpoint)).await {
            Ok(Ok(stream)) => return Some((stream, session)),
            _ => tried.push(session.endpoint),
        }
    }
}
