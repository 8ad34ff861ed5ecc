//! Virtual addresses of services: connections to them are carried to a ready endpoint.
//!
//! - [`ServiceProxy::apply`] takes the whole wanted state; what is the same goes on undisturbed.
//! - An endpoint that is gone gets no new connection from the moment of `apply` on; one that
//!   cannot be reached is passed over for the next.
//! - A service without endpoints refuses connections: its port is not even listened on.
//! - Sessions are bounded per service; at the limit new ones wait in the kernel's queue.
//! - The port is shared (SO_REUSEPORT), so that every node of one machine can serve it.

mod balance;
mod first_port;
mod tcp;
mod udp;

pub use balance::Policy;
pub use first_port::first_port;

use balance::Backends;
use parking_lot::Mutex;
use std::{
    collections::HashMap, io, net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration,
};
use thiserror::Error;
use tokio::task::JoinHandle;

/// How a port's data is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams; those of one client within the idle limit go to one endpoint.
    Udp,
}

/// One port of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRule {
    /// `namespace/name:port`, for people.
    pub name: String,
    /// The virtual address.
    pub address: SocketAddr,
    /// How it is carried.
    pub protocol: Protocol,
    /// Who gets the next session.
    pub policy: Policy,
    /// For how long sessions of one client address go to one endpoint, if they do.
    pub affinity: Option<Duration>,
    /// The ready endpoints.
    pub endpoints: Vec<SocketAddr>,
}

/// Bounds of one service's port.
#[derive(Debug, Clone, Copy)]
pub struct ProxyLimits {
    /// Sessions at a time.
    pub sessions: usize,
    /// How long one endpoint may take to accept.
    pub connect: Duration,
    /// How long a client's datagrams are remembered.
    pub udp_idle: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self { sessions: 4096, connect: Duration::from_secs(2), udp_idle: Duration::from_secs(30) }
    }
}

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

/// Serves virtual addresses until it is dropped.
#[derive(Debug)]
pub struct ServiceProxy {
    limits: ProxyLimits,
    ports: Mutex<HashMap<(SocketAddr, Protocol), Port>>,
}

#[derive(Debug)]
struct Port {
    backends: Arc<Backends>,
    task: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort(); // and with it the sessions that it owns
    }
}

impl ServiceProxy {
    /// A proxy that serves nothing yet.
    pub fn new(limits: ProxyLimits) -> Self {
        Self { limits, ports: Mutex::default() }
    }

    /// Makes exactly these rules be in force, but for those that are returned.
    /// Must be called within a tokio runtime.
    pub fn apply(&self, rules: Vec<ServiceRule>) -> Vec<NotServed> {
        let mut ports = self.ports.lock();
        let mut old = std::mem::take(&mut *ports);
        let mut not_served = Vec::new();
        for rule in rules {
            let key = (rule.address, rule.protocol);
            let kept = old.remove(&key).filter(|port| !port.task.is_finished());
            if rule.endpoints.is_empty() {
                continue; // connections are refused, those that are open end with their port
            }
            let port = match kept {
                Some(port) => port,
                None => match self.open(&rule) {
                    Ok(port) => port,
                    Err(cause) => {
                        let (name, address) = (rule.name, rule.address);
                        not_served.push(NotServed { name, address, cause });
                        continue;
                    }
                },
            };
            port.backends.set(&rule);
            ports.insert(key, port);
        }
        not_served
    }

    fn open(&self, rule: &ServiceRule) -> io::Result<Port> {
        let backends = Arc::new(Backends::default());
        backends.set(rule);
        let task = match rule.protocol {
            Protocol::Tcp => {
                let listener = tcp::listen(rule.address)?;
                tokio::spawn(tcp::serve(listener, Arc::clone(&backends), self.limits))
            }
            Protocol::Udp => {
                let socket = udp::bind(rule.address)?;
                tokio::spawn(udp::serve(socket, Arc::clone(&backends), self.limits))
            }
        };
        Ok(Port { backends, task })
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
