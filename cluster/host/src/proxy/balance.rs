//! Which endpoint gets a session. No IO; the clock is an argument.

use super::rule::{Policy, ServiceRule};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Client addresses that are remembered for affinity; beyond it the oldest are forgotten.
const CLIENTS: usize = 10_000;

/// The endpoints of one port.
#[derive(Debug, Default)]
pub(super) struct Backends {
    state: Mutex<State>,
    pub(super) carried: AtomicU64,
    pub(super) failed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    policy: Policy,
    affinity: Option<Duration>,
    endpoints: Vec<Endpoint>,
    next: usize,
    clients: HashMap<IpAddr, (SocketAddr, Instant)>,
}

#[derive(Debug, Clone)]
struct Endpoint {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
}

/// A session with an endpoint; it is counted as long as this lives.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) endpoint: SocketAddr,
    open: Arc<AtomicUsize>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Backends {
    pub(super) fn set(&self, rule: &ServiceRule) {
        let mut state = self.state.lock();
        let old = std::mem::take(&mut state.endpoints);
        let known: HashMap<_, _> = old.into_iter().map(|e| (e.address, e.open)).collect();
        let mut addresses = rule.endpoints.clone();
        addresses.sort();
        addresses.dedup();
        let endpoint =
            |address| Endpoint { address, open: known.get(&address).cloned().unwrap_or_default() };
        state.endpoints = addresses.into_iter().map(endpoint).collect();
        state.policy = rule.policy;
        state.affinity = rule.affinity;
        let State { endpoints, clients, .. } = &mut *state;
        clients.retain(|_, (address, _)| endpoints.iter().any(|e| e.address == *address));
    }

    /// The endpoint for a client's next session, none of those that were `tried`.
    pub(super) fn pick(
        &self,
        client: IpAddr,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Option<Session> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let count = state.endpoints.len();
        let open = |e: &Endpoint| e.open.load(Ordering::Relaxed);
        let in_turn = (0..count).map(|step| (state.next + step) % count);
        let mut candidates =
            in_turn.filter(|index| !tried.contains(&state.endpoints[*index].address));
        let faithful = state.affinity.and_then(|limit| {
            let (address, last) = state.clients.get(&client)?;
            let here = state.endpoints.iter().position(|e| e.address == *address)?;
            (now.duration_since(*last) < limit && !tried.contains(address)).then_some(here)
        });
        let chosen = match (faithful, state.policy) {
            (Some(index), _) => index,
            (None, Policy::RoundRobin) => candidates.next()?,
            // The first of the smallest: in turn among equals.
            (None, Policy::LeastConnections) => {
                candidates.min_by_key(|index| open(&state.endpoints[*index]))?
            }
        };
        if faithful.is_none() {
            state.next = chosen + 1;
        }
        let Endpoint { address, open } = state.endpoints[chosen].clone();
        if state.affinity.is_some() {
            if state.clients.len() >= CLIENTS {
                let oldest = state.clients.iter().min_by_key(|(_, (_, last))| *last);
                if let Some(oldest) = oldest.map(|(client, _)| *client) {
                    state.clients.remove(&oldest);
                }
            }
            state.clients.insert(client, (address, now));
        }
        open.fetch_add(1, Ordering::Relaxed);
        Some(Session { endpoint: address, open })
    }

    /// Whether sessions may still go to this endpoint.
    pub(super) fn has(&self, endpoint: SocketAddr) -> bool {
        self.state.lock().endpoints.iter().any(|e| e.address == endpoint)
    }

    pub(super) fn open(&self) -> usize {
        self.state.lock().endpoints.iter().map(|e| e.open.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Protocol;
    use impresario_ambient::clock;

    fn backends(policy: Policy, affinity: Option<Duration>, ports: &[u16]) -> Backends {
        let backends = Backends::default();
        backends.set(&rule(policy, affinity, ports));
        backends
    }

    fn rule(policy: Policy, affinity: Option<Duration>, ports: &[u16]) -> ServiceRule {
        ServiceRule {
            name: "default/web:http".into(),
            address: "127.96.0.1:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            policy,
            affinity,
            endpoints: ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect(),
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn endpoints_take_turns_and_one_that_was_tried_is_passed_over() {
        let backends = backends(Policy::RoundRobin, None, &[1, 2, 3]);
        let now = clock::now();
        let port = |tried: &[SocketAddr]| {
            backends.pick(CLIENT, tried, now).map(|session| session.endpoint.port())
        };
        let turns: Vec<_> = (0..4).map(|_| port(&[]).unwrap()).collect();
        assert_eq!(turns, [1, 2, 3, 1]);
        let two: SocketAddr = ([127, 0, 0, 1], 2).into();
        assert_eq!(port(&[two]), Some(3));
        backends.set(&rule(Policy::RoundRobin, None, &[2]));
        assert_eq!(port(&[]), Some(2));
        assert_eq!(port(&[two]), None);
    }

    #[test]
    fn who_has_the_fewest_sessions_gets_the_next() {
        let backends = backends(Policy::LeastConnections, None, &[1, 2]);
        let now = clock::now();
        let first = backends.pick(CLIENT, &[], now).unwrap();
        let second = backends.pick(CLIENT, &[], now).unwrap();
        assert_ne!(first.endpoint, second.endpoint);
        drop(second);
        assert_ne!(backends.pick(CLIENT, &[], now).unwrap().endpoint, first.endpoint);
        assert_eq!(backends.open(), 1);
    }

    #[test]
    fn a_client_stays_with_its_endpoint_until_that_is_gone_or_time_is_over() {
        let limit = Duration::from_secs(10);
        let backends = backends(Policy::RoundRobin, Some(limit), &[1, 2, 3]);
        let begin = clock::now();
        let port = |after| backends.pick(CLIENT, &[], begin + after).unwrap().endpoint.port();
        assert_eq!([port(Duration::ZERO), port(limit / 2), port(limit)], [1, 1, 1]);
        assert_eq!(port(limit * 3), 2);
        backends.set(&rule(Policy::RoundRobin, Some(limit), &[1, 3]));
        assert_ne!(port(limit * 3), 2);
    }
}
