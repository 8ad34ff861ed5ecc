//! Virtual addresses of services: connections to them are carried to a ready endpoint.
//!
//! - [`ServiceProxy::apply`] takes the whole wanted state; what is the same goes on undisturbed.
//! - An endpoint that is gone gets no new connection from the moment of `apply` on; one that
//!   cannot be reached is passed over for the next.
//! - A service without endpoints refuses connections: its port is not even listened on.
//! - Sessions are bounded per service; at the limit new ones wait in the kernel's queue.
//! - An address is listened on once, and by nobody beside us: nodes of one machine share the socket
//!   ([`Neighbourhood`]). A node that is stopped keeps no connections from the others, and datagrams for a second.

mod balance;
mod first_port;
mod neighbours;
mod port;
mod rule;
mod tcp;
mod turns;
mod udp;

pub use first_port::first_port;
use impresario_ambient::tasks;
pub use neighbours::Neighbourhood;
pub use rule::{Policy, Protocol, ProxyLimits, ServiceRule};

use balance::Backends;
use neighbours::Neighbours;
use port::{Port, Ports};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    sync::atomic::Ordering,
    time::Duration,
};
use thiserror::Error;
use tokio::net::TcpListener;
use turns::Turns;

/// How often addresses are tried that are in use: a neighbour may be taking or leaving one just then.
const TRIES: usize = 3;
/// Pause between tries.
const AGAIN: Duration = Duration::from_millis(10);

/// A rule that is not in force. Applying the rules again tries it again.
#[derive(Debug, Error)]
#[error("{name} is not served at {address}: {cause}")]
pub struct NotServed {
    /// The rule.
    pub name: String,
    /// Its virtual address.
    pub address: SocketAddr,
    /// What the system said.
    pub cause: io::Error,
}

/// What a port did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortStats {
    /// Sessions that are open.
    pub open: usize,
    /// Sessions that found an endpoint.
    pub carried: u64,
    /// Sessions that found none.
    pub failed: u64,
}

/// What came of rules.
#[derive(Debug, Default)]
pub struct Applied {
    /// Rules that are not in force.
    pub not_served: Vec<NotServed>,
}

impl Applied {
    /// Whether nothing is left to be tried again.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.not_served.is_empty()
    }
}

/// Serves virtual addresses until it is dropped.
#[derive(Debug)]
pub struct ServiceProxy {
    limits: ProxyLimits,
    ports: Ports,
    neighbours: Option<Neighbours>,
}

impl ServiceProxy {
    /// A proxy that serves nothing yet, on a machine where no other does.
    #[must_use]
    pub fn new(limits: ProxyLimits) -> Self {
        Self { limits, ports: Ports::default(), neighbours: None }
    }

    /// A proxy that shares addresses with those of other nodes of this machine.
    /// Must be called within a tokio runtime.
    pub fn among(limits: ProxyLimits, neighbourhood: Neighbourhood) -> io::Result<Self> {
        let ports = Ports::default();
        let neighbours = Some(Neighbours::start(neighbourhood, ports.clone())?);
        Ok(Self { limits, ports, neighbours })
    }

    /// Makes exactly these rules be in force, but for those that are returned.
    pub async fn apply(&self, rules: Vec<ServiceRule>) -> Applied {
        let (missing, closed) = self.keep(rules);
        for port in closed {
            port.close().await;
        }
        let mut applied = Applied::default();
        let mut silent = Vec::new();
        let mut missing = missing;
        // All in a round, so that nobody waits for those whose address another program has for good.
        for round in 1..=TRIES {
            let may_wait = round < TRIES && self.neighbours.is_some();
            let mut in_use = Vec::new();
            for rule in std::mem::take(&mut missing) {
                match self.open(&rule, &mut silent).await {
                    Ok(port) => {
                        self.ports.lock().insert((rule.address, rule.protocol), port);
                    }
                    Err(cause) if may_wait && cause.kind() == io::ErrorKind::AddrInUse => {
                        in_use.push(rule);
                    }
                    Err(cause) => {
                        let (name, address) = (rule.name, rule.address);
                        applied.not_served.push(NotServed { name, address, cause });
                    }
                }
            }
            if in_use.is_empty() {
                break;
            }
            missing = in_use;
            tokio::time::sleep(AGAIN).await;
        }
        applied
    }

    /// Brings what is served already up to date; the rules that are not yet, and the ports that are no longer.
    fn keep(&self, rules: Vec<ServiceRule>) -> (Vec<ServiceRule>, Vec<Port>) {
        let mut ports = self.ports.lock();
        let mut old = std::mem::take(&mut *ports);
        let mut missing = Vec::new();
        // Connections to one without endpoints are refused, those that are open end with their port.
        for rule in rules.into_iter().filter(|rule| !rule.endpoints.is_empty()) {
            let key = (rule.address, rule.protocol);
            match old.remove(&key) {
                Some(port) if !port.task.is_finished() => {
                    port.backends.set(&rule);
                    ports.insert(key, port);
                }
                _ => missing.push(rule),
            }
        }
        (missing, old.into_values().collect())
    }

    /// Opens a port, with the socket of another node where one has it. Those that do not answer are added to `silent`
    /// and not asked.
    async fn open(
        &self,
        rule: &ServiceRule,
        silent: &mut Vec<std::path::PathBuf>,
    ) -> io::Result<Port> {
        let in_use = match self.listen(rule) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            opened => return opened,
        };
        let Some(neighbours) = &self.neighbours else { return Err(in_use) };
        match neighbours.ask(rule.address, rule.protocol, silent).await {
            Some(socket) => self.share(rule, socket),
            None => Err(in_use),
        }
    }

    fn listen(&self, rule: &ServiceRule) -> io::Result<Port> {
        match rule.protocol {
            Protocol::Tcp => self.serve_connections(rule, tcp::listen(rule.address)?),
            Protocol::Udp => self.serve_datagrams(rule, Turns::bind(rule.address)?),
        }
    }

    fn share(&self, rule: &ServiceRule, socket: OwnedFd) -> io::Result<Port> {
        match rule.protocol {
            Protocol::Tcp => {
                let socket = std::net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                self.serve_connections(rule, TcpListener::from_std(socket)?)
            }
            Protocol::Udp => self.serve_datagrams(rule, Turns::join(socket.into())?),
        }
    }

    fn serve_connections(&self, rule: &ServiceRule, listener: TcpListener) -> io::Result<Port> {
        let again = listener.as_fd().try_clone_to_owned()?;
        let backends = backends(rule);
        let task = tasks::spawn(tcp::serve(listener, Arc::clone(&backends), self.limits));
        Ok(Port { backends, task, socket: Some(again) })
    }

    fn serve_datagrams(&self, rule: &ServiceRule, turns: Turns) -> io::Result<Port> {
        let again = turns.socket().as_fd().try_clone_to_owned()?;
        let backends = backends(rule);
        let task = tasks::spawn(udp::serve(turns, Arc::clone(&backends), self.limits));
        Ok(Port { backends, task, socket: Some(again) })
    }

    /// What a port did, when it is served.
    pub fn stats(&self, address: SocketAddr, protocol: Protocol) -> Option<PortStats> {
        let ports = self.ports.lock();
        let backends = &ports.get(&(address, protocol))?.backends;
        Some(PortStats {
            open: backends.open(),
            carried: backends.carried.load(Ordering::Relaxed),
            failed: backends.failed.load(Ordering::Relaxed),
        })
    }
}

fn backends(rule: &ServiceRule) -> Arc<Backends> {
    let backends = Arc::new(Backends::default());
    backends.set(rule);
    backends
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[tokio::test]
    async fn nobody_waits_for_services_whose_address_another_program_has() {
        let other = std::net::TcpListener::bind("127.77.9.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let free = std::net::TcpListener::bind("127.77.9.2:0").unwrap().local_addr().unwrap();
        let rule = |name: &str, address| ServiceRule {
            name: name.into(),
            address,
            protocol: Protocol::Tcp,
            policy: Policy::default(),
            affinity: None,
            endpoints: vec![address],
        };
        // Whether the free one is open each time that neighbours are asked for the taken one.
        let seen = Arc::new(Mutex::new(Vec::new()));
        let looks = seen.clone();
        let folder = tempfile::tempdir().unwrap();
        let alone = Neighbourhood {
            cluster: "c".into(),
            folder: folder.path().to_owned(),
            nodes: Box::new(move || {
                looks.lock().push(std::net::TcpStream::connect(free).is_ok());
                Vec::new()
            }),
        };
        let proxy = ServiceProxy::among(ProxyLimits::default(), alone).unwrap();
        let applied = proxy.apply(vec![rule("taken", taken), rule("free", free)]).await;
        assert_eq!(applied.not_served.len(), 1);
        assert_eq!(applied.not_served[0].name, "taken");
        assert_eq!(
            *seen.lock(),
            [false, true, true],
            "it is open before the taken one is tried again"
        );
    }
}
