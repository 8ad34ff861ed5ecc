//! What probes and hooks ask: a command in the container, a request or a connection to it.
//!
//! All but commands are asked at the pod's address. (API reference, Probe v1 and LifecycleHandler v1.)

use impresario_host::{
    ContainerDriver, ContainerId,
    ask::{HttpGet, check_health},
    container::{DriverError, Executed},
    machine::has_address,
};
use k8s_openapi::{api::core::v1, apimachinery::pkg::util::intstr::IntOrString};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// Where a command is run: in which container, by which driver.
#[derive(Clone)]
pub struct Place {
    /// Who runs it.
    pub driver: Arc<dyn ContainerDriver>,
    /// The container.
    pub id: ContainerId,
}

/// How a probe or a hook asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A command that must end with 0.
    Exec {
        /// Its words.
        command: Vec<String>,
    },
    /// A GET that must be answered with a status from 200 to 399.
    Http(HttpGet),
    /// A server whose service must say that it serves.
    Grpc {
        /// Where.
        to: SocketAddr,
        /// Which of its services; the empty name stands for all of it.
        service: String,
    },
    /// A connection that must be taken.
    Tcp {
        /// Where.
        to: SocketAddr,
    },
}

impl Place {
    /// Whether nobody is there to be asked over the network, and what pretends to run counts as having answered well.
    pub fn is_hollow(&self) -> bool {
        self.driver.is_hollow()
    }
}

impl Question {
    /// How the probe asks; what is wrong with it where it cannot.
    pub fn of_probe(
        probe: &v1::Probe,
        container: &v1::Container,
        pod: IpAddr,
    ) -> Result<Self, &'static str> {
        if let Some(exec) = &probe.exec {
            return Ok(Self::of_exec(exec));
        }
        if let Some(http) = &probe.http_get {
            return http_get(http, container, pod).map(Self::Http);
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = port(&tcp.port, container)
                .ok_or("tcpSocket without a port that the container names")?;
            return Ok(Self::Tcp { to: SocketAddr::new(address(tcp.host.as_deref(), pod)?, port) });
        }
        let grpc = probe.grpc.as_ref().ok_or("no handler")?;
        let port = u16::try_from(grpc.port).map_err(|_| "grpc without a port")?;
        let service = grpc.service.clone().unwrap_or_default();
        Ok(Self::Grpc { to: SocketAddr::new(pod, port), service })
    }

    /// A command.
    pub fn of_exec(exec: &v1::ExecAction) -> Self {
        Self::Exec { command: exec.command.clone().unwrap_or_default() }
    }

    /// Asks once; why the answer is bad, if it is. `None` when it could not be asked: the container has
    /// ended, or the machine failed.
    pub async fn ask(&self, place: &Place, limit: Duration) -> Option<Result<(), String>> {
        let answered = match self {
            Self::Exec { command } => return exec(place, command, limit).await,
            _ if place.is_hollow() => return Some(Ok(())),
            Self::Tcp { to } => timeout(limit, TcpStream::connect(to))
                .await
                .map(|connected| connected.map(drop).map_err(|error| error.to_string())),
            Self::Http(get) => timeout(limit, get.send()).await.map(|sent| match sent {
                Ok(200..=399) => Ok(()),
                Ok(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
                Err(error) => Err(format!("Get \"{}\": {error}", url(get))),
            }),
            Self::Grpc { to, service } => timeout(limit, check_health(*to, service))
                .await
                .map(|checked| checked.map_err(|error| error.to_string())),
        };
        Some(answered.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))))
    }
}

/// A request; what is wrong with it where it cannot be sent.
pub fn http_get(
    http: &v1::HTTPGetAction,
    container: &v1::Container,
    pod: IpAddr,
) -> Result<HttpGet, &'static str> {
    let port =
        port(&http.port, container).ok_or("httpGet without a port that the container names")?;
    let headers = http.http_headers.iter().flatten();
    let headers: Vec<_> =
        headers.map(|header| (header.name.clone(), header.value.clone())).collect();
    let address = address(http.host.as_deref(), pod)?;
    let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = named.map_or_else(|| format!("{address}:{port}"), |(_, value)| value.clone());
    let path =
        http.path.clone().filter(|path| path.starts_with('/')).unwrap_or_else(|| "/".to_owned());
    let tls = http.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    Ok(HttpGet { to: SocketAddr::new(address, port), tls, host, path, headers })
}

fn url(get: &HttpGet) -> String {
    let scheme = if get.tls { "https" } else { "http" };
    format!("{scheme}://{}{}", get.host, get.path)
}

/// Where a probe or a hook goes: to the pod, or to the address that it names. The node's process asks, so that one of
/// a pod with a network of its own is not sent where that pod does not get: to services that listen for this
/// machine alone, or to the provider of the machine by its link-local address.
fn address(host: Option<&str>, pod: IpAddr) -> Result<IpAddr, &'static str> {
    let host = match host.filter(|host| !host.is_empty()) {
        None => return Ok(pod),
        Some("localhost") => IpAddr::from([127, 0, 0, 1]),
        Some(host) => host.parse().map_err(
            |_| "host is not an IP address: leave it out to ask the pod, or name an address",
        )?,
    };
    let host = host.to_canonical();
    // Pods on the machine's own network get to all of that themselves.
    if host == pod || pod.is_loopback() || has_address(pod) {
        return Ok(host);
    }
    let link_local = match host {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if host.is_loopback() || host.is_unspecified() || link_local || has_address(host) {
        return Err(
            "host is an address of the node, or one that only the node reaches: leave it out to ask the pod",
        );
    }
    Ok(host)
}

fn port(port: &IntOrString, container: &v1::Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut named = container.ports.iter().flatten();
            let named = named
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port);
            named.or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// Runs a command; what it said is why its answer is bad.
async fn exec(place: &Place, command: &[String], limit: Duration) -> Option<Result<(), String>> {
    match place.driver.exec(&place.id, command.to_vec(), limit).await {
        Ok(Executed { code: 0, .. }) => Some(Ok(())),
        Ok(Executed { code, output }) if output.trim().is_empty() => {
            Some(Err(format!("the command ended with {code}")))
        }
        Ok(Executed { output, .. }) => Some(Err(output.trim_end().to_owned())),
        Err(DriverError::TooLong { waited, .. }) => {
            Some(Err(format!("command timed out after {waited:?}: {}", command.join(" "))))
        }
        Err(error) => {
            tracing::debug!(container = %place.id, %error, "a command could not be run in it");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LIMIT, MemoryDriver};
    use impresario_host::hollow::HollowDriver;
    use impresario_runtime::tasks;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn nowhere() -> Place {
        Place { driver: Arc::new(MemoryDriver::default()), id: ContainerId("none/a/0".to_owned()) }
    }

    #[tokio::test]
    async fn http_is_good_from_200_to_399_and_tcp_when_it_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = tasks::spawn(async move {
            for status in ["200 OK", "503 No", "301 Moved"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            }
            listener
        });
        let container: v1::Container = serde_json::from_value(
            json!({"name": "a", "ports": [{"name": "web", "containerPort": address.port()}]}),
        )
        .unwrap();
        let probe: v1::Probe =
            serde_json::from_value(json!({"httpGet": {"path": "/healthz", "port": "web"}}))
                .unwrap();
        let http = Question::of_probe(&probe, &container, address.ip()).unwrap();
        let place = nowhere();
        assert_eq!(http.ask(&place, LIMIT).await, Some(Ok(())));
        let refused = Err("HTTP probe failed with statuscode: 503".to_owned());
        assert_eq!(http.ask(&place, LIMIT).await, Some(refused));
        assert_eq!(http.ask(&place, LIMIT).await, Some(Ok(())));
        let tcp = Question::Tcp { to: address };
        let listener = serve.await.unwrap();
        assert_eq!(tcp.ask(&place, LIMIT).await, Some(Ok(())));
        drop(listener);
        assert!(tcp.ask(&place, LIMIT).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn of_what_only_pretends_nobody_is_asked_and_the_answer_is_good() {
        let id = ContainerId("none/a/0".to_owned());
        let place = Place { driver: Arc::new(HollowDriver::new()), id };
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = taken.local_addr().unwrap();
        drop(taken);
        assert_eq!(Question::Tcp { to }.ask(&place, LIMIT).await, Some(Ok(())));
        let command = vec!["true".to_owned()];
        let asked = Question::Exec { command }.ask(&place, LIMIT).await;
        assert_eq!(asked, None, "a command runs in a container that is there");
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        let container = v1::Container::default();
        let probe = |value| serde_json::from_value::<v1::Probe>(value).unwrap();
        let here = IpAddr::from([127, 0, 0, 1]);
        let of = |value| Question::of_probe(&probe(value), &container, here);
        assert!(of(json!({"httpGet": {"port": "none"}})).is_err());
        assert!(of(json!({"tcpSocket": {"port": 0}})).is_err());
        assert!(of(json!({})).is_err());
        assert!(of(json!({"httpGet": {"port": 80, "host": "example.org"}})).is_err());
    }

    #[test]
    fn a_pod_with_a_network_of_its_own_has_nobody_asked_that_only_its_node_reaches() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let apart = IpAddr::from([192, 0, 2, 7]); // of RFC 5737: no machine has it
        for host in [
            "127.0.0.1",
            "localhost",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "fe80::1",
        ] {
            assert!(address(Some(host), apart).is_err(), "{host}");
        }
        for (host, to) in [(None, apart), (Some(""), apart), (Some("192.0.2.7"), apart)] {
            assert_eq!(address(host, apart), Ok(to));
        }
        assert_eq!(address(Some("192.0.2.9"), apart), Ok([192, 0, 2, 9].into()));
        assert_eq!(address(Some("localhost"), here), Ok(here));
    }

    #[tokio::test]
    async fn a_command_is_good_when_it_ends_with_zero_and_unknown_when_its_container_has_ended() {
        let driver = MemoryDriver::default();
        let id = driver.pretend("uid", "a");
        let place = Place { driver: Arc::new(driver.clone()), id };
        let ask = async |command: &[&str]| {
            let command = command.iter().map(|&word| word.to_owned()).collect();
            Question::Exec { command }.ask(&place, Duration::from_secs(1)).await
        };
        assert_eq!(ask(&["exit", "0"]).await, Some(Ok(())));
        assert_eq!(ask(&["exit", "1"]).await, Some(Err("said".to_owned())));
        let late = "command timed out after 1s: sleep long".to_owned();
        assert_eq!(ask(&["sleep", "long"]).await, Some(Err(late)));
        driver.end(&place.id.0, 0);
        assert_eq!(ask(&["exit", "0"]).await, None);
    }
}
