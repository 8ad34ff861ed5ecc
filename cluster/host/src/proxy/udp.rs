//! Datagrams: those of one client go to one endpoint until it is gone or the client is silent.

use super::{balance::Backends, balance::Session, rule::ProxyLimits};
use impresario_ambient::clock;
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    net::UdpSocket,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

/// The largest datagram that there can be.
const DATAGRAM: usize = 65_535;

/// A socket at an address that nobody has, and nobody is given beside it.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

struct Client {
    upstream: Arc<UdpSocket>,
    session: Session,
    last: Instant,
    answers: AbortHandle,
}

/// Runs until it is aborted, and its sessions with it.
pub(super) async fn serve(socket: UdpSocket, backends: Arc<Backends>, limits: ProxyLimits) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut sweep = interval(limits.udp_idle.max(Duration::from_millis(100)) / 2);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let (size, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(_) => continue, // the echo of a datagram that nobody took
            },
            _ = sweep.tick() => {
                clients.retain(|_, client| {
                    let keep = client.last.elapsed() < limits.udp_idle && !client.answers.is_finished();
                    if !keep { client.answers.abort(); }
                    keep
                });
                while tasks.try_join_next().is_some() {}
                continue;
            }
        };
        if let Some(client) = clients.get(&from)
            && (!backends.has(client.session.endpoint) || client.answers.is_finished())
        {
            client.answers.abort();
            clients.remove(&from);
        }
        if !clients.contains_key(&from) {
            if clients.len() >= limits.sessions {
                backends.failed.fetch_add(1, Ordering::Relaxed);
                continue; // a datagram may be lost; a new client waits for an old one's silence
            }
            let opened = open(from, &backends, limits.connect, &socket, &mut tasks).await;
            let Some(client) = opened else {
                backends.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            backends.carried.fetch_add(1, Ordering::Relaxed);
            clients.insert(from, client);
        }
        if let Some(client) = clients.get_mut(&from) {
            client.last = clock::now();
            if client.upstream.send(&buffer[..size]).await.is_err() {
                client.answers.abort(); // its endpoint is gone: the next datagram finds another
            }
        }
    }
}

async fn open(
    from: SocketAddr,
    backends: &Backends,
    limit: Duration,
    socket: &Arc<UdpSocket>,
    tasks: &mut JoinSet<()>,
) -> Option<Client> {
    let session = backends.pick(from.ip(), &[], clock::now())?;
    let any: SocketAddr = match session.endpoint {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let upstream = Arc::new(UdpSocket::bind(any).await.ok()?);
    timeout(limit, upstream.connect(session.endpoint)).await.ok()?.ok()?;
    let (answers_from, answers_by) = (Arc::clone(&upstream), Arc::clone(socket));
    let answers = tasks.spawn(async move {
        let mut buffer = vec![0; DATAGRAM];
        while let Ok(size) = answers_from.recv(&mut buffer).await {
            if answers_by.send_to(&buffer[..size], from).await.is_err() {
                return;
            }
        }
    });
    Some(Client { upstream, session, last: clock::now(), answers })
}
