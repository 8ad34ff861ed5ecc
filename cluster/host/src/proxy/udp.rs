//! Datagrams: those of one client go to one endpoint until it is gone or the client is silent.

use super::{balance::Backends, balance::Session, rule::ProxyLimits, turns::Turns};
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
/// How long one waits that cannot read: it is out of descriptors, most likely.
const AGAIN: Duration = Duration::from_millis(100);

struct Client {
    upstream: Arc<UdpSocket>,
    session: Session,
    last: Instant,
    answers: AbortHandle,
}

/// Runs until it is aborted, and its sessions with it.
pub(super) async fn serve(turns: Turns, backends: Arc<Backends>, limits: ProxyLimits) {
    loop {
        turns.come().await;
        if let Err(error) = read(&turns, &backends, limits).await {
            tracing::warn!(%error, "a service's datagrams are not read");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Carries datagrams as long as it is this process's turn.
async fn read(turns: &Turns, backends: &Backends, limits: ProxyLimits) -> io::Result<()> {
    // Who does not read is not woken by datagrams either: only now the runtime hears of the socket.
    let socket = Arc::new(UdpSocket::from_std(turns.socket().try_clone()?)?);
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut sweep = interval(limits.udp_idle.max(Duration::from_millis(100)) / 2);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let swept = tokio::select! {
            ready = socket.readable() => { ready?; false }
            _ = sweep.tick() => true,
        };
        if !turns.is_own() {
            return Ok(());
        }
        if swept {
            clients.retain(|_, client| {
                let keep = client.last.elapsed() < limits.udp_idle && !client.answers.is_finished();
                if !keep {
                    client.answers.abort();
                }
                keep
            });
            while tasks.try_join_next().is_some() {}
            continue;
        }
        let Ok((size, from)) = socket.try_recv_from(&mut buffer) else {
            continue; // nothing is left, or it is the echo of a datagram that nobody took
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
            let opened = open(from, backends, limits.connect, &socket, &mut tasks).await;
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
